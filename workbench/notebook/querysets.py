"""How a queryset looks in a cell: beside Django's text, its first rows as the table that frame would make."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple
from weakref import ref

import pandas as pd
from django.db.models import Model, QuerySet
from django.db.models.query import REPR_OUTPUT_SIZE
from IPython.core.interactiveshell import InteractiveShell

from workbench.frames.query import names_of
from workbench.notebook.tables import as_html, print_text

ALL = "A queryset: frame(...) reads it into a DataFrame."
FIRST = "The first {} rows of a queryset: frame(...) reads all into a DataFrame."
NOTE = '<div style="font-size: var(--jp-code-font-size, 13px)">{}</div>'


def register(shell: InteractiveShell) -> None:
    preview = Preview()
    assert shell.display_formatter is not None
    # The text is made before the table.
    formatters = shell.display_formatter.formatters
    formatters["text/plain"].for_type(QuerySet, preview.print)
    formatters["text/html"].for_type(QuerySet, preview.as_html)


class Read(NamedTuple):
    """The rows that the text of a queryset was made of, one more than it shows if there are more."""

    queryset: ref[QuerySet[Any]]
    rows: list[dict[str, Any]]


class Preview:
    """Makes the text of a queryset, then the table of the same rows: they are asked for once."""

    def __init__(self) -> None:
        self._read: Read | None = None

    def print(self, queryset: QuerySet[Any], printer: Any, cycle: bool) -> None:
        """Print what Django would. The queryset stays as it is: a slice of it is read."""
        self._read = None
        first: Any = queryset[: REPR_OUTPUT_SIZE + 1]
        rows = list(first)
        # A row may be anything: an iterable of a person's own makes it. Its text may load more of it.
        with suppress(Exception):
            self._read = Read(ref(queryset), [_columns(row, queryset.query) for row in rows])
        # Of one that was read before, the slice is a list.
        print_text(repr(queryset if isinstance(first, list) else first), printer)

    def as_html(self, queryset: QuerySet[Any]) -> str | None:
        """Return the first rows as a table, None where they make none: then the text is all."""
        read, self._read = self._read, None
        if read is None or read.queryset() is not queryset or not read.rows:
            return None
        rows = read.rows[:REPR_OUTPUT_SIZE]
        with suppress(Exception), pd.option_context("display.max_rows", None):
            if table := as_html(_table(rows)):
                is_all = len(rows) == len(read.rows)
                return f"{table}{NOTE.format(ALL if is_all else FIRST.format(len(rows)))}"
        return None


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pd.Series[Any]:
    column: pd.Series[Any] = pd.Series(values, dtype=object)
    # pandas would make floats of integers beside a None.
    return column if any(value is None for value in values) else column.infer_objects()


def _columns(row: Any, query: Any) -> dict[str, Any]:
    """Return a row's values, named as frame names them."""
    if isinstance(row, Model):
        return _fields(row, is_joined=bool(query.select_related))
    if isinstance(row, dict):
        return row
    values = row if isinstance(row, tuple) else (row,)
    return dict(zip(names_of(query), values, strict=True))


def _fields(instance: Model, prefix: str = "", *, is_joined: bool) -> dict[str, Any]:
    # Those that were read, and those of annotate().
    found = {f"{prefix}{name}": each for name, each in vars(instance).items() if not name.startswith("_")}
    for name, other in instance._state.fields_cache.items() if is_joined else ():
        if isinstance(other, Model):
            found |= _fields(other, f"{prefix}{name}__", is_joined=True)
    return found
