"""The first rows of tables and the last, each with those of other tables that refer to it.

However many rows there are, few are read, and by an index. All tables together take three queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from psycopg2 import sql

from workbench.page.local import plural
from workbench.redaction import is_secret
from workbench.schema.snapshot import Column, Table

# A table with more rows shows its last ones after a gap.
ROWS_SHOWN = 8
LAST_ROWS = 3
COLUMNS_SHOWN = 24
LETTERS_SHOWN = 80
KEY_LETTERS = 200
# Of the rows that refer to one: how many are named, and how many are counted.
NAMED, COUNTED = 3, 100
NAME_LETTERS = 48
# A foreign key without an index is followed in tables that have no more rows than this.
SCANNED_ROWS = 10_000

WORDS = re.compile(r"(text|varchar|character|bpchar|citext|name)\b")
NUMBERS = re.compile(r"(smallint|integer|bigint|numeric|real|double precision|money|oid)\b")
MOMENTS = re.compile(r"timestamp\b")

# Foreign keys of one column between the tables, and whether an index finds the rows that refer to one.
LINKS = """
SELECT o.conrelid, c.attname, format_type(c.atttypid, c.atttypmod), o.confrelid, p.attname,
       format_type(p.atttypid, p.atttypmod),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.conrelid AND i.indkey[0] = o.conkey[1]
               AND i.indisvalid AND i.indpred IS NULL)
FROM pg_constraint o
JOIN pg_attribute c ON c.attrelid = o.conrelid AND c.attnum = o.conkey[1]
JOIN pg_attribute p ON p.attrelid = o.confrelid AND p.attnum = o.confkey[1]
WHERE o.contype = 'f' AND cardinality(o.conkey) = 1
  AND o.conrelid = ANY(%(oids)s::oid[]) AND o.confrelid = ANY(%(oids)s::oid[])
ORDER BY o.conrelid, c.attnum, o.conname
"""
# Where an index may be of use it is used, and then for no more rows than are asked for.
BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"


_Found = tuple[tuple[str | None, ...], int, bool]


@dataclass(frozen=True)
class Head:
    """The top of a column: of the table's own, or with ``is_referring`` of rows that refer to a row."""

    name: str
    is_number: bool = False
    is_referring: bool = False


@dataclass(frozen=True)
class Cell:
    """A value as text, None for NULL.

    ``label`` is what the row is called that it refers to; nobody knows if that ``is_locked``.
    """

    is_referring: ClassVar = False

    column: str
    text: str | None
    is_cut: bool = False
    is_hidden: bool = False
    is_number: bool = False
    label: str = ""
    is_locked: bool = False


@dataclass(frozen=True)
class Referring:
    """Rows that refer to one: the first ones' names, None where that is NULL, and how many more there are.

    Nobody knows if their table ``is_locked``.
    """

    is_referring: ClassVar = True

    column: str
    names: tuple[str | None, ...] = ()
    more: int = 0
    is_at_least: bool = False
    is_locked: bool = False


@dataclass(frozen=True)
class Line:
    """A row. ``key`` tells it from others of its table; "" where nothing does."""

    key: str
    cells: tuple[Cell | Referring, ...]
    is_after_gap: bool = False


@dataclass(frozen=True)
class Rows:
    """What is shown of a table's rows. ``left_out`` says what is not, in words; "" where nothing is."""

    heads: tuple[Head, ...] = ()
    lines: tuple[Line, ...] = ()
    left_out: str = ""
    more_columns: int = 0


@dataclass(frozen=True)
class _Link:
    """A foreign key: a column of a child refers to one of a parent, both with their types."""

    child: int
    column: str
    type: str
    parent: int
    target: str
    target_type: str
    is_indexed: bool


