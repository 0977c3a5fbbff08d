"""The SQL that takes back a difference between what the database has and what it should have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.connection.names import quoted
from workbench.schema.snapshot import Change, Column, Constraint, Index
from workbench.show import ADDED


def mend(change: Change) -> str:
    """Return SQL that makes the table what the old side of a difference says."""
    old: Any = change.old
    new: Any = change.new
    match old or new:
        case Index():
            return _index(old, new, change.sql_table)
        case Constraint():
            return _constraint(old, new, change.sql_table)
        case Column():
            return _column(old, new, change.sql_table)
    if change.sign == ADDED:
        return f"DROP TABLE {change.sql_table}; if nobody needs it."
    return "Make it with the CREATE TABLE that timeline() shows."


def _index(old: Index | None, new: Index | None, table: str) -> str:
    drop = f"DROP INDEX {new.sql_name};" if new else ""
    if old is None:
        return drop
    if (
        new is not None
        and old.definition == new.definition
        and old.is_unique == new.is_unique
        and new.is_valid
    ):
        return f"ALTER INDEX {new.sql_name} RENAME TO {quoted(old.name)};"
    unique = "UNIQUE " if old.is_unique else ""
    return f"{drop} CREATE {unique}INDEX {quoted(old.name)} ON {table} USING {old.definition};".strip()


def _constraint(old: Constraint | None, new: Constraint | None, table: str) -> str:
    drop = f"DROP CONSTRAINT {quoted(new.name)}" if new else ""
    if old is None:
        return f"ALTER TABLE {table} {drop};"
    if new is not None and old.definition == new.definition:
        return f"ALTER TABLE {table} RENAME CONSTRAINT {quoted(new.name)} TO {quoted(old.name)};"
    add = f"ADD CONSTRAINT {quoted(old.name)} {old.definition}"
    return f"ALTER TABLE {table} {', '.join(filter(None, [drop, add]))};"


def _column(old: Column | None, new: Column | None, table: str) -> str:
    drop = f"DROP COLUMN {quoted(new.name)}" if new else ""
    if old is None:
        return f"ALTER TABLE {table} {drop};"
    add = f"ADD COLUMN {quoted(old.name)} {old}"
    if new is None:
        needs = not old.is_nullable and not (old.default or old.identity or old.generated)
        return f"ALTER TABLE {table} {add};{' -- with a DEFAULT, where there are rows' if needs else ''}"
    if old.generated is not None or new.generated is not None:
        return f"ALTER TABLE {table} {drop}; ALTER TABLE {table} {add};"
    alter = f"ALTER COLUMN {quoted(old.name)}"
    return f"ALTER TABLE {table} {', '.join(f'{alter} {action}' for action in _actions(old, new))};"


def _actions(old: Column, new: Column) -> Iterator[str]:
    """Yield what ALTER COLUMN must do; Postgres puts them into an order that works."""
    is_retyped = (old.type, old.collation) != (new.type, new.collation)
    if new.identity and not old.identity:
        yield "DROP IDENTITY"
    if new.default is not None and (is_retyped or old.default is None):
        yield "DROP DEFAULT"
    if is_retyped:
        collate = f" COLLATE {old.collation}" if old.collation else ""
        yield f"TYPE {old.type}{collate} USING {quoted(old.name)}::{old.type}"
    if old.is_nullable != new.is_nullable:
        yield f"{'DROP' if old.is_nullable else 'SET'} NOT NULL"
    if old.default is not None and (is_retyped or old.default != new.default):
        yield f"SET DEFAULT {old.default}"
    if old.identity and old.identity != new.identity:
        yield f"SET GENERATED {old.identity}" if new.identity else f"ADD GENERATED {old.identity} AS IDENTITY"
