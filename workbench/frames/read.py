"""frame(queryset): rows into a DataFrame, exactly, at the speed of the wire.

The rows come by ``COPY (...) TO STDOUT (FORMAT binary)`` on Django's own connection, so they are what the
cell would see: its open transaction, role, search_path and timeouts.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import pandas as pd
import psycopg2
from django.db import DatabaseError, DataError, Error, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import errors

from workbench.connection import interrupt, silence
from workbench.frames import binary, refused, types
from workbench.frames.binary import Reader, Receiver
from workbench.frames.errors import FrameError, FrameWarning
from workbench.frames.memory import Watch, person_level, release
from workbench.frames.plan import expected_rows
from workbench.frames.query import Params, Query, Source, column_type, query_of
from workbench.frames.types import Column
from workbench.progress import Progress

# While one batch is decoded, the server should find room in the socket for the next: Linux gives a Unix
# socket 208 kB, and a network's some megabytes.
LOCAL_BATCH_BYTES = 192 * 1024
NETWORK_BATCH_BYTES = 512 * 1024
# A reading of so few is over before anybody could look at the memory that is left.
BATCHES_UNWATCHED = 4

IN_PARTS = "read them in parts with frame.chunks(..., rows=100_000), or fewer rows or columns"


class Frame:
    """Read rows into a DataFrame.

    ``source`` is a queryset, a model, or SQL text with ``params`` for its placeholders. A queryset of models
    gives the models' columns, named as Django names them (``author_id``), with ``annotate``'s beside them and
    those of ``select_related`` as ``author__name``; ``values`` and ``values_list`` give the columns they
    name.

    ``index`` names the column, or columns, for the index. With ``categories`` a field with ``choices``
    becomes an ordered Categorical of its values. SQL text is sent to the alias ``using``.

    Each Postgres type has a dtype of its own, the same for an empty result: see ``workbench.frames.types``.
    Raises FrameError for what cannot be read exactly, and for SQL that Postgres refuses. A queryset that was
    read already is read anew.

    Warns (FrameWarning) where the planner expects more rows than there is memory for, and raises FrameError
    before there is none left; what was read so far is let go of.

    Examples::

        frame(Book.objects.all())
        frame(Book.objects.all()[:3])
        frame(Book.objects.values("title", "author__name"), index="title")
        frame("SELECT country, count(*) FROM catalog_author WHERE id > %s GROUP BY country", [10])
        for chunk in frame.chunks(Book, rows=100_000): print(len(chunk))
    """

    def __call__(
        self,
        source: Source,
        params: Params = None,
        *,
        index: str | Sequence[str] | None = None,
        categories: bool = False,
        using: str | None = None,
    ) -> pd.DataFrame:
        reading = _Reading(query_of(source, params, using), index, categories)
        with Progress("Reading") as progress, _no_collection():
            return reading.all(progress)

    def chunks(
        self,
        source: Source,
        params: Params = None,
        *,
        rows: int = 100_000,
        index: str | Sequence[str] | None = None,
        categories: bool = False,
        using: str | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Read rows into DataFrames of ``rows`` rows each, the last of fewer, and hold one at a time.

        Between two of them the connection is free: a loop may query and write. All show the rows as they were
        when the first was read. An empty result gives one empty DataFrame.

        Example::

            for chunk in frame.chunks(Book.objects.order_by("id"), rows=100_000): print(len(chunk))
        """
        if rows < 1:
            raise FrameError(f"A chunk has at least one row, not {rows}.")
        return _Reading(query_of(source, params, using), index, categories).chunks(rows)

    def __repr__(self) -> str:
        return "<function frame: rows into a DataFrame>"


frame = Frame()


