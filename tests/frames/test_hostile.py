"""Tables, columns and values that would do harm if they were taken for SQL, HTML or placeholders."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest
from django.db import connection, models
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import sql

from tests.hostile import ANY, NAMES, content, examples
from workbench.frames import frame, load

numbers = itertools.count()

# Django writes names into statements with parameters as they are, and refuses a dollar sign by itself.
OF_DJANGO = NAMES.filter(lambda name: '"."' not in name and "%" not in name and "$" not in name)


def model(table: str, columns: list[str]) -> type[models.Model]:
    """Return a model whose table and columns are called so; its fields are f0, f1, ..."""
    fields: dict[str, Any] = {
        f"f{number}": models.TextField(db_column=column) for number, column in enumerate(columns)
    }
    meta = type("Meta", (), {"app_label": "hostile", "db_table": table, "managed": False})
    name = f"Hostile{next(numbers)}"
    return type(name, (models.Model,), {"__module__": __name__, "Meta": meta, **fields})


@pytest.mark.django_db(transaction=True)
@given(
    table=OF_DJANGO,
    columns=st.lists(OF_DJANGO, min_size=1, max_size=3, unique=True).filter(lambda names: "id" not in names),
    values=st.lists(ANY.filter(lambda text: "\0" not in text), min_size=1, max_size=3),
)
@examples(8)
def test_a_table_is_filled_and_read_whatever_it_is_called(
    table: str, columns: list[str], values: list[str]
) -> None:
    kind = model(table, columns)
    name = sql.Identifier(table)
    texts = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(column)) for column in columns)
    with connection.cursor() as cursor:
        before = content(cursor)
        cursor.execute(sql.SQL("CREATE TABLE {} (id serial PRIMARY KEY, {})").format(name, texts))
        there = content(cursor)
        try:
            rows = [{f"f{number}": value for number in range(len(columns))} for value in values]
            assert load(kind, rows) == len(rows)
            read = frame(kind._default_manager.order_by("pk"))
            assert read["f0"].tolist() == values
            assert load(kind, read, on_conflict="update") == len(rows)
            chunks = [*frame.chunks(kind._default_manager.order_by("pk"), rows=2)]
            assert pd.concat(chunks)["f0"].tolist() == values
            assert content(cursor) == there
        finally:
            connection.rollback() if connection.in_atomic_block else None
            cursor.execute(sql.SQL("DROP TABLE {}").format(name))
        assert content(cursor) == before
