"""A web server and commands, as they are run: what they print and answer holds no secret."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import Manage
from tests.serving import port_of
from tests.throwaway import PROJECT, environment

PASSWORD = 'p@ss/w&Qz81vX"<é>'
SECRETS = {
    "DATABASE_URL": f"postgresql://alex:{quote(PASSWORD, safe='')}@127.0.0.1:1/shop",
    "NEON_API_KEY": "napi_" + "k3y" * 8,
    "DJANGO_SECRET_KEY": "(s3cr3tqK9w$key'%s#&!",
    "SERVICE_TOKEN": "t0ken-of-another",
}
# Parts of them that look the same however they are written.
PARTS = ("Qz81vX", "k3yk3yk3yk3yk3yk3y", "s3cr3tqK9w", "t0ken-of-another")


def leaks(text: str) -> list[str]:
    return [part for part in PARTS if part in text]


@contextmanager
def served(log: Path, url: str) -> Iterator[tuple[str, int]]:
    """Give the address and the process id of a web server for development."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", "127.0.0.1:0"],
            cwd=PROJECT,
            env=environment({**SECRETS, "DATABASE_URL": url, "DJANGO_DEBUG": "1", "PYTHONUNBUFFERED": "1"}),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"http://127.0.0.1:{port_of(process, log)}", process.pid
    finally:
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        process.wait(timeout=60)


def test_the_page_about_an_error_and_the_servers_output_hold_none(tmp_path: Path, scratch_url: str) -> None:
    log = tmp_path / "log"
    # The server asks for none, and so takes any.
    address = scratch_url.replace("workbench@", f"workbench:{quote(PASSWORD, safe='')}@")
    with served(log, address) as (url, pid):
        answer = httpx.get(f"{url}/catalog/authors/?token=x", timeout=60)
        plain = httpx.get(f"{url}/catalog/authors/", headers={"Accept": "text/plain"}, timeout=60)
        if (process := Path(f"/proc/{pid}/cmdline")).exists():
            assert leaks(process.read_bytes().decode()) == []
    assert (answer.status_code, plain.status_code) == (500, 500)
    # Whose page it is, with the environment among what it shows.
    assert "ProgrammingError" in answer.text
    assert "SERVICE_TOKEN" in answer.text
    said = log.read_text()
    assert "Internal Server Error" in said
    assert leaks(answer.text + plain.text + said) == []


SCRIPT = """
import logging, os
from django.conf import settings
from django.db import connection
print(settings.DATABASES, [settings.SECRET_KEY, settings.NEON_API_KEY], connection.settings_dict)
print(connection.get_connection_params())
logging.error("%s", dict(os.environ))
"""


@pytest.mark.parametrize(
    "line", [["diffsettings", "--all"], ["showmigrations", "--traceback"], ["shell", "-c", SCRIPT]]
)
def test_what_a_command_prints_holds_none(manage: Manage, line: list[str]) -> None:
    done = manage(*line, **SECRETS)
    assert done.stdout + done.stderr
    assert leaks(done.stdout + done.stderr) == []