class _Reading:
    """One query on its way: the columns, and what the server is asked to send of them."""

    def __init__(self, query: Query, index: str | Sequence[str] | None, categories: bool) -> None:
        self._connection = query.connection
        self._query = query
        with self._connection.cursor() as cursor:
            sql = refused.bound(cursor, query)
            # So that a text may be mended in the transaction that it was refused in.
            with self._explained(), self._kept_transaction() if query.is_text else nullcontext():
                cursor.execute(f"{refused.BEFORE}{sql}{refused.AFTER}")
            described = cursor.description
            names = query.names or [column.name for column in described]
            expressions = query.expressions or [None] * len(names)
            if query.field is not None:
                names, expressions = map(list, zip(*map(query.field, names), strict=True))
            # Django selects what it orders by too, behind the columns.
            types_ = [
                column_type(column, expression, self._connection, cursor.cursor)
                for column, expression in zip(described, expressions, strict=False)
            ]
        if not names:
            raise FrameError("The query has no columns.")
        _refuse_twins(names)
        self._index = _checked_index(index, names)
        self._columns = [Column(name, type_) for name, type_ in zip(names, types_, strict=True)]
        self._choices = (
            {name: field.flatchoices for name, field in _with_choices(names, expressions)}
            if categories
            else {}
        )
        self._wires = [type_.wire for type_ in types_]
        self._sql = _sending([type_.send for type_ in types_], sql, len(described))

    def all(self, progress: Progress) -> pd.DataFrame:
        """Read all rows, as long as there is memory for them."""
        reader = Reader(self._wires, binary.COPY)
        watch = Watch(
            lambda: (progress.done, reader.bytes),
            lambda: expected_rows(self._connection, self._sql),
            lambda: interrupt.cancel(self._connection),
            len([self._index] if isinstance(self._index, str) else self._index or []),
        )
        try:
            with watch:
                self._copy(progress, reader, watch)
                return self.take()
        except (MemoryError, DatabaseError) as error:
            is_out = isinstance(error, MemoryError) or "out of memory" in str(error)
            if not watch.shortage and not is_out:
                raise
        # Out here nothing but ourselves keeps what was read: neither the error nor its traceback.
        self._columns.clear()
        gc.collect()
        release()
        raise FrameError(
            f"Reading was given up after {progress.done:,} rows, with {watch.shortage or 'nothing'} left of "
            f"the memory: {IN_PARTS}."
        )

    def _copy(self, progress: Progress, reader: Reader, watch: Watch) -> None:
        batches = 0

        def take(rows: list[bytes]) -> None:
            nonlocal batches
            if watch.shortage:
                raise MemoryError
            progress.done += len(rows)
            self._add(rows, reader)
            batches += 1
            if batches == BATCHES_UNWATCHED:
                watch.begin()
            if watch.warning:
                told, watch.warning = watch.warning, ""
                warnings.warn(f"{told}: {IN_PARTS}.", FrameWarning, person_level())

        interrupt.watch(self._connection)
        receiver = Receiver(take, _batch_bytes(self._connection))
        with self._explained(), self._kept_transaction(), self._connection.cursor() as cursor:
            try:
                with self._connection.wrap_database_errors:
                    cursor.copy_expert(f"COPY ({self._sql}\n) TO STDOUT (FORMAT binary)", receiver)
            except DataError as error:
                if isinstance(error.__cause__, errors.NumericValueOutOfRange):
                    raise FrameError(
                        f"A number is too large for its column: {error.__cause__.diag.message_primary}."
                    ) from error
                raise
            except BaseException:
                # Else the server would go on sending, and hold on to what it reads, until the next statement.
                if interrupt.cancel(self._connection):
                    interrupt.settle()
                    with silence.asking(self._connection), suppress(psycopg2.Error):
                        self._connection.connection.cursor().execute("SELECT 1")
                raise
        receiver.finish()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell in a sentence what Postgres refuses of SQL text. Of a queryset, that stays Django's error."""
        try:
            yield
        except refused.REFUSALS as error:
            told = refused.told(self._connection, self._query, error) if self._query.is_text else None
            if told is None:
                raise
            raise told from error

    def _kept_transaction(self) -> AbstractContextManager[None]:
        """Return what lets an open transaction go on after a reading that failed or was interrupted."""
        if not self._connection.in_atomic_block:
            return nullcontext()
        return transaction.atomic(using=self._connection.alias)

    def chunks(self, size: int) -> Iterator[pd.DataFrame]:
        reader = Reader(self._wires, binary.RECORD)
        interrupt.watch(self._connection)
        with self._explained(), self._chunked_cursor() as cursor, Progress("Reading") as progress:
            cursor.execute(f"SELECT pg_catalog.record_send(q) FROM ({self._sql}\n) AS q")
            is_first, left, batch = True, size, binary.FIRST_BATCH
            while rows := [bytes(row) for (row,) in cursor.fetchmany(min(left, batch))]:
                progress.done += len(rows)
                left -= len(rows)
                batch = binary.next_size(rows, LOCAL_BATCH_BYTES)
                self._add(rows, reader)
                if not left:
                    yield self.take()
                    is_first, left = False, size
            if left < size or is_first:
                yield self.take()

    @contextmanager
    def _chunked_cursor(self) -> Iterator[Any]:
        # Through a pooler a cursor of the server's is lost: there the rows are read at once.
        is_pooled = self._connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        cursor = self._connection.cursor() if is_pooled else self._connection.chunked_cursor()
        try:
            yield cursor
        finally:
            # It is told to the server, after an interrupt too.
            with silence.asking(self._connection), suppress(Error, psycopg2.Error):
                cursor.close()

    def take(self) -> pd.DataFrame:
        """Return the rows so far, and start anew."""
        columns = {column.name: column.take() for column in self._columns}
        for name, choices in self._choices.items():
            columns[name] = _categorical(name, columns[name], choices)
        frame = pd.DataFrame(columns, copy=False)
        return frame if self._index is None else frame.set_index(self._index)

    def _add(self, rows: list[bytes], reader: Reader) -> None:
        for number, field in reader.fields(rows):
            self._columns[number].add(field)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from going through all new objects again and again: none is garbage yet."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _batch_bytes(connection: BaseDatabaseWrapper) -> int:
    return LOCAL_BATCH_BYTES if connection.connection.info.host.startswith("/") else NETWORK_BATCH_BYTES


