"""Migrations run for real on a copy of the database, and what they did to it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from workbench import evolved
from workbench.branches import copied
from workbench.connection import where
from workbench.connection.interrupt import watched
from workbench.connection.sessions import holds_transaction
from workbench.errors import OneSentence
from workbench.progress import Progress
from workbench.redaction import masked
from workbench.schema.advice import verdicts
from workbench.schema.confine import confined
from workbench.schema.effects import described
from workbench.schema.errors import SchemaError
from workbench.schema.evolve import Evolution
from workbench.schema.executor import one_line
from workbench.schema.facts import Passage
from workbench.schema.history import Key, connection_to, history_of
from workbench.schema.losses import Plan
from workbench.schema.observe import Observer, Run
from workbench.schema.report import Failure, Rehearsal, Step
from workbench.schema.squawk import findings
from workbench.schema.stakes import at_stake, checksums, columns, names
from workbench.schema.stakes import lost as lost_of
from workbench.schema.timeline import is_reversible

TABLES = """
SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND oid = ANY(
    SELECT to_regclass(name) FROM unnest(%s::text[]) name)
"""
# Postgres tidies up behind many changed rows at a moment of its own choosing, and what wants a strong lock
# then waits until it has been told to stop: a second, by deadlock_timeout. That is no migration's doing.
# Small tables are tidied up in no time, and there may be thousands of them.
KEPT_UNTIDIED = """
DO $$ DECLARE each regclass; BEGIN
    FOR each IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND pg_has_role(c.relowner, 'USAGE') AND pg_relation_size(c.oid) > 1000000
    LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', each); END LOOP;
