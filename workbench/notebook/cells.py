"""The connections around each cell.

Django drops dead, old and broken connections around HTTP requests only; a kernel has none.
"""

from __future__ import annotations

import sys

from django.db import close_old_connections, connections
from IPython.core.interactiveshell import InteractiveShell
from psycopg2.extensions import TRANSACTION_STATUS_INERROR


def register(shell: InteractiveShell) -> None:
    shell.events.register("pre_run_cell", refresh)
    shell.events.register("post_run_cell", mend)


def refresh(*_: object) -> None:
    """Before a cell: drop the connections that died or are too old. One inside ``atomic()`` is left alone."""
    close_old_connections()


def mend(*_: object) -> None:
    """After a cell: end a transaction that a failed statement spoiled, so that the next can query."""
    for connection in connections.all(initialized_only=True):
        raw = connection.connection
        if raw is None or raw.closed or connection.in_atomic_block:
            continue
        if raw.get_transaction_status() == TRANSACTION_STATUS_INERROR:
            raw.rollback()
            connection.needs_rollback = False
            print("The open transaction was rolled back, because a statement in it failed.", file=sys.stderr)
