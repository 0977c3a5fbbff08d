"""A database of somebody else's, in which everything is called so that it would do harm."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import sql

from tests.hostile import NAMES, TEXT, content, examples
from tests.schema.test_diagram import Read, parser, understood
from workbench.schema import diagram, snapshot
from workbench.schema.mend import mend
from workbench.schema.snapshot import Snapshot
from workbench.show import UNSEEN

__all__ = ["parser", "understood"]

MAKE = """
CREATE SCHEMA {schema};
CREATE TYPE {schema}.{enum} AS ENUM ({value}, {other});
CREATE TABLE {schema}.{one} ({a} int CONSTRAINT {key} PRIMARY KEY, {b} text DEFAULT {value},
    {c} {schema}.{enum});
CREATE TABLE {schema}.{two} ({b} int CONSTRAINT {fk} REFERENCES {schema}.{one}, {a} text,
    CONSTRAINT {check} CHECK ({a} <> {value}));
CREATE INDEX {index} ON {schema}.{two} ({a});
COMMENT ON TABLE {schema}.{one} IS {value};
COMMENT ON COLUMN {schema}.{one}.{a} IS {other};
INSERT INTO {schema}.{one} VALUES (1, {value}, {value});
"""
PARTS = "one two a b c key fk check index enum".split()
VALUES = st.one_of(NAMES, TEXT).filter(lambda text: "\0" not in text and 0 < len(text.encode()) <= 63)


class Harmless(HTMLParser):
    """Fails for what a browser would run."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "object", "svg", "a"), tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert "javascript:" not in (value or "")


def harmless(html: str) -> None:
    Harmless(convert_charrefs=False).feed(html)


@pytest.mark.django_db
@given(
    names=st.lists(NAMES, min_size=10, max_size=10, unique=True),
    schema=NAMES.filter(lambda name: not name.startswith("pg_")),
    values=st.lists(VALUES, min_size=2, max_size=2, unique=True),
)
@examples(4)
def test_it_is_read_shown_drawn_and_mended(
    names: list[str], schema: str, values: list[str], understood: Read
) -> None:
    with connection.cursor() as cursor:
        identifiers = {part: sql.Identifier(name) for part, name in zip(PARTS, names, strict=True)}
        literals = {"value": sql.Literal(values[0]), "other": sql.Literal(values[1])}
        cursor.execute("SAVEPOINT here")
        try:
            statement = sql.SQL(MAKE).format(schema=sql.Identifier(schema), **identifiers, **literals)
            cursor.execute(statement)
            there = content(cursor)
            seen = snapshot(schemas=[schema])
            assert {table.relation for table in seen} == {names[0], names[1]}
            for shown in (seen, seen - Snapshot({})):
                assert not UNSEEN.search(repr(shown))
                harmless(shown._repr_html_())
            drawn = understood(diagram(seen))
            assert (len(drawn["tables"]), len(drawn["keys"])) == (2, 1)
            assert content(cursor) == there
            change = sql.SQL(
                "ALTER TABLE {s}.{two} DROP COLUMN {a}; ALTER TABLE {s}.{one} ALTER {b} DROP DEFAULT,"
                "ALTER {b} SET NOT NULL; ALTER TABLE {s}.{two} DROP CONSTRAINT {fk}"
            )
            cursor.execute(change.format(s=sql.Identifier(schema), **identifiers))
            for each in snapshot(schemas=[schema]) - seen:
                cursor.execute(mend(each))
            assert not snapshot(schemas=[schema]) - seen
        finally:
            cursor.execute("ROLLBACK TO here")
