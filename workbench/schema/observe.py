"""What a connection does to a database, operation by operation, seen from inside its session."""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from psycopg2 import errors, sql
from psycopg2.extensions import STATUS_READY, TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS

from workbench.connection.locks import LOCK_MODES, strongest, words
from workbench.schema.beside import Beside
from workbench.schema.facts import Lock, Passage
from workbench.schema.history import Key
from workbench.schema.losses import BLANK

# Statements of one operation that are looked at one by one, if they differ.
LOOKS = 50
STATEMENTS_KEPT, LETTERS_KEPT = 100, 10_000

DDL = ("django.db.migrations.operations.models", "django.db.migrations.operations.fields")
CHANGES_TABLES = re.compile(
    rf"{BLANK}(?:ALTER|CREATE|DROP|COMMENT|TRUNCATE|LOCK|REINDEX|CLUSTER|REFRESH)\b", re.IGNORECASE
)
# What begins or ends a transaction, or would not run without one.
TRANSACTION = re.compile(
    rf"{BLANK}(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION|LOCK|DECLARE|CALL"
    r"|DO\b.*\b(?:COMMIT|ROLLBACK|CALL))\b",
    re.IGNORECASE | re.DOTALL,
)
# What Postgres says of that which makes transactions of its own.
STANDS_ALONE = (errors.ActiveSqlTransaction, errors.InvalidTransactionTermination)

# Names are as regclass writes them, whatever the search path is by now.
THERE = """
SELECT c.oid,
       CASE WHEN n.nspname = ANY(%(path)s) THEN '' ELSE quote_ident(n.nspname) || '.' END
       || quote_ident(c.relname),
       c.relname, pg_relation_filenode(c.oid), c.reltuples::bigint, i.indrelid,
       pg_stat_get_xact_numscans(c.oid), pg_stat_get_xact_tuples_returned(c.oid),
       CASE WHEN c.relkind <> 'm' THEN pg_stat_get_xact_tuples_inserted(c.oid)
           + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid) ELSE 0 END,
       coalesce((
           SELECT json_object_agg(attname,
                                  attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = '')
           FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND c.relkind <> 'i'
       ), '{}')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'i', 'm', 'v', 'f') AND n.nspname NOT LIKE 'pg\\_%%'
  AND n.nspname <> 'information_schema' AND c.relname <> 'django_migrations'
"""
HELD = f"""
SELECT held.relation, held.modes, there.* FROM (
    SELECT relation, array_agg(mode) AS modes FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384 GROUP BY relation
) held LEFT JOIN LATERAL ({THERE} AND c.oid = held.relation) there ON true
"""
# Of all sessions, once they have passed on what they counted.
TOTALS = """
SELECT oid, pg_stat_get_tuples_returned(oid), CASE WHEN relkind <> 'm' THEN
    pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid)
    ELSE 0 END
FROM pg_class WHERE oid = ANY(%s)
"""


@dataclass(frozen=True)
class Relation:
    """A table, or an index of one; ``needed`` says of each column whether an INSERT has to give it.

    ``scans``, rows ``returned`` by them and rows ``written`` are those of the transaction that looks.
    """

    oid: int
    name: str
    bare: str
    file: int | None
    rows: int
    table: int | None
    scans: int
    returned: int
    written: int
    needed: dict[str, bool]


@dataclass
class Run:
    """One run of one operation, under way or done; ``passage`` is what is known of it in the end."""

    key: Key
    index: int
    operation: Operation
    before: ProjectState
    after: ProjectState
    is_atomic: bool
    began: float = 0.0
    seconds: float = 0.0
    statements: Counter[str] = field(default_factory=Counter)
    looked: set[str] = field(default_factory=set)
    # By table: the mode, and when it was asked for.
    asked: dict[int, tuple[str, float]] = field(default_factory=dict)
    locks: dict[int, Lock] = field(default_factory=dict)
    rewritten: dict[str, None] = field(default_factory=dict)
    built: dict[str, None] = field(default_factory=dict)
    scanned: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    read_under: dict[str, str] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)
    required: dict[str, None] = field(default_factory=dict)
    reader: float = 0.0
    writer: float = 0.0

    @property
    def is_ddl(self) -> bool:
        """Whether it is one of Django's own that only changes tables."""
        return type(self.operation).__module__.startswith(DDL)

    @property
    def passage(self) -> Passage:
        return Passage(
            sql=tuple(
                text if times == 1 else f"{text}  -- {times:,} times"
                for text, times in self.statements.items()
            ),
            seconds=self.seconds,
            locks=tuple(
                replace(lock, mode=words(lock.mode))
                for lock in sorted(self.locks.values(), key=lambda lock: (-lock.seconds, lock.table))
            ),
            rewritten=tuple(self.rewritten),
            built=tuple(self.built),
            scanned=dict(self.scanned),
            written=dict(self.written),
            read_under={table: words(mode) for table, mode in self.read_under.items()},
            gone=tuple(self.gone),
            required=tuple(self.required),
            reader=self.reader,
            writer=self.writer,
            is_atomic=self.is_atomic,
        )


