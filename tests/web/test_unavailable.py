from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message

import pytest

from tests.throwaway import environment
from tests.wsgi import WebServer, web_server
from workbench.web.unavailable import SENTENCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is not for Windows")

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """A web server whose database is not there."""
    variables = {
        "DATABASE_URL": "postgresql://ada:hunter2@127.0.0.1:1/shop",
        "WORKBENCH_ENV_FILE": os.devnull,
        "DJANGO_ADMIN": "1",
    }
    with web_server("workbench.wsgi:application", environment(variables)) as made:
        yield made


def ask(web: WebServer, path: str, accept: str, **headers: str) -> tuple[int, Message, str]:
    request = urllib.request.Request(web.address + path, headers={"Accept": accept, **headers})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=60)
    with raised.value as error:
        return error.code, error.headers, error.read().decode()


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_while_the_database_is_not_there_a_program_is_answered_503_in_json(
    web: WebServer, accept: str
) -> None:
    status, headers, body = ask(web, "/catalog/authors/", accept)
    assert (status, headers["Content-Type"], json.loads(body)) == (
        503,
        "application/json",
        {"error": SENTENCE},
    )
    assert (headers["Retry-After"], headers["Cache-Control"]) == ("5", "no-store")


def test_a_browser_is_answered_in_html(web: WebServer) -> None:
    # Who is signed in is known to the database alone.
    status, headers, body = ask(web, "/admin/", BROWSER, Cookie="sessionid=of-somebody")
    assert (status, headers.get_content_type(), headers["Retry-After"]) == (503, "text/html", "5")
    assert f"<p>{SENTENCE}</p>" in body


def test_why_is_in_the_log_in_a_line_without_the_password(web: WebServer) -> None:
    ask(web, "/catalog/books/1/", "*/*")
    said = web.log.read_text()
    assert "GET /catalog/books/1/: No Postgres answers at 127.0.0.1:1: start it, or check" in said
    assert "Traceback" not in said
    assert "hunter2" not in said


def test_another_error_stays_what_it_is(web: WebServer) -> None:
    assert ask(web, "/nowhere/", "*/*")[0] == 404
