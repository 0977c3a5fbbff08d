"""What Postgres refuses of SQL text: one sentence, about the text as it was typed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

from workbench.connection import StatementFailed
from workbench.connection.names import typed
from workbench.errors import OneSentence, listed, or_rather
from workbench.frames.errors import REFUSED, FrameError, RefusedSQL
from workbench.frames.query import Query

# Those that are about the text; others are about the connection, or the transaction.
REFUSALS = tuple(REFUSED)

# What is asked for the columns of a text. The text may end in a comment.
BEFORE, AFTER = "SELECT * FROM (", "\n) AS q LIMIT 0"

PLACEHOLDER = re.compile(r"%(?:%|(?:\(.*?\))?\w)")
# A name, and those before it.
NAME = re.compile(r'(?:"(?:[^"]|"")+"|\w+)(?:\s*\.\s*(?:"(?:[^"]|"")+"|\w+))*')
WORD = re.compile(r'"(?:[^"]|"")+"|\w+')
PERHAPS = re.compile(r'Perhaps you meant to reference the column "([^"]*)"')

# As much of a line as is shown, and as much of that before what it is about.
WIDTH, WIDTH_BEFORE = 76, 50
# So many columns are told where none is near.
MOST_COLUMNS = 12

COLUMNS = """
SELECT CASE WHEN pg_table_is_visible(c.oid) THEN relname ELSE format('%s.%s', nspname, relname) END,
    array(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum)::text[]
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
"""
FUNCTIONS = "SELECT DISTINCT proname::text FROM pg_proc WHERE pg_function_is_visible(oid)"


def bound(cursor: Any, query: Query) -> str:
    """Return a text with its parameters in it. Raises FrameError."""
    if query.params is None:
        return query.sql
    try:
        return str(cursor.mogrify(query.sql, query.params).decode())
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if not query.is_text:
            raise
        raise FrameError(
            f"The params do not fit the placeholders of the SQL ({error}): each %s takes one of a list, "
            f"each %(name)s one of a dict, and a percent sign of its own is %%."
        ) from error


def told(connection: BaseDatabaseWrapper, query: Query, error: DatabaseError) -> RefusedSQL | None:
    """Return what to tell about a text that was refused; None where that is not for us to say."""
    cause = error.__cause__
    said = getattr(cause, "diag", None)
    made = next((made for kind, made in REFUSED.items() if isinstance(error, kind)), RefusedSQL)
    if isinstance(error, StatementFailed) and isinstance(cause, errors.InsufficientPrivilege):
        return made(str(error))
    if isinstance(error, OneSentence) or said is None or not said.message_primary:
        return None
    # What is never closed goes on into what was put behind it.
    what = said.message_primary.replace(AFTER, "")
    at = None
    if said.statement_position:
        at = _typed_at(connection, query, int(said.statement_position) - 1 - len(BEFORE))
    if at is not None and at >= len(query.sql) and isinstance(cause, errors.SyntaxError):
        at = len(query.sql)
        refused = made("syntax error at the end: is something missing, or a bracket too few or too many?")
    else:
        refused = made(what + _ending(connection, query.sql, at, cause, said))
    if at is not None and 0 <= at <= len(query.sql):
        refused.add_note(_pointer(query.sql, at))
    return refused


def _ending(connection: BaseDatabaseWrapper, sql: str, at: int | None, cause: Any, said: Any) -> str:
    """Return how the sentence ends: with what was meant, if that can be told."""
    found = NAME.match(sql, at) if at is not None else None
    name = ".".join(map(_folded, WORD.findall(found.group()))) if found else ""
    # A spoiled transaction answers nothing.
    with suppress(DatabaseError), connection.cursor() as cursor:
        # Not one that is there, and is missing in FROM.
        if (
            name
            and isinstance(cause, errors.UndefinedTable)
            and not said.message_hint
            and name in (_folded(word) for word in re.findall(r'"([^"]*)"', said.message_primary))
        ):
            cursor.execute(COLUMNS)
            return _table(name, [table for table, _ in cursor.fetchall()])
        if name and isinstance(cause, errors.UndefinedColumn):
            if perhaps := PERHAPS.match(said.message_hint or ""):
                return f": did you mean {perhaps[1] if '.' in name else perhaps[1].rpartition('.')[2]}?"
            cursor.execute(COLUMNS)
            return _column(name, sql, dict(cursor.fetchall()))
        if name and isinstance(cause, errors.UndefinedFunction):
            cursor.execute(FUNCTIONS)
            near = or_rather(name, [function for (function,) in cursor.fetchall()], "")
            if near and not near.endswith(f" {name}?"):
                return near
    more = [text.rstrip(".") for text in (said.message_detail, said.message_hint) if text]
    return "".join(f". {text}" for text in more) + "."


def _table(name: str, tables: list[str]) -> str:
    """Guess at a table, of which people also say but the model's name."""
    short = {table.rpartition(".")[2].partition("_")[2]: table for table in sorted(tables)}
    known = {**short, **{table: table for table in tables}}
    near = difflib.get_close_matches(name.lower(), [each for each in known if each], n=1)
    return f": did you mean {_quoted(known[near[0]])}?" if near else "."


def _column(name: str, sql: str, tables: dict[str, list[str]]) -> str:
    """Guess at a column of the tables that the text names, or tell which there are."""
    words = {_folded(word) for word in WORD.findall(sql)}
    named = {table: columns for table, columns in tables.items() if table.rpartition(".")[2] in words}
    every = [_quoted(column) for columns in named.values() for column in columns]
    otherwise = "."
    if len(named) == 1 and every:
        otherwise = f": {_quoted(next(iter(named)))} has {listed(every, most=MOST_COLUMNS)}."
    return or_rather(name.rpartition(".")[2], every, otherwise)


def _folded(word: str) -> str:
    """Return a name as Postgres takes it."""
    return word[1:-1].replace('""', '"') if word.startswith('"') else word.lower()


def _quoted(name: str) -> str:
    """Return a name as it is to be typed."""
    return ".".join(map(typed, name.split(".")))


def _typed_at(connection: BaseDatabaseWrapper, query: Query, position: int) -> int:
    """Return where in the text as typed stands what Postgres met in the text that it got."""
    if query.params is None:
        return position
    values = None if isinstance(query.params, Mapping) else iter(query.params)
    got = typed = 0
    with connection.cursor() as cursor:
        for placeholder in PLACEHOLDER.finditer(query.sql):
            before = placeholder.start() - typed
            if position < got + before:
                break
            got += before
            typed = placeholder.start()
            value = query.params if values is None or placeholder.group() == "%%" else [next(values)]
            size = len(cursor.mogrify(placeholder.group(), value).decode())
            if position < got + size:
                return typed
            got += size
            typed = placeholder.end()
    return typed + position - got


def _pointer(sql: str, at: int) -> str:
    """Return the line that it is about, with a mark below the place."""
    start = sql.rfind("\n", 0, at) + 1
    line = sql[start:].partition("\n")[0].replace("\t", " ").rstrip()
    at -= start
    number = f"Line {sql.count(chr(10), 0, start) + 1}: " if "\n" in sql.strip() else ""
    if len(line) > WIDTH:
        first = max(0, min(at - WIDTH_BEFORE, len(line) - WIDTH))
        line = f"{'…' if first else ''}{line[first + bool(first) : first + WIDTH]}" + (
            "…" if first + WIDTH < len(line) else ""
        )
        at -= first
    return f"{number}{line}\n{' ' * (len(number) + at)}^"
