"""The indexes and foreign keys of an empty table, set aside while it is filled.

Building an index, or checking a foreign key, once for all rows costs a fraction of doing so for each
(https://www.postgresql.org/docs/current/populate.html#POPULATE-RM-INDEXES).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import OperationalError, ProgrammingError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

# What pg_get_indexdef and pg_get_constraintdef tell the whole of, and nothing else leans on.
DEFINITIONS: Final = """
SELECT format('DROP INDEX %%s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %(table)s::regclass AND NOT i.indisunique AND NOT i.indisexclusion
  AND i.indisvalid AND NOT i.indisclustered AND NOT i.indisreplident
  AND c.reltablespace = 0 AND obj_description(c.oid, 'pg_class') IS NULL
UNION ALL
SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname),
       format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname,
              pg_get_constraintdef(oid))
FROM pg_constraint
WHERE conrelid = %(table)s::regclass AND contype = 'f' AND convalidated AND conparentid = 0
  AND obj_description(oid, 'pg_constraint') IS NULL
"""

# Dropping a foreign key locks the table that it points to as well.
REFERENCED: Final = """
SELECT DISTINCT confrelid::regclass::text FROM pg_constraint
WHERE conrelid = %s::regclass AND contype = 'f' AND confrelid <> conrelid
"""

IS_OURS_AND_PLAIN: Final = """
SELECT relkind = 'r' AND NOT relhassubclass AND NOT relispartition AND pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = %s::regclass
"""


@contextmanager
def set_aside(connection: BaseDatabaseWrapper, table: str) -> Iterator[None]:
    """Within, in an open transaction, the quoted ``table`` is without what slows its filling.

    Leaves everything in place where the table has rows, is not ours, or is in use.
    """
    with connection.cursor() as cursor:
        definitions = list(_definitions(cursor, connection, table))
        for drop, _ in definitions:
            cursor.execute(drop)
        yield
        for _, create in definitions:
            cursor.execute(create)


def _definitions(cursor: Any, connection: BaseDatabaseWrapper, table: str) -> Iterator[tuple[str, str]]:
    cursor.execute(IS_OURS_AND_PLAIN, [table])
    if not cursor.fetchone()[0] or not _is_empty(cursor, table):
        return
    cursor.execute(REFERENCED, [table])
    locked = ", ".join([table, *(name for (name,) in cursor.fetchall())])
    try:
        with transaction.atomic(using=connection.alias):
            cursor.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE NOWAIT")
    except (OperationalError, ProgrammingError) as error:
        if isinstance(error.__cause__, errors.LockNotAvailable | errors.InsufficientPrivilege):
            return
        raise
    if _is_empty(cursor, table):
        cursor.execute(DEFINITIONS, {"table": table})
        yield from cursor.fetchall()


def _is_empty(cursor: Any, table: str) -> bool:
    cursor.execute(f"SELECT NOT EXISTS (SELECT FROM {table})")
    return bool(cursor.fetchone()[0])
