"""What the database's tables look like now, and the difference between two such looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from django.apps import apps as installed
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.schema import scratch
from workbench.schema.errors import SchemaError
from workbench.schema.history import Models, check_label, history_of
from workbench.schema.show import ADDED, CHANGED, REMOVED, Grid, Part, Row, Shown, Words

# Rows of a table beyond this size are estimated, as Postgres does: counting reads all of it.
COUNTED_BYTES = 64_000_000
# A count locks its table and all indexes of it, and the server has room for so many locks only.
COUNTED_AT_ONCE = 100

# pg_catalog as of https://www.postgresql.org/docs/current/catalogs.html. Each takes the schemas' oids.
TABLES = """
SELECT c.oid, n.nspname, c.relname, pg_table_is_visible(c.oid), c.relkind::text,
       format('%%I.%%I', nspname, relname), pg_relation_size(c.oid), c.reltuples::bigint,
       has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND n.oid = ANY(%(schemas)s)
ORDER BY n.nspname, c.relname
"""
COLUMNS = """
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
       CASE WHEN a.attcollation <> t.typcollation THEN l.collname END
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE c.relkind IN ('r', 'p', 'f') AND c.relnamespace = ANY(%(schemas)s)
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""
# Postgres 18 lists NOT NULL here too, which the columns say.
CONSTRAINTS = """
SELECT o.conrelid, o.conname, o.contype::text, pg_get_constraintdef(o.oid)
FROM pg_constraint o
WHERE o.conrelid <> 0 AND o.contype IN ('p', 'u', 'f', 'c', 'x') AND o.connamespace = ANY(%(schemas)s)
ORDER BY o.conrelid, position(o.contype::text in 'pufcx'), o.conname
"""
INDEXES = """
SELECT i.indrelid, c.relname, i.indisunique, i.indisvalid, quote_ident(t.relname),
       pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE c.relnamespace = ANY(%(schemas)s)
  AND NOT EXISTS
      (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid AND o.contype IN ('p', 'u', 'x'))
ORDER BY i.indrelid, c.relname
"""
SCHEMAS = """
SELECT oid, nspname FROM pg_namespace
WHERE has_schema_privilege(oid, 'USAGE') AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%'
"""
OWN_SCHEMA = "SELECT pg_my_temp_schema(), 'pg_temp'"

KINDS = {"p": "primary key", "u": "unique", "f": "foreign key", "c": "check", "x": "exclusion"}


@dataclass(frozen=True)
class Column:
    """A column; ``default`` is an SQL expression, ``generated`` the one of a generated column."""

    name: str
    type: str
    is_nullable: bool
    default: str | None = None
    identity: str = ""
    generated: str | None = None
    collation: str | None = None

    def __str__(self) -> str:
        said = [self.type, "" if self.is_nullable else "NOT NULL"]
        if self.collation:
            said.append(f"COLLATE {self.collation}")
        if self.default is not None:
            said.append(f"DEFAULT {self.default}")
        if self.identity:
            said.append(f"GENERATED {self.identity} AS IDENTITY")
        if self.generated is not None:
            said.append(f"GENERATED AS ({self.generated})")
        return " ".join(filter(None, said))


@dataclass(frozen=True)
class Constraint:
    """A primary key, unique, foreign key, check or exclusion constraint, as Postgres would write it."""

    name: str
    kind: str
    definition: str

    def __str__(self) -> str:
        return self.definition.removeprefix(f"{self.kind.upper()} ")


@dataclass(frozen=True)
class Index:
    """An index that is not a constraint's own."""

    name: str
    is_unique: bool
    definition: str
    is_valid: bool = True

    kind: ClassVar = "index"

    def __str__(self) -> str:
        unique = "UNIQUE " if self.is_unique else ""
        return f"{unique}{self.definition}{'' if self.is_valid else ' INVALID'}"


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """A table. ``name`` is as a query would have to say it, with its schema where that is not searched.

    The order of columns means nothing to Postgres, so it is left out of comparisons, as are the rows.
    ``rows`` is None where the role may not read them.
    """

    name: str
    columns: dict[str, Column]
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    rows: int | None = field(default=None, compare=False)
    is_estimate: bool = field(default=False, compare=False)

    @property
    def rules(self) -> tuple[Constraint | Index, ...]:
        """Constraints, then indexes."""
        return (*self.constraints, *self.indexes)

    @property
    def said_rows(self) -> str:
        if self.rows is None:
            return "rows unknown"
        about = "about " if self.is_estimate else ""
        return f"{about}{self.rows:,} row{'' if self.rows == 1 else 's'}"

    def _parts(self) -> Iterator[Part]:
        rows = [Row([column.name, str(column)]) for column in self.columns.values()]
        rows += [Row([each.kind, str(each)]) for each in self.rules]
        yield Grid(f"{self.name} ({self.said_rows})", rows)


