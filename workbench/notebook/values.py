"""How the values of a column look in a table.

What is no text has a sign in italics: NULL, NaN, the quotes of an empty text, an end of line, what cannot be
seen. A text that could be mistaken for one stands in quotes. A long text is cut, and opens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from workbench.show import visible

# So many characters of one value, and of all that are cut in one table, are put into a notebook.
OF_ONE, OF_ONE_UNLIMITED, OF_ALL = 2_000, 100_000, 100_000

MISTAKABLE = re.compile(r"\s.*|.*\s|'.*'|NULL|NaN|NaT|NA", re.DOTALL)
RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
# As wide as a digit, and as a point.
FIGURE_SPACE, PUNCTUATION_SPACE = "\u2007", "\u2008"


class Text(NamedTuple):
    """A value's text or the beginning of it; then ``size`` says how long it is."""

    text: str
    size: str = ""


class Cells(NamedTuple):
    """Values as HTML, and how many characters are seen of each."""

    html: Sequence[str]
    widths: Sequence[int]
    are_numbers: bool


@dataclass
class Writer:
    """Writes the columns of one table; what it cuts it writes whole too, as long as there is room."""

    longest: int | None = field(default_factory=lambda: pd.get_option("display.max_colwidth"))
    room: int = OF_ALL

    def cells(self, column: pd.Series[Any]) -> Cells:
        """Return the values of a column as HTML."""
        if isinstance(column.dtype, pd.SparseDtype):
            column = pd.Series(np.asarray(column))
        signs = [_sign(value, column.dtype) for value in column.tolist()]
        there = pd.Series(column.array[[not sign for sign in signs]], dtype=column.dtype)
        texts = self._texts(there)
        are_numbers = _are_numbers(there)
        written = [self._written(*text) for text in texts]
        if are_numbers and types.is_object_dtype(there.dtype):
            written = [html + pad for html, pad in zip(written, _pads(texts), strict=True)]
        html, widths = iter(written), iter(min(len(text), self.longest or len(text)) for text, _ in texts)
        return Cells(
            [f"<i>{sign}</i>" if sign else next(html) for sign in signs],
            [len(sign) if sign else next(widths) for sign in signs],
            are_numbers,
        )

    def label(self, value: object) -> str:
        """Return a single value as HTML."""
        return self.cells(pd.Series([value], dtype=object)).html[0]

    def _texts(self, there: pd.Series[Any]) -> list[Text]:
        """Return the texts of values that are not missing."""
        most = max(OF_ONE, self.longest) if self.longest else OF_ONE_UNLIMITED
        if _is_like_its_neighbours(there.dtype):
            return [Text(line) for line in _lines(there)]
        values = there.tolist()
        floats = [value for value in values if isinstance(value, float | np.floating)]
        lines = iter(_lines(pd.Series(floats, dtype=float)))
        return [
            Text(next(lines)) if isinstance(value, float | np.floating) else _text(value, most)
            for value in values
        ]

    def _written(self, text: str, size: str) -> str:
        whole = _marked(text)
        if size:
            whole += f"<i>… {size} in all</i>"
        if not self.longest or len(text) <= self.longest:
            return whole
        quote = "<i>'</i>" if MISTAKABLE.fullmatch(text) else ""
        cut = f"{quote}{_seen(text[: self.longest - 1])}<i>…</i>"
        self.room -= len(text)
        if self.room < 0:
            return f"{cut}<i> {size or _characters(text)}</i>"
        return f"<details><summary>{cut}</summary>{whole}</details>"


def _sign(value: Any, dtype: Any) -> str:
    """Return what stands for a missing value, "" for any other.

    Where a type has only one, it is a database's NULL; an object column may tell None from NA and NaT.
    """
    if value is None:
        return "NULL"
    if isinstance(value, Decimal):
        return "NaN" if value.is_nan() else ""
    if not types.is_scalar(value) or not pd.isna(value):
        return ""
    is_nan = isinstance(value, float | complex | np.inexact)
    if types.is_object_dtype(dtype):
        return "NaN" if is_nan else "NA" if value is pd.NA else "NaT"
    return "NaN" if is_nan and (types.is_float_dtype(dtype) or types.is_complex_dtype(dtype)) else "NULL"


def _are_numbers(there: pd.Series[Any]) -> bool:
    dtype = there.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    if types.is_object_dtype(dtype):
        values = there.tolist()
        return bool(values) and all(isinstance(v, Number) and not isinstance(v, bool) for v in values)
    return types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype)


def _is_like_its_neighbours(dtype: Any) -> bool:
    """Tell whether values are printed for comparison: all with as many decimals, all with a time or none."""
    return (
        types.is_float_dtype(dtype)
        or types.is_complex_dtype(dtype)
        or types.is_datetime64_any_dtype(dtype)
        or types.is_timedelta64_dtype(dtype)
    )


def _lines(values: pd.Series[Any]) -> list[str]:
    """Return how pandas prints values of one type below each other."""
    if values.empty:
        return []
    as_told = pd.get_option("display.float_format")
    if as_told and types.is_float_dtype(values.dtype):
        return [as_told(value).strip() for value in values]
    return [line.strip() for line in values.to_string(index=False, header=False).split("\n")]


def _text(value: object, most: int) -> Text:
    """Return at most so many characters of a value, which may be anything."""
    if isinstance(value, bytes | bytearray | memoryview):
        size = len(value)
        text = repr(bytes(value[:most]))
        return Text(text) if len(text) <= most else Text(text[:most], f"{size:,} bytes")
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:
        text = f"<{type(value).__name__} without a text: {error}>"
    return Text(text) if len(text) <= most else Text(text[:most], _characters(text))


def _characters(text: str) -> str:
    return f"{len(text):,} characters"


def _marked(text: str) -> str:
    """Return a whole text, in quotes if it could be mistaken for something else."""
    if not text:
        return "<i>''</i>"
    html = _seen(text)
    return f"<i>'</i>{html}<i>'</i>" if MISTAKABLE.fullmatch(text) else html


def _seen(text: str) -> str:
    html = visible(text).replace("\n", "<i>↵</i>\n").replace("\t", "<i>⇥</i>\t")
    return f"<bdi>{html}</bdi>" if RIGHT_TO_LEFT.search(text) else html


def _pads(texts: Sequence[Text]) -> list[str]:
    """Return what brings the points of numbers of different scale below each other."""
    scales = [len(text.partition(".")[2]) for text, _ in texts]
    if any("E" in text or "e" in text for text, _ in texts) or not any(scales):
        return [""] * len(texts)
    most = max(scales)
    return [
        f"<i>{PUNCTUATION_SPACE * (not scale)}{FIGURE_SPACE * (most - scale)}</i>" if scale < most else ""
        for scale in scales
    ]
