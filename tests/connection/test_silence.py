"""A line on which nobody answers is given up in time; one on which somebody does never is."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import django.db
import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from tests.faults.proxy import Proxy
from tests.throwaway import GIVEN, HOME
from workbench.connection import ConnectionLost, database, embedded, interrupt, silence

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the proxy leads to a Unix socket"),
    pytest.mark.skipif(bool(GIVEN), reason="the proxy leads to the embedded server"),
]

UNIT = 0.2
# What a statement has to take for the server to be asked about it.
LONG = (silence.UNITS_BEFORE_LOOK + 2) * UNIT


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    embedded.start(HOME)
    address = embedded.Cluster(HOME).address()
    with Proxy("127.0.0.1", f"{address['host']}/.s.PGSQL.{address['port']}") as made:
        yield made


@pytest.fixture
def connection(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[BaseDatabaseWrapper]:
    """Django's connection through the proxy, open."""
    url = (
        f"postgresql://{embedded.ROLE}@127.0.0.1:{proxy.port}/{embedded.DATABASE}"
        "?sslmode=disable&connect_timeout=2"
    )
    entry = database({"DATABASE_URL": url, "WORKBENCH_SILENCE": str(UNIT)}, home=HOME)
    handler = ConnectionHandler({"default": entry})
    monkeypatch.setattr(django.db, "connections", handler)
    with django_db_blocker.unblock():
        handler["default"].ensure_connection()
        yield handler["default"]
        proxy.heal()
        handler.close_all()


def ask(connection: BaseDatabaseWrapper, query: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()


def test_the_check_before_a_cell_does_not_wait_for_who_does_not_answer(
    connection: BaseDatabaseWrapper, proxy: Proxy
) -> None:
    proxy.freeze(new_ones=False)
    began = time.monotonic()
    assert not connection.is_usable()
    assert time.monotonic() - began < 20
    connection.close()
    assert ask(connection, "SELECT 42") == (42,)


@pytest.mark.parametrize(
    ("is_reachable", "why"), [(True, "does not work on the statement any more"), (False, "cannot be reached")]
)
def test_a_statement_whose_answer_is_lost_is_given_up(
    connection: BaseDatabaseWrapper, proxy: Proxy, is_reachable: bool, why: str
) -> None:
    timer = threading.Timer(0.3, lambda: proxy.freeze(new_ones=not is_reachable))
    timer.start()
    with pytest.raises(ConnectionLost, match=f"The server was silent for .*, and {why}"):
        ask(connection, "SELECT pg_sleep(2)")
    proxy.heal()
    connection.close()
    assert ask(connection, "SELECT 42") == (42,)


class Freezing(StringIO):
    """Lets the line freeze with the first row it takes."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy

    def write(self, text: str) -> int:
        self._proxy.freeze(new_ones=False)
        return len(text)


def test_so_is_a_copy_of_which_no_more_comes(connection: BaseDatabaseWrapper, proxy: Proxy) -> None:
    sql = "COPY (SELECT repeat('x', 100) FROM generate_series(1, 1000000)) TO STDOUT"
    with (
        pytest.raises(ConnectionLost, match="does not work on the statement any more"),
        connection.cursor() as cursor,
        connection.wrap_database_errors,
    ):
        cursor.copy_expert(sql, Freezing(proxy))


def test_a_statement_that_takes_long_is_looked_after_and_goes_on(
    connection: BaseDatabaseWrapper, proxy: Proxy
) -> None:
    before = proxy.visits
    assert ask(connection, f"SELECT 42 FROM pg_sleep({1.3 * LONG})") == (42,)
    assert proxy.visits > before
    before = proxy.visits
    assert ask(connection, "SELECT 42 FROM pg_sleep(0.1)") == (42,)
    assert proxy.visits == before, "What is short costs nothing"


class Slow(StringIO):
    """Takes or gives its second piece only after a while."""

    pieces = 0

    def _pause(self) -> None:
        self.pieces += 1
        if self.pieces == 2:
            time.sleep(1.3 * LONG)

    def write(self, text: str) -> int:
        self._pause()
        return len(text)

    def read(self, size: int | None = -1) -> str:
        self._pause()
        return "1\n" * 100_000 if self.pieces < 3 else ""


def test_whoever_reads_or_writes_slowly_is_waited_for(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        taking = Slow()
        cursor.copy_expert("COPY (SELECT repeat('x', 100) FROM generate_series(1, 200000)) TO STDOUT", taking)
        assert taking.pieces == 200_000
        cursor.execute("CREATE TEMP TABLE slowly (n integer)")
        cursor.copy_expert("COPY slowly FROM STDIN", Slow())
        cursor.execute("SELECT count(*) FROM slowly")
        assert cursor.fetchone() == (200_000,)


def test_poolers_and_unix_sockets_are_not_watched(connection: BaseDatabaseWrapper) -> None:
    assert silence.unit_of(connection.connection) == UNIT
    connection.close()
    connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
    connection.ensure_connection()
    assert silence.unit_of(connection.connection) is None
    connection.close()
    connection.settings_dict |= {"DISABLE_SERVER_SIDE_CURSORS": False, **embedded.Cluster(HOME).address()}
    connection.settings_dict["HOST"] = embedded.Cluster(HOME).address()["host"]
    connection.settings_dict["PORT"] = embedded.Cluster(HOME).address()["port"]
    connection.ensure_connection()
    assert silence.unit_of(connection.connection) is None


def test_to_cancel_keeps_nobody_from_working(connection: BaseDatabaseWrapper, proxy: Proxy) -> None:
    proxy.freeze()
    asking = interrupt.ask(connection.connection)
    time.sleep(0.1)
    assert asking.is_alive()
    proxy.heal()
    asking.join(60)
    assert not asking.is_alive()


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread is interrupted"
)
def test_an_interrupt_ends_a_statement_that_nobody_answers_and_the_wait_for_a_connection(
    connection: BaseDatabaseWrapper, proxy: Proxy
) -> None:
    interrupt.watch(connection)

    def disturb() -> None:
        proxy.freeze()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.3, disturb).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(connection, "SELECT pg_sleep(30)")
    connection.close()
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt, match="nobody answered yet"):
        connection.ensure_connection()
    assert time.monotonic() - began < 25
    proxy.heal()
    interrupt.watch(connection)
    # The server does not know that nobody waits for it any more.
    (ended,) = ask(
        connection,
        "SELECT bool_and(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE query = 'SELECT pg_sleep(30)'",
    )
    assert ended
