"""The page as a real Jupyter server gives it, under a prefix as JupyterHub's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import scratch
from tests.migrating import until
from tests.serving import port_of
from tests.throwaway import PROJECT, environment
from workbench.page import ASSETS

TOKEN = "let-me-in"
PREFIX = "/user/ana%40example.org/"
SERVER = """
import os, sys
import django
django.setup()
before = set(sys.modules)
from jupyter_server.serverapp import ServerApp
from traitlets.config import Config
from tests.page import patient
config = Config()
config.ServerApp.extra_services = ["workbench.page.jupyter"]
config.ServerApp.port, config.ServerApp.base_url = 0, sys.argv[1]
config.ServerApp.allow_root, config.ServerApp.open_browser = True, False
config.ServerApp.allow_remote_access, config.ServerApp.log_level = True, "WARN"
config.ServerApp.jpserver_extensions = {}
config.IdentityProvider.token = sys.argv[2]
server = ServerApp(config=config)
server.initialize(argv=[], find_extensions=False)
assert "workbench.page.views" not in sys.modules
assert "WORKBENCH_WEB" not in os.environ
patient.wait()
print(f"http://127.0.0.1:{server.port}/", flush=True)
server.start()
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jupyter") / "log"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[httpx.Client]:
    """A client that says which host it thinks it speaks to, and shows nobody's token by itself."""
    runtime = {"JUPYTER_RUNTIME_DIR": str(log.parent), "JUPYTER_CONFIG_DIR": str(log.parent)}
    hosts = {"DJANGO_ALLOWED_HOSTS": ".example.org", "DJANGO_HTTPS": "1"}
    with scratch() as url, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, PREFIX, TOKEN],
            cwd=PROJECT,
            env=environment({"DATABASE_URL": url, **runtime, **hosts}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            address = f"http://127.0.0.1:{port_of(process, log)}{PREFIX}"
            with httpx.Client(base_url=address, headers={"Host": "hub.elsewhere.net"}, timeout=60) as client:
                until(lambda: process.poll() is not None or _answers(client))
                assert process.poll() is None, log.read_text()
                yield client
        finally:
            process.terminate()
            process.wait(60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("api").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def known() -> dict[str, str]:
    return {"Authorization": f"token {TOKEN}"}


def test_a_stranger_is_sent_to_the_login(server: httpx.Client) -> None:
    for path in ("workbench", "workbench/", "workbench/page.css"):
        response = server.get(path)
        assert response.status_code == 302
        assert response.headers["Location"].startswith(f"{PREFIX}login?next=")


def test_only_the_page_is_there_and_only_to_be_read(server: httpx.Client, known: dict[str, str]) -> None:
    for path in ("workbench/admin/", "workbench/catalog/authors/", "workbench/page.py"):
        assert server.get(path, headers=known, follow_redirects=True).status_code == 404
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert server.request(method, "workbench/", headers=known).status_code != 200


def test_the_page_and_its_files_are_under_the_servers_prefix(
    server: httpx.Client, known: dict[str, str]
) -> None:
    page = server.get("workbench", headers=known, follow_redirects=True)
    assert page.status_code == 200
    assert "catalog has no tables here" in page.text
    assert 'href="?branch=main"' in page.text
    for name in ASSETS:
        start = page.text.index(f"{name}?v=")
        found = server.get("workbench/" + page.text[start : page.text.index('"', start)], headers=known)
        assert (found.status_code, found.headers["Content-Type"]) == (200, ASSETS[name])


def test_it_answers_as_the_web_server_does(server: httpx.Client, known: dict[str, str]) -> None:
    page = server.get("workbench/", headers=known)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "Strict-Transport-Security" not in page.headers
    again = {**known, "If-None-Match": page.headers["ETag"], "X-Workbench-Again": "1"}
    same = server.get("workbench/", headers=again)
    assert (same.status_code, same.content) == (304, b"")
    head = server.head("workbench/", headers=known)
    assert (head.status_code, head.content) == (200, b"")
    gone = server.get("workbench/", params={"branch": "gone"}, headers=known)
    assert gone.status_code == 404
    assert "There is no branch gone" in gone.text


def test_what_it_says_of_a_database_is_not_for_the_terminal(server: httpx.Client, log: Path) -> None:
    known = {"Authorization": f"token {TOKEN}"}
    assert server.get("workbench/", params={"branch": "gone"}, headers=known).status_code == 404
    assert "branch=gone" not in log.read_text()
    assert "Traceback" not in log.read_text()
