"""SQL that Postgres refuses: a sentence with what was meant, and the place in the text as it was typed."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from django.db import DatabaseError, connection, transaction

from tests.frames.models import Shelf
from workbench.frames import FrameError, frame


class Refusal(NamedTuple):
    sql: str
    said: str
    # The line of the text, and what the mark below it points at.
    line: str = ""
    at: str = ""
    params: Any = None


END = "syntax error at the end: is something missing, or a bracket too few or too many?"
SHELF = 'relation "frames_shelff" does not exist: did you mean frames_shelf?'
LONG = f"SELECT {'1 + ' * 60} 1 FROM frames_shelff WHERE {'true AND ' * 20} true"

REFUSALS = {
    "a table": Refusal("SELECT * FROM frames_shelff", SHELF, "SELECT * FROM frames_shelff", "frames_shelff"),
    "a table, called as its model is": Refusal(
        "TABLE Shelf", 'relation "shelf" does not exist: did you mean frames_shelf?', "TABLE Shelf", "Shelf"
    ),
    "a table in a schema": Refusal(
        "TABLE public.frames_shelff",
        'relation "public.frames_shelff" does not exist: did you mean frames_shelf?',
        "TABLE public.frames_shelff",
        "public",
    ),
    "a table that nothing is like": Refusal(
        "TABLE qqqq", 'relation "qqqq" does not exist.', "TABLE qqqq", "qqqq"
    ),
    "a table that is not in FROM": Refusal(
        "SELECT frames_item.id FROM frames_shelf",
        'missing FROM-clause entry for table "frames_item".',
        "SELECT frames_item.id FROM frames_shelf",
        "frames_item",
    ),
    "a column": Refusal(
        "SELECT nmae FROM frames_shelf",
        'column "nmae" does not exist: did you mean name?',
        "SELECT nmae FROM frames_shelf",
        "nmae",
    ),
    "a column of an alias, on its line": Refusal(
        "SELECT s.id,\n\ts.nmae\nFROM frames_shelf AS s\n",
        "column s.nmae does not exist: did you mean s.name?",
        "Line 2:  s.nmae",
        "s.nmae",
    ),
    "a column that nothing is like": Refusal(
        "SELECT qqqq FROM frames_shelf",
        'column "qqqq" does not exist: frames_shelf has id and name.',
        "SELECT qqqq FROM frames_shelf",
        "qqqq",
    ),
    "a function": Refusal(
        "SELECT lenght(name) FROM frames_shelf",
        "function lenght(character varying) does not exist: did you mean length?",
        "SELECT lenght(name) FROM frames_shelf",
        "lenght",
    ),
    "behind parameters": Refusal(
        "SELECT '%%', %s, %s FROM frames_shelff",
        SHELF,
        "SELECT '%%', %s, %s FROM frames_shelff",
        "frames_shelff",
        ["long" * 9, 1],
    ),
    "behind named parameters": Refusal(
        "SELECT %(a)s || %(a)s FROM frames_shelff",
        SHELF,
        "SELECT %(a)s || %(a)s FROM frames_shelff",
        "frames_shelff",
        {"a": "it's"},
    ),
    "in a parameter": Refusal(
        "SELECT id FROM frames_shelf WHERE id = %s",
        'invalid input syntax for type bigint: "x".',
        "SELECT id FROM frames_shelf WHERE id = %s",
        "%s",
        ["x"],
    ),
    "in a long line": Refusal(
        LONG,
        SHELF,
        "… 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 +  1 FROM frames_shelff WHERE true A…",
        "frames_shelff",
    ),
    "a syntax error": Refusal(
        "SELECT * FORM frames_shelf",
        'syntax error at or near "FORM".',
        "SELECT * FORM frames_shelf",
        "FORM",
    ),
    "a text without its end": Refusal("SELECT 1 FROM", END, "SELECT 1 FROM"),
    "an open bracket": Refusal("SELECT (1", END, "SELECT (1"),
    "a bracket too many": Refusal("SELECT 1)", END, "SELECT 1)"),
    "an open quote": Refusal(
        "SELECT 'abc", 'unterminated quoted string at or near "\'abc".', "SELECT 'abc", "'abc"
    ),
    "a second statement": Refusal(
        "SELECT 1; DELETE FROM frames_shelf",
        'syntax error at or near ";".',
        "SELECT 1; DELETE FROM frames_shelf",
        "; DELETE",
    ),
    "a statement that changes": Refusal(
        "WITH gone AS (DELETE FROM frames_shelf RETURNING *) TABLE gone",
        "WITH clause containing a data-modifying statement must be at the top level.",
        "WITH gone AS (DELETE FROM frames_shelf RETURNING *) TABLE gone",
        "gone AS",
    ),
    "a value, before it is read": Refusal("SELECT 1 / 0", "division by zero."),
    "a value, while it is read": Refusal(
        "SELECT (name || 'x')::int FROM frames_shelf", 'invalid input syntax for type integer: "ax".'
    ),
    "too few parameters": Refusal("SELECT %s, %s", "The params do not fit the placeholders", params=[1]),
    "a percent sign beside parameters": Refusal(
        "SELECT %s LIKE 'a%'", "The params do not fit the placeholders", params=["a"]
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_it_is_told_and_the_transaction_goes_on(refusal: Refusal) -> None:
    Shelf.objects.create(name="a")
    with pytest.raises(FrameError) as refused:
        frame(refusal.sql, refusal.params)
    said = str(refused.value)
    assert said.startswith(refusal.said)
    assert "\n" not in said
    notes = getattr(refused.value, "__notes__", [])
    at = refusal.line.index(refusal.at) if refusal.at else len(refusal.line)
    assert notes == ([f"{refusal.line}\n{' ' * at}^"] if refusal.line else [])
    assert Shelf.objects.count() == 1
    with pytest.raises(FrameError) as in_chunks, transaction.atomic():
        list(frame.chunks(refusal.sql, refusal.params))
    assert (str(in_chunks.value), getattr(in_chunks.value, "__notes__", [])) == (said, notes)


@pytest.mark.django_db
def test_it_is_djangos_error_too() -> None:
    with pytest.raises(DatabaseError):
        frame("SELECT 1 / 0")


@pytest.mark.django_db(transaction=True)
def test_nothing_is_asked_in_a_transaction_that_is_spoiled() -> None:
    connection.set_autocommit(False)
    try:
        with pytest.raises(FrameError) as refused:
            frame("TABLE frames_shelff")
        assert str(refused.value) == 'relation "frames_shelff" does not exist.'
    finally:
        connection.rollback()
        connection.set_autocommit(True)


@pytest.mark.django_db
def test_what_postgres_refuses_of_a_queryset_is_djangos_error() -> None:
    with pytest.raises(DatabaseError) as refused, transaction.atomic():
        frame(Shelf.objects.extra(select={"more": "nothing_such"}))
    assert not isinstance(refused.value, FrameError)
