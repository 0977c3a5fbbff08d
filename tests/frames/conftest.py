from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg2
import pytest
from django.db import connection, connections
from pytest_django import DjangoDbBlocker

from tests.frames.models import TABLES

Alias = Callable[..., str]


@pytest.fixture(scope="package", autouse=True)
def tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock(), connection.schema_editor() as editor:
        for model in TABLES:
            editor.create_model(model)
    yield
    with django_db_blocker.unblock(), connection.schema_editor() as editor:
        for model in reversed(TABLES):
            editor.delete_model(model)


@pytest.fixture
def committed(transactional_db: None) -> Iterator[None]:
    """The test's transactions are real, and what they leave behind is removed."""
    yield
    _empty()


@contextmanager
def session() -> Iterator[Any]:
    """Yield somebody else's connection to the same database."""
    params = {**connection.get_connection_params(), "cursor_factory": None}
    with closing(psycopg2.connect(**params)) as other:
        yield other


@pytest.fixture
def alias(django_db_blocker: DjangoDbBlocker) -> Iterator[Alias]:
    """Make a database beside ours, of a ``template``, and return the alias that Django has for it.

    Django's test cases know but the aliases from before, so this does without one, as ``committed`` does.
    """
    with django_db_blocker.unblock(), session() as administrator, ExitStack() as made:
        administrator.autocommit = True
        cursor = administrator.cursor()

        def make(template: str = "template1") -> str:
            name = f"{connection.settings_dict['NAME']}_{uuid.uuid4().hex[:8]}"
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
            made.callback(cursor.execute, f'DROP DATABASE "{name}" WITH (FORCE)')
            connections.databases[name] = {**connection.settings_dict, "NAME": name}
            made.callback(connections.databases.pop, name)
            made.callback(_forget, name)
            return name

        made.callback(_empty)
        yield make


def _forget(alias: str) -> None:
    connections[alias].close()
    del connections[alias]


def _empty() -> None:
    names = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in TABLES)
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {names} RESTART IDENTITY")
