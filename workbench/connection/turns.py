"""One at a time: a turn, that Postgres gives to one process only, and takes back when its session ends."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.connection.queue import Session
from workbench.connection.sessions import UNLIMITED
from workbench.connection.silence import asking
from workbench.connection.url import past_pooler
from workbench.errors import OneSentence

# "wkbr" and "migr": advisory locks are of one database, whose name need not be in them.
LOCK = (0x776B6272, 0x6D696772)
POLL_SECONDS = 0.2
# Waits that are shorter are not worth a word.
SILENT_SECONDS = 1.0

TAKE = "SELECT pg_try_advisory_lock(%s, %s)"
GIVE_BACK = "SELECT pg_advisory_unlock(%s, %s)"
# The last is NULL for a role that may not see it.
HOLDER = """
SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(host(a.client_addr), ''),
       extract(epoch FROM clock_timestamp() - a.backend_start)::float
FROM pg_stat_activity a JOIN pg_locks l USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND (l.classid, l.objid) = (%s, %s)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# What Postgres keeps of an application_name.
NAME_BYTES = 63

# The sessions whose turn this is already, for a migrate within a migrate.
_ours: ContextVar[frozenset[int]] = ContextVar("_ours", default=frozenset())


class NotOurTurn(OneSentence):
    """Somebody else has the turn, and keeps it longer than we wait: one sentence that names them."""


@contextmanager
def turn(connection: BaseDatabaseWrapper, *, patience: float, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the turn of migrating the database of ``connection``, after at most ``patience`` seconds.

    It belongs to a session of its own at the direct address. Within itself it is given at once. Whom it waits
    for, and if the turn got lost, is told in sentences. Raises NotOurTurn.
    """
    # Asked for again and again: a session that blocked in pg_advisory_lock() would have a snapshot, for whose
    # end the holder's CREATE INDEX CONCURRENTLY waits.
    beside = _beside(connection)
    try:
        if not _take(beside, patience, tell):
            yield
            return
        token = _ours.set(_ours.get() | {beside.connection.info.backend_pid})
        try:
            yield
        finally:
            _ours.reset(token)
            if not _give_back(beside):
                tell(
                    "The session that kept other migrates away was ended, or led through a pooler: one may "
                    "have run at the same time."
                )
    finally:
        beside.close()


def _beside(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    beside: BaseDatabaseWrapper = connection.copy()
    beside.settings_dict = past_pooler(beside.settings_dict) | {"AUTOCOMMIT": True}
    name = f"migrate by process {os.getpid()} on {platform.node()}"
    beside.settings_dict["OPTIONS"]["application_name"] = name.encode()[:NAME_BYTES].decode(errors="ignore")
    return beside


def _take(beside: BaseDatabaseWrapper, patience: float, tell: Callable[[str], None]) -> bool:
    """Return once it is our turn: False where it is this very run's already."""
    began = time.monotonic()
    told = None
    with beside.cursor() as cursor:
        # It does nothing for as long as the migration takes.
        cursor.execute(UNLIMITED, [False])
        while True:
            cursor.execute(TAKE, LOCK)
            if cursor.fetchone()[0]:
                return True
            cursor.execute(HOLDER, LOCK)
            waited = time.monotonic() - began
            # Between two looks it may have let go.
            if row := cursor.fetchone():
                holder = Session(*row[:4])
                if holder.pid in _ours.get():
                    return False
                if waited >= patience:
                    raise NotOurTurn(_too_long(holder, row[4], patience))
                if waited >= SILENT_SECONDS and holder.pid != told:
                    told = holder.pid
                    tell(
                        f"Another migrate is at work on this database: waiting for {holder}{_since(row[4])}."
                    )
            time.sleep(min(POLL_SECONDS, max(0, patience - waited)))


def _too_long(holder: Session, age: float | None, patience: float) -> str:
    return (
        f"Another migrate is at work on this database, and was not done in {patience:g} seconds: {holder}"
        f"{_since(age)}. Wait longer with --wait SECONDS, or end it: "
        f"SELECT pg_terminate_backend({holder.pid})."
    )


def _since(age: float | None) -> str:
    return "" if age is None else time.strftime(", since %H:%M:%S", time.localtime(time.time() - age))


def _give_back(beside: BaseDatabaseWrapper) -> bool:
    """Tell whether the turn was still ours."""
    try:
        # psycopg2's own cursor: Django's would connect anew, and start a server that has gone down.
        with asking(beside), beside.connection.cursor() as cursor:
            cursor.execute(GIVE_BACK, LOCK)
            return bool(cursor.fetchone()[0])
    except psycopg2.Error:
        return False
