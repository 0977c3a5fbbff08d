"""``turn``: one migrates a database after the other, and knows whom it waits for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from tests.conftest import scratch
from tests.migrating import at_hand, session, until
from tests.migrator import HERE
from tests.throwaway import PROJECT, environment
from workbench.connection.turns import LOCK, NotOurTurn, turn

HOLD = """
import json, sys, time, django
from django.db import connections
django.setup()
from workbench.connection.turns import turn
connections.databases["elsewhere"] = json.loads(sys.argv[1])
with turn(connections["elsewhere"], patience=0, tell=print):
    print("held", flush=True)
    time.sleep(60)
"""
SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'migrate by process %' AND datname = current_database() ORDER BY backend_start
"""


@pytest.fixture(scope="module", autouse=True)
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with scratch() as url, at_hand(url, django_db_blocker):
        yield


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Threads: to each of them the turn of another is a stranger's."""
    with ThreadPoolExecutor() as pool:
        yield pool


def take(patience: float = 0) -> list[str]:
    """Take the turn, give it back, and return what was told."""
    told: list[str] = []
    with turn(connections[HERE], patience=patience, tell=told.append):
        pass
    return told


@contextmanager
def held(others: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """Let somebody else have the turn, until the end or the event."""
    has_it, gives_back = threading.Event(), threading.Event()

    def hold() -> None:
        with turn(connections[HERE], patience=20, tell=lambda _: None):
            has_it.set()
            gives_back.wait(20)

    holding = others.submit(hold)
    try:
        assert has_it.wait(20)
        yield gives_back
    finally:
        gives_back.set()
        holding.result()


def sessions() -> list[int]:
    with session() as sql:
        return [pid for (pid,) in sql(SESSIONS)]


def is_left_free() -> bool:
    return until(lambda: not sessions()) and take() == []


def test_who_waits_too_long_is_told_for_whom_and_what_to_do(others: ThreadPoolExecutor) -> None:
    with held(others):
        (pid,) = sessions()
        with pytest.raises(NotOurTurn) as raised:
            take(patience=0.3)
    assert re.fullmatch(
        rf"Another migrate is at work on this database, and was not done in 0.3 seconds: process {pid} "
        rf"\(migrate by process {os.getpid()} on \S+, workbench\), since \d\d:\d\d:\d\d. "
        rf"Wait longer with --wait SECONDS, or end it: SELECT pg_terminate_backend\({pid}\).",
        str(raised.value),
    )
    assert is_left_free()


def test_who_waits_for_more_than_a_moment_is_told_for_whom_and_again_when_that_changes(
    others: ThreadPoolExecutor,
) -> None:
    told: list[str] = []

    def wait() -> None:
        with turn(connections[HERE], patience=20, tell=told.append):
            pass

    with held(others) as first_gives_back, session() as sql:
        (first,) = sessions()
        waiting = others.submit(wait)
        # Whoever stands in Postgres' own line is next: nobody can come between.
        ((second,),) = sql("SELECT pg_backend_pid()")
        in_line: Future[object] = others.submit(sql, f"SELECT pg_advisory_lock{LOCK}")
        until(lambda: told)
        first_gives_back.set()
        in_line.result()
        until(lambda: len(told) > 1)
        sql("SELECT pg_advisory_unlock_all()")
        waiting.result()
    assert [f"waiting for process {pid} (" in said for pid, said in zip((first, second), told, strict=True)]
    assert is_left_free()


def test_a_holder_that_is_killed_frees_it() -> None:
    settings = json.dumps(connections[HERE].settings_dict)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, settings], cwd=PROJECT, env=environment(), stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(NotOurTurn, match=f"migrate by process {holder.pid} on"):
        take()
    holder.kill()
    holder.communicate()
    assert take(patience=5) == []


def test_an_interrupt_while_it_waits_leaves_nothing(others: ThreadPoolExecutor) -> None:
    with held(others):
        alarm = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            take(patience=20)
        assert len(sessions()) == 1
    assert is_left_free()


def test_it_is_given_back_after_a_failure_and_an_interrupt() -> None:
    for kind in (ValueError, KeyboardInterrupt):
        with pytest.raises(kind), turn(connections[HERE], patience=0, tell=print):
            raise kind
        assert is_left_free()


def test_within_ones_own_turn_it_is_given_at_once(others: ThreadPoolExecutor) -> None:
    with turn(connections[HERE], patience=0, tell=print), transaction.atomic(HERE):
        with pytest.raises(ZeroDivisionError), turn(connections[HERE], patience=0, tell=print):
            _ = 1 / 0
        # The inner one did not give it away, and another thread is not within.
        with pytest.raises(NotOurTurn):
            others.submit(take).result()
    assert is_left_free()


def test_another_database_has_a_turn_of_its_own() -> None:
    with (
        turn(connections[HERE], patience=0, tell=print),
        turn(connections["default"], patience=0, tell=print),
    ):
        assert len(sessions()) == 1


def test_a_turn_that_got_lost_is_told(others: ThreadPoolExecutor) -> None:
    told: list[str] = []
    with turn(connections[HERE], patience=0, tell=told.append), session() as sql:
        sql(f"SELECT pg_terminate_backend({sessions()[0]})")
        others.submit(take, 5).result()
    (said,) = told
    assert said.endswith("one may have run at the same time.")
    assert is_left_free()