@dataclass
class _Draft:
    """A table, its primary key, and what was read of its rows: the values of columns by their names."""

    table: Table
    links: list[_Link]
    refers: list[_Link] = field(default_factory=list)
    rows: list[dict[str, str | None]] = field(default_factory=list)
    cells: list[list[str | None]] = field(default_factory=list)
    gap: int | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return next((rule.columns for rule in self.table.constraints if rule.kind == "primary key"), ())

    @property
    def keyed(self) -> list[str]:
        """The columns by which rows are told apart, and found."""
        found = [*self.key, *(link.target for link in self.links), *(link.column for link in self.refers)]
        return [*dict.fromkeys(found)]

    @property
    def columns(self) -> list[Column]:
        return [*self.table.columns.values()][:COLUMNS_SHOWN]

    @property
    def name(self) -> sql.Composable:
        return sql.Identifier(self.table.schema, self.table.relation)

    def is_secret(self, column: str) -> bool:
        return is_secret(column, table=self.table.relation)

    def text(self, column: Column, letters: int) -> sql.Composable:
        """Return the SQL of a value as text, cut to so many letters; of a secret nothing is read."""
        name = sql.Identifier(column.name)
        if self.is_secret(column.name):
            return sql.SQL("NULL")
        if column.type == "bytea":
            return sql.SQL("octet_length({}) || ' bytes'").format(name)
        if MOMENTS.match(column.type) and not column.type.endswith("]"):
            return sql.SQL("left(date_trunc('second', {})::text, 19)").format(name)
        return sql.SQL("left({}::text, {})").format(name, sql.Literal(letters))

    def label(self, *, beside: str = "") -> Column | None:
        """Return the column that says best what a row is, beside the one that refers to another."""
        columns = [column for column in self.table.columns.values() if not self.is_secret(column.name)]
        others = [column for column in columns if column.name not in (*self.key, beside)]
        return next((column for column in others if _is_words(column)), next(iter(others or columns), None))


def rows(
    cursor: Any, tables: Mapping[int, Table], locked: Mapping[int, str], app_label: str
) -> dict[int, Rows]:
    """Return the rows of an app's tables, given by their oids, for a cursor in a transaction of its own.

    ``locked`` are the names of those that must not be read.
    """
    cursor.execute(LINKS, {"oids": [*tables, *locked]})
    links = [_Link(*row) for row in cursor.fetchall()]
    relations = {**locked, **{oid: table.relation for oid, table in tables.items()}}
    drafts = {
        oid: _Draft(
            table,
            [link for link in links if link.parent == oid and _is_followed(link, tables)],
            [link for link in links if link.child == oid],
        )
        for oid, table in tables.items()
        if table.columns
    }
    cursor.execute(BY_INDEX)
    _read(cursor, drafts)
    referring, labels = _referring(cursor, drafts), _labels(cursor, drafts)
    shown = {}
    for oid, draft in drafts.items():
        titles = [_title(link, draft, plural(app_label, relations[link.child])) for link in draft.links]
        shown[oid] = _shown(draft, titles, referring, labels, locked)
    return shown


def _is_followed(link: _Link, tables: Mapping[int, Table]) -> bool:
    child = tables.get(link.child)
    if child is None:
        return link.is_indexed
    is_small = not child.is_estimate and child.rows is not None and child.rows <= SCANNED_ROWS
    return link.is_indexed or is_small


