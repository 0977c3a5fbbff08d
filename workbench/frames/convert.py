"""Values as Postgres takes them: a column at a time where Arrow can, else each by its field."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import cached_property, singledispatch
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import DatabaseDefault
from django.utils import timezone
from psycopg2.extras import Inet, Json, Range

from workbench.frames import types
from workbench.frames.errors import FrameError

Field: TypeAlias = "models.Field[Any, Any]"


class Missing:
    """The value of what a row says nothing about."""


MISSING: Final = Missing()


class Converter:
    """Makes one field's values ready for COPY: an Arrow array that reads as CSV."""

    def __init__(self, connection: BaseDatabaseWrapper, field: Field, described: Any) -> None:
        self._connection = connection
        self._field = field
        self._oid: int = described.type_code
        type_ = types.type_of(self._oid, described.precision, described.scale, None)
        self._target: pa.DataType | None = type_.arrow
        self._target_field: Field = getattr(field, "target_field", field)
        # What a field of somebody's own does to a value has to be done to each.
        self._is_plain = all(
            getattr(type(part), method).__module__.startswith("django.")
            for part in (field, self._target_field)
            for method in ("get_prep_value", "get_db_prep_value", "get_db_prep_save")
        )
        self._is_whole = isinstance(self._target_field, models.IntegerField | models.AutoField)

    def convert(self, values: pd.Series[Any] | Sequence[Any] | Missing, count: int, first: int) -> pa.Array:
        """Return ``count`` values, beginning with row ``first``. Raises FrameError for one that is wrong."""
        if isinstance(values, Missing):
            array = self._defaults(count, first)
        elif isinstance(values, pd.Series):
            array = self._cast(values) if self._is_plain and values.dtype != object else None
            if array is None:
                is_null = values.isna()
                array = self._texts((None if n else v for v, n in zip(values, is_null, strict=True)), first)
        else:
            array = self._texts(values, first)
        self._check(array, first)
        return array

    def _defaults(self, count: int, first: int) -> pa.Array:
        """Return what the field is without a value, as ``save`` would have it."""
        if callable(self._field.default):
            return self._texts([self._field.get_default() for _ in range(count)], first)
        return pa.repeat(self._texts([self._default()], first)[0], count)

    def _default(self) -> Any:
        return self._now if is_stamp(self._field) else self._field.get_default()

    @cached_property
    def _now(self) -> Any:
        """The time of this loading, as the field would take it."""
        return self._field.pre_save(self._field.model(), True)

    def _cast(self, series: pd.Series[Any]) -> pa.Array | None:
        """Return the values as Arrow casts them; None where it cannot, or Django would do otherwise."""
        array = pa.array(series, from_pandas=True)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if array.null_count and is_stamp(self._field):
            return None
        kind, target = array.type, self._target
        try:
            if self._oid == types.NUMERIC and target is None:
                return array if pa.types.is_decimal(kind) or pa.types.is_integer(kind) else None
            if target is None or not any(is_kind(kind) and is_target(target) for is_kind, is_target in CASTS):
                return None
            if pa.types.is_timestamp(target) and kind.tz is None and target.tz is not None:
                if not settings.USE_TZ:
                    return None
                array = pc.assume_timezone(array, str(timezone.get_default_timezone()))
            if pa.types.is_duration(target):
                microseconds = array.cast(target).cast(pa.int64()).cast(pa.large_string())
                return pc.binary_join_element_wise(microseconds, "microseconds", " ")
            return array.cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None

    def _texts(self, values: Iterable[Any], first: int) -> pa.Array:
        prepare, connection = self._field.get_db_prep_save, self._connection
        takes_time = is_stamp(self._field)
        texts: list[str | None] = []
        for row, value in enumerate(values, first):
            if value is MISSING or (value is None and takes_time):
                value = self._default()
            elif isinstance(value, models.Model):
                value = getattr(value, self._target_field.attname)
            try:
                if self._is_whole and isinstance(value, float | Decimal) and value != int(value):
                    raise ValueError(f"{value} is not a whole number")
                texts.append(text_of(prepare(value, connection)))
            except (TypeError, ValueError, ArithmeticError, ValidationError) as error:
                said = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
                raise self._error(row, said or type(error).__name__) from None
        try:
            array = pa.array(texts, pa.large_string())
            if self._target is not None and pa.types.is_integer(self._target):
                array.cast(self._target)
        except (UnicodeEncodeError, pa.ArrowInvalid):
            self._find(texts, first)
            raise
        return array

    def _find(self, texts: list[str | None], first: int) -> None:
        """Raise FrameError for the first text that cannot be written."""
        for row, text in enumerate(texts, first):
            try:
                array = pa.array([text], pa.large_string())
            except UnicodeEncodeError:
                raise self._error(row, "a text with half a surrogate pair, which is no character") from None
            try:
                array.cast(self._target)
            except pa.ArrowInvalid:
                raise self._error(row, f"{text} is too large for {self._target}") from None

    def _check(self, array: pa.Array, first: int) -> None:
        if not self._field.null and array.null_count:
            row = pc.index(array.is_null(), True).as_py()
            raise self._error(first + row, "it has no value, and the model wants one")
        if not pa.types.is_large_string(array.type):
            return
        longest = self._field.max_length
        if longest is not None and self._oid in (types.VARCHAR, types.STRINGS, types.CHAR):
            row = pc.index(pc.greater(pc.utf8_length(array), longest), True).as_py()
            if row >= 0:
                length = len(array[row].as_py())
                raise self._error(first + row, f"a text of {length} characters, where {longest} are the most")
        row = pc.index(pc.match_substring(array, "\0"), True).as_py()
        if row >= 0:
            raise self._error(first + row, "a text with a NUL character, which Postgres does not store")

    def _error(self, row: int, said: str) -> FrameError:
        return FrameError(
            f"Row {row}, column {self._field.attname!r}: {said.rstrip('.')}. Nothing was written."
        )


