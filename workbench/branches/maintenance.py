"""A session beside the branches, in a database that is none of them: it makes and drops them.

Its locks say who is at work on which database. Postgres frees them when the session ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors, sql

from workbench.branches.errors import BranchError, InUse
from workbench.connection import ConnectionFailed, ConnectionLost, Session, glance, interrupt, silence
from workbench.connection.gauges import copying
from workbench.connection.program import NOTEBOOK, UNNAMED
from workbench.connection.sessions import UNLIMITED, aside, close, holds_transaction, ours
from workbench.connection.url import past_pooler
from workbench.errors import listed
from workbench.progress import Progress

# Of our advisory locks: the first of their two numbers, "wkbd". The second is a hash of a database's name.
LOCKS = 0x776B6264
# How long to wait for somebody who is at work on the same database, for sessions that were ended, and for
# notebooks that were busy just now: they let go of their sessions. So long Postgres waits, too, with what
# needs a database for itself (CountOtherDBBackends in its source).
PATIENCE_SECONDS = 5.0
# So many sessions are said in one sentence.
LISTED = 5

OPEN = "A transaction is open: commit it or roll it back first."

# What pg_stat_activity is made of, whose joins take longer than all the rest.
SESSIONS = """
SELECT pid, pg_get_userbyid(usesysid), coalesce(application_name, ''), coalesce(host(client_addr), ''),
       coalesce(backend_type, ''), coalesce(state, ''),
       coalesce(extract(epoch FROM clock_timestamp() - state_change), 0)::float
FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = %s) AND pid <> pg_backend_pid()
    AND coalesce(backend_type, '') NOT IN ('autovacuum worker', 'parallel worker')
