"""load(model, rows): rows into a table through COPY, checked against the model first."""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO
from itertools import chain, islice
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from django.db import DataError, IntegrityError, ProgrammingError, models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql import InsertQuery
from psycopg2 import errors

from workbench.connection import interrupt, silence
from workbench.frames.convert import MISSING, Converter, Field, is_left_out, is_stamp
from workbench.frames.database import connection_of
from workbench.frames.errors import FrameError
from workbench.frames.indexes import set_aside
from workbench.progress import Progress

Rows = pd.DataFrame | Iterable[models.Model] | Iterable[Mapping[str, Any]]

# Enough for Arrow to be quick with, few enough to hold as Python objects.
ROWS_IN_A_BATCH: Final = 10_000
ROWS_IN_A_PIECE: Final = 20_000


def load(
    model: type[models.Model],
    rows: Rows,
    *,
    on_conflict: Literal["ignore", "update"] | None = None,
    unique_fields: Sequence[str] | None = None,
    using: str | None = None,
) -> int:
    """Write rows into the model's table and return how many were written.

    ``rows`` is a DataFrame, or an iterable of instances or of dicts. Columns are named as fields are, a
    foreign key by its id (``author_id``). What is left out gets its default, ``auto_now_add`` the time now,
    and the primary key its next number. As with ``bulk_create``, ``save`` is not called and no signal sent.

    With ``on_conflict`` a row that is there already is left alone (``"ignore"``: by any unique constraint) or
    overwritten in the columns given (``"update"``: by the primary key). ``unique_fields`` name another
    constraint.

    Everything is checked, and written in one transaction. Raises FrameError, naming the row (counted from 0,
    as ``iloc`` does) and the column, for an unknown column, for a value that is missing, wrong or too long,
    and for a row that the table refuses; then nothing was written.

    An empty table gets its indexes and foreign keys back after its rows, which is much faster, unless a
    transaction is open already or somebody uses the table.

    Examples::

        load(Author, pd.DataFrame({"name": ["Ursula K. Le Guin"]}))
        load(Book, frame(Book).assign(title=lambda books: books["title"].str.upper()), on_conflict="update")
        load(Author, ({"name": f"Author {number}"} for number in range(1_000)))
    """
    if on_conflict not in (None, "ignore", "update"):
        raise FrameError(f"on_conflict is 'ignore' or 'update', not {on_conflict!r}.")
    connection = connection_of(using or router.db_for_write(model))
    concrete: type[models.Model] = model._meta.concrete_model  # type: ignore[assignment]
    if concrete._meta.parents:
        raise FrameError(f"{model.__name__} is stored in several tables: save its instances one by one.")
    # As for any other query, whoever guards them.
    InsertQuery(model).get_compiler(connection=connection)
    table = _Table(connection, concrete)
    batches = _batches(table, rows)
    is_alone = not connection.in_atomic_block
    with (
        Progress("Loading", _length(rows)) as progress,
        table.explained(),
        transaction.atomic(using=connection.alias),
    ):
        first = next(batches, None)
        if first is None:
            return 0
        loading = _Loading(table, first, batches, progress)
        is_for_all = is_alone and not on_conflict and _count(first) >= ROWS_IN_A_BATCH
        with set_aside(connection, table.name) if is_for_all else nullcontext():
            written = loading.merge(on_conflict, unique_fields) if on_conflict else loading.copy(table.name)
            progress.now = "checking the foreign keys"
            table.check_references()
            progress.now = "putting the indexes back" if is_for_all else ""
        loading.continue_numbers()
    return written


def _count(batch: dict[Field, Any]) -> int:
    return len(next(iter(batch.values())))


def _length(rows: Rows) -> int | None:
    return len(rows) if isinstance(rows, pd.DataFrame | Sequence) else None


