"""How far Postgres is with a statement that takes long, as a session beside it sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg2
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from workbench.progress import SECONDS_BEFORE_SHOWN, Progress, is_visible

SECONDS_BETWEEN = 0.5
AT_MOST_SECONDS = 1.0

# https://www.postgresql.org/docs/current/progress-reporting.html#CREATE-INDEX-PROGRESS-REPORTING
INDEX = """
SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total
FROM pg_stat_progress_create_index WHERE pid = %s
"""
# The folder of a database that is not there for others yet: nobody but a superuser may look.
COPY = """
SELECT sum((pg_stat_file(folder || '/' || file, true)).size)::bigint
FROM (SELECT 'base/' || max(name::bigint) AS folder FROM pg_ls_dir('base') AS name
      WHERE name ~ '^[0-9]+$' AND NOT EXISTS (SELECT FROM pg_database WHERE oid::text = name)) AS newest,
     pg_ls_dir(folder, true, false) AS file
"""


@contextmanager
def building(progress: Progress, connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Inside, let ``progress`` say how far an index is that ``connection`` builds."""

    def look(cursor: CursorWrapper) -> None:
        raw = connection.connection
        cursor.execute(INDEX, [raw.info.backend_pid if raw is not None and not raw.closed else 0])
        progress.detail = _phase(*found) if (found := cursor.fetchone()) else ""

    with _looking(connection, look):
        yield
    progress.detail = ""


@contextmanager
def copying(progress: Progress, connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Inside, let ``progress`` count the bytes of a database that ``connection`` makes by copying files."""

    def look(cursor: CursorWrapper) -> None:
        cursor.execute(COPY)
        progress.done = cursor.fetchone()[0] or progress.done

    with _looking(connection, look):
        yield


def _phase(phase: str, *counts: int) -> str:
    blocks_done, blocks, tuples_done, tuples = counts
    done, total = (tuples_done, tuples) if tuples else (blocks_done, blocks)
    said = phase.replace(": ", ", ")
    return f"{said}, {done / total:.0%}" if total else said


@contextmanager
def _looking(connection: BaseDatabaseWrapper, look: Callable[[CursorWrapper], None]) -> Iterator[None]:
    """Call ``look`` now and then, in a thread with a session of its own, once that takes long."""
    if not is_visible():
        yield
        return
    is_over = threading.Event()

    def work() -> None:
        if is_over.wait(SECONDS_BEFORE_SHOWN):
            return
        # Who may not look, or cannot connect, has the seconds.
        with (
            suppress(Error, psycopg2.Error),
            closing(connection.copy()) as session,
            session.cursor() as cursor,
        ):
            while not is_over.is_set():
                look(cursor)
                is_over.wait(SECONDS_BETWEEN)

    thread = threading.Thread(target=work, name="workbench-gauge", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        # A session that was left would be in the way of the next copy. But its server may not answer.
        thread.join(AT_MOST_SECONDS)
