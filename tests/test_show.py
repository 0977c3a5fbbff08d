"""How results look: the same in a terminal and in a notebook, whatever names they hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schema.places import run
from workbench.schema import models_at, snapshot, states, timeline
from workbench.show import ADDED, CHANGED, REMOVED, WARNING, Code, Grid, Part, Row, Shown, Words

NO_SHORTCUTS = "data-lm-suppress-shortcuts"


class Result(Shown):
    def __init__(self, *parts: Part) -> None:
        self.parts = parts

    def _parts(self) -> tuple[Part, ...]:
        return self.parts


class Read(HTMLParser):
    """What a browser makes of HTML: its tags in their order, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        assert {name for name, _ in attrs} <= {"class", "scope", "aria-label", "tabindex", NO_SHORTCUTS}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["i"]:  # It tells of what cannot be seen.
            self.text += chr(int(data[2:], 16))
        elif self.open[-1:] != ["style"]:
            self.text += data


HARMLESS = {"caption", "b", "i", "td", "th"}
ALL = (
    Grid("A title", [Row(["a", "1"]), Row(["bcd", "22"], ADDED)], ("name", "n")),
    Grid("", [Row(["one"], REMOVED), Row(["one", "two", "three"], CHANGED)]),
    Words("A sentence."),
    Words("Look out.", WARNING),
    Code("SELECT 1;", "postgres", "SQL"),
    Code("SELECT 2;", "postgres", "More", is_folded=True),
)
PLAIN = """\
A title
    name   n
    a      1
  + bcd   22

  - one
  ~ one  two  three

A sentence.

! Look out.

SQL
SELECT 1;"""


def test_plain_text_is_aligned_and_without_what_is_folded() -> None:
    assert repr(Result(*ALL)) == PLAIN


def test_html_says_the_same_and_holds_what_is_folded() -> None:
    page = Result(*ALL)._repr_html_()
    text = Read(page).text
    for words in [*re.findall(r"[\w.;]+", PLAIN), "More", "SELECT 2;"]:
        assert words in text
    assert page.count("<details>") == 1


@pytest.mark.parametrize(
    ("sign", "css"), [(ADDED, "added"), (REMOVED, "removed"), (CHANGED, "changed"), (WARNING, "warning")]
)
def test_a_colour_never_stands_without_its_sign(sign: str, css: str) -> None:
    page = Result(Grid("t", [Row(["a"], sign), Row(["b"])]))._repr_html_()
    assert f'<tr class="{css}"><td class="sign" aria-label="{css}">{sign}</td>' in page
    assert '<tr><td class="sign"></td><th scope="row">b</th></tr>' in page


def test_without_signs_there_is_no_column_for_them() -> None:
    page = Result(Grid("t", [Row(["a"])], ("head",)))._repr_html_()
    assert "sign" not in page.partition("</style>")[2]
    assert '<tr><th scope="col">head</th></tr></thead>\n<tr><th scope="row">a</th></tr>' in page


def test_numbers_stand_right_with_their_head_and_nothing_else_does() -> None:
    rows = [Row(["a", "8", "8.3 MB", "1,000 rows", ""]), Row(["b", "100", "764 kB", "1 → 2", "< 1 min"])]
    grid = Result(Grid("", rows, ("", "n", "size", "rows", "age")))
    assert repr(grid).splitlines() == [
        "       n    size  rows            age",
        "  a    8  8.3 MB  1,000 rows",
        "  b  100  764 kB  1 → 2       < 1 min",
    ]
    assert re.findall('<td class="n">(.*?)</td>', grid._repr_html_()) == [
        *("8", "8.3 MB", ""),
        *("100", "764 kB", "&lt; 1 min"),
    ]


def test_a_row_is_named_by_the_column_that_names_it() -> None:
    page = Result(
        Grid("", [Row(["*", "main"]), Row(["", "try-out"])], ("", "branch"), named_by=1)
    )._repr_html_()
    assert re.findall('<th scope="row">(.*?)</th>', page) == ["main", "try-out"]
    assert "<td></td>" in page.partition("</thead>")[0]  # No header without a text.


def test_a_table_that_cannot_be_broken_to_fit_scrolls_and_takes_keys() -> None:
    long = ["word " * 100, "x" * 60]
    assert 'class="wide"' not in Result(Grid("t", [Row(long)]))._repr_html_()
    page = Result(Grid("t", [Row([*long, "y" * 60])]), Grid("", [Row([*long, "y" * 60])]))._repr_html_()
    assert re.findall(rf'<div class="wide"><table><caption tabindex="0" {NO_SHORTCUTS}>(.*?)<', page) == [
        "t",
        "1 row",
    ]


