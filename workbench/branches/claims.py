"""Names that a living process claims, for others to see: which of Neon's branches somebody still works with.

A claim is an advisory lock in a session of its own. Postgres frees it when the session ends, however it ends:
what a dead process left can be told from what a living one uses. The locks belong to one database: those who
are to see each other's claims connect to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg2

from workbench.connection.sessions import UNLIMITED, aside

# Of our advisory locks: the first of their two numbers, "wkbn". The second is a hash of the name.
LOCKS = 0x776B626E

HELD = f"""
SELECT name FROM unnest(%s::text[]) AS name
WHERE EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = {LOCKS} AND l.objsubid = 2
              AND l.objid = hashtext(name)::oid AND l.granted
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


@contextmanager
def claimed(entry: dict[str, Any], name: str) -> Iterator[None]:
    """Claim a name where an entry of Django's DATABASES leads to, until the context or this process ends.

    Waits while somebody else claims it. Raises ConnectionFailed.
    """
    with closing(session(entry)) as connection, connection.cursor() as cursor:
        # Neon suspends a server whose sessions are idle, but not while a transaction is open. This one keeps
        # no snapshot, so neither VACUUM nor CREATE INDEX CONCURRENTLY waits for it.
        cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        cursor.execute(UNLIMITED, [True])
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [LOCKS, name])
        try:
            yield
        finally:
            # Now, not when the server comes to see that the session was closed.
            with suppress(psycopg2.Error):
                cursor.execute("COMMIT")


def held(entry: dict[str, Any], names: Iterable[str]) -> set[str]:
    """Return those of the names that somebody claims where the entry leads to. Raises ConnectionFailed."""
    with closing(session(entry)) as connection, connection.cursor() as cursor:
        cursor.execute(HELD, [list(names)])
        return {name for (name,) in cursor.fetchall()}


def session(entry: dict[str, Any]) -> Any:
    """Return a psycopg2 connection of our own, in autocommit. Raises ConnectionFailed."""
    wrapper = aside(entry, "default")
    connection = wrapper.get_new_connection(wrapper.get_connection_params())
    connection.autocommit = True
    return connection
