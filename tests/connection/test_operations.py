from __future__ import annotations

import pytest
from django.db import connection
from hypothesis import given

from tests.hostile import NAMES, content, examples

quote_name = connection.ops.quote_name


@pytest.mark.django_db
@given(name=NAMES)
@examples(40)
def test_a_name_is_a_name_whatever_is_in_it(name: str) -> None:
    quoted = quote_name(name)
    assert quote_name(quoted) == quoted
    with connection.cursor() as cursor:
        before = content(cursor)
        cursor.execute(f"CREATE TEMP TABLE probe ({quoted} int)" if '"."' not in name else "SELECT 1")
        assert content(cursor) == before
        if '"."' not in name:
            cursor.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'probe'::regclass AND attnum = 1"
            )
            expected = name if quoted != name else name[1:-1].replace('""', '"')
            assert cursor.fetchone() == (expected,)
            cursor.execute("DROP TABLE probe")


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("author", '"author"'),
        ('"author"', '"author"'),
        ('shop"."author', '"shop"."author"'),
        ('"shop"."author"', '"shop"."author"'),
        ('a"; CREATE TABLE injected (); --', '"a""; CREATE TABLE injected (); --"'),
        ('"a"; CREATE TABLE injected (); --"', '"""a""; CREATE TABLE injected (); --"""'),
        ('a"."b"; DROP TABLE c; --', '"a"".""b""; DROP TABLE c; --"'),
        ('"', '""""'),
        ('""', '""""""'),
    ],
)
def test_what_is_quoted_already_stays_as_it_is(name: str, quoted: str) -> None:
    assert quote_name(name) == quoted
