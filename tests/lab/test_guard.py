"""Who reaches a lab, by what its command says and by asking it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.lab.test_server import COMMAND
from tests.throwaway import EVERYTHING, PROJECT, environment

TOKEN = re.compile(r"\?token=(\w+)")
IS_FULL = bool(os.environ.get(EVERYTHING))
ONLY_FULL = pytest.mark.skipif(not IS_FULL, reason="each start takes seconds")

OPEN = "--ServerApp.allow_remote_access=True"


@contextmanager
def started(
    folder: Path, *options: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start a lab, and give it with what it printed before it was ready or refused."""
    own = {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    words = [*COMMAND, "--", "--no-browser", *options]
    with subprocess.Popen(
        words,
        cwd=PROJECT,
        env=environment({**own, **variables}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line.rstrip())
            if line.startswith("Control-C"):
                break
        try:
            yield process, printed
        finally:
            process.terminate()
            process.stdout.read()


def refused(folder: Path, *options: str, **variables: str) -> str:
    """Return the one line with which a lab does not start."""
    with started(folder, "--port=0", *options, **variables) as (process, printed):
        assert process.wait(60) == 1, printed
    (line,) = printed
    return line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--ip=0.0.0.0"],
            "CommandError: With --ip=0.0.0.0 others can reach this lab, and whoever has its token",
        ),
        pytest.param(["--IdentityProvider.token="], "neither a token nor a password", marks=ONLY_FULL),
        pytest.param(["--ip=*"], "With --ip=* others can reach", marks=ONLY_FULL),
        pytest.param(["--ip="], "With --ip=* others can reach", marks=ONLY_FULL),
        pytest.param(["--ip=::"], "With --ip=:: others can reach", marks=ONLY_FULL),
        pytest.param(["--ServerApp.token="], "neither a token nor a password", marks=ONLY_FULL),
        pytest.param(["--public", "--ServerApp.token="], "neither a token nor a password", marks=ONLY_FULL),
        pytest.param([OPEN], "With ServerApp.allow_remote_access others", marks=ONLY_FULL),
        pytest.param(["--ServerApp.disable_check_xsrf=True"], "any page in your browser", marks=ONLY_FULL),
        pytest.param(["--ServerApp.allow_origin=*"], "any page in your browser", marks=ONLY_FULL),
        pytest.param(["--ServerApp.allow_origin=null"], "any page in your browser", marks=ONLY_FULL),
        pytest.param(["--ServerApp.allow_origin_pat=.*"], "any page in your browser", marks=ONLY_FULL),
        pytest.param(["--ServerApp.allow_origin_pat=http://.*"], "any page in your browser", marks=ONLY_FULL),
        (["--ServerApp.allow_origin_pat=https://.*\\.com"], "any page in your browser"),
    ],
)
def test_a_lab_that_lets_others_in_does_not_start(tmp_path: Path, options: list[str], reason: str) -> None:
    line = refused(tmp_path, *options)
    assert reason in line
    assert ("ssh -N -L" in line and "--public" in line) == ("others can reach" in line)


@ONLY_FULL
def test_config_files_and_the_environment_let_nobody_in_either(tmp_path: Path) -> None:
    config = tmp_path / "jupyter_server_config.py"
    config.write_text('c.ServerApp.ip = "0.0.0.0"')
    assert "With --ip=0.0.0.0 others can reach this lab" in refused(tmp_path)
    config.unlink()
    blank = tmp_path / "token"
    blank.write_text("\n")
    assert "neither a token nor a password" in refused(tmp_path, JUPYTER_TOKEN_FILE=str(blank))


def test_one_that_is_public_says_what_that_means(tmp_path: Path) -> None:
    # A domain's own pages are no strangers.
    pages = r"--ServerApp.allow_origin_pat=https://[a-z-]+\.example\.org(:\d+)?"
    with started(tmp_path, "--port=0", "--ip=0.0.0.0", "--public", pages) as (_, printed):
        assert printed[0] == (
            "Others can reach this lab (--ip=0.0.0.0). Whoever has its token runs any code as you: with your "
            "files, your keys and your database."
        )
        assert printed[1].startswith("It speaks plain HTTP: whoever is on the way can read the token.")
        port = re.search(r":(\d+)/lab", printed[2])
        assert port
        address = f"http://127.0.0.2:{port[1]}/api/contents"
        assert httpx.get(address, timeout=60).status_code == 403
        token = {"token": TOKEN.findall(printed[2])[0]}
        assert httpx.get(address, params=token, timeout=60).status_code == 200


@pytest.mark.skipif(os.name == "nt", reason="there is no socket on Windows")
def test_at_a_socket_file_it_asks_for_the_token_and_leaves_nothing_for_others_to_read(tmp_path: Path) -> None:
    socket = tmp_path / "lab.sock"
    umask = os.umask(0)
    try:
        with started(tmp_path, f"--sock={socket}") as (process, printed):
            assert f"'ssh -N -L 8888:{socket} USER@THIS-MACHINE'" in printed[0]
            (token,) = TOKEN.findall(printed[1])
            transport = httpx.HTTPTransport(uds=str(socket))
            with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as ask:
                assert ask.get("/api/contents").status_code == 403
                assert ask.get("/api/contents", headers={"Host": "rebound.example"}).status_code == 403
                known = {"Authorization": f"token {token}"}
                assert ask.get("/api/contents", headers=known).status_code == 200
                kernel = ask.post("/api/kernels", headers=known, json={"name": "workbench"}).json()
                written = [*(tmp_path / "runtime").iterdir(), socket]
                names = {path.name for path in written}
                assert {f"jpserver-{process.pid}.json", f"jpserver-{process.pid}-open.html"} <= names
                assert f"kernel-{kernel['id']}.json" in names
                assert [path.name for path in written if path.stat().st_mode & 0o077] == []
                ask.delete(f"/api/kernels/{kernel['id']}", headers=known)
    finally:
        os.umask(umask)
