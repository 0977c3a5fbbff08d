"""One way to look at a schema, in a process of its own: ``python -m tests.benchmarks.schema WORK METHOD``.

Prints what it measured as JSON. What it looks at is made by the first process that needs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import django
import psycopg2

from tests.benchmarks import generated

FOLDER = Path(os.environ["GENERATED"])
LAST_APP = f"app{generated.APPS - 1}"
LAST = f"{generated.MIGRATIONS:04}"


def timed(work: Callable[[], Any], repeated: int = 1) -> float:
    seconds = []
    for _ in range(repeated):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def use(database: str) -> bool:
    """Let Django use a database of that name on the server, and tell whether it has just been made."""
    given = os.environ["DATABASE_URL"]
    os.environ["DATABASE_URL"] = urlsplit(given)._replace(path=f"/{database}").geturl()
    administrator = psycopg2.connect(given)
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", [database])
        is_new = not cursor.rowcount
        if is_new:
            cursor.execute(f"CREATE DATABASE {database}")
    administrator.close()
    return is_new


def at(work: str, method: str) -> dict[str, float]:
    """Get a class as of the last migration, in a process that has imported no migration yet, or all."""
    is_new = use("generated")
    os.environ |= {"DJANGO_SETTINGS_MODULE": "generated", "PYTHONPATH": f"{FOLDER}{os.pathsep}{os.getcwd()}"}
    if is_new:
        FOLDER.mkdir()
        generated.project(FOLDER)
        # In another process: this one is not to have loaded them.
        subprocess.run([sys.executable, "-m", "django", "migrate", "--fake", "-v", "0"], check=True)
    sys.path.insert(0, str(FOLDER))
    django.setup()

    from django.db import DEFAULT_DB_ALIAS, connections
    from django.db.migrations.loader import MigrationLoader

    from workbench.schema import models_at

    connection = connections[DEFAULT_DB_ALIAS]
    connection.ensure_connection()
    looks: dict[str, Callable[[], Any]] = {
        "models_at": lambda: models_at(LAST_APP, LAST).Model1,
        "loader with classes": lambda: (
            MigrationLoader(connection).project_state((LAST_APP, LAST)).apps.get_model(LAST_APP, "Model1")
        ),
        "loader": lambda: MigrationLoader(connection).project_state((LAST_APP, LAST)),
    }
    look = looks[method]
    if work == "schema-anew":
        look()
        # A file that has changed since makes all that was kept void.
        os.utime(FOLDER / LAST_APP / "migrations" / f"{LAST}.py")
    return {"seconds": timed(look), "again": timed(look, repeated=5)}


def whole(_: str, method: str) -> dict[str, float]:
    """Look at all tables, or only run what that has asked, without Django."""
    if use("tables"):
        fresh = psycopg2.connect(os.environ["DATABASE_URL"])
        fresh.autocommit = True
        with fresh.cursor() as cursor:
            for statement in generated.tables():
                cursor.execute(statement)
        fresh.close()
    os.environ["DJANGO_SETTINGS_MODULE"] = "workbench.settings"
    django.setup()

    from django.db import connection

    from workbench.schema import snapshot

    asked: list[tuple[str, Any]] = []

    def record(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        found = len(snapshot())
    assert found == generated.TABLES
    bare = psycopg2.connect(os.environ["DATABASE_URL"])
    bare.autocommit = True

    def run() -> None:
        with bare.cursor() as cursor:
            for sql, params in asked:
                cursor.execute(sql, params)
                cursor.fetchall()

    run()
    seconds = timed(snapshot if method == "snapshot" else run, repeated=5)
    return {"seconds": seconds, "tables": found, "statements": len(asked)}


WORKS = {"schema-first": at, "schema-anew": at, "schema-snapshot": whole}

if __name__ == "__main__":
    work, method = sys.argv[1:]
    print(json.dumps(WORKS[work](work, method)))
