"""How DataFrames and Series look in a cell: as pandas' options have it, with the look of our own results.

Only what is shown is read, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import pandas as pd
from IPython.core.interactiveshell import InteractiveShell

from workbench.notebook.values import Writer
from workbench.show import WIDE, counted, dressed, table

Data = pd.DataFrame | pd.Series

# pandas' own 20 columns are for what does not scroll. A maximum of 0 means the size of a terminal.
COLUMNS, ROWS = 100, 60
# A wider index would hide what scrolls below it.
PINNED = 24
GAP = "…"


def register(shell: InteractiveShell) -> None:
    """Let DataFrames and Series look so, and set the options it takes, which people may change."""
    pd.set_option("display.max_columns", COLUMNS)
    pd.set_option("display.html.use_mathjax", False)  # Two prices in dollars are not a formula.
    assert shell.display_formatter is not None
    formatters = shell.display_formatter.formatters
    for kind in (pd.DataFrame, pd.Series):
        formatters["text/html"].for_type(kind, as_html)
        formatters["text/plain"].for_type(kind, _print)


def as_html(data: Data) -> str | None:
    """Return a DataFrame or Series as HTML, None where pandas' options want none. The kernel shows it.

    Example::

        as_html(frame(Book))
        with pd.option_context("display.max_colwidth", 200):
            display(frame(Book))
    """
    if not pd.get_option("display.notebook_repr_html"):
        return None
    theirs = getattr(type(data), "_repr_html_", None)
    is_changed = theirs not in (None, vars(pd.DataFrame)["_repr_html_"])
    if theirs and (is_changed or pd.get_option("display.large_repr") == "info"):
        html: str | None = theirs(data)
        return html
    return dressed(_Table(data).html, has_mathematics=pd.get_option("display.html.use_mathjax"))


def _print(data: Data, printer: Any, cycle: bool) -> None:
    """Print as pandas does."""
    print_text(repr(data), printer)


def print_text(text: str, printer: Any) -> None:
    """Print a text of some lines, half of a surrogate pair so that a kernel can send it."""
    for number, line in enumerate(text.encode(errors="backslashreplace").decode().splitlines()):
        if number:
            printer.break_()
        printer.text(line)


class _Ends(NamedTuple):
    """How many of the first and of the last are shown, of how many."""

    first: int
    last: int
    all: int

    @property
    def hidden(self) -> int:
        return self.all - self.first - self.last

    def of(self, frame: pd.DataFrame, axis: Literal[0, 1]) -> pd.DataFrame:
        if not self.hidden:
            return frame
        return frame.take([*range(self.first), *range(self.all - self.last, self.all)], axis=axis)

    def parted(self, shown: Sequence[str], gap: str) -> list[str]:
        """Return what is shown, with what stands for the rest between the first and the last."""
        return [*shown[: self.first], *([gap] if self.hidden else []), *shown[self.first :]]

    def said(self, what: str) -> str:
        """Say which are shown, "" where all are."""
        if not self.hidden:
            return ""
        if not self.last:
            return f"; the first {what} is shown"
        return f"; the first and last {f'{self.first} {what}s' if self.first > 1 else what} are shown"


def _ends(length: int, most: int | None, if_more: int | None = None) -> _Ends:
    """Return what pandas would show of so many."""
    if most is None or length <= most:
        return _Ends(length, 0, length)
    half = min(most, if_more or most) // 2
    return _Ends(half, half, length) if half else _Ends(1, 0, length)


class _Table:
    """A table of one DataFrame or Series, as HTML."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.is_named = isinstance(data, pd.DataFrame) or data.name is not None
        whole = data if isinstance(data, pd.DataFrame) else data.to_frame()
        most = pd.get_option("display.max_rows")
        self.rows = _ends(len(whole), ROWS if most == 0 else most, pd.get_option("display.min_rows"))
        most = pd.get_option("display.max_columns")
        self.columns = _ends(whole.shape[1], COLUMNS if most == 0 else most)
        self.shown = self.rows.of(self.columns.of(whole, axis=1), axis=0)
        self.dtypes = [str(dtype) for dtype in self.shown.dtypes]
        self.writer = Writer()
        self.cells = [self.writer.cells(self.shown.iloc[:, at]) for at in range(self.shown.shape[1])]
        self.index = [self.writer.cells(level) for level in _levels(self.shown.index)]
        self.labels = [self.writer.cells(level) for level in _levels(self.shown.columns)]

    @property
    def html(self) -> str:
        head = list(self._head())
        labels = self.labels[-1].widths
        widths = [max([label, *cells.widths]) for label, cells in zip(labels, self.cells, strict=True)]
        widths += [max(level.widths, default=0) for level in self.index]
        width = sum(widths) + 2 * len(widths)
        lines = "\n".join(["<thead>", *head, "</thead>", *self._body(), ""])
        is_wide = width > WIDE
        is_pinned = is_wide and len(head) == len(self.index) == 1 and widths[-1] <= PINNED
        return table(self._caption(is_wide), lines, width, "dataframe pinned" if is_pinned else "dataframe")

    def _head(self) -> Iterator[str]:
        names, over = list(self.shown.index.names), list(self.shown.columns.names)
        spans = _spans(self.shown.columns, self.columns.first)
        corners = [self._corner([name], "row", colspan=len(names)) for name in over]
        if any(name is not None for name in names):
            # The index's names have the corner, or, where the columns' names have it, a line of their own.
            is_free = all(name is None for name in over)
            corners[len(over) - is_free :] = [self._corner(names, "col")]
        gap = _cell("th", GAP, scope="col", title=counted(self.columns.hidden, "more column"))
        for level, corner in enumerate(corners):
            if level == len(over):
                cells = [_cell("td", "")] * len(self.cells)
            elif level == len(over) - 1:
                cells = list(map(self._label, range(len(self.cells))))
            else:
                cells = [
                    _cell("th", label, scope="colgroup" if span > 1 else "col", colspan=span) if span else ""
                    for label, span in zip(self.labels[level].html, spans[level], strict=True)
                ]
            yield _line(corner, *self.columns.parted(cells, gap))

    def _corner(self, names: Sequence[object], scope: str, colspan: int = 1) -> str:
        return "".join(
            _cell("td", "", colspan=colspan)
            if name is None
            else _cell("th", self.writer.label(name), scope=scope, colspan=colspan)
            for name in names
        )

    def _label(self, at: int) -> str:
        label, dtype = self.labels[-1].html[at], self.dtypes[at]
        shown = [label] if self.is_named else []
        if not self.rows.all or not self.is_named:
            shown.append(f"<i>{escape(dtype)}</i>")
        return _cell("th", "<br>".join(shown), self.cells[at].are_numbers, scope="col", title=dtype)

    def _body(self) -> Iterator[str]:
        spans = _spans(self.shown.index, self.rows.first)
        width = len(self.index) + len(self.cells) + bool(self.columns.hidden)
        lines = []
        for at in range(len(self.shown)):
            heads = [
                _cell(
                    "th", level.html[at], level.are_numbers, scope="rowgroup" if of > 1 else "row", rowspan=of
                )
                for level, of in zip(self.index, (span[at] for span in spans), strict=True)
                if of
            ]
            values = [_cell("td", cells.html[at], cells.are_numbers) for cells in self.cells]
            lines.append(_line(*heads, *self.columns.parted(values, _cell("td", GAP))))
        more = f"<i>{GAP} {counted(self.rows.hidden, 'more row')}</i>"
        yield from self.rows.parted(lines, _line(_cell("td", more, colspan=width)))
        if not self.rows.all:
            yield _line(_cell("td", "<i>no rows</i>", colspan=width))

    def _caption(self, is_wide: bool) -> str:
        """Say how much there is, if that is not to be seen at a glance."""
        columns = f", {counted(self.columns.all, 'column')}" if self.data.ndim > 1 else ""
        shown = self.rows.said("row") + self.columns.said("column")
        wanted = pd.get_option("display.show_dimensions")
        is_needed = shown or is_wide or not self.rows.all or not self.columns.all
        if not wanted or (wanted == "truncate" and not is_needed):
            return ""
        return f"{counted(self.rows.all, 'row')}{columns}{shown}"


def _levels(index: pd.Index[Any]) -> list[pd.Series[Any]]:
    return [pd.Series(index.get_level_values(level)) for level in range(index.nlevels)]


def _spans(index: pd.Index[Any], gap: int) -> list[list[int]]:
    """Return for each level how many places each label stands for: 0 if the one before stands for it too."""
    ones = [[1] * len(index) for _ in range(index.nlevels)]
    if not isinstance(index, pd.MultiIndex) or not pd.get_option("display.multi_sparse"):
        return ones
    starts = {0, gap}
    for spans, codes in zip(ones[:-1], index.codes, strict=False):
        starts |= {at for at in range(1, len(index)) if codes[at] != codes[at - 1]}
        ends = [*sorted(starts & set(range(len(index)))), len(index)]
        spans[:] = [0] * len(index)
        for start, end in pairwise(ends):
            spans[start] = end - start
    return ones


def _line(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _cell(tag: str, html: str, is_number: bool = False, **attributes: str | int) -> str:
    start = [tag, *(['class="n"'] if is_number else [])]
    start += [f'{name}="{escape(str(value))}"' for name, value in attributes.items() if value != 1]
    return f"<{' '.join(start)}>{html}</{tag}>"
