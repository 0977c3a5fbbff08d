from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import DjangoDbBlocker

from tests.migrating import at_hand, until
from tests.migrator import HERE
from workbench import progress
from workbench.connection import gauges
from workbench.connection.gauges import building, copying
from workbench.progress import Progress


@pytest.fixture
def connection(
    scratch_url: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[BaseDatabaseWrapper]:
    with at_hand(scratch_url, django_db_blocker):
        connections[HERE].ensure_connection()
        yield connections[HERE]


@pytest.fixture
def shown(settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person would have seen, who looks a hundred times a second."""
    found: list[str] = []
    settings.WORKBENCH_PROGRESS = True

    def show(each: Progress) -> None:
        found.append(str(each))

    for module in (progress, gauges):
        monkeypatch.setattr(module, "SECONDS_BEFORE_SHOWN", 0)
        monkeypatch.setattr(module, "SECONDS_BETWEEN", 0.01)
    monkeypatch.setattr(progress, "make_show", lambda: show)
    return found


def sessions(connection: BaseDatabaseWrapper) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        return int(cursor.fetchone()[0])


def test_whoever_may_not_look_has_the_seconds(connection: BaseDatabaseWrapper, shown: list[str]) -> None:
    before = connection.settings_dict
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE nosy")
        try:
            # The session beside it is another one's.
            connection.settings_dict = {**before, "OPTIONS": {**before["OPTIONS"], "options": "-c role=nosy"}}
            with Progress("Copying main", 10, unit="bytes") as copy, copying(copy, connection):
                cursor.execute("SELECT pg_sleep(0.3)")
        finally:
            connection.settings_dict = before
            cursor.execute("DROP ROLE nosy")
    assert copy.done == 0
    *running, ended = shown
    assert {line.rpartition(", ")[0] for line in running} == {"Copying main, 10 bytes"}
    assert ended.startswith("Copying main took ")


def test_what_postgres_refuses_is_refused_as_ever_and_leaves_no_session(
    connection: BaseDatabaseWrapper, shown: list[str]
) -> None:
    with (
        pytest.raises(Exception, match="division by zero"),
        Progress("Waiting") as waiting,
        building(waiting, connection),
    ):
        connection.cursor().execute("SELECT pg_sleep(0.1), 1 / (random() * 0)::int")
    until(lambda: sessions(connection) == 1)
    assert shown[-1].startswith("Waiting failed after")


def test_an_index_says_how_much_of_it_is_built(
    connection: BaseDatabaseWrapper, scratch_url: str, shown: list[str]
) -> None:
    scanning = re.compile(r": building index, scanning table, \d+%, \d+ s$")
    with connection.cursor() as cursor, closing(psycopg2.connect(scratch_url)) as holding:
        cursor.execute("CREATE TABLE many AS SELECT n FROM generate_series(1, 9) AS n")
        cursor.execute(
            "CREATE FUNCTION when_it_may(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
            "'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN n; END'"
        )
        holding.cursor().execute("SELECT pg_advisory_xact_lock(1)")

        def let_go_once_it_is_said() -> None:
            until(lambda: any(map(scanning.search, shown)))
            holding.rollback()

        letting = threading.Thread(target=let_go_once_it_is_said)
        letting.start()
        with Progress("Waiting for Postgres") as waiting, building(waiting, connection):
            cursor.execute("CREATE INDEX ON many (when_it_may(n))")
        letting.join()
    assert any(map(scanning.search, shown))
    until(lambda: sessions(connection) == 1)


def test_a_copy_counts_its_bytes(connection: BaseDatabaseWrapper, shown: list[str]) -> None:
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE big AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 99000) n")
        cursor.execute("SELECT pg_database_size(current_database())")
        total = cursor.fetchone()[0]
    connection.close()
    connection.settings_dict["NAME"] = "postgres"

    def copied() -> bool:
        """Tell whether it took long enough to be looked at."""
        with connection.cursor() as cursor:
            try:
                with Progress("Copying main", total, unit="bytes") as copy, copying(copy, connection):
                    cursor.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name} STRATEGY FILE_COPY")
            finally:
                cursor.execute(f"DROP DATABASE IF EXISTS {name}_copy")
        assert copy.done <= 1.01 * total
        return any(re.match(r"Copying main, [\d.]+ [kM]B of \d+ MB, ", line) for line in shown)

    until(copied)
    connection.close()
    connection.settings_dict["NAME"] = name