def is_stamp(field: Field) -> bool:
    """Tell whether the field takes the time by itself."""
    return bool(getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False))


def is_left_out(field: Field, values: Sequence[Any] | Missing | pd.Series[Any]) -> bool:
    """Tell whether the field is left to the database: its next number, its own default, what it computes."""
    if field.generated:
        return True
    if isinstance(values, Missing):
        return isinstance(field, models.AutoField) or field.has_db_default()
    if isinstance(values, pd.Series):
        return False
    return all(isinstance(value, DatabaseDefault) for value in values) or (
        isinstance(field, models.AutoField) and all(value is None for value in values)
    )


Is = Callable[[pa.DataType], bool]
_IS_NUMBER: Final[tuple[Is, ...]] = (pa.types.is_integer, pa.types.is_floating)

# What Arrow makes of a type of its own as Django would.
CASTS: Final[list[tuple[Is, Is]]] = [
    *((kind, target) for kind in _IS_NUMBER for target in _IS_NUMBER),
    (pa.types.is_boolean, pa.types.is_boolean),
    (pa.types.is_string, pa.types.is_large_string),
    (pa.types.is_large_string, pa.types.is_large_string),
    (pa.types.is_decimal, pa.types.is_decimal),
    (pa.types.is_integer, pa.types.is_decimal),
    (pa.types.is_date, pa.types.is_date),
    (pa.types.is_time, pa.types.is_time),
    (pa.types.is_timestamp, pa.types.is_timestamp),
    (pa.types.is_duration, pa.types.is_duration),
]


@singledispatch
def text_of(value: Any) -> str | None:
    """Return the text that Postgres reads as ``value``, which a field prepared for psycopg2; None is NULL.

    Raises TypeError for what has none, such as an expression.
    """
    adapted = getattr(value, "adapted", None)  # psycopg2.Binary
    if isinstance(adapted, bytes | bytearray | memoryview):
        return text_of(bytes(adapted))
    raise TypeError(f"{type(value).__name__} cannot be written by load")


text_of.register(type(None), lambda value: None)
text_of.register(str, str)
text_of.register(UUID, str)
text_of.register(int, lambda value: str(int(value)))
text_of.register(Decimal, str)
text_of.register(float, repr)
text_of.register(bool, lambda value: "true" if value else "false")
text_of.register(np.generic, lambda value: text_of(value.item()))
text_of.register(dt.date, lambda value: value.isoformat())
text_of.register(dt.time, lambda value: value.isoformat())
text_of.register(dt.timedelta, lambda value: f"{value // dt.timedelta(microseconds=1)} microseconds")
text_of.register(Inet, lambda value: str(value.addr))
text_of.register(Json, lambda value: value.dumps(value.adapted))


@text_of.register(bytes)
@text_of.register(bytearray)
@text_of.register(memoryview)
def _(value: bytes | bytearray | memoryview) -> str:
    return f"\\x{bytes(value).hex()}"


@text_of.register(list)
@text_of.register(tuple)
def _(value: Sequence[Any]) -> str:
    parts = (text_of(item) if isinstance(item, list | tuple) else _within(text_of(item)) for item in value)
    return f"{{{','.join(map(str, parts))}}}"


@text_of.register(Range)
def _(value: Any) -> str:
    if value.isempty:
        return "empty"
    lower, upper = ("" if bound is None else _within(text_of(bound)) for bound in (value.lower, value.upper))
    return f"{value._bounds[0]}{lower},{upper}{value._bounds[1]}"


@text_of.register(dict)
def _(value: dict[str, str | None]) -> str:
    return ", ".join(f"{_within(key)}=>{_within(text_of(item))}" for key, item in value.items())


def _within(text: str | None) -> str:
    """Return a text quoted for the inside of an array, a range or an hstore."""
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
