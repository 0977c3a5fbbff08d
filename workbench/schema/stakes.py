"""The values that migrations may lose: in which tables, and whether they are what they were."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

from django.db.backends.utils import strip_quotes, truncate_name
from django.db.migrations import Migration, RunPython, RunSQL
from django.db.migrations import operations as ops
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from psycopg2 import sql

from workbench.connection.names import of_table

WORD = re.compile(r"\w+")
# What these do cannot change a value that is there.
HARMLESS = (
    ops.CreateModel,
    ops.AddField,
    ops.RenameField,
    ops.RenameModel,
    ops.AddIndex,
    ops.RemoveIndex,
    ops.RenameIndex,
    ops.AddConstraint,
    ops.RemoveConstraint,
    ops.AlterModelTable,
    ops.AlterModelTableComment,
    ops.AlterModelOptions,
    ops.AlterModelManagers,
    ops.AlterUniqueTogether,
    ops.AlterIndexTogether,
)
HARMLESS_BACKWARDS = tuple(each for each in HARMLESS if each not in (ops.CreateModel, ops.AddField))
# What Postgres cuts a name to, and Django before it.
NAME_BYTES = 63
NAMES = """
SELECT name, to_regclass(quoted)::text FROM unnest(%s::text[], %s::text[]) AS t (name, quoted)
WHERE to_regclass(quoted) IS NOT NULL
"""
COLUMNS = """
SELECT a.attname, coalesce(a.attnum = ANY(i.indkey::int2[]), false),
       a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
ORDER BY a.attnum
"""

# By column: how many rows have a value, and the sum of all their hashes.
Columns = dict[str, tuple[int, int]]


def at_stake(plan: Iterable[tuple[Migration, bool]], state: ProjectState) -> set[str]:
    """Return the tables with values that a plan may change, from the state before it.

    ``plan`` is Django's: migrations, each with whether it runs backwards. SQL and Python are at work on what
    they name, or else on all tables of their app.
    """
    tables: set[str] = set()
    for migration, is_backwards in plan:
        ours = [each for each in state.models.values() if each.app_label == migration.app_label]
        for operation in migration.operations:
            if not isinstance(operation, HARMLESS_BACKWARDS if is_backwards else HARMLESS):
                words = _words(operation)
                named = [each for each in state.models.values() if _is_named(each, words)]
                tables.update(
                    table
                    for each in named or ours
                    for model in _with_bases(each, state)
                    for table, column in columns(model)
                    if not column
                )
    return tables


def _is_named(model: ModelState, words: set[str]) -> bool:
    return model.name_lower in words or {*WORD.findall(_table(model).lower())} <= words


def _with_bases(model: ModelState, state: ProjectState) -> Iterator[ModelState]:
    """Yield a model, and those whose tables have its values, too: of a proxy, and of a child."""
    yield model
    for base in model.bases:
        if isinstance(base, str) and (found := state.models.get(tuple(base.lower().split(".")))):
            yield from _with_bases(found, state)


def _words(operation: Operation) -> set[str]:
    """Return the words of an operation that may be names of models or tables."""
    texts = [getattr(operation, "model_name", ""), getattr(operation, "name", "") or ""]
    if isinstance(operation, RunSQL):
        texts.append(f"{operation.sql} {operation.reverse_sql}")
    if isinstance(operation, RunPython):
        for function in (operation.code, operation.reverse_code):
            code_of = getattr(function, "__code__", None)
            for code in codes(code_of) if code_of else ():
                texts += [*code.co_names, *(each for each in code.co_consts if isinstance(each, str))]
    return set(WORD.findall(" ".join(texts).lower()))


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function, and of those defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def _table(model: ModelState) -> str:
    table: str = model.options.get("db_table") or truncate_name(
        f"{model.app_label}_{model.name_lower}", NAME_BYTES
    )
    return table


def columns(model: ModelState) -> Iterator[tuple[str, str]]:
    """Yield the table of a model, and of its many-to-many fields, with column "", and its columns.

    Tables are named as Django does it. A proxy has none.
    """
    if model.options.get("proxy"):
        return
    table = _table(model)
    yield table, ""
    for name, field in model.fields.items():
        if field.many_to_many:
            if not getattr(field.remote_field, "through", None):
                between = truncate_name(f"{strip_quotes(table)}_{name}", NAME_BYTES)
                yield getattr(field, "db_table", None) or between, ""
        else:
            yield table, field.db_column or (f"{name}_id" if field.is_relation else name)


def names(cursor: Any, tables: Iterable[str]) -> dict[str, str]:
    """Return how Postgres writes the names of those of Django's tables that are there."""
    given = list(tables)
    # Django's way to name a schema: "library"."author".
    quoted = [*map(of_table, given)]
    cursor.execute(NAMES, [given, quoted])
    return dict(cursor.fetchall())


def checksums(cursor: Any, tables: Iterable[str]) -> dict[str, Columns]:
    """Return the sums of these tables, as SQL names them; those that are not there are left out.

    Where there is a primary key, a value counts with its row's, so that two rows that swap theirs differ.
    """
    found: dict[str, Columns] = {}
    for table in tables:
        cursor.execute(COLUMNS, [table])
        columns = cursor.fetchall()
        if not columns:
            continue
        keys = [(sql.Identifier(name), is_whole) for name, is_key, is_whole in columns if is_key]
        row = sql.SQL("hashtextextended(ROW({})::text, 0)").format(sql.SQL(", ").join(key for key, _ in keys))
        if len(keys) == 1 and keys[0][1]:
            row = sql.SQL("{}").format(keys[0][0])  # Most are such, and are read in a third of the time.
        asked: list[sql.Composable] = [sql.SQL("count(*)")]
        for name, *_ in columns:
            column = sql.Identifier(name)
            asked.append(sql.SQL("count({})").format(column))
            asked.append(
                sql.SQL('coalesce(sum(hashtextextended({}::text COLLATE "C", {})), 0)').format(column, row)
            )
        # The table's name comes as Postgres writes it, quoted where that is needed.
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(asked), sql.SQL(table)))
        rows, *sums = cursor.fetchone()
        found[table] = {"": (rows, 0)} | {
            name: (sums[2 * number], int(sums[2 * number + 1])) for number, (name, *_) in enumerate(columns)
        }
    return found


def lost(before: Mapping[str, Columns], after: Mapping[str, Columns]) -> dict[tuple[str, str], str]:
    """Return what is not as it was: by table and column, "" for rows, a phrase that says it."""
    phrases = {}
    for table, columns in before.items():
        rows, now = columns[""][0], after.get(table, {})
        if rows and now.get("", (0, 0))[0] != rows:
            left = now.get("", (0, 0))[0]
            phrases[table, ""] = f"the rows of {table} ({rows:,} before, {left:,} after)"
            continue
        for name, (values, summed) in columns.items():
            if name and values and now.get(name) != (values, summed):
                phrases[table, name] = f"the values of {table}.{name} ({values:,} before)"
    return phrases
