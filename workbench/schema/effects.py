"""What a migration's operations do in Postgres, seen on empty copies of the tables that it touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from django.db import DatabaseError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import (
    DeleteModel,
    Migration,
    RemoveField,
    RunPython,
    RunSQL,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from workbench.connection.locks import LOCK_MODES, words
from workbench.schema import scratch
from workbench.schema.errors import SchemaError

SQL_SHOWN = 72
# A validation reads an empty table too, and a rewrite gives it another file.
TABLES = """
SELECT c.oid, c.relname, pg_relation_filenode(c.oid), coalesce(s.seq_scan, 0)
FROM pg_class c LEFT JOIN pg_stat_xact_all_tables s ON s.relid = c.oid
WHERE c.relnamespace = pg_my_temp_schema() AND c.relkind = 'r'
"""
LOCKS = """
SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'
"""


@dataclass(frozen=True)
class Effect:
    """One operation: its SQL, the strongest lock on each table that was there, the tables that it rewrites or
    reads whole.

    ``is_known`` is False where it was not run: Python code. ``loses`` says that going back does not bring the
    values back.
    """

    operation: str
    sql: str
    locks: dict[str, str]
    rewritten: tuple[str, ...]
    scanned: tuple[str, ...]
    is_reversible: bool
    is_known: bool = True
    loses: bool = False

    @property
    def said(self) -> list[str]:
        """The operation, and four phrases: locks, rewrite, rows read, way back."""
        back = "reversible" if self.is_reversible else "irreversible"
        if self.loses and self.is_reversible:
            back = "reversible, but not what it drops"
        if not self.is_known:
            return [self.operation, "runs Python", "", "", back]
        locks = ", ".join(f"{mode} on {table}" for table, mode in self.locks.items())
        reads = [f"reads {table}" for table in self.scanned]
        writes = ["updates rows"] if "\nUPDATE " in f"\n{self.sql}" else []
        return [
            self.operation,
            f"locks {locks}" if locks else "no lock",
            f"rewrites {', '.join(self.rewritten)}" if self.rewritten else "no rewrite",
            ", ".join(reads + writes) or "reads no rows",
            back,
        ]


def effects(
    connection: BaseDatabaseWrapper,
    state: ProjectState,
    migration: Migration,
    touched: Iterable[type[models.Model]],
) -> list[Effect]:
    """Run a migration, from a state, on tables made for that. Raises SchemaError if Postgres refuses it."""
    with scratch.tables(connection, touched) as made:
        made.session.set_autocommit(False)
        return list(_run(made.session, state, migration))


def described(operation: Operation) -> str:
    """Return what Django says of an operation, or which Python or SQL it runs."""
    if isinstance(operation, RunPython):
        return f"Run {getattr(operation.code, '__name__', 'Python')}()"
    if isinstance(operation, RunSQL) and isinstance(operation.sql, str):
        return f"Run {shorten(operation.sql, SQL_SHOWN, placeholder=' ...')}"
    if isinstance(operation, SeparateDatabaseAndState) and operation.database_operations:
        return "; ".join(map(described, operation.database_operations))
    return operation.describe()


def _run(session: BaseDatabaseWrapper, state: ProjectState, migration: Migration) -> Iterator[Effect]:
    label = migration.app_label
    for operation in migration.operations:
        after = state.clone()
        operation.state_forwards(label, after)
        if isinstance(operation, RunPython):
            name = described(operation)
            sql = name.replace("Run", "-- runs", 1)
            yield Effect(name, sql, {}, (), (), operation.reversible, is_known=False)
        else:
            try:
                yield _one(session, label, operation, state, after)
            except DatabaseError as error:
                said = str(error).partition("\n")[0]
                raise SchemaError(f"Postgres refuses this ({operation.describe()}): {said}.") from error
            except Exception as error:
                raise SchemaError(f"Django cannot run this ({operation.describe()}): {error}.") from error
        state = after


def _one(
    session: BaseDatabaseWrapper, label: str, operation: Operation, state: ProjectState, after: ProjectState
) -> Effect:
    with session.schema_editor(collect_sql=True, atomic=False) as editor:
        operation.database_forwards(label, editor, state, after)
    with session.cursor() as cursor:
        before = {oid: (name, file, scans) for oid, name, file, scans in _rows(cursor, TABLES)}
        with session.schema_editor(atomic=False) as running:
            operation.database_forwards(label, running, state, after)
        now = {oid: (file, scans) for oid, _, file, scans in _rows(cursor, TABLES)}
        locked = sorted(_rows(cursor, LOCKS), key=lambda row: LOCK_MODES.index(row[1]))
    session.commit()
    locks = {before[oid][0]: words(mode) for oid, mode in locked if oid in before}
    there = [(*before[oid], *now[oid]) for oid in before.keys() & now.keys()]
    return Effect(
        operation.describe(),
        "\n".join(editor.collected_sql),
        dict(sorted(locks.items())),
        tuple(sorted(name for name, file, _, file_now, _ in there if file_now != file)),
        tuple(sorted(name for name, _, scans, _, scans_now in there if scans_now > scans)),
        operation.reversible,
        loses=isinstance(operation, RemoveField | DeleteModel),
    )


def _rows(cursor: Any, sql: str) -> list[tuple[Any, ...]]:
    cursor.execute(sql)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
