"""What is bad about a plan, where there is no doubt about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.apps import apps

from workbench.connection.names import quoted, typed
from workbench.queries.tree import Node

# A scan of fewer rows takes no time; of more than a part of them, an index would not help.
LARGE_ROWS, KEPT_PART = 5_000, 1 / 50
# An estimate that is off by more leads to other plans.
OFF_TIMES, OFF_ROWS = 10, 100
CHANGED_PART = 0.1

# A column and a value, as EXPLAIN writes a condition that an index on the column serves. The cast leaves it
# usable where it makes a text of a varchar.
LITERAL = r"(?:'(?:[^']|'')*'|-?\d+(?:\.\d+)?|\$\d+)(?:::[\w \"]+(?:\(\d+(?:,\d+)?\))?(?:\[\])?)?"
CONDITION = re.compile(
    r'\(?(?:(?:"[^"]+"|\w+)\.)?(?P<column>"[^"]+"|\w+)(?P<cast>\)::text)?\s(?P<operator>=|<|<=|>|>=)\s'
    rf"(?:{LITERAL}|ANY \({LITERAL}\))"
)
AND = re.compile(r"\) AND \(")

# Those that a btree index serves, and that are no index's first.
COLUMNS = """
SELECT a.attname, t.typname
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s::regclass AND a.attname = ANY(%s) AND (
    t.typtype = 'e' OR t.typname = ANY(ARRAY[
        'int2', 'int4', 'int8', 'numeric', 'float4', 'float8', 'text', 'varchar', 'bpchar', 'date', 'time',
        'timestamp', 'timestamptz', 'uuid', 'bool', 'inet']))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum)
"""
ROWS = """
SELECT c.reltuples, c.relkind = 'r' AND (
    c.reltuples < 0
    OR s.last_analyze IS NULL AND s.last_autoanalyze IS NULL
    OR s.n_mod_since_analyze > %s * c.reltuples)
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE c.oid = %s::regclass
"""


@dataclass(frozen=True)
class Hint:
    """What is bad in a sentence, and the remedy as Python or SQL, if there is a short one."""

    text: str
    code: str = ""
    language: str = "python"


def of(cursor: Any, top: Node) -> Iterator[Hint]:
    """Yield what is bad about a plan. ``cursor`` asks the catalog of the same database."""
    stale: dict[str, None] = {}
    for node in top.walk():
        if node.kind == "Seq Scan" and "Filter" in node.told:
            yield from _index(cursor, node)
        if node.is_actual and node.loops and _is_off(node) and "Relation Name" in node.told:
            cursor.execute(ROWS, [CHANGED_PART, _regclass(node)])
            row = cursor.fetchone()
            if row and row[1]:
                stale[_name(node)] = None
        if node.told.get("Sort Space Type") == "Disk":
            used = node.told.get("Sort Space Used", 0)
            yield Hint(
                f"The sort did not fit into memory (work_mem) and went to disk, {used:,} kB: sort fewer rows "
                f"or columns, or by an index."
            )
    for name in stale:
        yield Hint(
            f"Postgres knows too little about the rows of {name}, and expected another number of them:",
            f"ANALYZE {typed(name)};",
            "postgres",
        )


def _index(cursor: Any, node: Node) -> Iterator[Hint]:
    """Yield that an index would spare most of a scan, if one on the columns of its filter surely would."""
    columns = _columns(str(node.told["Filter"]))
    if not columns or (node.is_cut and not node.is_actual):
        return
    if node.is_actual:
        kept, read = node.rows, node.rows + node.left_out
    else:
        cursor.execute(ROWS, [CHANGED_PART, _regclass(node)])
        row = cursor.fetchone()
        read = float(row[0]) if row else 0
        kept = node.planned * node.processes
    if read < LARGE_ROWS or kept > read * KEPT_PART:
        return
    cursor.execute(COLUMNS, [_regclass(node), list(columns)])
    types = dict(cursor.fetchall())
    if any(
        name not in types or (each.is_cast and types[name] != "varchar") for name, each in columns.items()
    ):
        return
    # An index serves what is equal first, and one range.
    ranges = [name for name, each in columns.items() if not each.is_equal]
    if len(ranges) > 1:
        return
    names = [name for name, each in columns.items() if each.is_equal] + ranges
    table = _name(node)
    spared = f"{read - kept:,.0f} of {read:,.0f} rows"
    text = f"An index on {table} ({', '.join(names)}) would spare reading {spared}:"
    if code := _of_model(str(node.told["Relation Name"]), names):
        yield Hint(text, code)
    else:
        yield Hint(
            text,
            f"CREATE INDEX CONCURRENTLY ON {typed(table)} ({', '.join(map(quoted, names))});",
            "postgres",
        )


class _Compared(NamedTuple):
    is_equal: bool
    is_cast: bool


def _columns(condition: str) -> dict[str, _Compared]:
    """Return the columns that a condition compares with values; nothing, where it does anything else, too."""
    found: dict[str, _Compared] = {}
    inner = condition.removeprefix("(").removesuffix(")")
    for part in AND.split(inner.removeprefix("(").removesuffix(")") if AND.search(inner) else inner):
        match = CONDITION.fullmatch(part)
        if match is None:
            return {}
        name = match["column"].strip('"')
        before = found.get(name, _Compared(False, False))
        found[name] = _Compared(
            before.is_equal or match["operator"] == "=", before.is_cast or match["cast"] is not None
        )
    return found


def _is_off(node: Node) -> bool:
    each = node.rows / node.loops
    low, high = sorted([max(each, 1.0), max(node.planned, 1.0)])
    return high >= OFF_ROWS and high > OFF_TIMES * low


def _of_model(table: str, columns: list[str]) -> str:
    for model in apps.get_models():
        if model._meta.db_table == table:
            names = {field.column: field.name for field in model._meta.local_concrete_fields}
            if all(column in names for column in columns):
                fields = ", ".join(f'"{names[column]}"' for column in columns)
                return f"models.Index(fields=[{fields}])  # in the indexes of {model.__name__}.Meta"
    return ""


def _regclass(node: Node) -> str:
    names = [node.told.get("Schema"), node.told["Relation Name"]]
    return ".".join(quoted(str(name)) for name in names if name)


def _name(node: Node) -> str:
    return str(node.told["Relation Name"])
