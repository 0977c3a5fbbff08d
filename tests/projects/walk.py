"""Walk an app of a project through its history: ``python -m tests.projects.walk APP POINT ...``.

The app goes forwards from the first of its points to the last; then everything is applied, and it goes back
again. Every stop is a line of JSON: where, and what is otherwise than models_at says.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DEFAULT_DB_ALIAS, connections  # noqa: E402

from workbench.schema import models_at, snapshot  # noqa: E402
from workbench.schema.history import history_of  # noqa: E402
from workbench.schema.snapshot import tables_of  # noqa: E402

connection = connections[DEFAULT_DB_ALIAS]


def differences() -> Iterator[str]:
    """Compare every app with its models at the last migration of it that is applied, and query those.

    An error is a difference too: the others are still to be seen.
    """
    history = history_of(connection)
    found = snapshot()
    left = {*found.tables} - {"django_migrations"}
    for label in sorted({label for label, _ in history.graph.nodes}):
        left -= {*tables_of(connection, [label], found.tables)}
        try:
            then = models_at(label, history.last(label) or "zero")
            yield from (f"{label}: {change}" for change in found - then)
            for model in then:
                model._base_manager.first()
        except Exception as error:
            yield f"{label}: {type(error).__name__}: {error}"
    yield from (f"{name}: of no app" for name in sorted(left))


def stop(point: str) -> None:
    gc.collect()
    print(json.dumps({"point": point, "differences": [*differences()]}), flush=True)


if __name__ == "__main__":
    app, *points = sys.argv[1:]
    # Migrating makes thousands of classes: looking for those that are over takes a quarter of the time.
    gc.disable()
    for point in points:
        call_command("migrate", app, point, verbosity=0)
        stop(point)
    call_command("migrate", verbosity=0)
    for point in reversed(points[:-1]):
        call_command("migrate", app, point, verbosity=0)
        stop(point)
