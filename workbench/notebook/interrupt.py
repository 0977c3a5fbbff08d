"""Interrupting a cell cancels its query.

While Postgres works, Python's main thread waits inside libpq, where no KeyboardInterrupt can reach it. The
signal's number does arrive at the wakeup descriptor (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd),
and another thread may ask the server to cancel. The query then ends, and the interrupt is raised.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper
from IPython.core.interactiveshell import InteractiveShell
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE

from workbench.notebook.cells import opened


def register(shell: InteractiveShell) -> None:
    """Watch for SIGINT. Does nothing on Windows, where the event loop has the wakeup descriptor."""
    if os.name == "nt":
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    cancelled = threading.Event()

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] != signal.SIGINT:
                continue
            for connection in list(opened):
                if _cancel(connection):
                    cancelled.set()

    def explain(
        shell: InteractiveShell, kind: type[KeyboardInterrupt], error: KeyboardInterrupt, trace: Any, **_: Any
    ) -> None:
        lines = shell.InteractiveTB.structured_traceback(kind, error, trace)
        if cancelled.is_set():
            cancelled.clear()
            lines = ["KeyboardInterrupt: the query was cancelled."]
        shell._showtraceback(kind, error, lines)

    def begin(*_: object) -> None:
        cancelled.clear()
        # A cell may have taken it for itself, as the event loop's signal handlers do.
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    shell.events.register("pre_run_cell", begin)
    shell.set_custom_exc((KeyboardInterrupt,), explain)
    threading.Thread(target=watch, name="workbench-interrupt", daemon=True).start()


def _cancel(connection: BaseDatabaseWrapper) -> bool:
    """Ask the server to cancel what this connection waits for, and tell whether there was something."""
    raw = connection.connection
    if raw is None or raw.get_transaction_status() != TRANSACTION_STATUS_ACTIVE:
        return False
    try:
        raw.cancel()
    except psycopg2.Error:
        return False  # The server is gone, and the waiting with it.
    return True
