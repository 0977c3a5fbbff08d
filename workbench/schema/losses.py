"""What a migration plan would drop, said before it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.migrations import Migration
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.loader import MigrationLoader

NAME = r'(?:"(?:[^"]|"")+"|\w+)(?:\.(?:"(?:[^"]|"")+"|\w+))?'
DROP_TABLE = re.compile(rf"DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?({NAME}(?:\s*,\s*{NAME})*)", re.IGNORECASE)
ALTER_TABLE = re.compile(rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?({NAME})", re.IGNORECASE)
DROP_COLUMN = re.compile(rf"DROP\s+COLUMN\s+(?:IF\s+EXISTS\s+)?({NAME})", re.IGNORECASE)

Plan = list[tuple[Migration, bool]]


def losses(connection: BaseDatabaseWrapper, plan: Plan) -> list[str]:
    """Return what ``plan`` would drop of what ``connection``'s database holds now, a phrase each.

    ``plan`` is Django's: migrations in order, each with whether it runs backwards. It is read from the SQL
    that they would send; what only their Python code does cannot be known. Raises IrreversibleError.
    """
    with connection.cursor() as cursor:
        found = dict.fromkeys(_dropped(connection, plan))
        return [phrase for table, column in found if (phrase := _phrase(cursor, table, column))]


def _dropped(connection: BaseDatabaseWrapper, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield table and column, both as quoted in the SQL, the column '' where the table goes."""
    if not connection.introspection.table_names():
        return
    loader = MigrationLoader(connection)
    for step in plan:
        try:
            statements = loader.collect_sql([step])
        except IrreversibleError:
            raise
        except Exception:
            # Some operations look up constraints that an earlier step of the plan would have made.
            statements = []
        for statement in statements:
            if statement.startswith("--"):
                continue
            for tables in DROP_TABLE.findall(statement):
                for table in re.findall(NAME, tables):
                    yield table, ""
            if altered := ALTER_TABLE.search(statement):
                for column in DROP_COLUMN.findall(statement):
                    yield altered[1], column


def _phrase(cursor: CursorWrapper, table: str, column: str) -> str:
    """Say what is lost with the table or column, or return '' if the database does not have it."""
    cursor.execute(
        "SELECT to_regclass(%s) IS NOT NULL AND (%s = '' OR EXISTS (SELECT FROM pg_attribute WHERE "
        "attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped))",
        [table, column, table, _bare(column)],
    )
    (exists,) = cursor.fetchone()
    if not exists:
        return ""
    # Both names come quoted from Django's own SQL, or from the person's RunSQL.
    cursor.execute(f"SELECT count({column or '*'}) FROM {table}")
    (rows,) = cursor.fetchone()
    held = f"{rows} row" if rows == 1 else f"{rows} rows"
    name = ".".join(_bare(part) for part in re.findall(r'"(?:[^"]|"")+"|\w+', table))
    return f"column {name}.{_bare(column)} ({held})" if column else f"table {name} ({held})"


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