@dataclass(frozen=True, repr=False)
class Snapshot(Shown):
    """The tables of a database by their names. Equal to another where the schema is, whatever the rows.

    ``snapshot() - before`` is what happened since; ``snapshot() - models_at(...)`` is what the database has
    otherwise than Django would have made it of the models.
    """

    tables: dict[str, Table]
    using: str = field(default=DEFAULT_DB_ALIAS, compare=False)

    def __getitem__(self, name: str) -> Table:
        try:
            return self.tables[name]
        except KeyError:
            raise SchemaError(f"There is no table {name!r}: there are {', '.join(self.tables)}.") from None

    def __iter__(self) -> Iterator[Table]:
        return iter(self.tables.values())

    def __len__(self) -> int:
        return len(self.tables)

    def _parts(self) -> Iterator[Part]:
        if not self.tables:
            yield Words("No tables.")
        for table in self:
            yield from table._parts()

    def __sub__(self, other: Any) -> Difference:
        if isinstance(other, Models):
            return _drift(self, other)
        if isinstance(other, Snapshot):
            return Difference(tuple(_changes(other, self)))
        return NotImplemented


@dataclass(frozen=True)
class Change:
    """One line of a difference: a sign, + - or ~, of what kind it is, and texts of before and after."""

    sign: str
    table: str
    what: str
    name: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        said = " ".join(filter(None, [self.sign, self.table, self.what, self.name]))
        return f"{said}: {_arrow(self)}" if self.before or self.after else said


@dataclass(frozen=True, repr=False)
class Difference(Shown):
    """What differs between two snapshots. False where nothing does."""

    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def _parts(self) -> Iterator[Part]:
        if not self.changes:
            yield Words("No difference.")
        by_table: dict[str, list[Change]] = {}
        for change in self.changes:
            by_table.setdefault(change.table, []).append(change)
        for table, changes in by_table.items():
            rows = [Row([change.what, change.name, _arrow(change)], change.sign) for change in changes]
            yield Grid(table, rows)


def _arrow(change: Change) -> str:
    return " → ".join(filter(None, [change.before, change.after]))


def snapshot(
    *app_labels: str, schemas: Sequence[str] | None = None, using: str = DEFAULT_DB_ALIAS
) -> Snapshot:
    """Return the tables as the database has them, all that the role can see, or those of some apps.

    ``schemas`` names Postgres' schemas to look into. A handful of queries, however many tables there are.
    Raises SchemaError: no such app, no such schema.
    """
    connection = connections[using]
    found = read(connection, schemas)
    if app_labels:
        ours = {name for label in app_labels for name in tables_of(connection, label, found.tables)}
        found = Snapshot({name: table for name, table in found.tables.items() if name in ours}, using)
    return found


def read(
    connection: BaseDatabaseWrapper, schemas: Sequence[str] | None = None, *, temporary: bool = False
) -> Snapshot:
    """Return a snapshot of the schemas, or of the connection's own temporary tables."""
    with connection.cursor() as cursor:
        cursor.execute(OWN_SCHEMA if temporary else SCHEMAS)
        visible = {name: oid for oid, name in cursor.fetchall()}
        if schemas is not None:
            if missing := [name for name in schemas if name not in visible]:
                there = ", ".join(visible)
                raise SchemaError(f"There is no schema {missing[0]!r} that this role sees: it sees {there}.")
            visible = {name: visible[name] for name in schemas}
        params = {"schemas": list(visible.values())}
        columns: dict[int, dict[str, Column]] = {}
        cursor.execute(COLUMNS, params)
        for oid, name, type_, is_nullable, default, identity, generated, collation in cursor.fetchall():
            columns.setdefault(oid, {})[name] = Column(
                name,
                type_.replace("character varying", "varchar"),
                is_nullable,
                None if generated else default,
                {"a": "ALWAYS", "d": "BY DEFAULT"}.get(identity, ""),
                default if generated else None,
                collation,
            )
        constraints: dict[int, list[Constraint]] = {}
        cursor.execute(CONSTRAINTS, params)
        for oid, name, kind, definition in cursor.fetchall():
            constraints.setdefault(oid, []).append(Constraint(name, KINDS[kind], definition))
        indexes: dict[int, list[Index]] = {}
        cursor.execute(INDEXES, params)
        for oid, name, is_unique, is_valid, quoted, definition in cursor.fetchall():
            # CREATE INDEX name ON schema.table USING method (...): what follows the names.
            definition = definition.partition(f"{quoted} USING ")[2]
            indexes.setdefault(oid, []).append(Index(name, is_unique, definition, is_valid))
        cursor.execute(TABLES, params)
        found = cursor.fetchall()
        counts = _counts(cursor, found)
    tables = {}
    for oid, schema, name, is_visible, _, _, _, estimate, may_read in found:
        said = name if is_visible else f"{schema}.{name}"
        tables[said] = Table(
            said,
            columns.get(oid, {}),
            tuple(constraints.get(oid, ())),
            tuple(indexes.get(oid, ())),
            (counts.get(oid, max(estimate, 0))) if may_read else None,
            oid not in counts,
        )
    return Snapshot(tables, connection.alias)


