"""What is in a DataFrame can be told from the table that the kernel shows."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser
from itertools import product
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from workbench.notebook.tables import Data, as_html, register
from workbench.notebook.values import OF_ALL, OF_ONE
from workbench.show import STYLE

SIGNS = {"NULL", "NaN", "NaT", "NA"}
ESCAPE = re.compile(r"\\(x..|u....|U........)")
TEXTS = st.text(st.characters(exclude_categories=[])) | st.text(
    st.sampled_from("\0\t\n\r '<>&\"aNUL…\u200b\u200d\u202e\ud800ש👩🇬"), max_size=80
)


@dataclass
class Cell:
    """A cell as a person reads it: ``sign`` is what is written there that is no text."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    cut: str = ""
    sign: str = ""
    note: str = ""


@dataclass
class Read(HTMLParser):
    """The cells of a table, by its lines, and its caption."""

    html: str
    lines: list[list[Cell]] = field(default_factory=list)
    caption: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append(Cell(tag, dict(attributes)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self.caption += data
        elif "i" in self.open:
            self._sign(data)
        elif "summary" in self.open:
            self._cell.cut += data
        elif {"td", "th"} & {*self.open}:
            self._cell.text += data

    @property
    def _cell(self) -> Cell:
        return self.lines[-1][-1]

    def _sign(self, data: str) -> None:
        is_cut = "summary" in self.open
        if ESCAPE.fullmatch(data):
            seen = chr(int(data[2:], 16))
            self._cell.cut += seen * is_cut
            self._cell.text += seen * (not is_cut)
        elif data in SIGNS:
            self._cell.sign = data
        elif data not in ("'", "''", "↵", "⇥") and not data.isspace():
            self._cell.note += data


def read(data: Data) -> Read:
    html = as_html(data)
    assert html is not None
    return Read(html)


def column(values: Any, **options: Any) -> list[Cell]:
    """Return how the values of one column look."""
    return [line[-1] for line in read(pd.DataFrame({"c": pd.Series(values, **options)})).lines[1:]]


@pytest.fixture(autouse=True)
def as_in_the_kernel() -> Iterator[InteractiveShell]:
    with pd.option_context("display.max_columns", 20, "display.html.use_mathjax", True):
        shell = InteractiveShell()
        register(shell)
        yield shell


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_value_that_has_no_text_says_why_and_the_others_are_shown() -> None:
    silent, huge, spoken = column([Mute(), 10**5000, "a"], dtype=object)
    assert silent.text == "<Mute without a text: no words>"
    assert huge.cut.startswith("<int without a text: ")
    assert spoken.text == "a"


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
@example(
    ["", "NULL", "'NULL'", " ", "\n", "\\x00", "<script>", "&amp;", "$1 and $2", "a\u200bb", "👩\u200d🚀"]
)
@example(["x" * 49 + "y", "x" * 51, " " * 60, "\ud800" * 60, "ש" * 60])
def test_every_text_can_be_read(texts: list[str]) -> None:
    table = read(
        pd.DataFrame([texts], index=pd.Index(["i"]), columns=pd.Index(texts, dtype=object), dtype=object)
    )
    shown = table.lines[1][1:]
    assert [cell.text for cell in shown] == texts
    assert [cell.text for cell in table.lines[0][1:]] == texts
    assert [cell.sign for cell in shown] == [""] * len(texts)
    assert all(cell.cut == "" or text.startswith(cell.cut) for cell, text in zip(shown, texts, strict=True))
    assert table.html.encode()  # As the kernel sends it.


def test_a_text_is_never_taken_for_markup_or_a_formula() -> None:
    evil = "<script>alert(1)</script><img src=x> $a$ and $b$"
    html = as_html(pd.DataFrame({evil: [evil]}, index=pd.Index([evil], name=evil)))
    assert html is not None
    assert "<script" not in html
    assert "<img" not in html
    assert 'class="wb tex2jax_ignore mathjax_ignore"' in html


MISSING: list[tuple[Any, dict[str, Any], str]] = [
    (["a", None], {}, "NULL"),
    (["a", None], {"dtype": object}, "NULL"),
    (["a", None], {"dtype": "category"}, "NULL"),
    ([1, None], {"dtype": "Int64"}, "NULL"),
    ([1, None], {"dtype": "int64[pyarrow]"}, "NULL"),
    ([b"a", None], {"dtype": pd.ArrowDtype(pa.large_binary())}, "NULL"),
    ([dt.date(2020, 1, 1), None], {"dtype": pd.ArrowDtype(pa.date32())}, "NULL"),
    ([dt.datetime(2020, 1, 1), None], {}, "NULL"),
    ([dt.timedelta(1), None], {}, "NULL"),
    ([1.5, None], {}, "NaN"),
    ([1.5, float("nan")], {"dtype": object}, "NaN"),
    ([Decimal(1), Decimal("sNaN")], {}, "NaN"),
    (["a", pd.NA], {"dtype": object}, "NA"),
    (["a", pd.NaT], {"dtype": object}, "NaT"),
]


@pytest.mark.parametrize(("values", "options", "sign"), MISSING)
def test_what_is_missing_has_a_sign_that_tells_what_it_is(
    values: list[Any], options: dict[str, Any], sign: str
) -> None:
    there, missing = column(values, **options)
    assert (there.sign, missing.sign, missing.text) == ("", sign, "")


def test_in_a_column_that_knows_both_nan_is_not_null() -> None:
    values = pd.arrays.ArrowExtensionArray(pa.array([float("nan"), None, 0.5]))
    assert [(cell.sign, cell.text) for cell in column(values)] == [("NaN", ""), ("NULL", ""), ("", "0.5")]


def test_a_text_that_could_be_mistaken_stands_in_quotes() -> None:
    html = as_html(pd.DataFrame({"c": ["NULL", "", " ", "'a'", "it's", "null"]}))
    assert html is not None
    cells = re.findall("<td>(.*)</td>", html.partition("</thead>")[2])
    quoted = "<i>'</i>{}<i>'</i>".format
    assert cells == [quoted("NULL"), "<i>''</i>", quoted(" "), quoted("'a'"), "it's", "null"]


VALUES: list[tuple[Any, str]] = [
    (2**80, str(2**80)),
    (Decimal("1.50"), "1.50"),
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ({"a": [None, "<"]}, "{'a': [None, '<']}"),
    ([1, 2], "[1, 2]"),
    (np.array([1, 2]), "[1 2]"),
    (b"\0a", r"b'\x00a'"),
    (memoryview(b"a"), "b'a'"),
    (dt.time(1, 2), "01:02:00"),
    (True, "True"),
    (1.5, "1.5"),
    (pd.Timestamp("2020-01-01", tz="Europe/Berlin"), "2020-01-01 00:00:00+01:00"),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_any_object_is_shown_as_its_text(value: object, text: str) -> None:
    assert [cell.text for cell in column([None, value], dtype=object)] == ["", text]


def test_digits_and_points_stand_below_each_other() -> None:
    values = [1.5, 10.25, None]
    shown = column(values)
    assert [cell.text for cell in shown] == ["1.50", "10.25", ""]
    html = as_html(pd.DataFrame({"d": [Decimal("1.5"), Decimal("10.25"), Decimal(3)]}))
    assert html is not None
    assert [
        len(re.sub("<.*?>", "", cell).partition(".")[2]) for cell in re.findall("1.*?</td>", html)[-2:]
    ] == [2, 2]
    for numbers in (values, [1, 2], [Decimal(1), None], [2**80], pd.array([1, None], dtype="Int64")):
        assert {cell.attributes.get("class") for cell in column(numbers)} == {"n"}
    for others in ([True], ["1"], [dt.date(2020, 1, 1)], [1, "a"], [None]):
        assert {cell.attributes.get("class") for cell in column(pd.Series(others, dtype=object))} == {None}


def test_times_are_alike_within_a_column() -> None:
    days = [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2)]
    assert [cell.text for cell in column(days)] == ["2020-01-01", "2020-01-02"]
    days.append(dt.datetime(2020, 1, 3, 12))
    assert column(days)[0].text == "2020-01-01 00:00:00"


class Counted:
    read = 0

    def __str__(self) -> str:
        Counted.read += 1
        return "read"


def test_only_what_is_shown_is_read() -> None:
    table = read(pd.DataFrame({"c": [Counted()] * 1_000_000}))
    assert Counted.read == 10
    assert table.caption == "1,000,000 rows, 1 column; the first and last 5 rows are shown"
    assert [line[0].text for line in table.lines[5:8]] == ["4", "", "999995"]
    assert table.lines[6][0].note == "… 999,990 more rows"


def test_a_long_text_is_cut_and_there_in_full() -> None:
    cell = column(["word " * 100])[0]
    assert cell.cut == ("word " * 10)[:49]
    assert cell.text == "word " * 100
    with pd.option_context("display.max_colwidth", 1_000):
        assert column(["word " * 100])[0].cut == ""
    with pd.option_context("display.max_colwidth", None):
        assert column(["word " * 10_000])[0].text == "word " * 10_000


def test_a_notebook_does_not_grow_with_what_is_in_a_cell() -> None:
    text, binary = column(["x" * 10_485_760, b"\0" * 10_485_760], dtype=object)
    assert (len(text.text), text.note) == (OF_ONE, "…… 10,485,760 characters in all")
    assert (len(binary.text), binary.note) == (OF_ONE, "…… 10,485,760 bytes in all")
    html = as_html(pd.DataFrame([["x" * OF_ONE] * 50] * 60))
    assert html is not None
    assert len(html) < 4 * OF_ALL
    assert "<i> 2,000 characters</i>" in html
    with pd.option_context("display.max_colwidth", None):
        assert len(as_html(pd.DataFrame({"c": ["x" * 10_485_760]})) or "") < 2 * OF_ALL


OPTIONS: list[tuple[tuple[Any, ...], tuple[int, int], str]] = [
    ((), (30, 30), ""),
    (("display.max_rows", 4), (5, 30), "; the first and last 2 rows are shown"),
    (("display.max_rows", 20, "display.min_rows", 2), (3, 30), "; the first and last row are shown"),
    (("display.max_rows", 1), (2, 30), "; the first row is shown"),
    (("display.max_rows", None), (30, 30), ""),
    (("display.max_columns", 20), (30, 21), "; the first and last 10 columns are shown"),
    (("display.max_columns", 1), (30, 2), "; the first column is shown"),
]


@pytest.mark.parametrize(("options", "shape", "shown"), OPTIONS)
def test_pandas_options_say_how_much_is_shown(
    options: tuple[Any, ...], shape: tuple[int, int], shown: str
) -> None:
    data = pd.DataFrame(np.arange(900).reshape(30, 30))
    with pd.option_context("display.show_dimensions", True, *options):
        table = read(data)
    assert table.caption == f"30 rows, 30 columns{shown}"
    assert (len(table.lines) - 1, len(table.lines[0]) - 1) == shape
    with pd.option_context("display.show_dimensions", False, *options):
        assert read(data).caption == ""


def test_pandas_options_say_how_numbers_are_written() -> None:
    values = [1234.56789, 2.0]
    with pd.option_context("display.precision", 2):
        assert [cell.text for cell in column(values)] == ["1234.57", "2.00"]
    with pd.option_context("display.float_format", "{:,.1f}".format):
        assert [cell.text for cell in column(values)] == ["1,234.6", "2.0"]
        assert [cell.text for cell in column([*values, "a"], dtype=object)] == ["1,234.6", "2.0", "a"]


class Own(pd.DataFrame):
    def _repr_html_(self) -> str:
        return "own"


def test_a_person_can_have_what_pandas_shows(as_in_the_kernel: InteractiveShell) -> None:
    def shown(data: Data) -> dict[str, str]:
        assert as_in_the_kernel.display_formatter is not None
        found: dict[str, str] = as_in_the_kernel.display_formatter.format(data)[0]
        return found

    data = pd.DataFrame({"a": ["$1", None]})
    assert shown(data)["text/plain"] == repr(data)
    assert shown(data)["text/html"] == as_html(data)
    assert shown(data["a"])["text/html"] == as_html(data["a"])
    assert r"\ud800" in shown(pd.Series(["\ud800"], dtype=object))["text/plain"]
    assert shown(Own(data))["text/html"] == "own"
    with pd.option_context("display.notebook_repr_html", False):
        assert set(shown(data)) == {"text/plain"}
    with pd.option_context("display.large_repr", "info", "display.max_rows", 1):
        assert "RangeIndex: 2 entries" in shown(data)["text/html"]
    with pd.option_context("display.html.use_mathjax", True):
        assert 'class="wb"' in shown(data)["text/html"]


PAIRS = pd.MultiIndex.from_tuples(
    [("a", 1), ("a", 2), ("b", 2), ("b", 2), ("a", 1), (None, 1)], names=["x", None]
)


def places(lines: list[list[Cell]]) -> list[list[str]]:
    """Return a table's texts by their place, each as often as it spans."""
    grid: dict[tuple[int, int], str] = {}
    for row, line in enumerate(lines):
        at = 0
        for cell in line:
            while (row, at) in grid:
                at += 1
            down, right = (int(cell.attributes.get(name) or 1) for name in ("rowspan", "colspan"))
            grid |= dict.fromkeys(
                product(range(row, row + down), range(at, at + right)), cell.text + cell.sign
            )
    width = max(at for _, at in grid) + 1
    return [[grid[row, at] for at in range(width)] for row in range(len(lines))]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("rows", [6, 4, 1])
def test_each_cell_stands_under_and_beside_its_labels(sparse: bool, rows: int) -> None:
    data = pd.DataFrame(np.arange(36).reshape(6, 6), index=PAIRS, columns=PAIRS.set_names([None, "y"]))
    with pd.option_context(
        "display.multi_sparse", sparse, "display.max_rows", rows, "display.min_rows", rows
    ):
        lines = read(data).lines
    by_place = [line for line in places(lines) if len({*line}) > 1 or line[0]]
    pairs = [["NULL" if pd.isna(label) else str(label) for label in pair] for pair in PAIRS]
    assert [line[2:] for line in by_place[:2]] == [list(level) for level in zip(*pairs, strict=True)]
    assert by_place[1][:2] == ["y", "y"]
    assert by_place[2][:2] == ["x", ""]
    kept = [*range(6)] if rows == 6 else [0, 1, 4, 5] if rows == 4 else [0]
    values = [[*pairs[at], *map(str, range(6 * at, 6 * at + 6))] for at in kept]
    assert [line for line in by_place[3:] if line[2]] == values
    heads = {cell.attributes["scope"] for line in lines for cell in line if cell.tag == "th"}
    assert heads == (
        {"row", "col", "rowgroup", "colgroup"}
        if sparse and rows > 1
        else {"row", "col"} | ({"colgroup"} if sparse else set())
    )


def test_columns_of_the_same_name_and_rows_of_the_same_label_are_all_shown() -> None:
    data = pd.DataFrame([[1, "a", None]] * 2, columns=["n", "n", None], index=["i", "i"])
    lines = read(data).lines
    assert [[cell.text + cell.sign for cell in line] for line in lines] == [
        ["", "n", "n", "NULL"],
        ["i", "1", "a", "NULL"],
        ["i", "1", "a", "NULL"],
    ]
    assert [cell.attributes.get("title") for cell in lines[0][1:]] == ["int64", "str", "object"]


def test_what_is_empty_says_what_it_would_hold() -> None:
    typed = read(
        pd.DataFrame({"id": pd.Series([], dtype="int64[pyarrow]"), "name": pd.Series([], dtype="str")})
    )
    assert [(cell.text, cell.note) for cell in typed.lines[0][1:]] == [
        ("id", "int64[pyarrow]"),
        ("name", "str"),
    ]
    assert typed.lines[1][0].note == "no rows"
    assert typed.caption == "no rows, 2 columns"
    assert read(pd.DataFrame(index=[1, 2])).caption == "2 rows, no columns"
    assert read(pd.DataFrame()).caption == "no rows, no columns"
    assert read(pd.Series([], dtype=float, name="s")).caption == "no rows"


def test_a_series_is_a_table_with_its_name_or_its_type() -> None:
    named = pd.Series([1], index=pd.Index(["a"], name="k"), name="n")
    assert [[cell.text for cell in line] for line in read(named).lines] == [["k", "n"], ["a", "1"]]
    assert read(named.rename(None)).lines[0][1].note == "int64"


def test_what_is_wide_scrolls_and_takes_keys() -> None:
    narrow, wide = (as_html(pd.DataFrame([["text"] * number])) or "" for number in (5, 50))
    assert 'class="wide"' not in narrow
    assert '<div class="wide"><table class="dataframe pinned"><caption tabindex="0"' in wide
    assert "1 row, 50 columns" in wide


def test_the_same_data_has_the_same_html_and_little_of_it() -> None:
    data = pd.DataFrame({"name": ["a", None], "n": [1, 2]})
    html = as_html(data) or ""
    assert html == as_html(data.copy())
    assert " id=" not in html
    assert len(html) - len(STYLE) < 600
    assert "\n" not in STYLE


def test_without_styles_and_attributes_it_still_says_the_same() -> None:
    data = pd.DataFrame({"c": ["NULL", None, "", "a" * 60, "\u200b"]})
    html = as_html(data) or ""
    bare = Read(re.sub(r"<(/?\w+).*?>", r"<\1>", html.removeprefix(STYLE)))
    assert [(cell.text, cell.sign) for (_, cell) in bare.lines[1:]] == [
        ("NULL", ""),
        ("", "NULL"),
        ("", ""),
        ("a" * 60, ""),
        ("\u200b", ""),
    ]