def _read(cursor: Any, drafts: Mapping[int, _Draft]) -> None:
    """Read the first rows of all tables, and the last of those that have a primary key."""
    parts = []
    for oid, draft in drafts.items():
        keys = [
            sql.SQL("left({}::text, {})").format(sql.Identifier(name), sql.Literal(KEY_LETTERS))
            for name in draft.keyed
        ]
        cells = [draft.text(column, LETTERS_SHOWN + 1) for column in draft.columns]
        order = [sql.Identifier(name) for name in draft.key]
        ends = [("", ROWS_SHOWN + 1)] + [(" DESC", LAST_ROWS)] * bool(order)
        for number, (direction, count) in enumerate(ends):
            by = [sql.SQL("{}" + direction).format(name) for name in order]
            parts.append(
                sql.SQL(
                    "SELECT {oid}, {number}, row_number() OVER () AS place, keys, cells FROM ("
                    "SELECT ARRAY[{keys}]::text[] AS keys, ARRAY[{cells}]::text[] AS cells FROM {table}"
                    "{order} LIMIT {count}) AS found"
                ).format(
                    oid=sql.Literal(oid),
                    number=sql.Literal(number),
                    keys=sql.SQL(", ").join(keys),
                    cells=sql.SQL(", ").join(cells),
                    table=draft.name,
                    order=sql.SQL(" ORDER BY ") + sql.SQL(", ").join(by) if by else sql.SQL(""),
                    count=sql.Literal(count),
                )
            )
    last: dict[int, list[tuple[list[str | None], list[str | None]]]] = {}
    for oid, number, _, keys, cells in _union(cursor, parts, order="1, 2, 3"):
        if number == 0:
            drafts[oid].rows.append(dict(zip(drafts[oid].keyed, keys, strict=True)))
            drafts[oid].cells.append(cells)
        else:
            last.setdefault(oid, []).insert(0, (keys, cells))
    for oid, draft in drafts.items():
        if len(draft.rows) > ROWS_SHOWN:
            ending = last.get(oid, [])
            draft.gap = ROWS_SHOWN - len(ending)
            draft.rows[draft.gap :] = [dict(zip(draft.keyed, keys, strict=True)) for keys, _ in ending]
            draft.cells[draft.gap :] = [cells for _, cells in ending]


def _referring(cursor: Any, drafts: Mapping[int, _Draft]) -> dict[tuple[_Link, str], _Found]:
    """Return the rows that refer to each of those that were read: what a Referring says of them."""
    parts: list[sql.Composable] = []
    links: list[_Link] = []
    for draft in drafts.values():
        for link in draft.links:
            if link.child not in drafts:
                continue
            child = drafts[link.child]
            label = child.label(beside=link.column)
            key = [sql.Identifier(name) for name in child.key]
            places = [sql.Identifier(f"key {number}") for number in range(len(key))]
            parts.append(
                sql.SQL(
                    "SELECT {number}, k.key, c.total, c.names FROM unnest({keys}::text[]) AS k (key) "
                    "CROSS JOIN LATERAL (SELECT count(*) AS total, "
                    "(array_agg(label{order}))[1:{named}] AS names FROM ("
                    "SELECT {label} AS label{key} FROM {table} WHERE {column} = k.key::{type} "
                    "LIMIT {counted}) AS found) AS c"
                ).format(
                    number=sql.Literal(len(links)),
                    keys=sql.Literal(_keys(draft, link.target)),
                    order=sql.SQL(" ORDER BY ") + sql.SQL(", ").join(places) if places else sql.SQL(""),
                    key=sql.SQL("").join(
                        sql.SQL(", {} AS {}").format(*each) for each in zip(key, places, strict=True)
                    ),
                    named=sql.Literal(NAMED),
                    label=child.text(label, NAME_LETTERS + 1) if label else sql.SQL("NULL"),
                    table=child.name,
                    column=sql.Identifier(link.column),
                    # As Postgres itself writes it.
                    type=sql.SQL(link.type),
                    counted=sql.Literal(COUNTED + 1),
                )
            )
            links.append(link)
    return {
        (links[number], key): (
            tuple(_cut(name, NAME_LETTERS)[0] for name in names or ()),
            min(total, COUNTED) - len(names or ()),
            total > COUNTED,
        )
        for number, key, total, names in _union(cursor, parts)
    }


def _labels(cursor: Any, drafts: Mapping[int, _Draft]) -> dict[tuple[_Link, str], str]:
    """Return what the rows are called that those which were read refer to."""
    parts: list[sql.Composable] = []
    links: list[_Link] = []
    for draft in drafts.values():
        for link in draft.refers:
            label = drafts[link.parent].label() if link.parent in drafts else None
            if label is None or not _is_words(label) or label.name == link.target:
                continue
            parts.append(
                sql.SQL(
                    "SELECT {number}, k.key, {label} FROM unnest({keys}::text[]) AS k (key) "
                    "JOIN {table} ON {target} = k.key::{type}"
                ).format(
                    number=sql.Literal(len(links)),
                    label=drafts[link.parent].text(label, NAME_LETTERS + 1),
                    keys=sql.Literal(_keys(draft, link.column)),
                    table=drafts[link.parent].name,
                    target=sql.Identifier(link.target),
                    type=sql.SQL(link.target_type),
                )
            )
            links.append(link)
    return {
        (links[number], key): _cut(label, NAME_LETTERS)[0] or ""
        for number, key, label in _union(cursor, parts)
    }