def _counts(cursor: Any, found: list[tuple[Any, ...]]) -> dict[int, int]:
    """Return the rows of each table that is not too large to count."""
    counts = {}
    waiting = []
    for oid, _, _, _, kind, quoted, size, _, may_read in found:
        if not may_read or kind == "f" or size > COUNTED_BYTES:
            continue
        if size or kind == "p":
            waiting.append(f"SELECT {oid}, count(*) FROM {quoted}")
        else:
            counts[oid] = 0
    for start in range(0, len(waiting), COUNTED_AT_ONCE):
        cursor.execute(" UNION ALL ".join(waiting[start : start + COUNTED_AT_ONCE]))
        counts.update(cursor.fetchall())
    return counts


def tables_of(connection: BaseDatabaseWrapper, app_label: str, known: Iterable[str]) -> list[str]:
    """Return those of the known tables that are an app's: its models', or else by the start of their name."""
    check_label(app_label)
    owners: dict[str, str] = {}
    history = history_of(connection)
    registries = [history.newest().apps, installed]
    for registry in registries:
        for model in registry.get_models(include_auto_created=True):
            owners[scratch.table_of(model)] = model._meta.app_label
    return [
        name
        for name in known
        if owners.get(name) == app_label or (name not in owners and name.startswith(f"{app_label}_"))
    ]


def _changes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for name in sorted({*before.tables, *after.tables}):
        old, new = before.tables.get(name), after.tables.get(name)
        if old is None or new is None:
            table = new or old
            assert table is not None
            sign = ADDED if old is None else REMOVED
            yield Change(sign, name, "table", "", table.said_rows)
            blank = Table(name, {})
            yield from _table_changes(old or blank, new or blank)
        else:
            yield from _table_changes(old, new)
            if old.rows != new.rows:
                yield Change(CHANGED, name, "rows", "", old.said_rows, new.said_rows)


def _table_changes(old: Table, new: Table, named: frozenset[str] | None = None) -> Iterator[Change]:
    """Yield what differs; ``named`` are the only constraints and indexes whose names count, if given."""
    for column in {**old.columns, **new.columns}:
        was, is_ = old.columns.get(column), new.columns.get(column)
        if was != is_:
            yield _change(new.name, "column", column, was, is_)
    yield from _definition_changes(old, new, named)


def _definition_changes(old: Table, new: Table, named: frozenset[str] | None) -> Iterator[Change]:
    """Compare constraints and indexes by name, and what is left by what they say."""
    was = {each.name: each for each in old.rules}
    is_ = {each.name: each for each in new.rules}
    for name in was.keys() & is_.keys():
        if was[name] == is_[name]:
            del was[name], is_[name]
    for name, each in list(was.items()):
        twin = next((other for other, that in is_.items() if replace(that, name=name) == each), None)
        if twin is None:
            continue
        if named is None or name in named:
            yield Change(CHANGED, new.name, each.kind, "", name, twin)
        del was[name], is_[twin]
    for name in {**was, **is_}:
        some = was.get(name) or is_[name]
        yield _change(new.name, some.kind, name, was.get(name), is_.get(name))


def _change(table: str, what: str, name: str, old: Any, new: Any) -> Change:
    sign = ADDED if old is None else REMOVED if new is None else CHANGED
    return Change(sign, table, what, name, "" if old is None else str(old), "" if new is None else str(new))


def _drift(found: Snapshot, models: Models) -> Difference:
    """Compare with what Django makes of the models; the names that it makes up do not count."""
    connection = connections[models.using]
    expected = expected_tables(connection, models)
    names = {*expected.tables, *tables_of(connection, models.app_label, found.tables)}
    named = frozenset(
        each.name for model in models for each in (*model._meta.constraints, *model._meta.indexes)
    )
    changes: list[Change] = []
    for name in sorted(names):
        old, new = expected.tables.get(name), found.tables.get(name)
        if old is not None and new is not None:
            changes += _table_changes(old, new, named)
        else:
            changes.append(Change(REMOVED if new is None else ADDED, name, "table"))
    return Difference(tuple(changes))


def expected_tables(connection: BaseDatabaseWrapper, models: Models) -> Snapshot:
    """Return the tables that Django makes of an app's models, made for a moment on the same server."""
    with scratch.tables(connection, models) as (session, names):
        made = read(session, temporary=True)
    elsewhere = [name for name in made.tables if "." in name]
    return Snapshot({name: _resolved(made[name], elsewhere) for name in made.tables if name in names})


def _resolved(table: Table, elsewhere: list[str]) -> Table:
    """Let foreign keys into other schemas name them as the real ones do."""
    constraints = table.constraints
    for name in elsewhere:
        constraints = tuple(
            replace(each, definition=each.definition.replace(f'"{name}"', name)) for each in constraints
        )
    return replace(table, constraints=constraints)