ORDER BY pid
"""

_found: dict[tuple[Any, ...], str] = {}


class Maintenance:
    """An open session of this kind. Its methods raise BranchError."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        info = connection.connection.info
        self.database: str = info.dbname
        self._role: str = info.user
        self.version: int = connection.pg_version  # type: ignore[attr-defined]
        # What is set for everybody is not meant for a copy that takes long, nor for what only holds locks.
        self.ask(UNLIMITED, [False])

    def ask(self, query: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(query, params)
            return list(cursor.fetchall())

    def run(self, statement: str, *names: str, **literals: Any) -> None:
        """Run SQL in which ``{}`` stand for names and ``{word}`` for literals."""
        composed = sql.SQL(statement).format(
            *map(sql.Identifier, names), **{name: sql.Literal(value) for name, value in literals.items()}
        )
        with self._cursor() as cursor:
            cursor.execute(composed)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with explained(self._role), self._connection.cursor() as cursor:
            yield cursor

    def hurrying(self) -> AbstractContextManager[None]:
        """Return what gives the session up if the server is silent inside."""
        return silence.asking(self._connection)

    def copying(self, progress: Progress) -> AbstractContextManager[None]:
        """Return what lets ``progress`` count the bytes of a copy that is made inside."""
        return copying(progress, self._connection)

    def lock(self, *databases: str) -> bool:
        """Hold the locks of these databases until the session ends, and tell whether the first is there."""
        calls = ", ".join([f"pg_advisory_lock({LOCKS}, hashtext(%s))"] * len(databases))
        milliseconds = int(PATIENCE_SECONDS * 1000)
        try:
            ((is_there,),) = self.ask(
                f"SELECT set_config('lock_timeout', '{milliseconds}', true); SELECT {calls}; "
                f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)",
                # In one order, so that two cannot wait for each other.
                [*sorted(databases), databases[0]],
            )
        except BranchError as error:
            if not isinstance(error.__cause__, errors.LockNotAvailable):
                raise
            raise BranchError(
                "Somebody else is at work on a branch of this name: try again when it is done."
            ) from None
        return bool(is_there)

    def try_lock(self, database: str) -> bool:
        ((is_ours,),) = self.ask(f"SELECT pg_try_advisory_lock({LOCKS}, hashtext(%s))", [database])
        return bool(is_ours)

    def unlock(self, database: str) -> None:
        self.ask(f"SELECT pg_advisory_unlock({LOCKS}, hashtext(%s))", [database])

    def sessions(self, database: str) -> list[Session]:
        """Return who is connected to a database."""
        return [
            Session(pid, role, application, client, database, kind, state, seconds)
            for pid, role, application, client, kind, state, seconds in self.ask(SESSIONS, [database])
        ]

    def vacate(self, database: str, *, end_sessions: bool, but_passing: bool = False) -> None:
        """Return once nobody is connected, or with ``but_passing`` nobody who stays.

        This process' own idle sessions are closed, others' if wished. Those that pass are gone in a moment:
        they only look, or are a notebook's that was busy just now.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        # Those that were told to end, and may need a moment for it.
        ending: set[int] = set()
        while found := {session.pid: session for session in self.sessions(database)}:
            for connection in ours():
                raw = connection.connection
                if raw is not None and (pid := raw.info.backend_pid) in found:
                    if holds_transaction(connection):
                        raise BranchError(OPEN)
                    close(connection)
                    # The line to it may be dead, and the server would not hear of it.
                    self.ask("SELECT pg_terminate_backend(%s)", [pid])
                    ending.add(pid)
            others = [session for pid, session in found.items() if pid not in ending]
            if end_sessions:
                for session in others:
                    self.ask("SELECT pg_terminate_backend(%s)", [session.pid])
                    ending.add(session.pid)
            elif staying := [each for each in others if not _passes(each)]:
                raise in_use(database, staying)
            elif but_passing:
                return
            if time.monotonic() > deadline:
                raise in_use(database, [*found.values()])
            time.sleep(0.002)


def _passes(session: Session) -> bool:
    is_notebook = session.program == UNNAMED or session.program.endswith(NOTEBOOK)
    return session.application == glance.APPLICATION or (is_notebook and session.seconds < PATIENCE_SECONDS)


def in_use(database: str, others: Sequence[Session]) -> InUse:
    # A notebook may have several, of which the one that was busy last says most.
    busiest = sorted(others, key=lambda each: -each.seconds)
    found = {each.program if each.program.endswith(NOTEBOOK) else each.pid: each for each in busiest}
    distinct = [each for each in others if each in found.values()]
    is_one = len(distinct) == 1
    who = listed(map(str, distinct), most=LISTED)
    them, are, their, s = ("it", "is", "its", "") if is_one else ("them", "are", "their", "s")
    remedy = f"close {them}, or end {them}"
    if all(each.program.endswith(NOTEBOOK) for each in distinct):
        # Who closes its tab only leaves it running.
        remedy = f"shut down {their} kernel{s}, or end {their} session{s}"
    return InUse(f"{who} {are} connected to {database}: {remedy}")


@contextmanager
def session(entry: dict[str, Any], alias: str) -> Iterator[Maintenance]:
    """Open one on the server that an entry of DATABASES leads to."""
    connection = _connected(entry, alias)
    try:
        yield Maintenance(connection)
    finally:
        connection.close()


def _connected(entry: dict[str, Any], alias: str) -> BaseDatabaseWrapper:
    """Connect to the maintenance database: the same one for an entry always, as locks are a database's."""
    server = tuple(entry.get(part) for part in ("EMBEDDED", "HOST", "PORT", "USER"))
    names = dict.fromkeys(filter(None, (_found.get(server), "postgres", "template1", entry["NAME"])))
    for name in names:
        # Locks are lost in a pooler.
        connection = aside({**past_pooler(entry), "NAME": name, "BRANCH": ""}, alias)
        try:
            with explained(entry["USER"]):
                connection.ensure_connection()
        except ConnectionFailed as error:
            is_another_worth_it = "does not exist" in str(error.__cause__) or "permission" in str(error)
            if name == entry["NAME"] or not is_another_worth_it:
                raise
            continue
        if name != entry["NAME"]:
            _found[server] = name
        interrupt.watch(connection)
        return connection
    raise AssertionError


@contextmanager
def explained(role: str) -> Iterator[None]:
    """Say in one sentence what Postgres refused; the driver's own error is the cause."""
    try:
        yield
    except ConnectionFailed:
        raise
    except Error as error:
        cause = error.__cause__ or error
        if isinstance(error, ConnectionLost):
            said = f"{error.what} Try again when the server is back: what is half done goes then."
        else:
            said = _sentence(cause, role)
        raise BranchError(said) from cause


def _sentence(error: BaseException, role: str) -> str:
    said = str(error).partition("\n")[0].strip()
    match error:
        case errors.ObjectInUse():
            return f"Postgres refused: {said}. {error.diag.message_detail or ''}".strip()
        case errors.InsufficientPrivilege():
            return (
                f"The role {role} may not do that ({said}): branches need ALTER ROLE {role} CREATEDB, and a "
                f"database that is its own."
            )
        case errors.DiskFull():
            return f"The server has no room for a copy ({said}): drop what is not needed."
    return f"Postgres refused: {said}."
