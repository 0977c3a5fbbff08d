"""The connections around each cell.

Django drops dead, old and broken connections around HTTP requests only; a kernel has none.
"""

from __future__ import annotations

import sys

from django.db import connections
from django.db.backends.signals import connection_created
from IPython.core.interactiveshell import InteractiveShell
from psycopg2.extensions import TRANSACTION_STATUS_INERROR

from workbench.connection.interrupt import watched
from workbench.connection.sessions import holds_transaction


def register(shell: InteractiveShell) -> None:
    connection_created.connect(lambda connection, **_: watched.add(connection), weak=False)
    shell.events.register("pre_run_cell", refresh)
    shell.events.register("post_run_cell", mend)


def refresh(*_: object) -> None:
    """Before a cell: drop the connections that died or are too old, but none with an open transaction."""
    for connection in connections.all(initialized_only=True):
        if not holds_transaction(connection):
            connection.close_if_unusable_or_obsolete()
    for connection in watched:
        # Only its own thread may close it, and does if this check fails at its next query.
        is_open = connection.in_atomic_block or not connection.autocommit
        connection.health_check_done = is_open  # type: ignore[attr-defined]


def mend(*_: object) -> None:
    """After a cell: end a transaction that a failed statement spoiled, so that the next can query."""
    for connection in connections.all(initialized_only=True):
        raw = connection.connection
        if raw is None or raw.closed or connection.in_atomic_block:
            continue
        if raw.get_transaction_status() == TRANSACTION_STATUS_INERROR:
            if raw.autocommit:
                # A BEGIN of the person's own, which psycopg2 knows nothing of.
                raw.cursor().execute("ROLLBACK")
            else:
                raw.rollback()
            print("The open transaction was rolled back, because a statement in it failed.", file=sys.stderr)
