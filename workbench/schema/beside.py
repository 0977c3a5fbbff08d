"""What somebody feels who works on a database while a session changes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

from workbench.connection import interrupt, silence
from workbench.connection.locks import strongest

# Between two looks of those beside it: often enough to feel what a person would, rare enough not to be in
# the way.
PAUSE_SECONDS = 0.02
# Less than the second after which Postgres looks for a deadlock and may end the migration instead of us.
WRITER_LOCK_TIMEOUT = "400ms"
# Shorter ones are no waits.
WAIT_SECONDS = 0.001

LOCKED_BY = """
SELECT l.relation, l.mode FROM pg_locks l
WHERE l.pid = %s AND l.locktype = 'relation' AND l.granted AND l.relation >= 16384
"""
READ = "SELECT 1 FROM {0} WHERE ctid = '(0,1)'"
# It stands in line as an UPDATE does, and sets off no triggers.
WRITE = (
    "BEGIN; LOCK TABLE {0} IN ROW EXCLUSIVE MODE; SELECT 1 FROM {0} WHERE ctid = '(0,1)' FOR UPDATE; ROLLBACK"
)


class Beside:
    """Three sessions beside one that migrates: one looks at its locks, two read and write what it locked.

    The reader asks for a row and the writer locks one as who changes it does, so neither changes anything;
    each notes how long it waited. ``pid`` is the process of the one that migrates.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.pid = 0
        self._unit = silence.unit_of(connection.connection) or silence.SECONDS
        self._names: dict[int, str] = {}
        self._is_felt = False
        self._tables: dict[str, None] = {}
        self._began = 0.0
        self._waits: list[tuple[float, float, bool]] = []
        # When the wait began that is not over yet: the reader's, the writer's.
        self._waiting: dict[bool, float] = {}
        self._seen: dict[int, str] | None = None
        self._is_over = threading.Event()
        self._wake = threading.Event()
        self._is_looking = threading.Event()
        self._sessions: list[Any] = []
        self._threads: list[threading.Thread] = []
        work = (self._look, partial(self._work, is_writer=False), partial(self._work, is_writer=True))
        try:
            params = connection.get_connection_params()
            for each in work:
                session = connection.get_new_connection(params)
                session.autocommit = True
                self._sessions.append(session)
                self._threads.append(threading.Thread(target=each, args=[session], daemon=True))
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise

    def begin(self, names: dict[int, str], *, is_felt: bool) -> None:
        """Look for locks on these tables from now on, and work on those if ``is_felt``; forget the waits."""
        self._names, self._is_felt, self._waits, self._began = names, is_felt, [], time.monotonic()

    @property
    def is_whole(self) -> bool:
        """Whether nobody has ended one of the sessions."""
        return not any(session.closed for session in self._sessions)

    def waits(self) -> list[tuple[float, float, bool]]:
        """Return when each wait began, its seconds until now, and whether it was the writer's."""
        now = time.monotonic()
        going_on = [
            (began, now - began, is_writer)
            for is_writer, began in list(self._waiting.items())
            if began >= self._began
        ]
        return [*self._waits, *going_on]

    @contextmanager
    def closely(self) -> Iterator[dict[int, str]]:
        """Look as often as one can, and collect the strongest lock on each table."""
        seen: dict[int, str] = {}
        self._is_looking.clear()
        self._seen = seen
        self._wake.set()
        # What is quick would be over before it is awake.
        self._is_looking.wait(10 * PAUSE_SECONDS)
        try:
            yield seen
        finally:
            self._seen = None

    def close(self) -> None:
        self._is_over.set()
        self._wake.set()
        for thread, session in zip(self._threads, self._sessions, strict=True):
            deadline, asking = time.monotonic() + self._unit, None
            # It may just be about to ask for something that it cannot have yet.
            while thread.is_alive():
                if time.monotonic() > deadline:
                    silence.give_up(session, "The server did not end it.")
                elif asking is None or not asking.is_alive():
                    asking = interrupt.ask(session)
                thread.join(PAUSE_SECONDS)
        for session in self._sessions:
            session.close()

    def _look(self, session: Any) -> None:
        with suppress(psycopg2.Error), session.cursor() as cursor:
            while not self._is_over.is_set():
                cursor.execute(LOCKED_BY, [self.pid])
                for oid, mode in cursor.fetchall():
                    if name := self._names.get(oid):
                        if self._is_felt:
                            self._tables[name] = None
                        if self._seen is not None:
                            self._seen[oid] = strongest(mode, self._seen.get(oid, mode))
                if self._seen is not None:
                    self._is_looking.set()
                else:
                    self._wake.wait(PAUSE_SECONDS)
                    self._wake.clear()

    def _work(self, session: Any, *, is_writer: bool) -> None:
        # What is set for everybody is not meant for who only feels.
        timeout = WRITER_LOCK_TIMEOUT if is_writer else 0
        _is_done(session, f"SET statement_timeout = 0; SET lock_timeout = '{timeout}'")
        while not self._is_over.wait(PAUSE_SECONDS):
            for table in list(self._tables) if self._is_felt else ():
                waits, began = self._waits, time.monotonic()
                self._waiting[is_writer] = began
                while not _is_done(session, (WRITE if is_writer else READ).format(table)):
                    if self._is_over.is_set():
                        return
                del self._waiting[is_writer]
                if (seconds := time.monotonic() - began) > WAIT_SECONDS:
                    waits.append((began, seconds, is_writer))


def _is_done(session: Any, statement: str) -> bool:
    """Run it, and tell whether it did not merely wait for a lock too long."""
    try:
        with session.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.Error as error:
        with suppress(psycopg2.Error), session.cursor() as cursor:
            cursor.execute("ROLLBACK")
        # Else it is renamed, dropped, or not ours to write.
        return not isinstance(error, errors.LockNotAvailable)
    return True
