"""The sessions of this process, and which of them are in the middle of a transaction."""

from __future__ import annotations

import copy
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from workbench.connection.interrupt import watched

# For a session that does one thing for long, or nothing: takes away the limits that would end it, some of
# which older servers lack. With true as the parameter it does so for the open transaction only.
UNLIMITED = """
SELECT set_config(name, '0', %s)
FROM unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
                  'transaction_timeout']) AS name
WHERE current_setting(name, true) IS NOT NULL
"""


def ours() -> list[BaseDatabaseWrapper]:
    """Return those that are open: of every thread in a kernel, of this thread elsewhere."""
    found = {*watched, *connections.all(initialized_only=True)}
    return [each for each in found if (raw := each.connection) is not None and not raw.closed]


def holds_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a connection is open and in a transaction, begun in any of the three ways there are."""
    raw = connection.connection
    if raw is None or raw.closed:
        return False
    began_in_sql = raw.get_transaction_status() != TRANSACTION_STATUS_IDLE
    return connection.in_atomic_block or not connection.autocommit or began_in_sql


def close(connection: BaseDatabaseWrapper) -> None:
    """Close a session, of whatever thread: its next query connects anew."""
    connection.leads_to = None  # type: ignore[attr-defined]
    connection.health_check_done = False  # type: ignore[attr-defined]
    if (raw := connection.connection) is not None:
        raw.close()


def aside(entry: dict[str, Any], alias: str) -> BaseDatabaseWrapper:
    """Return a connection for an entry of DATABASES that nobody's queries go to by themselves."""
    connection: BaseDatabaseWrapper = load_backend(entry["ENGINE"]).DatabaseWrapper(
        copy.deepcopy(entry), alias
    )
    connection.is_aside = True  # type: ignore[attr-defined]
    return connection
