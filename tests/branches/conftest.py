"""Where these tests make branches: beside a database of their own, for each kind of server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from psycopg2 import sql
from pytest_django import DjangoDbBlocker

from tests.branches import neon_api
from tests.conftest import scratch
from tests.schema.places import settings_for
from tests.throwaway import HOME, PROJECT, environment
from workbench.branches import branches, drop, use
from workbench.branches.api import Api
from workbench.connection import embedded

ALIAS = "branched"
# By which the sessions of a process can be told from others.
VICTIM = "victim"

TABLE = (
    "DROP TABLE IF EXISTS thing",
    "CREATE TABLE thing AS SELECT n AS id, 'thing ' || n AS name FROM generate_series(1, 100) n",
)


@dataclass
class Place:
    """A database with branches: an alias of this process, and what others need to find it."""

    environment: dict[str, str]
    using: str = ALIAS

    def ask(self, query: str, *params: Any) -> Any:
        """Return the first value of the first row, from where this process is."""
        with connections[self.using].cursor() as cursor:
            cursor.execute(query, params or None)
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]

    @property
    def count(self) -> int:
        found: int = self.ask("SELECT count(*) FROM thing")
        return found

    def wait_for_end(self) -> None:
        """Return when the server has noticed that the processes started here are gone."""
        for _ in range(1000):
            if not self.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", VICTIM):
                break
            time.sleep(0.01)
        else:
            raise AssertionError("a process that was killed is still connected")
        connections[self.using].close()

    def start(self, code: str) -> subprocess.Popen[str]:
        """Start a process that runs code, with the verbs imported, on this place as its default."""
        connections[self.using].close()
        return subprocess.Popen(
            [sys.executable, "-c", f"{SET_UP}\n{code}"],
            cwd=PROJECT,
            env=environment(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        with self.start(code) as process:
            output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, output, errors)


SET_UP = """
import os, signal, sys, time
import django
django.setup()
from datetime import timedelta
from django.db import connection, connections
from django.db import migrations
from workbench.branches import *
from workbench.branches import maintenance
from workbench.schema import rehearse

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_before(start):
    run = maintenance.Maintenance.run
    def mortal(self, statement, *names, **literals):
        if statement.startswith(start):
            die()
        run(self, statement, *names, **literals)
    maintenance.Maintenance.run = mortal
"""


@contextmanager
def template_place() -> Iterator[Place]:
    with scratch() as url:
        entry = connections.databases[ALIAS] = settings_for(url)
        yield Place({"DATABASE_URL": f"{url}&application_name={VICTIM}"})
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]
        clear(entry["NAME"])


@contextmanager
def neon_place() -> Iterator[Place]:
    with neon_api.neon_place(polls=1) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "pace", 0.005)
        for name in ("NEON_API_KEY", "NEON_PROJECT_ID", "NEON_API_URL"):
            patch.setattr(settings, name, made.environment[name])
        connections.databases[ALIAS] = {**connections.databases["default"], "EMBEDDED": "", **made.entry}
        yield Place({**made.environment, "DATABASE_URL": f"{made.url}&application_name={VICTIM}"})
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]


KINDS: dict[str, Callable[[], AbstractContextManager[Place]]] = {
    "template": template_place,
    "neon": neon_place,
}


@pytest.fixture(scope="module", params=["template"])
def prepared(request: pytest.FixtureRequest, django_db_blocker: DjangoDbBlocker) -> Iterator[Place]:
    with django_db_blocker.unblock(), KINDS[request.param]() as made:
        yield made


@pytest.fixture
def place(prepared: Place) -> Iterator[Place]:
    """A database without branches, with a table ``thing`` of a hundred rows."""
    for statement in TABLE:
        prepared.ask(statement)
    # Other tests of this process may have left some.
    before = {*(HOME / "evolved").glob("*")}
    yield prepared
    connections[prepared.using].in_atomic_block = False
    connections[prepared.using].close()
    use("main", prepared.using)
    # What no block has any more was swept.
    for each in branches(prepared.using):
        if not each.is_main:
            drop(each.name, end_sessions=True, using=prepared.using)
    assert {*(HOME / "evolved").glob("*")} <= before


def clear(root: str) -> None:
    """Drop whatever is named like a branch of a database."""
    for name in databases(root)[1:]:
        administer("DROP DATABASE {} WITH (FORCE)", name)


def databases(root: str) -> list[str]:
    """Return the databases that are named like one and its branches."""
    with administrator() as cursor:
        cursor.execute(
            "SELECT datname FROM pg_database WHERE datname = %s OR starts_with(datname::text, %s) ORDER BY 1",
            [root, f"{root}@"],
        )
        return [name for (name,) in cursor.fetchall()]


def administer(statement: str, *names: str) -> None:
    with administrator() as cursor:
        cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def administrator() -> Iterator[Any]:
    connection = embedded.Cluster(HOME).connect()
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()
