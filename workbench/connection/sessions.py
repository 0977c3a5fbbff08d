"""The sessions of this process, and which of them are in the middle of a transaction."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import psycopg2.extensions
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

# Whether a new session would be as this one is. What is temporary depends on its schema; TimeZone is set by
# Django and DateStyle by psycopg2, in each new session again.
IS_AS_NEW = """
SELECT current_user = %s AND NOT EXISTS (
    SELECT FROM pg_settings WHERE source = 'session' AND setting IS DISTINCT FROM reset_val
    AND NOT (name = 'TimeZone' AND setting = %s)
    AND NOT (name = 'DateStyle' AND setting LIKE 'ISO%%' AND reset_val NOT LIKE 'ISO%%')
    UNION ALL SELECT FROM pg_depend
    WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()
    UNION ALL SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT FROM pg_cursors
    UNION ALL SELECT FROM pg_prepared_statements
    UNION ALL SELECT FROM pg_listening_channels()
)
"""


class Connection(psycopg2.extensions.connection):
    """psycopg2's, that knows its cursors as long as they live, and is told of what the server does not tell.

    ``is_kept`` says that its session is in a state that nobody could see.
    """

    is_kept = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursors: WeakSet[Any] = WeakSet()

    def cursor(self, *args: Any, **options: Any) -> Any:
        made: Any = super().cursor(*args, **options)
        self.cursors.add(made)
        return made


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


def is_as_new(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether nobody could tell the open session of this thread from a new one.

    It holds no transaction, nothing that was set or made in it, and no Python object works with it. Costs a
    round trip. Raises psycopg2.Error.
    """
    if not isinstance(connection.connection, Connection) or connection.connection.is_kept:
        return False
    if connection.connection.closed or connection.allow_thread_sharing or holds_transaction(connection):
        return False
    if _is_in_hand(connection):
        # Or what an error left was not collected yet.
        gc.collect()
        if _is_in_hand(connection):
            return False
    role = connection.settings_dict["OPTIONS"].get("assume_role") or connection.connection.info.user
    # psycopg2's own cursor: a person who counts queries, or looks at them, finds those of the cell.
    with connection.connection.cursor() as cursor:
        cursor.execute(IS_AS_NEW, [role, connection.timezone_name])
        return bool(cursor.fetchone()[0])


def _is_in_hand(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether somebody has a cursor that is open, or psycopg2's connection itself."""
    cursors = [*connection.connection.cursors]
    # Those that count: Django's connection, each cursor, and the argument here.
    known = 1 + len(cursors) + 1
    return not all(cursor.closed for cursor in cursors) or sys.getrefcount(connection.connection) > known


def close(connection: BaseDatabaseWrapper) -> None:
    """Close a session, of whatever thread: its next query connects anew."""
    connection.leads_to = None  # type: ignore[attr-defined]
    connection.health_check_done = False  # type: ignore[attr-defined]
    if (raw := connection.connection) is not None:
        raw.close()


def is_aside(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether nothing of the person's is asked there: a session beside this thread's own."""
    if getattr(connection, "is_aside", False) or connection.alias not in connections:
        return True
    return connections[connection.alias] is not connection


def accompany(connection: BaseDatabaseWrapper, wrapper: Callable[..., Any]) -> None:
    """Put an execute wrapper around what is asked on a connection, once, and never on a session beside."""
    if not is_aside(connection) and wrapper not in connection.execute_wrappers:
        connection.execute_wrappers.append(wrapper)


def aside(entry: dict[str, Any], alias: str) -> BaseDatabaseWrapper:
    """Return a connection for an entry of DATABASES that nobody's queries go to by themselves."""
    connection: BaseDatabaseWrapper = load_backend(entry["ENGINE"]).DatabaseWrapper(
        copy.deepcopy(entry), alias
    )
    connection.is_aside = True  # type: ignore[attr-defined]
    return connection
