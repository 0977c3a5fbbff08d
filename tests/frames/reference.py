"""Frames as plain Python, to be compared with what psycopg2 and Django give row by row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pandas as pd
import pyarrow as pa


def column(series: pd.Series[Any]) -> list[Any]:
    """Return the values as Python's own, and None for NULL only: NaN stays."""
    if isinstance(series.dtype, pd.ArrowDtype):
        return list(pa.array(series).to_pylist())
    if series.dtype == object:
        return series.tolist()
    return [None if pd.isna(value) else _python(value) for value in series.tolist()]


def rows(frame: pd.DataFrame) -> list[list[tuple[type, str]]]:
    return exactly(zip(*(column(frame[name]) for name in frame.columns), strict=True))


def exactly(rows: Iterable[Iterable[Any]]) -> list[list[tuple[type, str]]]:
    """Return what tells 1 from True, 1.0 from 1.00 and -0.0 from 0.0, and has NaN equal NaN."""
    return [[_exact(value) for value in row] for row in rows]


def _exact(value: Any) -> tuple[type, str]:
    if isinstance(value, memoryview):
        value = bytes(value)
    if isinstance(value, dt.datetime) and str(value.tzinfo) == "UTC":
        value = value.replace(tzinfo=dt.UTC)
    return type(value), repr(value)


def _python(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    if isinstance(value, pd.Timedelta):
        return value.to_pytimedelta()
    return value
