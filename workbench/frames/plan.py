"""How many rows a statement will give, as the planner thinks."""

from __future__ import annotations

from contextlib import closing, suppress

import psycopg2
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

# Who waits for a lock is not told: the rows are coming already.
PATIENCE = "SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '2s'"


def expected_rows(connection: BaseDatabaseWrapper, sql: str) -> int | None:
    """Return the planner's estimate, from a session beside the one that is busy with the rows.

    None where that session cannot connect, or does not see what the other does: a temporary table, say.
    """
    with (
        suppress(Error, psycopg2.Error),
        closing(connection.copy()) as session,
        session.cursor() as cursor,
    ):
        cursor.execute(f"{PATIENCE}; EXPLAIN (FORMAT JSON) {sql}")
        return int(cursor.fetchone()[0][0]["Plan"]["Plan Rows"])
    return None
