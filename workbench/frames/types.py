"""The one table of types: Postgres', what they are on the wire, in Arrow, and in pandas.

===================================  =====================  =============================================
Postgres                             pandas                 what to know
===================================  =====================  =============================================
smallint, integer, bigint            int16, int32, int64    whole, with or without NULL
oid                                  uint32                 the same
real, double precision               float, double          NaN is not NULL
boolean                              bool
numeric(p, s) of up to 38 digits     decimal128(p, s)       exact; NaN is refused
numeric                              object                 Decimal, whose scale differs from row to row
text, varchar, char, name, enums,    str                    '' is not NULL; char(n) keeps its blanks
and what psycopg2 leaves as text
bytea                                large_binary           bytes
date                                 date32                 datetime.date; infinity is date.max
time                                 time64[us]             datetime.time; 24:00 is refused
timestamp with time zone             datetime64[us, UTC]    NULL is NaT; infinity is datetime.max
timestamp                            datetime64[us]         the same
interval                             timedelta64[us]        a month is 30 days, a year 365, as in psycopg2
uuid                                 object                 uuid.UUID
json, jsonb                          object                 parsed
arrays, ranges, and what else        object                 psycopg2's own value
psycopg2 makes something of
===================================  =====================  =============================================

Numbers, booleans, decimals, bytes, dates and times are Arrow's: ``int64[pyarrow]``. A column's dtype depends
on its type alone, never on its values, so that an empty result has the same. Years before 1 and after
9999 are refused, as Python has no dates for them. In an object column NULL is None.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache, partial
from itertools import repeat
from operator import lshift, or_
from typing import Any, Final
from uuid import UUID, SafeUUID

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2.extras import DateRange, NumericRange

from workbench.frames.binary import LENGTH, Fixed, Varying, at
from workbench.frames.errors import FrameError

Field = Fixed | Varying
Ints = npt.NDArray[Any]

# The one that numpy has too, so that each takes what the other gave back.
POOL: Final = pa.system_memory_pool()

# Postgres counts from the year 2000, Arrow from 1970.
DAYS_TO_2000: Final = (dt.date(2000, 1, 1) - dt.date(1970, 1, 1)).days
MICROSECONDS_A_DAY: Final = 24 * 60 * 60 * 1_000_000
FIRST_DAY: Final = (dt.date.min - dt.date(1970, 1, 1)).days
LAST_DAY: Final = (dt.date.max - dt.date(1970, 1, 1)).days

INT32: Final = np.iinfo(np.int32)
INT64: Final = np.iinfo(np.int64)

# What a value is sent as: itself, or its text, which is the output function's: a cast to text may differ.
ITSELF: Final = "{}"
CAST_TO_TEXT: Final = "{}::text"
TEXT: Final = "CASE WHEN {0} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {0}) END"


@dataclass(frozen=True)
class Type:
    """How one type is read: what the server sends of a value, and what that becomes.

    ``decode`` gives numpy values for a fixed ``wire`` with an ``arrow`` type, an Arrow array for a varying
    one, and a list where ``arrow`` is None.
    """

    send: str
    wire: str | None  # numpy's name of an item, None where the width varies
    decode: Callable[[Any], Any]
    arrow: pa.DataType | None  # None: Python objects
    pandas: Callable[[Any], Any]


def type_of(
    oid: int, precision: int | None, scale: int | None, caster: Callable[[str | None], Any] | None
) -> Type:
    """Return how to read a column that ``cursor.description`` describes so.

    ``caster`` makes psycopg2's value of the text of any type that has no reading of its own here; None where
    that is the text itself.
    """
    if oid == NUMERIC and precision is not None and scale is not None and scale <= precision <= 38:
        return _decimal(precision, scale)
    if oid in TYPES:
        return TYPES[oid]
    if caster is None:
        return _text(TEXT)
    return objects(caster)


def objects(make: Callable[[str | None], Any], send: str = TEXT) -> Type:
    """Return how to read Python objects that ``make`` makes of a text, or of None for NULL."""

    def decode(field: Varying) -> list[Any]:
        return list(map(make, _strings(field)))

    return Type(send, None, decode, None, _object_series)


def _plain(field: Fixed) -> npt.NDArray[Any]:
    return field.values


def _dates(field: Fixed) -> npt.NDArray[Any]:
    days = field.values.astype(np.int64) + DAYS_TO_2000
    return _within(days, FIRST_DAY, LAST_DAY, INT32.min + DAYS_TO_2000, INT32.max + DAYS_TO_2000)


def _times(field: Fixed) -> npt.NDArray[Any]:
    if field.values.max(initial=0) >= MICROSECONDS_A_DAY:
        raise FrameError("holds the time 24:00:00, which Python does not have")
    return field.values


def _timestamps(field: Fixed) -> npt.NDArray[Any]:
    # Before the shift, which infinity would overflow.
    shift = DAYS_TO_2000 * MICROSECONDS_A_DAY
    first, last = FIRST_DAY * MICROSECONDS_A_DAY, (LAST_DAY + 1) * MICROSECONDS_A_DAY - 1
    since_2000 = field.values.astype(np.int64)
    return _within(since_2000, first - shift, last - shift, INT64.min, INT64.max) + shift


def _range_dates(field: Fixed) -> npt.NDArray[Any]:
    return _dates(field).astype("M8[D]")


def _within(values: Ints, first: int, last: int, minus_infinity: int, infinity: int) -> Ints:
    """Return the values with the infinities as the first and last that Python has. Raises FrameError."""
    if values.min(initial=first) >= first and values.max(initial=last) <= last:
        return values
    values = np.select([values == minus_infinity, values == infinity], [first, last], values)
    if values.min() < first or values.max() > last:
        raise FrameError("holds a year before 1 or after 9999, which Python does not have")
    return values


def _intervals(field: Fixed) -> npt.NDArray[Any]:
    microseconds, days, months = (field.values[name].astype(np.int64) for name in ("f0", "f1", "f2"))
    years = np.trunc(months / 12).astype(np.int64)
    days = days + years * 365 + (months - years * 12) * 30
    # pandas counts microseconds in 64 bits, and the lowest is NaT.
    longest = INT64.max // MICROSECONDS_A_DAY - 1
    if max(abs(days).max(initial=0), abs(microseconds // MICROSECONDS_A_DAY).max(initial=0)) * 2 > longest:
        raise FrameError("holds an interval of over 140,000 years, or infinity, which pandas does not have")
    return days * MICROSECONDS_A_DAY + microseconds


def _uuids(field: Fixed) -> list[Any]:
    high, low = field.values["f0"].tolist(), field.values["f1"].tolist()
    ints = map(or_, map(lshift, high, repeat(64)), low)
    uuids = _built(UUID, len(high), int=ints, is_safe=repeat(SafeUUID.unknown))
    return _without(uuids, field.nulls)


def _ranges(field: Varying, cls: type, wire: str, decode: Callable[[Fixed], npt.NDArray[Any]]) -> list[Any]:
    """Return psycopg2's ranges of values of one width.

    A range is its flags, then each bound that it has (https://doxygen.postgresql.org/rangetypes_8h.html).
    """
    flags = at(field.data, field.starts, np.dtype("u1"))
    if field.nulls is not None:
        flags[field.nulls] = EMPTY
    has_lower, has_upper = (flags & (EMPTY | infinite) == 0 for infinite in (LOWER_INFINITE, UPPER_INFINITE))
    item = np.dtype(wire)
    lower_at = field.starts + flags.itemsize + LENGTH.itemsize
    upper_at = lower_at + has_lower * (item.itemsize + LENGTH.itemsize)
    bounds = []
    for positions, exists in ((lower_at, has_lower), (upper_at, has_upper)):
        values = at(field.data, positions, item)
        values[~exists] = 0
        bounds.append(_without(decode(Fixed(values, None)).tolist(), ~exists))
    brackets = _without(BRACKETS[flags >> 1 & 3].tolist(), flags & EMPTY)
    ranges = _built(cls, len(flags), _lower=bounds[0], _upper=bounds[1], _bounds=brackets)
    return _without(ranges, field.nulls)


EMPTY, LOWER_INFINITE, UPPER_INFINITE = 1, 8, 16
BRACKETS: Final = np.array(["()", "[)", "(]", "[]"], dtype=object)  # by the flags 2 and 4


def _built(cls: type, count: int, **slots: Iterable[Any]) -> list[Any]:
    """Return objects with these values in their slots: what ``cls`` does, in C and without its checks."""
    new: Any = cls.__new__
    built = list(map(new, repeat(cls, count)))
    for slot, values in slots.items():
        deque(map(getattr(cls, slot).__set__, built, values), maxlen=0)
    return built


def _without(values: list[Any], nulls: Any) -> list[Any]:
    if nulls is not None:
        for index in np.flatnonzero(nulls):
            values[index] = None
    return values


def _sliced(field: Varying, to: pa.DataType) -> pa.Array:
    """Return the slices as an Arrow array: those between them, which Arrow wants too, are left behind."""
    count = len(field.starts)
    offsets = np.empty(2 * count + 1, np.int64)
    offsets[:-1:2], offsets[1::2] = field.starts, field.ends
    offsets[-1] = offsets[-2] if count else 0
    every = pa.Array.from_buffers(to, 2 * count, [None, pa.py_buffer(offsets), field.data])
    wanted = _even(count)
    if field.nulls is not None:
        wanted = pa.array(wanted.to_numpy(), mask=field.nulls)
    return pc.take(every, wanted, memory_pool=POOL)


@lru_cache(maxsize=8)
def _even(count: int) -> pa.Array:
    return pa.array(np.arange(0, 2 * count, 2))


def _strings(field: Varying) -> npt.NDArray[np.object_]:
    strings: npt.NDArray[np.object_] = _sliced(field, pa.large_string()).to_numpy(zero_copy_only=False)
    return strings


def _decimal_or_none(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _decimals(field: Varying, to: pa.DataType) -> pa.Array:
    try:
        return _sliced(field, pa.large_string()).cast(to)
    except pa.ArrowInvalid:
        raise FrameError("holds NaN, which a decimal column does not have") from None


def _jsons(field: Varying, skipped: int) -> list[Any]:
    starts = field.starts + skipped if field.nulls is None else field.starts + skipped * ~field.nulls
    texts = _strings(Varying(field.data, starts, field.ends, field.nulls))
    if field.nulls is not None:
        texts[field.nulls] = "null"
    # The server has checked each of them, so one text of them all means the same.
    parsed: list[Any] = json.loads(f"[{','.join(texts)}]")
    return parsed


def _arrow(chunks: pa.ChunkedArray) -> Any:
    return pd.arrays.ArrowExtensionArray(chunks)


def _str(chunks: pa.ChunkedArray) -> Any:
    return pd.arrays.ArrowStringArray(chunks, dtype=pd.StringDtype(na_value=np.nan))  # type: ignore[call-arg]


def _datetimes(chunks: pa.ChunkedArray) -> Any:
    return pd.DatetimeIndex(chunks.to_numpy(), tz=chunks.type.tz, copy=False).array


def _timedeltas(chunks: pa.ChunkedArray) -> Any:
    return pd.TimedeltaIndex(chunks.to_numpy(), copy=False).array


def _object_series(values: Sequence[Any]) -> Any:
    # A bare array of objects would be looked through for texts and dates, and then be of their type.
    return pd.Series(np.fromiter(values, np.object_, len(values)), dtype=object, copy=False)


def _number(wire: str, arrow: pa.DataType) -> Type:
    return Type(ITSELF, wire, _plain, arrow, _arrow)


def _timestamp(tz: str | None) -> Type:
    arrow = pa.timestamp("us", tz)
    return Type(ITSELF, ">i8", _timestamps, arrow, _datetimes)


def _range(cls: type, wire: str, decode: Callable[[Fixed], npt.NDArray[Any]]) -> Type:
    return Type(ITSELF, None, partial(_ranges, cls=cls, wire=wire, decode=decode), None, _object_series)


def _text(send: str) -> Type:
    return Type(send, None, partial(_sliced, to=pa.large_string()), pa.large_string(), _str)


@lru_cache
def _decimal(precision: int, scale: int) -> Type:
    arrow = pa.decimal128(precision, scale)
    return Type(CAST_TO_TEXT, None, partial(_decimals, to=arrow), arrow, _arrow)


# By the numbers that Postgres has for its own types: SELECT oid, typname FROM pg_type.
BOOLEAN, BYTEA, BIGINT, SMALLINT, INTEGER, OID, JSON = 16, 17, 20, 21, 23, 26, 114
REAL, DOUBLE, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL = 700, 701, 1082, 1083, 1114, 1184, 1186
NUMERIC, UUID_, JSONB = 1700, 2950, 3802
INT4RANGE, DATERANGE, INT8RANGE = 3904, 3912, 3926
NAME, STRINGS, CHAR, VARCHAR = 19, 25, 1042, 1043

TYPES: Final[dict[int, Type]] = {
    BOOLEAN: Type(ITSELF, "|u1", _plain, pa.bool_(), _arrow),
    SMALLINT: _number(">i2", pa.int16()),
    INTEGER: _number(">i4", pa.int32()),
    BIGINT: _number(">i8", pa.int64()),
    OID: _number(">u4", pa.uint32()),
    REAL: _number(">f4", pa.float32()),
    DOUBLE: _number(">f8", pa.float64()),
    NUMERIC: objects(_decimal_or_none, CAST_TO_TEXT),
    **dict.fromkeys((STRINGS, VARCHAR, CHAR, NAME), _text(ITSELF)),
    BYTEA: Type(ITSELF, None, partial(_sliced, to=pa.large_binary()), pa.large_binary(), _arrow),
    DATE: Type(ITSELF, ">i4", _dates, pa.date32(), _arrow),
    TIME: Type(ITSELF, ">i8", _times, pa.time64("us"), _arrow),
    TIMESTAMP: _timestamp(None),
    TIMESTAMPTZ: _timestamp("UTC"),
    INTERVAL: Type(ITSELF, ">i8,>i4,>i4", _intervals, pa.duration("us"), _timedeltas),
    UUID_: Type(ITSELF, ">u8,>u8", _uuids, None, _object_series),
    INT4RANGE: _range(NumericRange, ">i4", _plain),
    INT8RANGE: _range(NumericRange, ">i8", _plain),
    DATERANGE: _range(DateRange, ">i4", _range_dates),
    JSON: Type(ITSELF, None, partial(_jsons, skipped=0), None, _object_series),
    JSONB: Type(ITSELF, None, partial(_jsons, skipped=1), None, _object_series),  # its version comes first
}


# What Django makes of expressions in Python, made by Postgres: float(), int(), Decimal(), date() and time().
AS_FLOAT: Final = {
    REAL: TYPES[REAL],
    **dict.fromkeys((DOUBLE, SMALLINT, INTEGER, BIGINT, NUMERIC), replace(TYPES[DOUBLE], send="{}::float8")),
}
AS_INTEGER: Final = {
    **{oid: TYPES[oid] for oid in (SMALLINT, INTEGER, BIGINT)},
    **dict.fromkeys((NUMERIC, REAL, DOUBLE), replace(TYPES[BIGINT], send="trunc({})::int8")),
}
AS_DECIMAL: Final = dict.fromkeys((SMALLINT, INTEGER, BIGINT, NUMERIC), TYPES[NUMERIC])
AS_DATE: Final = {DATE: TYPES[DATE], TIMESTAMP: replace(TYPES[DATE], send="{}::date")}
AS_TIME: Final = {TIME: TYPES[TIME], TIMESTAMP: replace(TYPES[TIME], send="{}::time")}


NUMPY: Final = {pa.float32(): "f4", pa.float64(): "f8", pa.uint32(): "u4", pa.bool_(): "?"}


class Column:
    """A column while its rows come in, in batches of any size."""

    def __init__(self, name: str, type_: Type) -> None:
        self.name = name
        self.type = type_
        self._values = _store(type_)

    def add(self, field: Field) -> None:
        """Take what a batch of rows holds of this column. Raises FrameError for what pandas cannot hold."""
        try:
            self._values.add(self.type.decode(field), field.nulls)
        except FrameError as error:
            raise FrameError(
                f"The column {self.name!r} {error}: leave it out, "
                f"or read it as text with Cast(..., TextField())."
            ) from None

    def take(self) -> Any:
        """Return all values so far as a pandas array, and start anew."""
        values, self._values = self._values, _store(self.type)
        return self.type.pandas(values.all())


def _store(type_: Type) -> _Numbers | _Slices | _Objects:
    if type_.arrow is None:
        return _Objects()
    return _Slices(type_.arrow) if type_.wire is None else _Numbers(type_.arrow)


# A batch is too small a piece to compute with; one piece of everything would be held twice while it is made.
ROWS_IN_A_CHUNK: Final = 1 << 17


class _Numbers:
    def __init__(self, arrow: pa.DataType) -> None:
        self._arrow = arrow
        self._dtype = NUMPY.get(arrow) or f"i{arrow.bit_width // 8}"
        self._chunks: list[pa.Array] = []
        self._values = np.empty(0, self._dtype)
        self._nulls: npt.NDArray[np.bool_] | None = None
        self._used = 0

    def add(self, values: npt.NDArray[Any], nulls: npt.NDArray[np.bool_] | None) -> None:
        if self._used + len(values) > len(self._values):
            # The first batch may be all there is, and memory that is not used takes time too.
            self._end(ROWS_IN_A_CHUNK if self._used else len(values))
        end = self._used + len(values)
        self._values[self._used : end] = values
        if nulls is not None:
            if self._nulls is None:
                self._nulls = np.zeros(len(self._values), np.bool_)
            self._nulls[self._used : end] = nulls
        self._used = end

    def _end(self, next_rows: int) -> None:
        """Close the chunk, if there is one, and begin another."""
        if self._used:
            valid = None if self._nulls is None else pa.array(~self._nulls[: self._used]).buffers()[1]
            values = self._values[: self._used]
            packed = pa.array(values).buffers()[1] if self._arrow == pa.bool_() else pa.py_buffer(values)
            self._chunks.append(pa.Array.from_buffers(self._arrow, self._used, [valid, packed]))
        self._values = np.empty(next_rows, self._dtype)
        self._nulls = None
        self._used = 0

    def all(self) -> pa.ChunkedArray:
        self._end(0)
        return pa.chunked_array(self._chunks, self._arrow)


class _Slices:
    def __init__(self, arrow: pa.DataType) -> None:
        self._arrow = arrow
        self._chunks: list[pa.Array] = []
        self._pieces: list[pa.Array] = []
        self._rows = 0

    def add(self, piece: pa.Array, _: object) -> None:
        self._pieces.append(piece)
        self._rows += len(piece)
        if self._rows >= ROWS_IN_A_CHUNK:
            self._end()

    def _end(self) -> None:
        if self._pieces:
            self._chunks.append(pa.concat_arrays(self._pieces, memory_pool=POOL))
        self._pieces.clear()
        self._rows = 0

    def all(self) -> pa.ChunkedArray:
        self._end()
        return pa.chunked_array(self._chunks, self._arrow)


class _Objects(list[Any]):
    def add(self, values: list[Any], _: object) -> None:
        self += values

    def all(self) -> list[Any]:
        return self
