"""Control-C cancels the query that a connection waits for.

While Postgres works, Python's main thread waits inside libpq, where no KeyboardInterrupt can reach it. The
signal's number does arrive at the wakeup descriptor
(https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd), and another thread may ask the server
to cancel. The query then ends, and the interrupt is raised.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import psycopg2.errors
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE


class Watched:
    """Connections, for as long as they live: one thread may go through them while another adds one."""

    def __init__(self) -> None:
        self._connections: WeakSet[BaseDatabaseWrapper] = WeakSet()
        self._lock = threading.Lock()

    def add(self, connection: BaseDatabaseWrapper) -> None:
        with self._lock:
            self._connections.add(connection)

    def __iter__(self) -> Iterator[BaseDatabaseWrapper]:
        with self._lock:
            found = [*self._connections]
        return iter(found)


# Of every thread: asynchronous queries run in one of their own.
watched = Watched()
cancelled = threading.Event()

_writing: int | None = None


def watch(connection: BaseDatabaseWrapper | None = None, *, instead_of_others: bool = False) -> None:
    """From now on let SIGINT cancel what ``connection``, and those watched before, wait for.

    Does nothing outside the main thread, on Windows, whose event loops need the wakeup descriptor, and where
    somebody else has it, unless ``instead_of_others``.
    """
    cancelled.clear()
    if connection is not None:
        watched.add(connection)
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        return
    global _writing
    if _writing is None:
        reading, _writing = os.pipe()
        os.set_blocking(_writing, False)
        threading.Thread(target=_listen, args=[reading], name="workbench-interrupt", daemon=True).start()
    other = signal.set_wakeup_fd(_writing, warn_on_full_buffer=False)
    if other not in (-1, _writing) and not instead_of_others:
        signal.set_wakeup_fd(other)


@contextmanager
def kept() -> Iterator[None]:
    """Raise the KeyboardInterrupt that psycopg2 loses if it comes while it makes an error of the answer."""
    try:
        yield
    except OperationalError as error:
        if cancelled.is_set() and isinstance(error.__cause__, psycopg2.errors.QueryCanceled):
            raise KeyboardInterrupt from error
        raise


def cancel(connection: BaseDatabaseWrapper) -> bool:
    """Ask the server to cancel what this connection waits for, and tell whether there was something."""
    raw = connection.connection
    if raw is None or raw.closed or raw.get_transaction_status() != TRANSACTION_STATUS_ACTIVE:
        return False
    try:
        raw.cancel()
    except psycopg2.Error:
        return False  # The server is gone, and the waiting with it.
    return True


def _listen(reading: int) -> None:
    while number := os.read(reading, 1):
        if number[0] != signal.SIGINT:
            continue
        # Before the server is asked: its answer may be there before ours.
        cancelled.set()
        if not sum(map(cancel, watched)):
            cancelled.clear()
