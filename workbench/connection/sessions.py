"""The sessions of this process, and which of them are in the middle of a transaction."""

from __future__ import annotations

import copy
import gc
import selectors
import sys
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

import psycopg2
import psycopg2.extensions
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from workbench.connection.cancel import canceller
from workbench.connection.interrupt import watched
from workbench.connection.silence import asking

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


LAST_WORD_SECONDS = 0.1

# Ends a session that leaves its transaction open, which is the person's to leave or not: those beside do.
IDLE_IN_TRANSACTION = "idle_in_transaction_session_timeout"


class Connection(psycopg2.extensions.connection):
    """psycopg2's, that knows its cursors as long as they live, and is told of what the server does not tell.

    ``is_kept`` says that its session is in a state that nobody could see.
    """

    is_kept = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursors: WeakSet[Any] = WeakSet()
        self._cancel = canceller(self)

    def cancel(self) -> None:
        """Ask the server to cancel what runs. Raises psycopg2.Error."""
        (self._cancel or super().cancel)()

    def cursor(self, *args: Any, **options: Any) -> Any:
        made: Any = super().cursor(*args, **options)
        self.cursors.add(made)
        return made


def startup(settings: Mapping[str, Any], own: str = "") -> str:
    r"""Return server settings as libpq's ``options`` has them, with those of the person's ``own`` after ours.

    The last one counts. A space or a backslash in a value follows a backslash
    (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS).
    """
    pairs = (f"{name}={value}".replace("\\", r"\\").replace(" ", r"\ ") for name, value in settings.items())
    return " ".join(filter(None, [*(f"-c {pair}" for pair in pairs), own]))


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
    with asking(connection), connection.connection.cursor() as cursor:
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


def is_alive(raw: Any) -> bool:
    """Tell whether a session that nobody asks anything is still there, as far as was heard from the server.

    What the server said at its end is among the ``notices`` then.
    """
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(raw, selectors.EVENT_READ)
            before = [*raw.notices]
            # What came is read; the end of a connection comes again and again, a moment after its last word.
            for _ in range(3):
                if not selector.select(0 if raw.notices == before else LAST_WORD_SECONDS):
                    return True
                raw.poll()
        except (psycopg2.Error, ValueError, OSError):
            pass
    return False


def forget(connection: BaseDatabaseWrapper) -> None:
    """Close this thread's session, whatever transaction Django believes in: the next query connects anew."""
    close(connection)
    connection.connection = None
    _leave_blocks(connection)
    connection.closed_in_transaction = False


def roll_back(connection: BaseDatabaseWrapper) -> None:
    """End the transaction of this thread's session, in whichever way it was begun. Raises Error."""
    is_of_block = connection.in_atomic_block and connection.commit_on_exit
    began_in_sql = connection.connection.autocommit
    _leave_blocks(connection)
    connection.rollback()
    if began_in_sql:
        # psycopg2 knows nothing of it.
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
    if is_of_block:
        connection.set_autocommit(True)


def ways_out(connection: BaseDatabaseWrapper) -> tuple[str, str]:
    """Return what to type to keep what a transaction changed, and to take it back."""
    alias = connection.alias
    is_default = alias == DEFAULT_DB_ALIAS
    name = "connection" if is_default else f"transaction.get_connection({alias!r})"
    if connection.in_atomic_block:
        leave = f"{name}.atomic_blocks[-1].__exit__(None, None, None)"
        many = f"while {name}.in_atomic_block: " if len(connection.atomic_blocks) > 1 else ""
        return f"{many}{leave}", f"{name}.close()"
    if connection.autocommit:
        return f"{name}.cursor().execute('COMMIT')", f"{name}.cursor().execute('ROLLBACK')"
    using = "" if is_default else repr(alias)
    return f"transaction.commit({using})", f"transaction.rollback({using})"


def _leave_blocks(connection: BaseDatabaseWrapper) -> None:
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    connection.needs_rollback = False
    connection.run_on_commit = []


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
    """Return a connection for an entry of DATABASES that nobody's queries go to by themselves.

    How long a transaction may stay idle there is our own affair.
    """
    entry = copy.deepcopy(entry)
    entry.get("SESSION", {}).pop(IDLE_IN_TRANSACTION, None)
    connection: BaseDatabaseWrapper = load_backend(entry["ENGINE"]).DatabaseWrapper(entry, alias)
    connection.is_aside = True  # type: ignore[attr-defined]
    return connection