def _union(cursor: Any, parts: Sequence[sql.Composable], order: str = "1, 2") -> Iterator[tuple[Any, ...]]:
    if not parts:
        return
    together = sql.SQL(" UNION ALL ").join(sql.SQL("({})").format(part) for part in parts)
    # Without parameters, for which a percent sign in a name would be a placeholder.
    cursor.execute(together + sql.SQL(f" ORDER BY {order}"))
    yield from cursor.fetchall()


def _keys(draft: _Draft, column: str) -> list[str]:
    """Return the values of a column, each once, without those that are cut."""
    found = dict.fromkeys(row[column] for row in draft.rows)
    return [value for value in found if value is not None and len(value) < KEY_LETTERS]


def _cut(text: str | None, letters: int) -> tuple[str | None, bool]:
    if text is None or len(text) <= letters:
        return text, False
    return f"{text[:letters]}…", True


def _shown(
    draft: _Draft,
    titles: Sequence[str],
    referring: Mapping[tuple[_Link, str], _Found],
    labels: Mapping[tuple[_Link, str], str],
    locked: Mapping[int, str],
) -> Rows:
    refers = {link.column: link for link in draft.refers}
    # A number that stands for another row is none to be added up.
    numbers = {column.name for column in draft.columns if _is_number(column)} - refers.keys()
    heads = [Head(column.name, column.name in numbers) for column in draft.columns]
    # Who refers to a row stands beside what it is called.
    called = draft.label()
    names = [column.name for column in draft.columns]
    place = names.index(called.name) + 1 if called and called.name in names else len(names)
    children = [Head(title, is_referring=True) for title in titles]
    lines = []
    for number, (row, texts) in enumerate(zip(draft.rows, draft.cells, strict=True)):
        cells: list[Cell | Referring] = []
        for column, text in zip(draft.columns, texts, strict=True):
            cell = Cell(
                column.name, *_cut(text, LETTERS_SHOWN), draft.is_secret(column.name), column.name in numbers
            )
            link = refers.get(column.name)
            if link:
                label = labels.get((link, row[column.name] or ""), "")
                cell = replace(cell, label=label, is_locked=link.parent in locked)
            cells.append(cell)
        cells[place:place] = [
            replace(
                Referring(title, *referring.get((link, row[link.target] or ""), ())),
                is_locked=link.child in locked,
            )
            for link, title in zip(draft.links, titles, strict=True)
        ]
        key = "" if any(map(draft.is_secret, draft.key)) else " ".join(row[name] or "" for name in draft.key)
        lines.append(Line(key, tuple(cells), number == draft.gap))
    return Rows(
        (*heads[:place], *children, *heads[place:]),
        tuple(lines),
        _left_out(draft),
        len(draft.table.columns) - len(draft.columns),
    )


def _title(link: _Link, draft: _Draft, name: str) -> str:
    """Say whose rows refer to one, and by which column where there are several."""
    is_one_of_many = sum(other.child == link.child for other in draft.links) > 1
    return f"{name} by {link.column}" if is_one_of_many else name


def _left_out(draft: _Draft) -> str:
    if draft.gap is None:
        return ""
    table = draft.table
    if table.rows is None or table.rows <= ROWS_SHOWN:
        return "more rows"
    about = "about " if table.is_estimate else ""
    count = table.rows - ROWS_SHOWN
    return f"{about}{count:,} more row{'' if count == 1 else 's'}"


def _is_words(column: Column) -> bool:
    return WORDS.match(column.type) is not None


def _is_number(column: Column) -> bool:
    return NUMBERS.match(column.type) is not None and not column.type.endswith("]")
