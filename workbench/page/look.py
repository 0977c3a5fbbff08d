"""A look at a branch: one short transaction that only reads, in a session that is gone after it.

It waits for no lock longer than a moment, and leaves a table that somebody has locked alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

from workbench.branches import Branch, Branches
from workbench.branches.kind import MAIN
from workbench.branches.verbs import look as look_at_branches
from workbench.connection import ConnectionFailed, Place, Session, embedded, where
from workbench.connection.sessions import aside
from workbench.connection.url import ENGINE, is_neon
from workbench.errors import OneSentence, listed, or_rather
from workbench.page.local import called, local_apps, owned
from workbench.page.rows import Rows, rows
from workbench.schema import SchemaError
from workbench.schema.history import Key, history_of
from workbench.schema.snapshot import Table, read
from workbench.schema.timeline import Step, step

BEGIN = """
SET TRANSACTION READ ONLY;
SET LOCAL lock_timeout = '200ms';
SET LOCAL statement_timeout = '2s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
SET LOCAL datestyle = 'ISO'
"""
# Between two queries a table may be locked, or become another one.
ATTEMPTS = 3
MISSED = (
    errors.DeadlockDetected,
    errors.InternalError_,
    errors.LockNotAvailable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedObject,
    errors.UndefinedTable,
)
# A list of branches is asked for anew after this long, or this many times as long as it took, as Neon's does.
LIST_SECONDS, LIST_SHARE = 1.0, 20.0
TABLES_SHOWN = 40
# A compute of Neon's is kept awake, and paid for, by whoever looks.
REST_SECONDS = 600

TABLES = """
SELECT c.oid, n.nspname, c.relname, pg_table_is_visible(c.oid), has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY n.nspname, c.relname
"""
# Who waits for this lock keeps those waiting who come after it, too.
LOCKS = """
SELECT l.relation, l.granted, coalesce(l.pid, 0), coalesce(a.application_name, ''), coalesce(a.state, ''),
       coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation >= 16384
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY l.granted, l.relation, l.pid
"""
REFERENCES = """
SELECT conrelid, confrelid FROM pg_constraint
WHERE contype = 'f' AND conrelid <> confrelid AND conrelid = ANY(%s::oid[]) AND confrelid = ANY(%s::oid[])
"""
RECORDED = "SELECT app, name, applied FROM django_migrations ORDER BY id"
RECORDS = "django_migrations"

_listings: dict[tuple[str, str], tuple[float, Branches, dict[str, Any]]] = {}


class NotThere(OneSentence):
    """What was asked for is not there. ``branches`` are those there are, if it is the branch."""

    def __init__(self, said: str, branches: Branches | None = None) -> None:
        super().__init__(said)
        self.branches = branches


class Unavailable(OneSentence):
    """Nothing can be read now, and in a moment perhaps it can."""


@dataclass(frozen=True)
class Shown:
    """A table, and rows of it.

    Where neither is known ``locked`` says who has locked it; where only the rows are not, ``note`` says why.
    ``name`` is Postgres', with the schema where that is not searched, ``title`` the same without the app's.
    """

    oid: int
    name: str
    title: str
    table: Table | None = None
    rows: Rows | None = None
    locked: str = ""
    note: str = ""


@dataclass(frozen=True)
class State:
    """What the page shows.

    ``steps`` are the app's migrations, ``gone`` those that are recorded without a file; ``unread`` says why
    they cannot be told. After ``rest_seconds`` without news looking should stop; 0 says that it need not.
    """

    place: Place
    branches: Branches
    branch: Branch
    database: str
    app: str
    tables: tuple[Shown, ...]
    more_tables: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    gone: tuple[str, ...] = ()
    at: str = ""
    unread: str = ""
    rest_seconds: int = 0

    @property
    def pending(self) -> tuple[Step, ...]:
        return tuple(each for each in self.steps if each.applied is None)


def look(database: str = "", branch: str = "", app: str = "", *, is_again: bool = False) -> State:
    """Return what a branch of a database holds of an app; "" stands for the default of each.

    A look that ``is_again`` starts no server, and takes the list of branches as it was a moment ago. Raises
    NotThere, Unavailable, ConnectionFailed, BranchError.
    """
    using = database or DEFAULT_DB_ALIAS
    if using not in databases():
        raise NotThere(f"There is no database {using}{or_rather(using, databases())}")
    labels = local_apps()
    if app and app not in labels:
        raise NotThere(f"This project has no app {app}{or_rather(app, labels)}")
    name = branch or connections.settings[using].get("BRANCH") or MAIN
    if not is_again:
        _start(connections.settings[using])
        _listings.pop((using, name), None)
    try:
        return _at(using, name, app, labels)
    except ConnectionFailed:
        # It may have been dropped, and made anew elsewhere.
        if _listings.pop((using, name), None) is None:
            raise
        return _at(using, name, app, labels)


def databases() -> list[str]:
    """Return the aliases that can be shown."""
    return [alias for alias in connections if connections.settings[alias]["ENGINE"] == ENGINE]


def _start(entry: Mapping[str, Any]) -> None:
    if home := entry.get("EMBEDDED"):
        try:
            embedded.start(Path(home))
        except embedded.EmbeddedError:
            # Its own words name folders of this machine.
            raise Unavailable(
                "The embedded Postgres does not start: the next cell or command that needs it says why."
            ) from None


def _at(using: str, name: str, app: str, labels: Sequence[str]) -> State:
    there, entry = _listing(using, name)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with (
                closing(aside(entry, using)) as connection,
                _instead(connection, using),
                transaction.atomic(using),
                connection.cursor() as cursor,
            ):
                cursor.execute(BEGIN)
                return _Look(connection, cursor, there, there[name]).state(app, labels)
        except ConnectionFailed:
            raise
        except Error as error:
            if not isinstance(error.__cause__, MISSED) or attempt == ATTEMPTS:
                raise Unavailable(_sentence(error.__cause__ or error)) from error
    raise AssertionError


def _listing(using: str, name: str) -> tuple[Branches, dict[str, Any]]:
    """Return the branches as they were a moment ago, and the entry of DATABASES that leads to one."""
    until, there, entry = _listings.get((using, name), (0.0, None, {}))
    began = time.monotonic()
    if there is None or began > until:
        there, found = look_at_branches(name, using)
        if found is None:
            _listings.pop((using, name), None)
            names = [each.name for each in there]
            raise NotThere(
                f"There is no branch {name}{or_rather(name, names, f': there is {listed(names)}.')}", there
            )
        entry = found
        took = time.monotonic() - began
        _listings[using, name] = began + max(LIST_SECONDS, LIST_SHARE * took), there, entry
    return there, entry


@contextmanager
def _instead(connection: BaseDatabaseWrapper, using: str) -> Iterator[None]:
    """Let what this thread asks by the alias go to a connection, as the schema room does."""
    original = connections[using]
    connections[using] = connection
    try:
        yield
    finally:
        connections[using] = original


class _Look:
    """A transaction in which a branch is looked at."""

    def __init__(
        self, connection: BaseDatabaseWrapper, cursor: Any, branches: Branches, branch: Branch
    ) -> None:
        self._connection = connection
        self._cursor = cursor
        self._branches = branches
        self._branch = branch

    def state(self, app: str, labels: Sequence[str]) -> State:
        found = self._ask(TABLES)
        locked = self._locked()
        names = {oid: (schema, name, is_searched) for oid, schema, name, is_searched, _ in found}
        recorded = self._recorded(names, locked)
        label = app or self._default(labels, names, recorded)
        ours = owned(label, names) if label else []
        place = where(self._connection.alias)
        at, steps, gone, unread = self._migrations(label, recorded) if label else ("", (), (), "")
        tables = self._tables(label, ours, names, {oid for oid, *_, may_read in found if may_read}, locked)
        return State(
            place,
            self._branches,
            self._branch,
            self._connection.alias,
            label,
            tables[:TABLES_SHOWN],
            tuple(each.name for each in tables[TABLES_SHOWN:]),
            steps,
            gone,
            at,
            unread,
            REST_SECONDS if is_neon(self._connection.settings_dict["HOST"]) else 0,
        )

    def _ask(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        self._cursor.execute(query, params or None)
        return list(self._cursor.fetchall())

    def _locked(self) -> dict[int, str]:
        """Say of each table that is locked by whom."""
        said = {}
        for oid, is_granted, pid, application, state, seconds in self._ask(LOCKS):
            session = Session(pid, application=application, state=state, seconds=seconds)
            who = str(session) if pid else "a prepared transaction"
            said[oid] = f"is locked by {who}" if is_granted else f"is about to be locked by {who}"
        return said

    def _recorded(
        self, names: Mapping[int, tuple[str, str, bool]], locked: Mapping[int, str]
    ) -> dict[Key, Any]:
        for oid, (_, name, is_searched) in names.items():
            if is_searched and name == RECORDS:
                if oid in locked:
                    raise Unavailable(f"{RECORDS} {locked[oid]}.")
                return {(app, name): applied for app, name, applied in self._ask(RECORDED)}
        return {}

    def _default(
        self,
        labels: Sequence[str],
        names: Mapping[int, tuple[str, str, bool]],
        recorded: Mapping[Key, Any],
    ) -> str:
        """Return the first app of which there is something, or the first."""
        there = {app for app, _ in recorded}
        return next(
            (label for label in labels if label in there or owned(label, names)), next(iter(labels), "")
        )

    def _migrations(
        self, label: str, recorded: dict[Key, Any]
    ) -> tuple[str, tuple[Step, ...], tuple[str, ...], str]:
        try:
            history = history_of(self._connection, recorded)
            history.check(label)
            steps = tuple(step(history, migration) for migration in history.of(label))
            return history.last(label) or "zero", steps, tuple(history.gone(label)), ""
        except SchemaError as error:
            return "", (), (), str(error)

    def _tables(
        self,
        label: str,
        ours: Sequence[int],
        names: Mapping[int, tuple[str, str, bool]],
        readable: set[int],
        locked: Mapping[int, str],
    ) -> tuple[Shown, ...]:
        ordered = self._in_order(ours, names)
        free = [oid for oid in ordered if oid not in locked]
        places = {names[oid][:2]: oid for oid in free}
        tables = {places[table.schema, table.relation]: table for table in read(self._connection, oids=free)}
        few = [oid for oid in ordered[:TABLES_SHOWN] if oid in tables and oid in readable]
        away = {oid: names[oid][1] for oid in ours if oid in locked}
        found = rows(self._cursor, {oid: tables[oid] for oid in few}, away, label)
        shown = []
        for oid in ordered:
            schema, name, is_searched = names[oid]
            full = name if is_searched else f"{schema}.{name}"
            note = "" if oid in readable else "The role of this page may not read the rows."
            said = f"{full} {locked[oid]}." if oid in locked else ""
            shown.append(Shown(oid, full, called(label, name), tables.get(oid), found.get(oid), said, note))
        return tuple(shown)

    def _in_order(self, ours: Sequence[int], names: Mapping[int, tuple[str, str, bool]]) -> list[int]:
        """Return the tables, those first that others refer to."""
        parents: dict[int, set[int]] = {}
        for child, parent in self._ask(REFERENCES, list(ours), list(ours)):
            parents.setdefault(child, set()).add(parent)
        depths: dict[int, int] = {}

        def depth(oid: int) -> int:
            if oid not in depths:
                depths[oid] = 0  # Where they refer to each other in a circle.
                depths[oid] = 1 + max(map(depth, parents.get(oid, ())), default=0)
            return depths[oid]

        return sorted(ours, key=lambda oid: (depth(oid), names[oid]))


def _sentence(error: BaseException) -> str:
    if isinstance(error, MISSED):
        return "The tables are just being changed."
    match error:
        case errors.QueryCanceled():
            return "A query of this page took longer than two seconds, and was given up."
        case psycopg2.Error(pgcode=None) | errors.AdminShutdown() | errors.CrashShutdown():
            return "The server ended the session of this page."
    return f"Postgres refuses what this page asks: {str(error).partition(chr(10))[0]}."
