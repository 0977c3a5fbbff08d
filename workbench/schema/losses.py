"""What a migration plan would drop, said before it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlparse
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.migrations import Migration
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.loader import MigrationLoader

# What may stand before a word.
BLANK = r"(?:\s|--[^\n]*\n|/\*(?s:.*?)\*/)*"
PART = r'(?:"(?:[^"]|"")+"|\w+)'
NAME = rf"{PART}(?:\s*\.\s*{PART})?"
TABLES = rf"({NAME}(?:\s*,\s*{NAME})*)"
EXISTS = r"(?:IF\s+EXISTS\s+)?"
DROP_TABLE = re.compile(
    rf"^\s*(?:DROP\s+(?:TABLE|MATERIALIZED\s+VIEW)\s+{EXISTS}|TRUNCATE\s+(?:TABLE\s+)?){TABLES}",
    re.IGNORECASE,
)
ALTER_TABLE = re.compile(rf"^\s*ALTER\s+TABLE\s+{EXISTS}(?:ONLY\s+)?({NAME})(.*)", re.IGNORECASE | re.DOTALL)
DROP_COLUMN = re.compile(rf"(?:^|,)\s*DROP\s+(?:COLUMN\s+)?(?!CONSTRAINT\b){EXISTS}({PART})", re.IGNORECASE)
RENAME_TABLE = re.compile(rf"^\s*RENAME\s+TO\s+({PART})", re.IGNORECASE)
RENAME_COLUMN = re.compile(
    rf"^\s*RENAME\s+(?:COLUMN\s+)?(?!TO\b|CONSTRAINT\b)({PART})\s+TO\s+({PART})", re.IGNORECASE
)

Plan = list[tuple[Migration, bool]]


def losses(connection: BaseDatabaseWrapper, plan: Plan) -> list[str]:
    """Return what ``plan`` would drop of what ``connection``'s database holds now, a phrase each.

    ``plan`` is Django's: migrations in order, each with whether it runs backwards. It is read from the SQL
    that they would send; what only their Python code does cannot be known. A migration whose SQL cannot be
    told beforehand is a phrase of its own. Raises IrreversibleError.
    """
    if not connection.introspection.table_names():
        return []
    loader = MigrationLoader(connection)
    today = Names()
    phrases: dict[str, None] = {}
    with connection.cursor() as cursor:
        for step in plan:
            try:
                statements = loader.collect_sql([step])
            except IrreversibleError:
                raise
            except Exception:
                # Some operations look up constraints that an earlier step of the plan makes.
                phrases[f"what {step[0]} drops, which cannot be told beforehand,"] = None
                continue
            for table, column in today.dropped("\n".join(statements)):
                if phrase := _phrase(cursor, table, column):
                    phrases[phrase] = None
    return list(phrases)


class Names:
    """The names that tables and columns have today, for statements that run after they were renamed."""

    def __init__(self) -> None:
        self._tables: dict[str, str] = {}
        self._columns: dict[tuple[str, str], str] = {}

    def dropped(self, sql: str) -> Iterator[tuple[str, str]]:
        """Yield the table and column, by today's names, that ``sql`` drops; column '' where a table goes."""
        for statement in sqlparse.split(sqlparse.format(sql, strip_comments=True)):
            if tables := DROP_TABLE.match(statement):
                for table in re.findall(NAME, tables[1]):
                    yield self._table(table), ""
            if altered := ALTER_TABLE.match(statement):
                yield from self._altered(altered[1], altered[2])

    def _altered(self, table: str, action: str) -> Iterator[tuple[str, str]]:
        today = self._table(table)
        for column in DROP_COLUMN.findall(action):
            yield today, self._columns.get((today, _bare(column)), column)
        if renamed := RENAME_TABLE.match(action):
            self._tables[_key(renamed[1])] = today
        if renamed := RENAME_COLUMN.match(action):
            old = self._columns.get((today, _bare(renamed[1])), renamed[1])
            self._columns[today, _bare(renamed[2])] = old

    def _table(self, name: str) -> str:
        return self._tables.get(_key(name), name)


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
    # Both names come as they stand in the migration's own SQL.
    cursor.execute(f"SELECT count({column or '*'}) FROM {table}")
    (rows,) = cursor.fetchone()
    held = f"{rows} row" if rows == 1 else f"{rows} rows"
    return f"column {_key(table)}.{_bare(column)} ({held})" if column else f"table {_key(table)} ({held})"


def _key(name: str) -> str:
    return ".".join(_bare(part) for part in re.findall(PART, name))


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