def _sending(sends: list[str], sql: str, count: int) -> str:
    if count == len(sends) and set(sends) <= {types.ITSELF}:
        return sql
    names = [f"c{number}" for number in range(count)]
    sent = ", ".join(send.format(name) for send, name in zip(sends, names, strict=False))
    return f"SELECT {sent} FROM ({sql}\n) AS q ({', '.join(names)})"


def _refuse_twins(names: list[str]) -> None:
    if twins := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise FrameError(f"Two columns are named {twins[0]!r}: give one of them another name.")


def _checked_index(index: str | Sequence[str] | None, names: list[str]) -> str | list[str] | None:
    if index is None:
        return None
    wanted = [index] if isinstance(index, str) else list(index)
    if missing := [name for name in wanted if name not in names]:
        raise FrameError(f"There is no column {missing[0]!r} for the index: there are {', '.join(names)}.")
    return index if isinstance(index, str) else wanted


def _with_choices(names: list[str], expressions: list[Any]) -> Iterator[tuple[str, models.Field[Any, Any]]]:
    for name, expression in zip(names, expressions, strict=True):
        field = getattr(expression, "target", None)
        if field is not None and field.choices:
            yield name, field


def _categorical(name: str, values: Any, choices: Sequence[tuple[Any, Any]]) -> pd.Categorical:
    series = pd.Series(values, copy=False)
    keys = pd.Index(pd.Series([key for key, _ in choices if key is not None], dtype=series.dtype))
    if not (known := series.isin(keys) | series.isna()).all():
        stranger = series[~known].iloc[0]
        raise FrameError(
            f"The column {name!r} holds {stranger!r}, which is none of the field's choices: "
            f"read it without categories."
        )
    return pd.Categorical(series, categories=keys, ordered=True)
