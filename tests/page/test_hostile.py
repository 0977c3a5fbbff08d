"""The page of a database, and at addresses, in which everything would do harm in a browser or in SQL."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from django.db import connections
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import sql

from tests.hostile import ANY, NAMES, content, examples
from tests.page.conftest import ALIAS, Seen
from tests.page.conftest import seen as seen
from tests.page.conftest import url as url
from tests.schema.test_hostile import MAKE, PARTS, VALUES, Harmless


class Page(Harmless):
    """Of which the page's own script and links are a part, with addresses within it only."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given_ = dict(attrs)
        if tag == "script":
            assert (given_.get("src") or "").startswith("page.js?v=")
        elif tag == "a":
            assert (given_.get("href") or "").startswith(("?", "./", "#"))
        else:
            super().handle_starttag(tag, attrs)
        assert not any(name.startswith("on") for name in given_)


@given(
    names=st.lists(NAMES, min_size=10, max_size=10, unique=True),
    values=st.lists(VALUES, min_size=2, max_size=2, unique=True),
)
@examples(3)
def test_its_tables_and_rows_are_texts(seen: Seen, names: list[str], values: list[str]) -> None:
    identifiers = {part: sql.Identifier(name) for part, name in zip(PARTS, names, strict=True)}
    identifiers["one"], identifiers["two"] = (
        sql.Identifier(f"catalog_{name}"[:40]) for name in ("author", "book")
    )
    literals = {"value": sql.Literal(values[0]), "other": sql.Literal(values[1])}
    make = MAKE.replace("CREATE SCHEMA {schema};", "")
    statement = sql.SQL(make).format(schema=sql.Identifier("public"), **identifiers, **literals)
    try:
        seen.ask("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(statement)
            there = content(cursor)
            shown = seen.get()
            assert shown.status == 200
            assert "catalog_" in shown.html or "author" in shown.text
            Page(convert_charrefs=False).feed(shown.html)
            assert content(cursor) == there
    finally:
        seen.ask("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


@pytest.mark.django_db
@given(
    query=st.dictionaries(
        st.sampled_from(["branch", "app", "database", "limit", "after", "v"]), ANY, max_size=3
    )
)
@examples(8)
def test_whatever_an_address_asks_for_is_a_text_and_nothing_but_looked_at(
    client: Client, query: dict[str, str]
) -> None:
    with connections["default"].cursor() as cursor:
        before = content(cursor)
        for path in ("/", "/catalog/authors/", "/catalog/books/1/", "/page.js"):
            response = client.get(f"{path}?{urlencode(query)}")
            assert response.status_code in (200, 400, 404, 503), (path, response.content[:300])
            if response.headers["Content-Type"].startswith("text/html"):
                Page(convert_charrefs=False).feed(response.content.decode())
                assert "Content-Security-Policy" in response.headers or path != "/"
            assert client.post(f"{path}?{urlencode(query)}").status_code in (403, 405)
        assert content(cursor) == before