class _Table:
    """A model's own fields and what its table is called in SQL."""

    def __init__(self, connection: BaseDatabaseWrapper, model: type[models.Model]) -> None:
        self.connection = connection
        self.model = model
        self.name: str = connection.ops.quote_name(model._meta.db_table)
        self.fields: list[Field] = [field for field in model._meta.concrete_fields if not field.generated]
        self.key: list[Field] = list(getattr(model._meta, "pk_fields", None) or [model._meta.pk])
        every = {name: field for field in model._meta.concrete_fields for name in (field.name, field.attname)}
        self._named = every | ({"pk": self.key[0]} if len(self.key) == 1 else {})

    def field(self, name: object) -> Field:
        if isinstance(name, str) and name in self._named:
            return self._named[name]
        columns = [field.attname for field in self.fields]
        near = difflib.get_close_matches(str(name), columns, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns)}."
        raise FrameError(f"{self.model.__name__} has no column {name!r}: {advice} Nothing was written.")

    def unique(self, names: Sequence[str]) -> list[Field]:
        """Return the fields of these names; without any, those of the primary key."""
        if not names or list(names) == ["pk"]:
            return self.key
        return [self.field(name) for name in names]

    def column(self, field: Field) -> str:
        return self.connection.ops.quote_name(str(field.column))

    def columns(self, fields: Iterable[Field]) -> str:
        return ", ".join(map(self.column, fields))

    def check_references(self) -> None:
        """Check the foreign keys now: Django's are checked at the commit, where nobody knows the rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(DEFERRED, [self.name])
            if names := ", ".join(name for (name,) in cursor.fetchall()):
                cursor.execute(f"SET CONSTRAINTS {names} IMMEDIATE")
                cursor.execute(f"SET CONSTRAINTS {names} DEFERRED")

    @contextmanager
    def explained(self, where: Callable[[int], int] | None = None) -> Iterator[None]:
        """Turn what the table refuses into one sentence. ``where`` tells a row by its line in the CSV."""
        try:
            yield
        except (IntegrityError, DataError) as error:
            cause = error.__cause__
            said = getattr(cause, "diag", None)
            if said is None:
                raise
            what, remedy = said.message_primary or "", ""
            if isinstance(cause, errors.UniqueViolation):
                what = said.message_detail or what
                remedy = " Leave such rows out, or load with on_conflict='ignore' or 'update'."
            elif isinstance(cause, errors.ForeignKeyViolation):
                what = said.message_detail or what
                remedy = " Load the rows that it points to first."
            elif isinstance(cause, errors.CheckViolation):
                what = f"it violates {said.constraint_name}"
            place = self.name
            if where and (
                line := re.search(
                    r"^COPY .*?, line (\d+)(?:, column ([^:]+))?", said.context or "", re.MULTILINE
                )
            ):
                place = f"Row {where(int(line[1]))}"
                if line[2]:
                    place += f", column {self.attname(line[2])!r}"
            raise FrameError(f"{place}: {what.rstrip('.')}. Nothing was written.{remedy}") from error

    def attname(self, column: str) -> str:
        return next((field.attname for field in self.fields if field.column == column), column)


SEQUENCE: Final = """
SELECT name FROM pg_get_serial_sequence(%s, %s) AS name
WHERE has_sequence_privilege(name, 'UPDATE') AND has_sequence_privilege(name, 'SELECT')
"""

# What is checked at the commit, by its name with its schema.
DEFERRED: Final = """
SELECT format('%%I.%%I', nspname, conname)
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE conrelid = %s::regclass AND condeferred
"""


def _batches(table: _Table, rows: Any) -> Iterator[dict[Field, Any]]:
    """Return the rows in batches of columns: lists, or Series of a DataFrame, which is one batch."""
    if isinstance(rows, pd.DataFrame):
        return iter([_of_frame(table, rows)] if len(rows) else [])
    if isinstance(rows, models.Model | Mapping | str | bytes) or not isinstance(rows, Iterable):
        raise FrameError(
            f"load takes a DataFrame, or an iterable of {table.model.__name__} or of dicts, "
            f"not {type(rows).__name__}."
        )
    return _of_iterable(table, iter(rows))


def _of_frame(table: _Table, frame: pd.DataFrame) -> dict[Field, Any]:
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    if named:
        frame = frame.reset_index(named)
    columns: dict[Field, Any] = {}
    for position, name in enumerate(frame.columns):
        _put(columns, table.field(name), frame.iloc[:, position])
    if not columns:
        raise FrameError("The DataFrame has no columns. Nothing was written.")
    return columns


def _put(columns: dict[Field, Any], field: Field, values: Any) -> None:
    if field in columns:
        raise FrameError(f"Two columns hold {field}: leave one of them out. Nothing was written.")
    columns[field] = values


def _of_iterable(table: _Table, rows: Iterator[Any]) -> Iterator[dict[Field, Any]]:
    while batch := list(islice(rows, ROWS_IN_A_BATCH)):
        kind = table.model if isinstance(batch[0], models.Model) else Mapping
        if strangers := [row for row in batch if not isinstance(row, kind)]:
            expected = "dict" if kind is Mapping else kind.__name__
            raise FrameError(f"A row is {strangers[0]!r}, which is no {expected}. Nothing was written.")
        if kind is Mapping:
            columns: dict[Field, Any] = {}
            for name in dict.fromkeys(chain.from_iterable(batch)):
                _put(columns, table.field(name), [row.get(name, MISSING) for row in batch])
            yield columns or {table.fields[0]: [MISSING] * len(batch)}
        else:
            yield {field: [getattr(row, field.attname) for row in batch] for field in table.fields}


class _Loading:
    """Batches on their way into a table, as the CSV that ``copy_expert`` reads."""

    def __init__(
        self, table: _Table, first: dict[Field, Any], others: Iterator[dict[Field, Any]], progress: Progress
    ) -> None:
        self._table = table
        self._batches = chain([first], others)
        self._progress = progress
        # An instance that was never saved has no time yet, which is no reason to overwrite one.
        self._given = {
            field
            for field, values in first.items()
            if not (is_stamp(field) and all(v is None for v in values))
        }
        self._row = 0
        self._fields = [field for field in table.fields if not is_left_out(field, first.get(field, MISSING))]
        with table.connection.cursor() as cursor:
            cursor.execute(f"SELECT {table.columns(self._fields)} FROM {table.name} LIMIT 0")
            self._converters = {
                field: Converter(table.connection, field, described)
                for field, described in zip(self._fields, cursor.description, strict=True)
            }

    def copy(self, target: str) -> int:
        """Write everything to the table that ``target`` names in SQL, a COPY for each batch.

        While one runs the connection is taken, and the next batch may have to be read by it.
        """
        connection = self._table.connection
        statement = f"COPY {target} ({self._table.columns(self._fields)}) FROM STDIN (FORMAT csv)"
        interrupt.watch(connection)
        with connection.cursor() as cursor:
            for batch in self._batches:
                source = _Source(self._csv(batch))
                try:
                    with self._table.explained(self._row_of), connection.wrap_database_errors:
                        cursor.copy_expert(statement, source, 1 << 16)
                except BaseException:
                    # What psycopg2 says of a source that fails is not what it failed with.
                    if source.error is not None:
                        raise source.error from None
                    raise
                finally:
                    silence.feeds(connection, is_fed=False)
                self._row += _count(batch)
        return self._row

    def merge(self, on_conflict: str, unique_fields: Sequence[str] | None) -> int:
        """Write what is new, and with ``"update"`` overwrite what is not."""
        table = self._table
        unique = table.unique(unique_fields or ())
        missing = [field.attname for field in unique if field not in self._fields]
        if missing and (unique_fields or on_conflict == "update"):
            raise FrameError(
                f"The rows have no {missing[0]}: name with unique_fields the columns that tell "
                f"which rows are the same. Nothing was written."
            )
        columns = table.columns(self._fields)
        conflict = "DO NOTHING"
        if unique_fields:
            conflict = f"({table.columns(unique)}) DO NOTHING"
        if on_conflict == "update":
            is_changed = {
                *self._given,
                *(field for field in self._fields if getattr(field, "auto_now", False)),
            }
            changed = [
                field for field in self._fields if field in is_changed and field not in unique
            ] or unique
            sets = ", ".join(f"{name} = EXCLUDED.{name}" for name in map(table.column, changed))
            conflict = f"({table.columns(unique)}) DO UPDATE SET {sets}"
        waiting = f"pg_temp.load_{uuid.uuid4().hex}"
        with table.connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TEMP TABLE {waiting} ON COMMIT DROP "
                f"AS SELECT {columns} FROM {table.name} WITH NO DATA"
            )
            self.copy(waiting)
            self._progress.now = "merging"
            try:
                cursor.execute(
                    f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {waiting} "
                    f"ON CONFLICT {conflict}"
                )
            except ProgrammingError as error:
                names = ", ".join(field.attname for field in unique)
                if isinstance(error.__cause__, errors.CardinalityViolation):
                    raise FrameError(
                        f"Two of the rows have the same {names}. Nothing was written."
                    ) from error
                if isinstance(error.__cause__, errors.InvalidColumnReference):
                    raise FrameError(
                        f"No unique constraint is on {names} alone. Nothing was written."
                    ) from error
                raise
            written: int = cursor.rowcount
            cursor.execute(f"DROP TABLE {waiting}")
        return written

    def _csv(self, batch: dict[Field, Any]) -> Iterator[bytes]:
        options = pyarrow.csv.WriteOptions(include_header=False)
        self._refuse_changed(batch)
        count = _count(batch)
        arrays = [
            converter.convert(batch.get(field, MISSING), count, self._row)
            for field, converter in self._converters.items()
        ]
        self._sent = pa.RecordBatch.from_arrays(arrays, [field.column for field in self._fields])
        for start in range(0, count, ROWS_IN_A_PIECE):
            piece = self._sent.slice(start, ROWS_IN_A_PIECE)
            buffer = BytesIO()
            pyarrow.csv.write_csv(piece, buffer, options)
            yield buffer.getvalue()
            self._progress.done = self._row + start + len(piece)
        silence.feeds(self._table.connection, is_fed=True)

    def _row_of(self, line: int) -> int:
        """Return which row the server met in a line, counted from 1, of the batch that was sent last."""
        texts = [column for column in self._sent.columns if pa.types.is_large_string(column.type)]
        lines = np.ones(len(self._sent), np.int64)
        for column in texts:
            lines += pc.fill_null(pc.count_substring(column, "\n"), 0).to_numpy(zero_copy_only=False)
        # Only after the first row does the server know how lines end here, and count those within a text.
        lines[0] = 1 + sum((column[0].as_py() or "").count("\r") for column in texts)
        return self._row + int(np.searchsorted(np.cumsum(lines), line))

    def _refuse_changed(self, batch: dict[Field, Any]) -> None:
        """Refuse rows that give what rows before them left to the database."""
        for field, values in batch.items():
            if field not in self._converters and not is_left_out(field, values):
                raise FrameError(
                    f"From row {self._row} on the rows have a {field.attname}, and those before have none: "
                    f"load them separately. Nothing was written."
                )

    def continue_numbers(self) -> None:
        """Let the next number of the primary key follow those that were given."""
        table, pk = self._table, self._table.key[0]
        if not isinstance(pk, models.AutoField) or pk not in self._fields:
            return
        with table.connection.cursor() as cursor:
            cursor.execute(SEQUENCE, [table.name, pk.column])
            for (sequence,) in cursor.fetchall():
                cursor.execute(
                    f"SELECT setval(%s, last) "
                    f"FROM (SELECT max({table.column(pk)}) AS last FROM {table.name}) AS given, {sequence} "
                    f"WHERE last >= last_value",
                    [sequence],
                )


class _Source:
    """The file that ``copy_expert`` reads from. Remembers the error that ended it.

    A generator, because a KeyboardInterrupt may come as soon as Python runs again, and within it that is
    inside the try; in a method it would be before it, and psycopg2 would lose it.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.error: BaseException | None = None
        reads = self._reads(pieces)
        next(reads)
        self.read = reads.send

    def _reads(self, pieces: Iterator[bytes]) -> Generator[bytes, int]:
        try:
            size = yield b""
            for piece in pieces:
                file = BytesIO(piece)
                while read := file.read(size):
                    size = yield read
            while True:
                yield b""
        except BaseException as error:
            self.error = error
            raise