END $$
"""
# The rows of partitions are those of their table.
UNKNOWN = """
SELECT name FROM unnest(%s::text[]) name
WHERE coalesce(pg_partition_root(to_regclass(name))::text <> ALL(%s::text[]), true)
"""
# What takes less has no growth to speak of.
SHORT_SECONDS = 0.02


def rehearse(
    target: str | Evolution | None = None,
    migration: str | Sequence[Operation | type[Migration]] | None = None,
    *,
    atomic: bool = True,
    using: str = DEFAULT_DB_ALIAS,
    end_sessions: bool = False,
) -> Rehearsal:
    """Run migrations on a copy of the database, and return what they did.

    Forwards, back and forwards again, each operation with its SQL, time, locks, and the rows it went through.
    ``target`` is an app, ``migration`` one of it by name or how that begins, else its last; nothing means all
    that is not applied, an evolution what a cell defines. Instead of a name, operations make a migration that
    comes next, ``atomic`` or not, and classes of migrations several. The database itself is only read, the
    copy dropped. ``end_sessions`` ends the sessions of others that keep the database from being copied.

    Beside what runs, a reader and a writer work on every table that it locks, and note how long they wait.
    If that can be undone, and takes more than a moment, it runs once more without rows, so that what grows
    with them can be told.
    Raises SchemaError, and BranchError where there is no copy to be had.

    Examples::

        rehearse("catalog", "0002")
        rehearse()

        from django.db import migrations, models
        rehearse("catalog", [migrations.AddIndex("book", models.Index(fields=["title"], name="by_title"))])
    """
    if isinstance(target, Evolution):
        using = target.using
    if migration is not None and not isinstance(target, str):
        raise SchemaError("Name the app that the migration belongs to.")
    history = history_of(connection_to(using))
    made: dict[Key, type[Migration]] = {}
    keys: list[Any]
    if isinstance(target, Evolution):
        made = {(target.app_label, step.name): type(step.migration) for step in target.chain}
        keys = [*made]
    elif target is None:
        ends = (history.find(label, None) for label in sorted(history.loader.migrated_apps))
        keys = [*filter(None, ends)]
    elif migration is None or isinstance(migration, str):
        keys = [history.find(target, migration) or (target, None)]
    else:
        history.check(target)
        made = _made(target, history.last(target), migration, atomic)
        keys = [*made]
    began = time.monotonic()
    place = str(where(using))
    with (
        _in_one_sentence(),
        Progress("Rehearsing", unit="operations") as progress,
        ExitStack() as stack,
    ):
        stack.enter_context(evolved.made(made))
        # Before anybody is asked to leave the database.
        if not _Executor(connections[using]).plan(keys):
            return Rehearsal(place, (), (), seconds=time.monotonic() - began)
        server = _server(connections[using])
        connection = stack.enter_context(copied(using, end_sessions=end_sessions))
        copied_in = time.monotonic() - began
        watched.add(connection)
        executor = _Executor(connection)
        executor.progress = progress
        plan = executor.plan(keys)
        executor.observer = stack.enter_context(Observer(connection))
        stack.enter_context(confined(connection, is_same_server=server == _server(connection)))
        steps, failure = _play(executor, plan)
    names = tuple(f"{migration.app_label}.{migration.name}" for migration, _ in plan)
    return Rehearsal(place, names, steps, failure, copied_in, time.monotonic() - began)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        yield
    except OneSentence:
        raise
    except Error as error:
        raise SchemaError(f"The rehearsal broke off: {masked(one_line(error))}") from error


def _server(connection: BaseDatabaseWrapper) -> tuple[Any, ...]:
    return tuple(connection.settings_dict[part] for part in ("HOST", "PORT"))


def _made(
    label: str, last: str, given: Sequence[Operation | type[Migration]], atomic: bool
) -> dict[Key, type[Migration]]:
    """Return migrations that follow the last of an app, by their keys."""
    if all(isinstance(each, type) and issubclass(each, Migration) for each in given):
        kinds: list[Any] = [*given]
    elif any(isinstance(each, type) for each in given):
        raise SchemaError("Give operations, of one migration, or classes of migrations: not both at once.")
    else:
        kinds = [type("Migration", (Migration,), {"operations": [*given], "atomic": atomic})]
    number = MigrationAutodetector.parse_number(last) or 0
    made: dict[Key, type[Migration]] = {}
    for kind in kinds:
        number += 1
        name = f"{number:04}_{'rehearsed' if kind.__name__ == 'Migration' else kind.__name__.lower()}"
        after = [(label, last)] if last else []
        made[label, name] = type(kind.__name__, (kind,), {"dependencies": [*kind.dependencies, *after]})
        last = name
    return made


@dataclass
class _Pass:
    """The migrations, run once in one direction. ``runs`` are the operations that ran whole."""

    runs: dict[tuple[Key, int], Run]
    failure: Failure | None


class _Executor(MigrationExecutor):
    """Django's, which an observer looks at, and which can go back and there again."""

    observer: Observer
    progress: Progress
    _at: Migration
    _way: str

    def plan(self, keys: list[Any]) -> Plan:
        try:
            self.loader.check_consistent_history(self.connection)
        except InconsistentMigrationHistory as error:
            raise SchemaError(str(error)) from error
        plan: Plan = self.migration_plan(keys)
        if len({is_backwards for _, is_backwards in plan}) > 1:
            raise SchemaError(
                "This goes back in one app and forward in another: rehearse one of them at a time."
            )
        return plan

    def play(self, way: str, plan: Plan, *, is_felt: bool = True) -> _Pass:
        self._at = plan[0][0]
        self.progress.now = self._way = way if is_felt else "without rows"
        failure = None
        connection = self.connection
        self.observer.begin(is_felt=is_felt)
        try:
            # All the rest stays, also what a new one would hide: what was made in a cell and is undone.
            self.loader.applied_migrations = self.recorder.applied_migrations()  # type: ignore[assignment]
            self.migrate([], plan)
            if connection.connection is not None and holds_transaction(connection):
                raise SchemaError("It leaves a transaction open, and what is done in that is not kept.")
        except (Exception, SystemExit) as error:
            failure = self._failure(way, error)
        self.observer.end()
        if not (failure or self.observer.is_whole):
            raise SchemaError("Somebody ended the sessions that looked on: rehearse it again.")
        failed = self.observer.current if failure else None
        if not connection.in_atomic_block:
            # Each would be a process of its own, with nothing set, and nothing left open.
            connection.close()
        return _Pass({(run.key, run.index): run for run in self.observer.runs if run is not failed}, failure)

    def apply_migration(self, state: ProjectState, migration: Migration, *args: Any, **options: Any) -> Any:
        with self._observed(migration):
            return super().apply_migration(state, migration, *args, **options)

    def unapply_migration(self, state: ProjectState, migration: Migration, *args: Any, **options: Any) -> Any:
        with self._observed(migration):
            return super().unapply_migration(state, migration, *args, **options)

    @contextmanager
    def _observed(self, migration: Migration) -> Iterator[None]:
        self._at = migration
        self.progress.now = f"{self._way}, {migration}"
        with self.observer.migration(migration):
            yield
        self.progress.done = min(self.progress.done + len(migration.operations), self.progress.total or 0)

    def _failure(self, way: str, error: BaseException) -> Failure:
        run = self.observer.current
        kind = "" if isinstance(error, Error | OneSentence) else type(error).__name__
        said = ": ".join(filter(None, [kind, one_line(error) if str(error).strip() else ""])).rstrip(".")
        return Failure(
            f"{self._at.app_label}.{self._at.name}",
            masked(described(run.operation)) if run else "",
            way,
            f"{masked(said)}.",
        )


