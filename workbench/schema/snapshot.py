"""What the database's tables look like now, and the difference between two such looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from django.apps import apps as installed
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.progress import Progress
from workbench.schema import scratch
from workbench.schema.errors import SchemaError
from workbench.schema.history import Models, check_label, connection_to, history_of
from workbench.show import ADDED, CHANGED, REMOVED, Grid, Part, Row, Shown, Words

# Rows of a table beyond this size are estimated, as Postgres does: counting reads all of it.
COUNTED_BYTES = 64_000_000
# A count locks its table and all indexes of it, and the server has room for so many locks only.
COUNTED_AT_ONCE = 100

# pg_catalog as of https://www.postgresql.org/docs/current/catalogs.html. Each takes the schemas' oids, and
# the tables', or NULL for all: even what one only asks about may have to wait for a lock.
# A partitioned table's rows are those of its partitions, a foreign one's are on another server.
TABLES = """
SELECT c.oid, n.nspname, c.relname, pg_table_is_visible(c.oid), c.oid::regclass::text,
       CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid)
            WHEN c.relkind = 'p' THEN
                (SELECT coalesce(sum(pg_relation_size(relid)), 0)::bigint FROM pg_partition_tree(c.oid))
       END,
       c.relkind = 'f' OR c.relkind = 'p' AND EXISTS
           (SELECT FROM pg_partition_tree(c.oid) JOIN pg_class l ON l.oid = relid WHERE l.relkind = 'f'),
       CASE WHEN c.relkind = 'r' THEN 'ONLY ' ELSE '' END,
       c.reltuples::bigint, has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND n.oid = ANY(%(schemas)s)
  AND (%(oids)s::oid[] IS NULL OR c.oid = ANY(%(oids)s::oid[]))
ORDER BY n.nspname, c.relname
"""
COLUMNS = """
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
       CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p', 'f') AND c.relnamespace = ANY(%(schemas)s)
  AND a.attnum > 0 AND NOT a.attisdropped AND (%(oids)s::oid[] IS NULL OR c.oid = ANY(%(oids)s::oid[]))
ORDER BY a.attrelid, a.attnum
"""
# Postgres 18 lists NOT NULL here too, which the columns say. A foreign key into a partitioned table is there
# once more for each partition.
CONSTRAINTS = """
SELECT o.conrelid, o.conname, o.contype::text, pg_get_constraintdef(o.oid),
       ARRAY(SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.number ORDER BY k.place),
       CASE WHEN o.confrelid <> 0 THEN o.confrelid::regclass::text END
FROM pg_constraint o
WHERE o.conrelid <> 0 AND o.contype IN ('p', 'u', 'f', 'c', 'x') AND o.connamespace = ANY(%(schemas)s)
  AND (%(oids)s::oid[] IS NULL OR o.conrelid = ANY(%(oids)s::oid[]))
  AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = o.conparentid AND p.conrelid = o.conrelid)
ORDER BY o.conrelid, position(o.contype::text in 'pufcx'), o.conname
"""
INDEXES = """
SELECT i.indrelid, c.relname, i.indisunique, i.indisvalid, c.oid::regclass::text, quote_ident(c.relname),
       quote_ident(t.relname), pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE c.relnamespace = ANY(%(schemas)s) AND (%(oids)s::oid[] IS NULL OR t.oid = ANY(%(oids)s::oid[]))
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
    is_stored: bool = False
    collation: str | None = None

    def __str__(self) -> str:
        said = [self.type]
        if self.collation:
            said.append(f"COLLATE {self.collation}")
        if not self.is_nullable:
            said.append("NOT NULL")
        if self.default is not None:
            said.append(f"DEFAULT {self.default}")
        if self.identity:
            said.append(f"GENERATED {self.identity} AS IDENTITY")
        if self.generated is not None:
            kind = "STORED" if self.is_stored else "VIRTUAL"
            said.append(f"GENERATED ALWAYS AS ({self.generated}) {kind}")
        return " ".join(said)


