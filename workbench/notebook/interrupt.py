"""Interrupting a cell cancels its query.

While Postgres works, Python's main thread waits inside libpq, where no KeyboardInterrupt can reach it. The
signal's number does arrive at the wakeup descriptor (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd),
and another thread may ask the server to cancel. The query then ends, and the interrupt is raised.
"""

from __future__ import annotations

import os
import signal
import threading
from weakref import WeakSet

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE


def register() -> None:
    """Watch for SIGINT. Does nothing on Windows, where the event loop has the wakeup descriptor."""
    if os.name == "nt":
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    opened: WeakSet[BaseDatabaseWrapper] = WeakSet()
    connection_created.connect(lambda connection, **_: opened.add(connection), weak=False)

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] == signal.SIGINT:
                for connection in list(opened):
                    _cancel(connection)

    threading.Thread(target=watch, name="workbench-interrupt", daemon=True).start()


def _cancel(connection: BaseDatabaseWrapper) -> None:
    raw = connection.connection
    try:
        if raw is not None and raw.get_transaction_status() == TRANSACTION_STATUS_ACTIVE:
            raw.cancel()
    except psycopg2.Error:
        pass  # The query ended by itself, or the server is gone and the waiting with it.
