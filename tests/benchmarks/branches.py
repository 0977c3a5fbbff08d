"""Branches and rehearsals beside the bare statements, each in a process of its own:
``python -m tests.benchmarks.branches WORK METHOD``. Prints what it measured as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import django
import psycopg2

from tests.benchmarks.schema import timed, use

URL = os.environ["DATABASE_URL"]
ADMINISTRATOR = URL.rpartition("/")[0] + "/postgres"
# From what size on a copy of the files is faster than their way through the log.
FILE_COPY_MEGABYTES = 64


def bare(*statements: str) -> None:
    connection = psycopg2.connect(ADMINISTRATOR)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def copying(work: str, method: str) -> dict[str, float]:
    """Make a branch of a database of so many megabytes."""
    megabytes = int(work.rpartition("-")[2])
    source = f"filled_{megabytes}"
    if use(source):
        connection = psycopg2.connect(os.environ["DATABASE_URL"])
        connection.autocommit = True
        with connection.cursor() as cursor:
            # A page holds eight of these rows; an empty database has 8 MB.
            rows = max(megabytes - 8, 1) * 1024
            cursor.execute(
                "CREATE TABLE filled AS "
                f"SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, {rows}) i"
            )
            cursor.execute("CHECKPOINT")
        connection.close()
    django.setup()
    from workbench.branches import create, drop

    strategy = "FILE_COPY" if megabytes > FILE_COPY_MEGABYTES else "WAL_LOG"
    make: Callable[[], Any] = {
        "create": lambda: create("bench"),
        "bare": lambda: bare(f'CREATE DATABASE "bare" TEMPLATE "{source}" STRATEGY {strategy}'),
    }[method]
    seconds = []
    for _ in range(5):
        seconds.append(timed(make))
        drop("bench") if method == "create" else bare('DROP DATABASE "bare"')
    return {"seconds": median(seconds)}


def changes() -> dict[str, list[Any]]:
    from django.db import migrations, models

    return {
        "column": [migrations.AddField("author", "born", models.IntegerField(null=True))],
        "index": [migrations.AddIndex("book", models.Index(fields=["title"], name="by_title"))],
        "type": [migrations.AlterField("book", "title", models.CharField(max_length=150))],
        "rows": [
            migrations.RunSQL(
                "UPDATE catalog_author SET country = 'somewhere'", "UPDATE catalog_author SET country = ''"
            )
        ],
    }


@contextmanager
def offered(operations: list[Any]) -> Iterator[tuple[str, str]]:
    """Show Django a migration with these operations, as the next of the catalog's."""
    from django.db.migrations import Migration

    from workbench import evolved

    key = ("catalog", "0003_bench")
    dependencies = [("catalog", "0002_author_country")]
    kind = type("Migration", (Migration,), {"operations": operations, "dependencies": dependencies})
    with evolved.made({key: kind}):
        yield key


def rehearsing(work: str, method: str) -> dict[str, float]:
    """Rehearse a change, or copy the database and only run it there, back and there again."""
    django.setup()
    from django.db import connections
    from django.db.migrations.executor import MigrationExecutor

    from workbench.schema import rehearse

    operations = changes()[work.rpartition("-")[2]]
    connection = connections["default"]

    def migrate() -> None:
        connection.close()
        bare('CREATE DATABASE "bare" TEMPLATE "bench" STRATEGY FILE_COPY')
        copy = connection.copy()
        copy.settings_dict["NAME"] = "bare"
        connections["default"] = copy
        with offered(operations) as key:
            for target in (key, ("catalog", "0002_author_country"), key):
                MigrationExecutor(copy).migrate([target])
        copy.close()
        connections["default"] = connection
        bare('DROP DATABASE "bare"')

    def play() -> None:
        assert rehearse("catalog", operations).failure is None

    return {"seconds": timed(play if method == "rehearse" else migrate, repeated=3)}


def observed(work: str, method: str) -> dict[str, float]:
    """Migrate a copy with a reader and a writer beside it, or alone."""
    django.setup()
    from django.db.migrations.executor import MigrationExecutor

    from workbench.branches import copied
    from workbench.schema.observe import Observer

    seconds = []
    with copied() as copy, offered(changes()[work.rpartition("-")[2]]) as key:
        for _ in range(3):
            if method == "observed":
                with Observer(copy) as observer:
                    observer.begin(is_felt=True)
                    executor = MigrationExecutor(copy)
                    with observer.migration(executor.loader.graph.nodes[key]):
                        began = time.perf_counter()
                        executor.migrate([key])
                        seconds.append(time.perf_counter() - began)
            else:
                executor = MigrationExecutor(copy)
                began = time.perf_counter()
                executor.migrate([key])
                seconds.append(time.perf_counter() - began)
            MigrationExecutor(copy).migrate([("catalog", "0002_author_country")])
    return {"seconds": median(seconds)}


WORKS = {"branch-copy": copying, "branch-rehearse": rehearsing, "branch-observe": observed}

if __name__ == "__main__":
    work, method = sys.argv[1:]
    print(json.dumps(WORKS[work.rpartition("-")[0]](work, method)))
