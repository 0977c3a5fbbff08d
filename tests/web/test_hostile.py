"""Requests that nobody sends by mistake, to a real server: the answer is the client's mistake, never ours."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import scratch
from tests.serving import port_of
from tests.throwaway import PROJECT, environment

PATHS = ("/", "/page.css", "/catalog/authors/", "/catalog/books/1/", "/admin/", "/admin/login/")
NINES = "9" * 4000
QUERIES = (
    "limit=%00&after=%00&branch=%00&app=%00&database=%00&next=%00&v=%00",
    "limit=%ff%fe&branch=%ED%A0%80&app=%ff",
    f"after={NINES}&limit={NINES}",
    "limit=-1&after=1e9",
    "limit=%D9%A3",
    "&".join(f"a{number}=1" for number in range(1500)),
    f"branch={'x' * 20_000}",
    "branch=../../etc&database=default%3B&limit=1%0d%0aSet-Cookie:%20a=b&next=//elsewhere.example",
)
METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "NONSENSE")
HEADERS = (
    "Host: elsewhere.example",
    "Host: localhost.elsewhere.example",
    "Host: [::1",
    'Cookie: sessionid="\\000\\000\\000\\000\\000\\000\\000\\000"',
    f"Cookie: sessionid={'a' * 4000}; csrftoken=\xff; messages=[[x",
    "If-None-Match: \xff",
    "Accept-Language: \xff;q=a",
    *(f"Content-Type: text/plain; charset={name}" for name in ("zlib", "idna", "undefined", "utf-16", "x")),
)
BOOKS = (NINES, "-1", str(2**63), "%00", "1%00", "%D9%A3", "%ff", "1%2f..%2f2")
FORMS = (
    "username=%00&password=%ff",
    "username=\xff\xfe&password=\x00&next=%00",
    f"username={'x' * 100_000}&password=y",
    "&".join(f"a{number}=1" for number in range(2000)),
)

STATUS = re.compile(rb"HTTP/1\.[01] (\d+) ")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where Django's own server is, on a database with its tables."""
    log = tmp_path_factory.mktemp("server") / "log"
    with scratch() as url, log.open("wb") as output:
        variables = environment({"DATABASE_URL": url, "PYTHONUNBUFFERED": "1"})
        manage = [sys.executable, "-m", "tests.page.patient"]
        subprocess.run([*manage, "migrate", "--verbosity=0"], cwd=PROJECT, env=variables, check=True)
        with subprocess.Popen(
            [*manage, "runserver", "--noreload", "127.0.0.1:0"],
            cwd=PROJECT,
            env=variables,
            stdout=output,
            stderr=output,
        ) as server:
            try:
                yield port_of(server, log)
            finally:
                server.terminate()


def sent(port: int, line: str, *headers: str, body: str = "") -> int:
    """Return the status of the answer to bytes that no HTTP client would send; 0 for none."""
    has_host = any(header.startswith("Host:") for header in headers)
    lines = [line, *([] if has_host else ["Host: localhost"]), "Connection: close", *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", body]).encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    found = STATUS.match(answer)
    return int(found[1]) if found else 0


def form(port: int, path: str, body: str, kind: str = "application/x-www-form-urlencoded") -> int:
    token = "a" * 32
    body = f"csrfmiddlewaretoken={token}&{body}"
    headers = f"Content-Type: {kind}", f"Content-Length: {len(body)}", f"Cookie: csrftoken={token}"
    return sent(port, f"POST {path} HTTP/1.1", *headers, body=body)


@pytest.mark.parametrize("path", PATHS)
def test_no_query_method_or_header_is_too_much(port: int, path: str) -> None:
    asked: list[tuple[str, ...]] = [(f"GET {path}?{query} HTTP/1.1",) for query in QUERIES]
    asked += [(f"{method} {path} HTTP/1.1",) for method in METHODS]
    asked += [(f"GET {path} HTTP/1.1", header) for header in HEADERS]
    answers = {each: sent(port, *each) for each in asked}
    assert {each: status for each, status in answers.items() if not 200 <= status < 500} == {}
    hosts = [status for each, status in answers.items() if each[-1].startswith("Host:")]
    assert hosts == [400] * 3


def test_no_path_is_too_much(port: int) -> None:
    asked = [f"/catalog/books/{book}/" for book in BOOKS]
    asked += [
        "/%00",
        "/%ff",
        "//elsewhere.example/",
        "/static/../../manage.py",
        "/static/%00",
        "/" + "a" * 9000,
    ]
    answers = {path: sent(port, f"GET {path} HTTP/1.1") for path in asked}
    assert {path: status for path, status in answers.items() if not 400 <= status < 500} == {}


def test_no_form_is_too_much(port: int) -> None:
    answers = {body: form(port, "/admin/login/?next=%00", body) for body in FORMS}
    for kind in ("utf-16", "zlib", "nonsense"):
        named = f"application/x-www-form-urlencoded; charset={kind}"
        answers[kind] = form(port, "/admin/login/", "username=a", named)
    assert {body[:40]: status for body, status in answers.items() if not 200 <= status < 500} == {}