def _play(executor: _Executor, plan: Plan) -> tuple[tuple[Step, ...], Failure | None]:
    """Run the plan there, back as far as that goes, there again, and once more without rows."""
    again = _reversible(plan)
    back = [(migration, not is_backwards) for migration, is_backwards in reversed(again)]
    executor.progress.total = sum(len(step.operations) for step, _ in (*plan, *back, *again))
    state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]
    connection = executor.connection
    with connection.cursor() as cursor:
        cursor.execute(KEPT_UNTIDIED)
        every = [pair for model in state.models.values() for pair in columns(model)]
        there = names(cursor, {table for table, _ in every})
        risked = at_stake(plan, state) if back else set()
        before = checksums(cursor, sorted(there[each] for each in risked if each in there))
    # Without quotes, of which Django and Postgres put different ones.
    known = {
        ".".join(filter(None, (there.get(table, table), column))).replace('"', "") for table, column in every
    }
    version = connection.pg_version // 10000  # type: ignore[attr-defined]
    passes = {"forwards": executor.play("forwards", plan)}
    lost: dict[tuple[str, str], str] = {}
    for way, steps in (("backwards", back), ("again", again)):
        if not steps or any(each.failure for each in passes.values()):
            break
        passes[way] = executor.play(way, steps)
        if way == "backwards" and not passes[way].failure:
            with connection.cursor() as cursor:
                lost = lost_of(before, checksums(cursor, before))
                written = {table for run in passes["forwards"].runs.values() for table in run.written}
                cursor.execute(UNKNOWN, [[*(written - before.keys())], [*before]])
                lost |= {(table, ""): f"perhaps {table}" for (table,) in cursor.fetchall()}
    failure = next((each.failure for each in passes.values() if each.failure), None)
    if (
        "again" in passes
        and not failure
        and _emptied(connection, [*passes["forwards"].runs.values()])
        and not executor.play("backwards", back, is_felt=False).failure
    ):
        passes["emptied"] = executor.play("forwards", again, is_felt=False)
    return tuple(_steps(passes, known, lost, is_backwards=plan[0][1], version=version)), failure


def _reversible(plan: Plan) -> Plan:
    """Return the end of the plan that can be undone."""
    undone = takewhile(lambda step: step[1] or all(map(is_reversible, step[0].operations)), reversed(plan))
    return [*undone][::-1]


def _emptied(connection: BaseDatabaseWrapper, runs: Collection[Run]) -> bool:
    """Empty the tables that were worked on, and tell whether that was worth while, and could be done."""
    if sum(run.seconds for run in runs) < SHORT_SECONDS or not any(map(_may_grow, runs)):
        return False
    tables = {lock.table for run in runs for lock in run.locks.values()}
    try:
        with connection.cursor() as cursor:
            cursor.execute(TABLES, [[*tables]])
            if found := [table for (table,) in cursor.fetchall()]:
                # As Postgres writes them, quoted where that is needed.
                cursor.execute(f"TRUNCATE {', '.join(found)} CASCADE")
    except Error:
        return False
    return True


def _may_grow(run: Run) -> bool:
    """Tell whether it may take longer with more rows: Python may find those that it looks for by an index."""
    return not run.is_ddl or bool(run.scanned or run.written or run.rewritten)


def _steps(
    passes: dict[str, _Pass],
    known: Collection[str],
    lost: dict[tuple[str, str], str],
    *,
    is_backwards: bool,
    version: int,
) -> Iterator[Step]:
    runs = passes["forwards"].runs
    owners = {what: _owners(*what, runs) for what in lost}
    undo = "Undo: " if is_backwards else ""
    passages = [run.passage for run in runs.values()]
    again, back, emptied = (passes.get(way) for way in ("again", "backwards", "emptied"))
    for (key, run), passage, found in zip(runs.items(), passages, findings(passages, version), strict=True):
        if again and key in again.runs:
            felt = again.runs[key]
            passage = replace(
                passage, reader=max(passage.reader, felt.reader), writer=max(passage.writer, felt.writer)
            )
        constant = None if _may_grow(run) else passage.seconds
        if again and emptied and key in emptied.runs:
            # What is slow the first time only does not grow.
            first = max(run.seconds - again.runs[key].seconds, 0.0)
            constant = min(first + emptied.runs[key].seconds, run.seconds)
        told = verdicts(
            run.operation,
            key[0][0],
            passage,
            known=known,
            state=run.before,
            after=run.after,
            is_backwards=is_backwards,
        )
        yield Step(
            *run.key,
            f"{undo}{masked(described(run.operation))}",
            _masked(passage),
            is_reversible(run.operation),
            _masked(back.runs[key].passage) if back and key in back.runs else None,
            constant,
            tuple(phrase for what, phrase in lost.items() if key in owners[what]),
            # Code may hold the operation's SQL.
            tuple(replace(each, code=masked(each.code)) if "RunSQL" in each.code else each for each in told),
            tuple(found),
        )


def _owners(table: str, column: str, runs: dict[tuple[Key, int], Run]) -> list[tuple[Key, int]]:
    """Return the operations that lost a table's rows, or a column's values: dropped, or else changed them."""
    names = {table, f"{table}.{column}"}
    dropped = [key for key, run in runs.items() if names & {*run.gone}]
    written = [key for key, run in runs.items() if table in run.written]
    rewritten = [key for key, run in runs.items() if table in run.rewritten]
    return dropped or written or rewritten or [*runs][-1:]


def _masked(passage: Passage) -> Passage:
    return replace(passage, sql=tuple(map(masked, passage.sql)))