def test_what_cannot_be_seen_is_named() -> None:
    page = Result(
        Grid("\u202e", [Row(["a\u200bb", "\x1b", "\ud800", "👩\u200d🚀"])]), Words("\xad")
    )._repr_html_()
    assert re.findall("<i>(.*?)</i>", page) == [r"\u202e", r"\u200b", r"\x1b", r"\ud800", r"\xad"]
    assert "👩\u200d🚀" in page
    assert page.encode()


def test_two_prices_are_not_a_formula() -> None:
    assert '<div class="wb tex2jax_ignore mathjax_ignore">' in Result(Words("$1 and $2"))._repr_html_()


@pytest.mark.parametrize(
    "part", [Grid("t", []), Grid("", []), Grid("", [Row([])]), Words(""), Code("", "postgres")]
)
def test_what_is_empty_is_shown_too(part: Part) -> None:
    assert repr(Result(part)).strip() in ("t", "")
    Read(Result(part)._repr_html_())


def test_a_text_of_several_lines_does_not_break_a_grid() -> None:
    said = repr(Result(Grid("t", [Row(["a", "CASE\n    WHEN b\nEND", "c"]), Row(["d", "e", "f"])])))
    assert len(said.splitlines()) == 3
    assert len({line.rindex(line.split()[-1]) for line in said.splitlines()[1:]}) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["C", "Z"])), max_size=4), max_size=4),
    st.text(),
)
def test_any_text_is_only_text_in_html(cells: list[list[str]], text: str) -> None:
    plain = Read(Result(Grid("t", [Row(["a"] * len(row)) for row in cells]), Words("w"))._repr_html_())
    odd = Read(Result(Grid(text, [Row(row) for row in cells], ()), Words(text))._repr_html_())
    assert [tag for tag in odd.tags if tag not in HARMLESS] == [
        tag for tag in plain.tags if tag not in HARMLESS
    ]
    assert all(cell in odd.text for row in cells for cell in row)


EVIL = '<script>alert("1")</script>&amp;\'<img src=x onerror=alert(1)>'
SHOWN: dict[str, Callable[[], Any]] = {
    "snapshot": lambda: snapshot("catalog"),
    "difference": lambda: snapshot("catalog") - before[0],
    "drift": lambda: snapshot() - models_at("catalog"),
    "states": lambda: states("catalog"),
    "timeline": lambda: timeline("catalog"),
}
before: list[Any] = []


@pytest.mark.parametrize("what", SHOWN)
def test_a_name_in_the_database_cannot_put_a_script_on_the_page(db: None, what: str) -> None:
    before[:] = [snapshot("catalog")]
    name = '"' + f"catalog_{EVIL}"[:63].replace('"', '""') + '"'
    run(
        f"CREATE TABLE {name} ({name} text DEFAULT '<b>')",
        f"ALTER TABLE {name} ADD CONSTRAINT {name[:-2]}c\" CHECK ({name} <> '<script>')",
        f"ALTER TABLE catalog_book ADD {name} text DEFAULT $$</td><script>$$",
        f'CREATE INDEX {name[:-2]}i" ON catalog_book ({name})',
        "INSERT INTO django_migrations (app, name, applied) VALUES ('catalog', '0009_<script>', now())",
    )
    shown = SHOWN[what]()
    page = shown._repr_html_()
    read = Read(page)
    assert {"script", "img"}.isdisjoint(read.tags)
    assert "<script>" in read.text
    assert "<script>" in repr(shown)


def test_a_migration_cannot_put_a_script_on_the_page() -> None:
    page = Result(Code(f"-- {EVIL}\nSELECT '{EVIL}';", "postgres", EVIL, is_folded=True))._repr_html_()
    assert {"script", "img"}.isdisjoint(Read(page).tags)
    assert EVIL in Read(page).text


def test_a_constraint_of_several_lines_is_one_line_of_plain_text(db: None) -> None:
    run("ALTER TABLE catalog_book ADD CONSTRAINT c CHECK (CASE WHEN id > 1 THEN true ELSE false END)")
    table = snapshot("catalog")["catalog_book"]
    assert len(repr(table).splitlines()) == 1 + len(table.columns) + len(table.rules)
    assert len(str((snapshot() - models_at("catalog")).changes[0]).splitlines()) == 1


def test_plain_text_of_a_snapshot_is_the_same_each_time_and_aligned(db: None) -> None:
    said = repr(snapshot("catalog")["catalog_author"])
    assert said == repr(snapshot("catalog")["catalog_author"])
    assert (
        said
        == """\
catalog_author (0 rows)
  id           bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY
  name         varchar(100) NOT NULL
  bio          text NOT NULL
  created_at   timestamp with time zone NOT NULL
  country      varchar(100) NOT NULL
  primary key  (id)"""
    )
