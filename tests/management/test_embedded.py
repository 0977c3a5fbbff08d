"""``manage.py embedded``: one line, whatever the server is doing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Manage
from tests.throwaway import PROJECT
from workbench.connection import embedded

USER = """
import sys
from pathlib import Path
from workbench.connection import embedded
embedded.start(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="embedded-"))
    parent.chmod(0o755)
    yield parent / ".workbench"
    embedded.stop(parent / ".workbench")
    shutil.rmtree(parent)


@pytest.fixture
def used(home: Path) -> Iterator[Path]:
    """The home of a server that somebody uses."""
    command = [sys.executable, "-c", USER, str(home)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline().strip() == b"ready"
        yield home


def line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that the command printed, and that no other line was."""
    assert (done.returncode, done.stderr) == (0, "")
    (text,) = done.stdout.splitlines()
    return text


@pytest.mark.skipif(os.name == "nt", reason="there is no socket on Windows")
def test_what_is_wrong_is_one_line_too(home: Path, manage: Manage) -> None:
    home.mkdir()
    (home / "users.lock").touch()
    folder = embedded.Cluster(home).socket_folder
    folder.touch()
    try:
        done = manage("embedded", WORKBENCH_HOME=str(home), DATABASE_URL="")
    finally:
        folder.unlink()
    assert (done.returncode, done.stdout) == (1, "")
    (text,) = done.stderr.splitlines()
    assert text.startswith(f"CommandError: {folder} belongs to somebody else")


@pytest.mark.parametrize("action", [(), ("stop",)], ids=["status", "stop"])
def test_it_neither_starts_nor_makes_anything(home: Path, manage: Manage, action: tuple[str, ...]) -> None:
    said = line(manage("embedded", *action, WORKBENCH_HOME=str(home), DATABASE_URL=""))
    assert said in (
        f"Not running. It starts with the first connection. Data: {home}",
        "It does not run.",
    )
    assert not home.exists()


def test_it_tells_of_a_running_server_and_stops_it_whoever_uses_it(used: Path, manage: Manage) -> None:
    pid = embedded.Cluster(used).postmaster_line(1)
    said = line(manage("embedded", WORKBENCH_HOME=str(used), DATABASE_URL=""))
    assert re.fullmatch(
        rf"PostgreSQL {embedded.MAJOR}\.\d+ runs since \d{{4}}-\d\d-\d\d \d\d:\d\d as process {pid}, "
        rf"with 0 sessions and \d+\.\d\xa0MB in its database\. Data: {re.escape(str(used))}",
        said,
    )
    for said in ("Stopped.", "It does not run."):
        assert line(manage("embedded", "stop", WORKBENCH_HOME=str(used), DATABASE_URL="")) == said
    assert not embedded.status(used).running
