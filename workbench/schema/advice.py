"""What is to be said of an operation, from what a rehearsal saw of it.

It is the knowledge of strong_migrations, django-migration-linter, squawk, and of Postgres' documentation:
https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from django.db import migrations as ops
from django.db import models
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from workbench.errors import listed
from workbench.schema import safe
from workbench.schema.facts import Passage, Verdict
from workbench.schema.losses import BLANK, PART
from workbench.schema.safe import Seen
from workbench.schema.stakes import codes
from workbench.schema.steps import Step, Way

# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
STOPS_READERS = "ACCESS EXCLUSIVE"
STOPS_WRITERS = ("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", STOPS_READERS)
# Rows that a migration's transaction may change before it is worth a word; a batch, which ends by itself, may
# be larger; and who sends so many statements works in batches.
MANY, BATCH, PACED = 1_000, 10_000, 20
LONG_SECONDS = 1.0
GO_ON = "Where the tables are in use, go on rather than back: by another migration, which does it safely."

STATEMENT = re.compile(rf"(?:^|;){BLANK}(\w+)")
TIMES = re.compile(r"-- ([\d,]+) times$")
ADDS = {"INSERT", "COPY"}
CHANGES_NOTHING = {*ADDS, "SELECT", "SET", "SAVEPOINT", "RELEASE"}
TRUNCATES = re.compile(rf"(?:^|;){BLANK}TRUNCATE\b", re.IGNORECASE)
REFERS = re.compile(r"\b(?:REFERENCES|FOREIGN\s+KEY)\b", re.IGNORECASE)
MAKES_JSON = re.compile(
    rf"\b(?:ADD|ALTER)\s+(?:COLUMN\s+)?(?:IF\s+NOT\s+EXISTS\s+)?{PART}\s+(?:TYPE\s+)?json\b", re.IGNORECASE
)


def verdicts(
    operation: Operation,
    label: str,
    passage: Passage,
    *,
    known: Collection[str],
    state: ProjectState,
    after: ProjectState,
    is_backwards: bool = False,
) -> list[Verdict]:
    """Return why an operation of an app hurts, with the safe way; remarks last; nothing where it is clean.

    ``passage`` is what was seen of it. ``known`` are the tables and columns that the code asks for which runs
    until then: ``catalog_author``, ``catalog_author.bio``. ``state`` and ``after`` are the models before and
    after it. ``is_backwards`` says that it was undone.
    """
    seen = Seen(operation, label, passage, state, after, is_backwards)
    hurts = [
        *_while_locked(seen),
        *_crowded(seen),
        *_gone(seen, known),
        *_required(seen, known),
        *_left_behind(seen),
        *_held(seen),
    ]
    remarks = [*_dropped_index(seen), *_json(seen), *_live_models(seen), *_one_way(seen)]
    return [*(hurts or _waited(seen)), *remarks]


def _verdict(
    seen: Seen, rule: str, hurts: str, way: Callable[..., Way], *arguments: str, is_grave: bool = True
) -> Verdict:
    rather = Way(GO_ON) if seen.is_backwards else way(seen, *arguments)
    return Verdict(rule, hurts, rather.instead, rather.code, is_grave)


def _while_locked(seen: Seen) -> Iterator[Verdict]:
    """Say what was worked through while others were kept out; of several things, the worst."""
    passage, locks, closed = seen.passage, _locks(seen), _closed(seen)
    read = [table for table in closed if passage.scanned.get(table)]
    indexes = [*passage.built, *passage.rewritten]
    if tables := [table for table in locks if table in passage.rewritten]:
        if any(map(TRUNCATES.search, passage.sql)):
            yield _emptied(tables)
        else:
            hurts = f"{listed(tables)} {_were(tables)} written anew, row by row, {_nobody(locks, tables)}."
            yield _verdict(seen, "rewrite", hurts, safe.without_rewrite)
    elif closed and (read or indexes) and any(map(REFERS.search, passage.sql)):
        hurts = (
            f"The rows of {listed(read or closed)} were checked for a foreign key "
            f"{_nobody(closed, closed, named=read or closed)}."
        )
        yield _verdict(seen, "foreign-key", hurts, safe.in_use)
    elif closed and indexes:
        tables = read or [*closed]
        what = f"{listed(indexes)} {_were(indexes)} built from all rows of {listed(tables)}"
        yield _verdict(seen, "index", f"{what} {_nobody(closed, tables)}.", safe.in_use)
    elif not _changed(seen):
        # What Python reads may be a row or two.
        least = MANY if all(isinstance(each, ops.RunPython) for each in seen.operations) else 0
        if tables := [table for table in read if passage.scanned[table] > least]:
            hurts = f"The rows of {listed(tables)} were read {_nobody(closed, tables)}."
            yield _verdict(seen, "scan", hurts, safe.in_use)


def _locks(seen: Seen) -> dict[str, str]:
    """Return the tables that others could not use meanwhile, with the lock."""
    return {lock.table: lock.mode for lock in seen.passage.locks if lock.mode in STOPS_WRITERS}


def _closed(seen: Seen) -> dict[str, str]:
    """Return those that others could not use while their rows were read, as far as that was seen."""
    modes = {table: seen.passage.read_under.get(table, mode) for table, mode in _locks(seen).items()}
    return {table: mode for table, mode in modes.items() if mode in STOPS_WRITERS}


def _emptied(tables: list[str]) -> Verdict:
    return Verdict(
        "truncate",
        f"{listed(tables)} {_were(tables)} emptied at once: what the running code wrote there is lost, and "
        "going back does not bring it back.",
        "Delete the rows that nobody needs in batches, in a migration of its own that is not atomic.",
    )


def _changed(seen: Seen) -> dict[str, int]:
    """Return the tables of which one transaction changed many rows, and how many."""
    written = seen.passage.written
    times: dict[str, int] = {}
    for text in seen.passage.sql:
        often = int(found[1].replace(",", "")) if (found := TIMES.search(text)) else 1
        for start in STATEMENT.findall(text):
            times[start.upper()] = times.get(start.upper(), 0) + often
    changes = sum(often for start, often in times.items() if start not in CHANGES_NOTHING)
    if ADDS & {*times} and not changes:
        return {}  # Nobody waits for a row that was not there.
    if seen.passage.is_atomic or any(each.atomic for each in seen.operations):
        return {table: rows for table, rows in written.items() if rows > MANY}
    return {
        table: rows for table, rows in written.items() if changes < PACED and rows > BATCH * max(changes, 1)
    }


def _crowded(seen: Seen) -> Iterator[Verdict]:
    closed = _closed(seen)
    for table, rows in _changed(seen).items():
        meanwhile = f", {_nobody(closed, [table])}" if table in closed else ""
        yield _verdict(
            seen,
            "backfill",
            f"{rows:,} rows of {table} were changed in one transaction{meanwhile}: whoever wants to change "
            "one of them waits until it ends.",
            safe.in_batches,
            table,
        )


def _gone(seen: Seen, known: Collection[str]) -> Iterator[Verdict]:
    if gone := [name for name in seen.passage.gone if _bare(name) in known]:
        hurts = f"The code that runs now asks for {listed(gone)}, and fails until the new code is everywhere."
        yield _verdict(seen, "gone", hurts, safe.names_kept)


def _required(seen: Seen, known: Collection[str]) -> Iterator[Verdict]:
    # A column of another name is required as it was before.
    renamed = {_table_of(name) for name in seen.passage.gone}
    for column in seen.passage.required:
        table = _table_of(column)
        if _bare(table) in known and _bare(column) not in known and table not in renamed:
            yield _verdict(
                seen,
                "required",
                f"Every new row has to give {column} (NOT NULL, no default in the database), and the code "
                "that runs now does not know it: its INSERTs fail until the new code is everywhere.",
                safe.with_default,
                column,
            )


def _left_behind(seen: Seen) -> Iterator[Verdict]:
    """Say what the database still asks of new code, which the models no longer tell it."""
    gone = {*map(_bare, seen.passage.gone)}
    for operation in () if seen.is_backwards else getattr(seen.operation, "state_operations", ()):
        if not isinstance(operation, ops.RemoveField | ops.DeleteModel):
            continue
        told = replace(seen, operation=operation)
        for field in safe.fields_that_go(told):
            table = field.model._meta.db_table
            if {table, column := f"{table}.{field.column}"} & gone:
                continue
            asked = safe.asked(field, seen.passage.sql)
            if isinstance(operation, ops.RemoveField) and "null" in asked:
                hurts = f"Every new row still has to give {column}, and the new code does not know it."
            elif "db_constraint" in asked:
                to = field.target_field.model._meta.db_table
                hurts = f"The new code cannot delete rows of {to} to which {column}, unknown to it, refers."
            else:
                continue
            yield _verdict(told, "left-behind", hurts, safe.models_first)
            return


def _held(seen: Seen) -> Iterator[Verdict]:
    locks = _locks(seen)
    longest = max((lock.seconds for lock in seen.passage.locks if lock.table in locks), default=0.0)
    if seen.passage.is_atomic and longest - seen.passage.seconds > LONG_SECONDS:
        yield Verdict(
            "held",
            f"This took {seen.passage.seconds:.1f} s, but {listed(locks)} stayed locked until its migration "
            f"ended: for {longest:.1f} s, {_nobody(locks, locks)}.",
            "Split the migration, so that what takes long is in another one than what locks.",
        )


def _waited(seen: Seen) -> Iterator[Verdict]:
    seconds, what = max((seen.passage.reader, "read"), (seen.passage.writer, "write"))
    if seconds > LONG_SECONDS:
        yield Verdict(
            "waits",
            f"Somebody who only wanted to {what} waited for {seconds:.1f} s.",
            "Do less in one transaction, and set a lock_timeout: it gives up before others wait for long.",
        )


def _dropped_index(seen: Seen) -> Iterator[Verdict]:
    tables = [table for table, mode in _locks(seen).items() if mode == STOPS_READERS]
    if tables and any(map(safe.DROP_INDEX.search, seen.passage.sql)):
        yield _verdict(
            seen,
            "drop-index",
            f"It is quick, but first it waits for everybody who uses {listed(tables)}, and whoever comes "
            "meanwhile waits behind it.",
            safe.index_dropped,
            is_grave=False,
        )


def _json(seen: Seen) -> Iterator[Verdict]:
    if any(map(MAKES_JSON.search, seen.passage.sql)):
        steps: tuple[Step, ...] = ()
        if isinstance(operation := seen.operation, ops.RunSQL) and isinstance(operation.sql, str):
            sql = MAKES_JSON.sub(lambda found: f"{found[0]}b", operation.sql)
            steps = (Step((ops.RunSQL(sql, reverse_sql=operation.reverse_sql),)),)
        yield _verdict(
            seen,
            "json",
            "Postgres cannot tell whether two values of the type json are equal: SELECT DISTINCT, GROUP BY "
            "and UNION fail with such a column.",
            lambda _: Way("Take jsonb, as Django's JSONField does.", steps),
            is_grave=False,
        )


def _live_models(seen: Seen) -> Iterator[Verdict]:
    for operation in seen.operations:
        if seen.is_backwards or not isinstance(operation, ops.RunPython):
            continue
        if found := {*_imported(operation.code), *_imported(operation.reverse_code)}:
            name = _name_of(operation.code)
            names = sorted((each.__name__, each._meta.app_label) for each in found)
            lines = [f"    {model} = apps.get_model({label!r}, {model!r})" for model, label in names]
            yield Verdict(
                "live-models",
                f"{name} imports {listed(model for model, _ in names)}, which is the class of today, not "
                "that of this migration: it fails once the class has a field that the table does not have "
                "yet.",
                "Ask apps for the model, as it is at this migration.",
                "\n".join([f"def {name}(apps, schema_editor):", *lines]),
                is_grave=False,
            )


def _imported(function: Any) -> Iterator[type[models.Model]]:
    """Yield the model classes that a function, or one of its file that it calls, gets by an import."""
    done: set[Any] = set()
    waiting = [function]
    while waiting:
        function = waiting.pop()
        if not isinstance(function, FunctionType) or function in done:
            continue
        done.add(function)
        there = function.__globals__
        for code in codes(function.__code__):
            values = [there[name] for name in code.co_names if name in there]
            modules = [value for value in values if isinstance(value, ModuleType)]
            modules += filter(None, map(partial(_module, there.get("__package__") or ""), code.co_names))
            values += [getattr(module, name, None) for module in modules for name in code.co_names]
            waiting += [value for value in values if getattr(value, "__globals__", None) is there]
            yield from filter(_is_model, values)


def _module(package: str, name: str) -> ModuleType | None:
    """Return a module that code imports by its full name, or by one that is relative to its package."""
    parents = package.split(".")
    names = [name, *(".".join([*parents[:end], name]) for end in range(len(parents), 0, -1))]
    return next((sys.modules[each] for each in names if each in sys.modules), None)


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, models.Model) and hasattr(value, "_meta")


def _one_way(seen: Seen) -> Iterator[Verdict]:
    for operation in seen.operations:
        if operation.reversible or seen.is_backwards:
            continue
        words, code = "Say how to undo it.", ""
        if isinstance(operation, ops.RunPython):
            words = "Give it a reverse_code, or RunPython.noop where there is nothing to undo."
            code = f"migrations.RunPython({_name_of(operation.code)}, migrations.RunPython.noop)"
        elif isinstance(operation, ops.RunSQL):
            words = "Give it a reverse_sql, or RunSQL.noop where there is nothing to undo."
            code = "migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop)"
        yield Verdict("one-way", "There is no way back from this.", words, code, is_grave=False)


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", "")
    return name if name.isidentifier() else "forwards"


def _table_of(column: str) -> str:
    return column.rpartition(".")[0]


def _bare(name: str) -> str:
    """Return a name as models have it: Postgres quotes some."""
    return name.replace('"', "")


def _were(names: Collection[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _nobody(locks: dict[str, str], tables: Collection[str], named: Collection[str] | None = None) -> str:
    """Say what others could not do with tables; ``named`` are those named just before, if not all."""
    closed = [table for table in tables if locks[table] == STOPS_READERS]
    shut = [table for table in tables if locks[table] != STOPS_READERS]
    if closed and shut:
        return f"while nobody could read or write {listed(closed)}, or write to {listed(shut)}"
    it = "it" if len(tables) == 1 else "them"
    if named is not None and {*named} != {*tables}:
        it = listed(tables)
    return f"while nobody could {'read or write' if closed else 'write to'} {it}"