@dataclass(frozen=True)
class Constraint:
    """A primary key, unique, foreign key, check or exclusion constraint, as Postgres would write it.

    ``target`` is the table that a foreign key refers to, as SQL would name it.
    """

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...] = field(default=(), compare=False)
    target: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.definition.removeprefix(f"{self.kind.upper()} ")


@dataclass(frozen=True)
class Index:
    """An index that is not a constraint's own; ``sql_name`` is as SQL would name it."""

    name: str
    is_unique: bool
    definition: str
    is_valid: bool = True
    sql_name: str = field(default="", compare=False)

    kind: ClassVar = "index"

    def __str__(self) -> str:
        unique = "UNIQUE " if self.is_unique else ""
        return f"{unique}{self.definition}{'' if self.is_valid else ' INVALID'}"


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """A table. ``name`` has its schema before it where that is not searched; ``sql_name`` is as SQL names it.

    The order of columns means nothing to Postgres, so it is left out of comparisons, as are the rows.
    ``rows`` is None where the role may not read them, or nobody knows.
    """

    name: str
    columns: dict[str, Column]
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    rows: int | None = field(default=None, compare=False)
    is_estimate: bool = field(default=False, compare=False)
    sql_name: str = field(default="", compare=False)
    schema: str = field(default="", compare=False)
    relation: str = field(default="", compare=False)

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
    """The tables of a database by their names, equal to another's that are defined alike, whatever the rows.

    Comments, triggers, policies and storage are no part of it.

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
            return compared(self, expected_tables(connection_to(other.using), other, self), other)
        if isinstance(other, Snapshot):
            return Difference(tuple(_changes(other, self)))
        return NotImplemented


@dataclass(frozen=True)
class Change:
    """One line of a difference: a sign, + - or ~, of what kind it is, and texts of before and after.

    ``old`` and ``new`` are the column, constraint or index itself; ``sql_table`` is the table as SQL has it.
    """

    sign: str
    table: str
    what: str
    name: str = ""
    before: str = ""
    after: str = ""
    old: Column | Constraint | Index | None = field(default=None, compare=False, repr=False)
    new: Column | Constraint | Index | None = field(default=None, compare=False, repr=False)
    sql_table: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        said = " ".join(filter(None, [self.sign, self.table, self.what, self.name]))
        text = f"{said}: {_arrow(self)}" if self.before or self.after else said
        return " ".join(text.split())


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
    *app_labels: str, schemas: str | Sequence[str] | None = None, using: str = DEFAULT_DB_ALIAS
) -> Snapshot:
    """Return the tables as the database has them: columns, keys, indexes, rows.

    All that the role can see, or those of some apps. ``schemas`` are Postgres' schemas to look into. One less
    another is what has changed. A handful of queries, however many tables there are. Raises SchemaError: no
    such app, no such schema.

    Examples::

        snapshot("catalog")
        snapshot("catalog")["catalog_author"]
        snapshot("catalog") - models_at("catalog", "0001")
    """
    found = read(connection_to(using), [schemas] if isinstance(schemas, str) else schemas)
    return only(found, *app_labels) if app_labels else found


def only(found: Snapshot, *app_labels: str) -> Snapshot:
    """Return the tables of some apps. Raises SchemaError: no such app."""
    ours = tables_of(connection_to(found.using), app_labels, found.tables)
    return Snapshot({name: found[name] for name in ours}, found.using)


def read(
    connection: BaseDatabaseWrapper,
    schemas: Sequence[str] | None = None,
    *,
    temporary: bool = False,
    counted: bool = True,
    oids: Sequence[int] | None = None,
) -> Snapshot:
    """Return a snapshot of the schemas, of some tables in them, or of the connection's own temporary tables.

    Without being ``counted`` all rows are Postgres' estimates.
    """
    with connection.cursor() as cursor:
        cursor.execute(OWN_SCHEMA if temporary else SCHEMAS)
        visible = {name: oid for oid, name in cursor.fetchall()}
        if schemas is not None:
            if missing := [name for name in schemas if name not in visible]:
                there = ", ".join(visible)
                raise SchemaError(f"There is no schema {missing[0]!r} that this role sees: it sees {there}.")
            visible = {name: visible[name] for name in schemas}
        params = {"schemas": list(visible.values()), "oids": None if oids is None else list(oids)}
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
                generated == "s",
                collation,
            )
        constraints: dict[int, list[Constraint]] = {}
        cursor.execute(CONSTRAINTS, params)
        for oid, name, kind, definition, keys, target in cursor.fetchall():
            made = Constraint(name, KINDS[kind], definition, tuple(keys), target)
            constraints.setdefault(oid, []).append(made)
        indexes: dict[int, list[Index]] = {}
        cursor.execute(INDEXES, params)
        for oid, name, is_unique, is_valid, sql_name, quoted, table, definition in cursor.fetchall():
            # CREATE INDEX name ON schema.table USING method (...): what follows the names.
            after = definition[definition.index(quoted) + len(quoted) :].partition(f"{table} USING ")[2]
            indexes.setdefault(oid, []).append(Index(name, is_unique, after, is_valid, sql_name))
        cursor.execute(TABLES, params)
        found = cursor.fetchall()
        counts = _counts(cursor, found) if counted else {}
    tables = {}
    far = {f"{schema}.{relation}" for _, schema, relation, is_visible, *_ in found if not is_visible}
    for oid, schema, relation, is_visible, sql_name, _, _, _, estimate, may_read in found:
        name = relation if is_visible else f"{_part(schema)}.{_part(relation)}"
        if is_visible and name in far:
            name = _part(name)
        tables[name] = Table(
            name,
            columns.get(oid, {}),
            tuple(constraints.get(oid, ())),
            tuple(indexes.get(oid, ())),
            counts.get(oid, None if estimate < 0 else estimate) if may_read else None,
            oid not in counts,
            sql_name,
            schema,
            relation,
        )
    return Snapshot(tables, connection.alias)


def _part(name: str) -> str:
    """Return a name so that its own dots cannot be taken for the one between schema and table."""
    return f'"{name}"' if "." in name else name


def _counts(cursor: Any, found: list[tuple[Any, ...]]) -> dict[int, int]:
    """Return the rows of each table that is neither too large to count nor on another server."""
    counts = {}
    waiting = []
    for oid, _, _, _, sql_name, size, is_foreign, only, _, may_read in found:
        if not may_read or is_foreign or size > COUNTED_BYTES:
            continue
        if size:
            waiting.append(f"SELECT {oid}, count(*) FROM {only}{sql_name}")
        else:
            counts[oid] = 0
    with Progress("Counting rows", len(waiting), unit="tables") as progress:
        for start in range(0, len(waiting), COUNTED_AT_ONCE):
            cursor.execute(" UNION ALL ".join(waiting[start : start + COUNTED_AT_ONCE]))
            counts.update(cursor.fetchall())
            progress.done = min(start + COUNTED_AT_ONCE, len(waiting))
    return counts


def tables_of(
    connection: BaseDatabaseWrapper, app_labels: Sequence[str], known: Mapping[str, Table]
) -> list[str]:
    """Return those of the known tables that are some apps': their models', or by the start of their name."""
    for label in app_labels:
        check_label(label)
    beginnings = tuple(f"{label}_" for label in app_labels)
    owners: dict[scratch.Place, str] = {}
    history = history_of(connection)
    for registry in (history.newest().apps, installed):
        for model in registry.get_models(include_auto_created=True):
            if model._meta.can_migrate(connection):
                owners[scratch.place_of(model)] = model._meta.app_label

    def owner(table: Table) -> str | None:
        return owners.get((table.schema, table.relation)) or owners.get((None, table.name))

    return [
        name
        for name, table in known.items()
        if owner(table) in app_labels or (not owner(table) and name.startswith(beginnings))
    ]


def _changes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for name in sorted({*before.tables, *after.tables}):
        old, new = before.tables.get(name), after.tables.get(name)
        if old is None or new is None:
            table = new or old
            assert table is not None
            yield Change(REMOVED if new is None else ADDED, name, "table", "", table.said_rows)
            blank = Table(name, {})
            yield from _table_changes(old or blank, new or blank)
        else:
            yield from _table_changes(old, new)
            if old.rows != new.rows:
                yield Change(CHANGED, name, "rows", "", old.said_rows, new.said_rows)


def _table_changes(old: Table, new: Table, named: frozenset[str] | None = None) -> Iterator[Change]:
    """Yield what differs; ``named`` are the only constraints and indexes whose names count, if given.

    Constraints and indexes are compared by name, and what is left by what they say.
    """
    for column in {**old.columns, **new.columns}:
        if old.columns.get(column) != new.columns.get(column):
            yield _change(new, "column", column, old.columns.get(column), new.columns.get(column))
    was = {each.name: each for each in old.rules}
    is_ = {each.name: each for each in new.rules}
    for name in was.keys() & is_.keys():
        if was[name] == is_[name]:
            del was[name], is_[name]
    for name, each in list(was.items()):
        twin = next((that for that in is_.values() if replace(that, name=name) == each), None)
        if twin is None:
            continue
        if named is None or name in named:
            yield Change(
                CHANGED, new.name, each.kind, "", name, twin.name, old=each, new=twin, sql_table=new.sql_name
            )
        del was[name], is_[twin.name]
    for name in {**was, **is_}:
        some = was.get(name) or is_[name]
        yield _change(new, some.kind, name, was.get(name), is_.get(name))


def _change(table: Table, what: str, name: str, old: Any, new: Any) -> Change:
    sign = ADDED if old is None else REMOVED if new is None else CHANGED
    before, after = ("" if each is None else str(each) for each in (old, new))
    return Change(sign, table.name, what, name, before, after, old, new, table.sql_name)


def compared(found: Snapshot, expected: Snapshot, models: Models) -> Difference:
    """Compare with what Django makes of the models; the names that it makes up do not count."""
    names = {*expected.tables, *tables_of(connection_to(models.using), [models.app_label], found.tables)}
    named = frozenset(
        each.name for model in models for each in (*model._meta.constraints, *model._meta.indexes)
    )
    changes: list[Change] = []
    for name in sorted(names):
        old, new = expected.tables.get(name), found.tables.get(name)
        if old is not None and new is not None:
            changes += _table_changes(old, new, named)
        else:
            sql_name = new.sql_name if new else ""
            changes.append(Change(REMOVED if new is None else ADDED, name, "table", sql_table=sql_name))
    return Difference(tuple(changes))


def expected_tables(
    connection: BaseDatabaseWrapper, models: Models, found: Snapshot | None = None
) -> Snapshot:
    """Return the tables that Django makes of an app's models, made for a moment on the same server.

    They are named as those of ``found`` are, a snapshot of all schemas.
    """
    real = (read(connection, counted=False) if found is None else found).tables.values()
    there: dict[scratch.Place, Table] = {(table.schema, table.relation): table for table in real}
    there |= {(None, table.name): table for table in real}
    with scratch.tables(connection, models) as made:
        temporary = read(made.session, temporary=True)
    names = {}
    for table in temporary:
        place = made.places[table.relation]
        name = scratch.name_of(place)
        sql_name = name if place[0] else table.sql_name
        names[table.sql_name] = there.get(place, replace(table, name=name, sql_name=sql_name))
    return Snapshot(
        {
            names[table.sql_name].name: _as_real(table, names)
            for table in temporary
            if table.relation in made.wanted
        },
        connection.alias,
    )


def _as_real(table: Table, names: Mapping[str, Table]) -> Table:
    """Give a temporary table the name of the real one, and its foreign keys their targets'."""
    constraints = tuple(
        replace(
            each,
            target=names[each.target].sql_name,
            definition=each.definition.replace(
                f" REFERENCES {each.target}(", f" REFERENCES {names[each.target].sql_name}(", 1
            ),
        )
        if each.target
        else each
        for each in table.constraints
    )
    real = names[table.sql_name]
    return replace(table, name=real.name, sql_name=real.sql_name, constraints=constraints)
