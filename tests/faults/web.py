"""The database goes away under a web server that many ask at once, and comes back."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass

import psycopg2
import pytest

from tests.faults.fault import Seen, fault
from tests.faults.server import either
from tests.faults.stage import FAST, IMMEDIATE, KILL, Server, Stage, until
from tests.throwaway import environment
from tests.wsgi import WebServer, web_server
from workbench.web.unavailable import SENTENCE

APPLICATION = "workbench.wsgi:application"
PATH = "/catalog/authors/"
# More than the web server has threads.
CLIENTS = 24
# With a server that starts, an answer may wait for it as long as a new connection is tried.
TIMEOUT_SECONDS = 60.0


# Tells whether somebody was answered 503 by now.
Meeting = Callable[[], bool]


@dataclass(frozen=True)
class Answer:
    began: float
    ended: float
    status: int
    body: bytes


def ask(web: WebServer) -> Answer:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(web.address + PATH, timeout=TIMEOUT_SECONDS) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    return Answer(began, time.monotonic(), status, body)


@contextmanager
def asked(web: WebServer) -> Iterator[list[Answer]]:
    """Let many clients ask all the time, and collect what they are answered."""
    answers: list[Answer] = []
    is_over = threading.Event()

    def insist() -> None:
        while not is_over.is_set():
            answers.append(ask(web))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(insist) for _ in range(CLIENTS)]
        try:
            yield answers
        finally:
            is_over.set()
    # What is no HTTP at all: a connection that was cut, or an answer that never came.
    for client in clients:
        client.result()


def disturb(server: Server, chance: random.Random, cause: Callable[[Meeting], None]) -> Seen:
    """Do ``cause`` while many ask, and check what they are answered. It may wait until somebody meets it."""
    if sys.platform == "win32":
        pytest.skip("gunicorn is not for Windows")
    with web_server(APPLICATION, environment(server.environment)) as web:
        before = ask(web)
        assert before.status == 200, before
        with asked(web) as answers:
            time.sleep(chance.uniform(0.2, 1))
            cause(lambda: 503 in {each.status for each in [*answers]})
            since = time.monotonic()
            while not (good := [each for each in [*answers] if each.began > since and each.status == 200]):
                assert time.monotonic() < since + TIMEOUT_SECONDS, web.log.read_text()
                time.sleep(0.02)
        # Each of its threads had a session of its own.
        assert {ask(web).status for _ in range(2 * CLIENTS)} == {200}
        said = web.log.read_text()
    for each in answers:
        expected = before.body if each.status == 200 else json.dumps({"error": SENTENCE}).encode()
        assert (each.status, each.body) in ((200, expected), (503, expected)), each
    assert "Traceback" not in said, said
    return Seen(min(each.ended for each in good) - since)


@fault("web", "the server restarted under load", share=0.3)
def restarted(stage: Stage, chance: random.Random) -> Seen:
    """Whom it meets is answered 503 with one sentence; the same web server goes on."""
    server = either(stage, chance)

    def cause(is_met: Meeting) -> None:
        server.signal(chance.choice([FAST, IMMEDIATE, KILL]))
        server.start()

    return disturb(server, chance, cause)


@fault("web", "the server down for a while under load", share=0.3)
def down(stage: Stage, chance: random.Random) -> Seen:
    """All are answered 503 with one sentence meanwhile; the same web server goes on."""
    server = stage.remote

    def cause(is_met: Meeting) -> None:
        server.stop()
        time.sleep(chance.uniform(0.5, 2))
        until(is_met, "an answer that it is down")
        server.start()

    return disturb(server, chance, cause)


@fault("web", "no connection free under load", share=0.3)
def no_connection_free(stage: Stage, chance: random.Random) -> Seen:
    """Whom it meets is answered 503 with one sentence; the same web server goes on."""
    server = either(stage, chance)

    def cause(is_met: Meeting) -> None:
        with ExitStack() as stack:
            for pid in server.sessions():
                server.ask("SELECT pg_terminate_backend(%s)", pid)

            def is_full() -> bool:
                with suppress(psycopg2.OperationalError):
                    stack.enter_context(closing(server.connect()))
                return time.monotonic() > enough and is_met()

            enough = time.monotonic() + 1
            until(is_full, "an answer that there is no connection")

    return disturb(server, chance, cause)
