"""Every migration of an app: applied or not, when, its operations, its SQL, whether it can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.utils import timezone

from workbench import evolved
from workbench.progress import Progress
from workbench.schema.errors import SchemaError
from workbench.schema.history import History, connection_to, history_of
from workbench.show import WARNING, Code, Grid, Part, Row, Shown, Words


@dataclass(frozen=True, repr=False)
class Step(Shown):
    """A migration. ``applied`` is when, or None; ``irreversible`` holds operations that cannot be undone."""

    app_label: str
    name: str
    applied: datetime | None
    operations: tuple[str, ...]
    irreversible: tuple[str, ...]
    sql: str
    is_evolved: bool = False

    @property
    def is_reversible(self) -> bool:
        return not self.irreversible

    def _row(self) -> Row:
        when = "not applied"
        if self.applied is not None:
            local = timezone.localtime(self.applied) if timezone.is_aware(self.applied) else self.applied
            when = f"{local:%Y-%m-%d %H:%M}"
        undone = "reversible" if self.is_reversible else f"irreversible: {', '.join(self.irreversible)}"
        origin = "made in a cell" if self.is_evolved else ""
        mark = "[X]" if self.applied else "[ ]"
        return Row([mark, self.name, when, ", ".join(self.operations), undone, origin])

    def _parts(self) -> Iterator[Part]:
        yield Grid(self.app_label, [self._row()], named_by=1)
        yield Code(self.sql, "postgres")


@dataclass(frozen=True, repr=False)
class Timeline(Shown):
    """The migrations of an app in their order. ``gone`` names those that are applied, and have no file."""

    app_label: str
    steps: tuple[Step, ...]
    gone: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        """Return the migration of that name, or the first that begins so."""
        for step in (*(step for step in self.steps if step.name == name), *self.steps):
            if step.name.startswith(name):
                return step
        raise SchemaError(f"{self.app_label} has no migration {name!r}.")

    def _parts(self) -> Iterator[Part]:
        if not self.steps:
            yield Words(f"{self.app_label} has no migrations.")
            return
        yield Grid(self.app_label, [step._row() for step in self.steps], named_by=1)
        for name in self.gone:
            yield Words(f"{name} is recorded as applied, and its file is gone.", WARNING)
        for step in self.steps:
            yield Code(step.sql, "postgres", f"SQL of {step.name}", is_folded=True)


def timeline(app_label: str, *, using: str = DEFAULT_DB_ALIAS) -> Timeline:
    """Return an app's migrations, those applied and those to come.

    Each with when, its SQL, and whether it can be undone. The SQL is what sqlmigrate prints; what it must
    look up in the database, it looks up as that is now. Raises SchemaError: no such app.

    Examples::

        timeline("catalog")
        timeline("catalog")["0002"]
    """
    connection = connection_to(using)
    history = history_of(connection)
    history.check(app_label)
    migrations = history.of(app_label)
    sql = {}
    with Progress(f"Writing the SQL of {app_label}", len(migrations), unit="migrations") as progress:
        for name, text in _sql(connection, history, app_label):
            sql[name] = text
            progress.done += 1
    steps = tuple(step(history, migration, sql[migration.name]) for migration in migrations)
    return Timeline(app_label, steps, tuple(history.gone(app_label)))


def step(history: History, migration: Migration, sql: str = "") -> Step:
    """Return what is known of a migration without asking the database anything more."""
    key = (migration.app_label, migration.name)
    when = history.recorded.get(key)
    if when is None and key in history.applied:
        # A squashed one, by those that it replaces.
        when = max(history.recorded[old] for old in migration.replaces if old in history.recorded)
    return Step(
        *key,
        when,
        tuple(operation.describe() for operation in migration.operations),
        tuple(operation.describe() for operation in migration.operations if not is_reversible(operation)),
        sql,
        evolved.is_one(migration),
    )


def is_reversible(operation: Operation) -> bool:
    inner = getattr(operation, "database_operations", [])  # SeparateDatabaseAndState says yes for all.
    return operation.reversible and all(map(is_reversible, inner))


def _sql(connection: BaseDatabaseWrapper, history: History, app_label: str) -> Iterator[tuple[str, str]]:
    """Yield each migration's name and SQL, going through the history once."""
    state = ProjectState(real_apps=history.loader.unmigrated_apps)
    for key in history.plan(history.graph.leaf_nodes(app_label)):
        migration = history.graph.nodes[key]
        if migration.app_label != app_label:
            # Rendered for the app's own; to keep the classes up to date would cost the most.
            state.__dict__.pop("apps", None)
            state = migration.mutate_state(state, preserve=False)
            continue
        try:
            with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
                after = migration.apply(state.clone(), editor, collect_sql=True)
            sql = "\n".join(editor.collected_sql) or "-- nothing to do in the database"
        except Exception as error:
            # Some operations look up constraints, and find others than they expect.
            sql = f"-- cannot be told while the database is where it is: {error}"
            after = migration.mutate_state(state)
        state = after
        yield migration.name, sql
