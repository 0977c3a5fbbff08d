"""What interrupted migrations leave: half of their operations, and invalid indexes.

A migration with ``atomic = False`` that was interrupted is not recorded, and what it did stays, so it fails
when it is run again. The tables say how far it came: each operation is compared with what Django would make
of the models before and after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration, RunPython, RunSQL, SeparateDatabaseAndState
from django.db.migrations.graph import Node
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from workbench.schema.effects import described
from workbench.schema.errors import SchemaError
from workbench.schema.history import Key, Models, Point
from workbench.schema.losses import Plan
from workbench.schema.mend import mend
from workbench.schema.snapshot import Change, Constraint, Index, Snapshot, Table, expected_tables, read
from workbench.show import ADDED, CHANGED, REMOVED

# One that somebody makes at this moment is invalid too, and they hold such a lock on its table. A partitioned
# table's own index ('I') is invalid as long as a partition lacks one.
INVALID = """
SELECT c.relname, c.oid::regclass::text, i.indrelid::regclass::text
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname NOT LIKE 'pg\\_%'
  AND pg_has_role(c.relowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = i.indrelid AND l.granted
                  AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid <> pg_backend_pid())
ORDER BY 2
"""
# What an interrupted REINDEX CONCURRENTLY leaves: https://www.postgresql.org/docs/current/sql-reindex.html
LEFTOVER = re.compile(r"_cc(?:new|old)\d*$")

Rule = Constraint | Index
NO_TABLE = Table("", {})


@dataclass(frozen=True)
class InvalidIndex:
    """An index that Postgres keeps up to date and does not read. Both names are as SQL has them."""

    name: str
    sql_name: str
    table: str

    @property
    def drop(self) -> str:
        return f"DROP INDEX CONCURRENTLY {self.sql_name}"

    @property
    def remedy(self) -> str:
        """The SQL that repairs it."""
        return self.drop if LEFTOVER.search(self.name) else f"REINDEX INDEX CONCURRENTLY {self.sql_name}"


def invalid_indexes(connection: BaseDatabaseWrapper) -> list[InvalidIndex]:
    """Return those of the database that the role may repair, leftovers first. One round trip."""
    with connection.cursor() as cursor:
        cursor.execute(INVALID)
        found = [InvalidIndex(*row) for row in cursor.fetchall()]
    return sorted(found, key=lambda index: not LEFTOVER.search(index.name))


@dataclass(frozen=True)
class Interruption:
    """A migration, forwards or backwards, that was not done to its end.

    ``stays`` is how many of its operations, from the first on, are in the database. ``untold`` are those next
    to the place where it ends that leave no trace. ``invalid`` are indexes that it began to make, ``missing``
    are constraints and indexes of what is done.
    """

    migration: Migration
    is_backwards: bool
    stays: int
    untold: tuple[str, ...]
    invalid: tuple[InvalidIndex, ...]
    missing: tuple[Change, ...]

    def __str__(self) -> str:
        operations = self.migration.operations
        done = operations[self.stays :] if self.is_backwards else operations[: self.stays]
        said = f"{len(done)} of its {len(operations)} operations {'is' if len(done) == 1 else 'are'} "
        said += "undone" if self.is_backwards else "done"
        if done:
            said += f" ({', '.join(map(described, done))})"
        for index in self.invalid:
            said += f", the index {index.name} is invalid"
        for change in self.missing:
            said += f", the {change.what} {change.name} is missing"
        if self.untold:
            said += f". Whether it came to {', '.join(self.untold)} cannot be told: that runs, perhaps again"
        return f"{self.migration} was interrupted: {said}."

    def go_on(self) -> None:
        """Let the migration do only what is left of it, after the repair of what is broken."""
        sql: Any = [index.drop for index in self.invalid] + [mend(change) for change in self.missing]
        first, last = self.migration.operations[: self.stays], self.migration.operations[self.stays :]
        if self.is_backwards:
            last = [SeparateDatabaseAndState(state_operations=[each]) for each in last]
        else:
            first = [SeparateDatabaseAndState(state_operations=[each]) for each in first]
        self.migration.operations = [*first, RunSQL(sql, reverse_sql=sql), *last]  # type: ignore[misc]


def interruptions(connection: BaseDatabaseWrapper, plan: Plan) -> Iterator[Interruption]:
    """Yield those migrations of a plan that were begun before and interrupted, as the tables tell.

    Costs nothing where no migration with ``atomic = False`` is about to run. Raises SchemaError for one that
    stopped within an operation.
    """
    candidates = [(migration, is_backwards) for migration, is_backwards in plan if not migration.atomic]
    if not candidates:
        return
    loader = MigrationLoader(connection)
    found = read(connection, counted=False)
    for migration, is_backwards in candidates:
        key = (migration.app_label, migration.name)
        node = loader.graph.node_map.get(key)
        if node is None or not _may_have_begun(node, is_backwards, loader):
            continue
        state = loader.project_state(key, at_end=False)
        try:
            steps = _steps(connection, found, migration, state)
        except SchemaError:
            continue  # The tables cannot be made for a comparison, so nothing can be told.
        if interruption := _interruption(connection, found, migration, is_backwards, steps):
            yield interruption


def _may_have_begun(node: Node, is_backwards: bool, loader: MigrationLoader) -> bool:
    applied = loader.applied_migrations
    if is_backwards:
        return not any(each.key in applied for each in node.children)
    return all(each.key in applied for each in node.parents)


@dataclass(frozen=True)
class Step:
    """An operation, the changes that it makes to tables, and those of them that are not there.

    ``is_begun`` says that something is. ``after`` is the state after it, ``models`` those whose state it
    changes.
    """

    operation: Operation
    after: ProjectState
    models: frozenset[Key]
    changes: tuple[Change, ...]
    lacks: tuple[Change, ...]
    is_begun: bool

    @property
    def is_done(self) -> bool:
        """Constraints and indexes may be lacking: some are made at the end of a migration."""
        return self.is_begun and all(change.what not in ("table", "column") for change in self.lacks)


def _interruption(
    connection: BaseDatabaseWrapper,
    found: Snapshot,
    migration: Migration,
    is_backwards: bool,
    steps: list[Step],
) -> Interruption | None:
    done = max((number for number, step in enumerate(steps, 1) if step.is_done), default=0)
    undone = next(
        (number for number, step in enumerate(steps) if number >= done and step.changes), len(steps)
    )
    stays = undone if is_backwards else done
    left = steps[:stays] if is_backwards else steps[stays:]
    began = {
        rule.name
        for step in left
        for change in step.changes
        if isinstance(rule := change.old if is_backwards else change.new, Constraint | Index)
    }
    unread = {index.name for table in found for index in table.indexes if not index.is_valid}
    invalid = tuple(index for index in invalid_indexes(connection) if index.name in began)
    if under_way := (unread & began) - {index.name for index in invalid}:
        raise SchemaError(
            f"Another session is at work on the index {', '.join(under_way)}, which {migration} makes: "
            f"migrate again when it is done."
        )
    is_untouched = stays == len(steps) if is_backwards else stays == 0
    if undone < len(steps) and steps[undone].is_begun:
        raise SchemaError(_within(found, migration, steps[undone], is_backwards))
    if is_untouched and not invalid:
        return None
    untold = tuple(described(step.operation) for step in steps[done:undone] if _has_hidden_effects(step))
    missing = () if is_untouched else tuple(_missing(connection, found, migration, steps[:stays]))
    return Interruption(migration, is_backwards, stays, untold, invalid, missing)


def _steps(
    connection: BaseDatabaseWrapper, found: Snapshot, migration: Migration, before: ProjectState
) -> list[Step]:
    label = migration.app_label
    seen: list[tuple[Operation, ProjectState, frozenset[Key], Snapshot, Snapshot]] = []
    named: set[str] = set()
    for operation in migration.operations:
        after = before.clone()
        operation.state_forwards(label, after)
        models = frozenset(
            key for key in before.models.keys() | after.models.keys() if _differ(before, after, key)
        )
        old = new = Snapshot({})
        if models and not _is_only_state(operation):
            old, named_before = _tables(connection, before, label, models, found)
            new, named_after = _tables(connection, after, label, models, found)
            named |= named_before | named_after
        seen.append((operation, after, models, old, new))
        before = after
    return [_step(found, named, *each) for each in seen]


def _differ(before: ProjectState, after: ProjectState, key: Key) -> bool:
    old, new = before.models.get(key), after.models.get(key)
    return (old is None) != (new is None) or old != new


def _step(
    found: Snapshot,
    named: set[str],
    operation: Operation,
    after: ProjectState,
    models: frozenset[Key],
    old: Snapshot,
    new: Snapshot,
) -> Step:
    changes = tuple(new - old)
    lacks = tuple(change for change in changes if not _is_there(change, old, found, named))
    is_begun = len(lacks) < len(changes) or any(
        change.what == "column" and change.sign == ADDED and change.name in found.tables[change.table].columns
        for change in lacks
        if change.table in found.tables
    )
    # What runs is not what is declared: it may do more, or in other steps.
    if isinstance(operation, RunSQL | SeparateDatabaseAndState) and lacks and is_begun:
        return Step(operation, after, models, (), (), False)
    return Step(operation, after, models, changes, lacks, is_begun)


def _tables(
    connection: BaseDatabaseWrapper, state: ProjectState, label: str, keys: Iterable[Key], found: Snapshot
) -> tuple[Snapshot, set[str]]:
    """Return the tables of some models, and the constraints and indexes of which the models give the name."""
    models = {
        model.__name__: model
        for model in Point(state, {}).apps.get_models()
        if (model._meta.app_label, model._meta.model_name or "") in keys
    }
    named = {
        each.name for model in models.values() for each in (*model._meta.constraints, *model._meta.indexes)
    }
    return expected_tables(connection, Models(label, "", models, connection.alias), found), named


def _is_there(change: Change, before: Snapshot, found: Snapshot, named: set[str]) -> bool:
    table = found.tables.get(change.table)
    if change.what == "table":
        return (table is not None) == (change.sign == ADDED)
    table = table or NO_TABLE
    if change.what == "column":
        return table.columns.get(change.name) == change.new
    old: Any = change.old
    new: Any = change.new
    rule: Rule = new or old
    is_there = _has(table, rule)
    if change.sign == CHANGED:
        return is_there
    if rule.name in named:
        return is_there if new else rule.name not in {each.name for each in table.rules}
    # In another way Django, or Postgres, may have given it another name.
    more = _count(table, rule, named) - _count(before.tables.get(change.table, NO_TABLE), rule, named)
    return is_there or more > 0 if new else not is_there and more < 0


def _missing(
    connection: BaseDatabaseWrapper, found: Snapshot, migration: Migration, steps: list[Step]
) -> Iterator[Change]:
    """Yield the constraints and indexes that are not there of what the steps made or touched."""
    models: frozenset[Key] = frozenset().union(*(step.models for step in steps))
    if not models:
        return
    expected, named = _tables(connection, steps[-1].after, migration.app_label, models, found)
    for table in expected:
        real = found.tables.get(table.name, NO_TABLE)
        names = {each.name for each in real.rules}
        for rule in table.rules if real.columns else ():
            is_named = rule.name in named
            if rule.name not in names if is_named else _count(real, rule, named) < _count(table, rule, named):
                yield Change(REMOVED, table.name, rule.kind, rule.name, old=rule, sql_table=real.sql_name)


def _has(table: Table, rule: Rule) -> bool:
    return any(each.name == rule.name and _content(each) == _content(rule) for each in table.rules)


def _count(table: Table, rule: Rule, named: set[str]) -> int:
    return sum(_content(each) == _content(rule) for each in table.rules if each.name not in named)


def _content(rule: Rule) -> tuple[Any, ...]:
    if isinstance(rule, Constraint):
        return rule.kind, rule.definition.removesuffix(" NOT VALID")
    return rule.is_unique, rule.definition, rule.is_valid


def _within(found: Snapshot, migration: Migration, step: Step, is_backwards: bool) -> str:
    """Say what makes a step whole, or nothing, of which some is there."""
    sql = []
    for change in step.changes:
        if (change in step.lacks) != is_backwards:
            wanted = change.old if is_backwards else change.new
            table = found.tables.get(change.table, NO_TABLE)
            items: dict[str, Any] = {**table.columns, **{each.name: each for each in table.rules}}
            sql.append(mend(replace(change, old=wanted, new=items.get(change.name))))
    return (
        f"{migration} was interrupted within '{described(step.operation)}': run {' '.join(sql)} Then migrate "
        f"again, with --repair."
    )


def _is_only_state(operation: Operation) -> bool:
    return isinstance(operation, SeparateDatabaseAndState) and not operation.database_operations


def _has_hidden_effects(step: Step) -> bool:
    is_django = type(step.operation).__module__.startswith("django.")
    is_free = isinstance(step.operation, RunPython | RunSQL | SeparateDatabaseAndState)
    return not step.changes and (is_free or not is_django) and not _is_only_state(step.operation)
