"""What a cell asks of the database by Django's own ways is seen, too, when it takes long."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import QuerySet
from IPython.core.interactiveshell import InteractiveShell

from workbench.connection.gauges import building
from workbench.connection.sessions import accompany
from workbench.progress import Progress, is_within

# What may build an index, which Postgres tells the progress of.
BUILDS = re.compile(r"\s*(CREATE\s+(UNIQUE\s+)?INDEX|REINDEX|ALTER\s+TABLE)\b", re.IGNORECASE)


def register(shell: InteractiveShell) -> None:
    connection_created.connect(_attach, weak=False)
    _fetch_visibly()


def _attach(connection: BaseDatabaseWrapper, **_: object) -> None:
    accompany(connection, _wait)


def _wait(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    if is_within():  # Which says more of what it is for.
        return execute(sql, params, many, context)
    progress = Progress("Waiting for Postgres")
    is_gauged = BUILDS.match(sql if isinstance(sql, str) else "")
    with progress, building(progress, context["connection"]) if is_gauged else nullcontext():
        return execute(sql, params, many, context)


def _fetch_visibly() -> None:
    """Let a queryset be seen while its instances are made, which takes longer than its query."""
    fetch: Any = QuerySet._fetch_all

    @wraps(fetch)
    def visibly(queryset: Any) -> None:
        if queryset._result_cache is not None or is_within():
            fetch(queryset)
            return
        with Progress(f"Fetching {queryset.model._meta.verbose_name_plural}"):
            fetch(queryset)

    QuerySet._fetch_all = visibly  # type: ignore[assignment, method-assign]
