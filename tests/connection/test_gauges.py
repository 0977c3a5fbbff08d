from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import DjangoDbBlocker

from tests.migrating import at_hand
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
    assert {*running} == {"Copying main, 10 bytes, 0 s"}
    assert re.fullmatch(r"Copying main took \d+ ms", ended)


def test_what_postgres_refuses_is_refused_as_ever_and_leaves_no_session(
    connection: BaseDatabaseWrapper, shown: list[str]
) -> None:
    with (
        pytest.raises(Exception, match="division by zero"),
        Progress("Waiting") as waiting,
        building(waiting, connection),
    ):
        connection.cursor().execute("SELECT pg_sleep(0.1), 1 / (random() * 0)::int")
    assert sessions(connection) == 1
    assert shown[-1].startswith("Waiting failed after")


def test_an_index_says_how_much_of_it_is_built(connection: BaseDatabaseWrapper, shown: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE many AS SELECT md5(n::text) AS t FROM generate_series(1, 200000) AS n")
        with Progress("Waiting for Postgres") as waiting, building(waiting, connection):
            cursor.execute("CREATE INDEX ON many (t)")
    said = {
        match[1] for line in shown if (match := re.search(r": building index, ([^,]+), \d+%, \d s$", line))
    }
    assert "scanning table" in said
    assert sessions(connection) == 1


def test_a_copy_counts_its_bytes(connection: BaseDatabaseWrapper, shown: list[str]) -> None:
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE big AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 99000) n")
        cursor.execute("SELECT pg_database_size(current_database())")
        total = cursor.fetchone()[0]
    connection.close()
    connection.settings_dict["NAME"] = "postgres"
    with connection.cursor() as cursor:
        try:
            with Progress("Copying main", total, unit="bytes") as copy, copying(copy, connection):
                cursor.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name} STRATEGY FILE_COPY")
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}_copy")
    connection.close()
    connection.settings_dict["NAME"] = name
    assert any(re.match(r"Copying main, [\d.]+ [kM]B of \d+ MB, ", line) for line in shown)
    assert 0 < copy.done <= 1.01 * total