class Observer:
    """Records what the operations of migrations do through one connection, to tables that were there.

    A context manager; while it lasts, a reader and a writer work beside it on every table that it locks.
    ``runs`` are those since ``begin()``, in their order, ``current`` the one that runs, or failed.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self.runs: list[Run] = []
        self.current: Run | None = None
        self._path: list[str] = []
        self._there: dict[int, Relation] = {}
        self._names: dict[int, str] = {}
        self._files: dict[int, int | None] = {}
        self._counters: dict[int, tuple[int, int, int]] = {}
        self._held: dict[int, str] = {}
        self._deferred: dict[int, tuple[Any, Run]] = {}
        self._is_counted = True
        self._is_seen = False
        self._overhead = 0.0

    def __enter__(self) -> Self:
        self._connection.ensure_connection()
        self._beside = Beside(self._connection)
        self._editor = self._connection.SchemaEditorClass
        self._connection.SchemaEditorClass = _editor_of(self._editor, self)
        self._connection.execute_wrappers.append(self._around)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.execute_wrappers.remove(self._around)
        self._connection.SchemaEditorClass = self._editor
        self._beside.close()

    @property
    def is_whole(self) -> bool:
        """Whether nobody has ended the sessions beside it, which would feel nothing then."""
        return self._beside.is_whole

    def begin(self, *, is_felt: bool) -> None:
        """Start a new list of runs, from the tables as they are now."""
        self.runs, self.current = [], None
        self._let_go()
        with self._quietly() as cursor:
            self._flush(cursor)
            cursor.execute("SELECT current_schemas(false)::text[]")
            (self._path,) = cursor.fetchone()
            self._there = self._relations(cursor)
        self._files = {oid: each.file for oid, each in self._there.items()}
        self._names = {oid: each.name for oid, each in self._there.items() if each.table is None}
        self._beside.begin(self._names, is_felt=is_felt)

    def end(self) -> None:
        """Give each run the longest that others waited from when it began."""
        begins = [run.began for run in self.runs]
        for began, seconds, is_writer in self._beside.waits() if begins else ():
            run = self.runs[max(bisect_left(begins, began) - 1, 0)]
            if is_writer:
                run.writer = max(run.writer, seconds)
            else:
                run.reader = max(run.reader, seconds)

    @contextmanager
    def migration(self, migration: Migration) -> Iterator[None]:
        """Record the operations of this one, which is about to run."""
        key = (migration.app_label, migration.name)
        operations = migration.operations
        watched: list[Operation] = []
        for index, operation in enumerate(operations):
            twin: Any = copy(operation)
            for way in ("database_forwards", "database_backwards"):
                do = getattr(operation, way)
                setattr(twin, way, partial(self._run, do, key, index, operation, migration.atomic))
            watched.append(twin)
        migration.operations = watched  # type: ignore[misc]
        try:
            yield
        finally:
            migration.operations = operations  # type: ignore[misc]
            self._let_go()
            self._deferred.clear()

    def _run(
        self,
        do: Callable[..., None],
        key: Key,
        index: int,
        operation: Operation,
        is_atomic: bool,
        label: str,
        editor: Any,
        before: ProjectState,
        after: ProjectState,
    ) -> None:
        # Others may read and write for it, or a cursor of psycopg2's own, where it is no transaction's part.
        totals = {} if self._is_open() else self._totals()
        run = Run(
            key, index, operation, ProjectState(before.models, before.real_apps), _copy(after), is_atomic
        )
        self.runs.append(run)
        run.began = time.monotonic()
        with self._at_work(run):
            do(label, editor, before, after)
        if totals and not self._is_open():
            self._add(run, totals, {})
        for statement in editor.deferred_sql:
            self._deferred.setdefault(id(statement), (statement, run))

    def deferred(self, editor: Any) -> None:
        """Run what the operations left for the end of their migration, each in its operation's name."""
        for statement in editor.deferred_sql:
            _, run = self._deferred.get(id(statement), (statement, self.runs[-1]))
            with self._at_work(run):
                editor.execute(statement, None)
        editor.deferred_sql.clear()

    @contextmanager
    def _at_work(self, run: Run) -> Iterator[None]:
        self.current, self._is_seen = run, False
        began = self._clock()
        yield
        run.seconds += self._clock() - began
        # Python may have sent what came by no cursor of Django's.
        if not (self._is_seen and run.is_ddl):
            self._look(run, "", began)
        if not self._is_open():
            self._let_go()
        self.current = None

    def _around(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        run = self.current
        do = partial(execute, sql, params, many, context)
        if run is None:
            return do()
        # A new one, where an operation closed its connection.
        self._beside.pid = self._connection.connection.info.backend_pid
        text = _text(sql, context["cursor"])
        shown = _shown(text, context["cursor"], params, many)
        if len(run.statements) < STATEMENTS_KEPT or shown in run.statements:
            run.statements[shown] += 1
        is_new = text not in run.looked and len(run.looked) < LOOKS
        self._is_seen = is_new
        run.looked.add(text)
        began = self._clock()
        if self._is_open():
            result = do()
            if not self._is_open():
                self._let_go()
            elif is_new:
                self._look(run, text, began)
            return result
        if not is_new:
            self._is_counted = False
            return do()
        self._let_go()
        if not (self._connection.in_atomic_block or TRANSACTION.match(text)):
            # Its locks are gone with its transaction, so that is kept open for one look.
            try:
                with transaction.atomic(using=self._connection.alias):
                    result = do()
                    self._look(run, text, began)
            except Error as error:
                if not isinstance(error.__cause__, STANDS_ALONE):
                    raise
            else:
                self._let_go()
                return result
        return self._alone(run, do)

    def _alone(self, run: Run, do: Callable[[], Any]) -> Any:
        """Run what makes transactions of its own; its locks are seen from beside."""
        totals, began = self._totals(), self._clock()
        with self._beside.closely() as seen:
            result = do()
        if self._is_open():
            return result  # That was a BEGIN.
        ended = self._clock()
        for oid, mode in seen.items():
            self._keep(run, oid, mode, began, ended)
        with self._quietly() as cursor:
            self._compare(run, self._relations(cursor), list(self._there))
        self._add(run, totals, seen)
        return result

    def _look(self, run: Run, text: str, began: float) -> None:
        """Note what is locked, rewritten, read and written now that was not at the last look."""
        if self._status() != TRANSACTION_STATUS_INTRANS:
            return
        is_change = CHANGES_TABLES.match(text) is not None
        named = {*re.findall(r"\w+", text)}
        with self._quietly() as cursor:
            cursor.execute(HELD, {"path": self._path})
            rows = cursor.fetchall()
        held = {oid: modes for oid, modes, *_ in rows}
        now = {oid: Relation(*facts) for oid, _, *facts in rows if facts[0] is not None}
        # Locks that were taken after a savepoint are gone with it.
        self._free(self._held.keys() - held.keys())
        for oid, modes in held.items():
            relation = self._there.get(oid)
            if relation is None or relation.table is not None:
                continue
            mode = strongest(*modes)
            is_named = relation.bare in named or f'"{relation.bare}"' in text
            if self._held.get(oid) != mode or is_named:
                _, since = run.asked.get(oid, ("", began))
                run.asked[oid] = (mode, since)
                self._held[oid] = mode
            if oid in now:
                self._count(run, now[oid], mode, is_change)
        self._compare(run, now, held)

    def _count(self, run: Run, relation: Relation, mode: str, is_change: bool) -> None:
        scans, returned, written = self._counters.get(relation.oid, (0, 0, 0))
        self._counters[relation.oid] = (relation.scans, relation.returned, relation.written)
        rows = relation.returned - returned
        if is_change:
            # Workers of a parallel build count apart, and it reads the table whole, for each index once more.
            rows = max(rows, relation.rows * (relation.scans - scans))
        if rows > 0:
            run.scanned[relation.name] += rows
            run.read_under[relation.name] = strongest(mode, run.read_under.get(relation.name, mode))
        if relation.written > written:
            run.written[relation.name] += relation.written - written

    def _totals(self) -> dict[int, tuple[int, int]]:
        """Return for each table how many rows were ever read and written."""
        with self._quietly() as cursor:
            self._flush(cursor)
            cursor.execute(TOTALS, [list(self._names)])
            return {oid: (returned, written) for oid, returned, written in cursor.fetchall()}

    def _add(self, run: Run, before: dict[int, tuple[int, int]], modes: dict[int, str]) -> None:
        """Note what was read and written since, whoever did it, as far as no look has counted it."""
        for oid, now in self._totals().items():
            name = self._names[oid]
            returned, written = (each - old for each, old in zip(now, before[oid], strict=True))
            if returned > run.scanned[name]:
                run.scanned[name] = returned
                run.read_under.setdefault(name, modes.get(oid, LOCK_MODES[0]))
            if written > run.written[name]:
                run.written[name] = written

    def _compare(self, run: Run, now: dict[int, Relation], touched: Collection[int]) -> None:
        for oid, relation in now.items():
            before = self._there.get(oid)
            if (relation.table or oid) not in self._there:
                continue
            if oid not in self._files:
                names = {each.name for each in self._there.values() if each.table == relation.table}
                kind = run.rewritten if relation.name in names else run.built
                kind[relation.name] = None
            elif self._files[oid] != relation.file:
                run.rewritten[(before or relation).name] = None
            self._files[oid] = relation.file
        for oid in touched:
            before, after = self._there.get(oid), now.get(oid)
            if before is None or before.table is not None:
                continue
            if after is None or after.name != before.name:
                run.gone[before.name] = None
            if after is not None:
                for name, is_needed in after.needed.items():
                    if not is_needed:
                        run.required.pop(f"{after.name}.{name}", None)
                    elif not before.needed.get(name):
                        run.required[f"{after.name}.{name}"] = None
                for name in before.needed.keys() - after.needed.keys():
                    run.gone[f"{before.name}.{name}"] = None
                self._there[oid] = after
            else:
                del self._there[oid]

    def _relations(self, cursor: Any) -> dict[int, Relation]:
        """Return all tables and indexes."""
        cursor.execute(THERE, {"path": self._path})
        return {row[0]: Relation(*row) for row in cursor.fetchall()}

    def _keep(self, run: Run, oid: int, mode: str, began: float, ended: float) -> None:
        old, seconds = run.locks.get(oid), ended - began
        if old is not None:
            if strongest(mode, old.mode) != mode:
                return
            if old.mode == mode:
                seconds = max(seconds, old.seconds)
        run.locks[oid] = Lock(self._names[oid], mode, seconds)

    def _free(self, tables: Collection[int]) -> None:
        now = self._clock()
        for run in self.runs if tables else ():
            for oid in run.asked.keys() & tables:
                self._keep(run, oid, *run.asked.pop(oid), now)
        for oid in tables:
            del self._held[oid]

    def _let_go(self) -> None:
        """The transaction has ended, and what it locked is free."""
        is_dirty = self._held or not self._is_counted
        if is_dirty and self._status() == TRANSACTION_STATUS_IDLE and not self._is_open():
            with self._quietly() as cursor:
                self._flush(cursor)
            self._is_counted = True
        self._free(list(self._held))
        self._counters.clear()

    def _status(self) -> int | None:
        raw = self._connection.connection
        return None if raw is None or raw.closed else raw.get_transaction_status()

    def _is_open(self) -> bool:
        """Tell whether what runs now runs in a transaction, whoever began it."""
        raw, status = self._connection.connection, self._status()
        if status != TRANSACTION_STATUS_IDLE:
            return status is not None
        # psycopg2 does not begin another where SQL has ended its own.
        return not raw.autocommit and raw.status == STATUS_READY

    def _clock(self) -> float:
        """Return the time, without what we took of it ourselves."""
        return time.monotonic() - self._overhead

    def _flush(self, cursor: Any) -> None:
        """What a session has counted and not passed on would be taken for the next transaction's."""
        if cursor.connection.server_version >= 150000:
            cursor.execute("SELECT pg_stat_force_next_flush()")

    @contextmanager
    def _quietly(self) -> Iterator[Any]:
        """Give a cursor of the same session whose statements are nobody's, and take no time of theirs."""
        began = time.monotonic()
        try:
            self._connection.ensure_connection()
            with self._connection.wrap_database_errors, self._connection.connection.cursor() as cursor:
                yield cursor
        finally:
            self._overhead += time.monotonic() - began


def _editor_of(base: Any, observer: Observer) -> Any:
    class Editor(base):  # type: ignore[misc]
        def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
            # Not what an operation makes for itself.
            if kind is None and observer.current is None and observer.runs:
                observer.deferred(self)
            super().__exit__(kind, error, trace)

    return Editor


def _copy(state: ProjectState) -> ProjectState:
    """Return a copy without its classes, which would take long to make again."""
    return ProjectState({key: each.clone() for key, each in state.models.items()}, state.real_apps)


def _text(statement: Any, cursor: Any) -> str:
    if isinstance(statement, sql.Composable):
        return statement.as_string(cursor.connection)
    return statement.decode(errors="replace") if isinstance(statement, bytes) else str(statement)


def _shown(text: str, cursor: Any, params: Any, many: bool) -> str:
    """Return a statement as it is sent; one of many by its first parameters' places."""
    if params and not many:
        with suppress(Exception):  # It will fail with the same.
            text = cursor.mogrify(text, params).decode(errors="replace")
    text = text.strip()
    if len(text) <= LETTERS_KEPT:
        return text
    cut = text[:LETTERS_KEPT]
    # Who reads on is not to take all that follows for a string.
    return cut + "'" * (cut.count("'") % 2) + " ..."
