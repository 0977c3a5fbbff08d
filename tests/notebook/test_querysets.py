"""A queryset at the end of a cell: Django's text, and its first rows as a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from tests.conftest import scratch
from tests.kernel import Kernel

PREPARED = """
from django.test.utils import CaptureQueriesContext
def html(rows): return get_ipython().display_formatter.format(rows)[0].get("text/html")
def asked(rows):
    with CaptureQueriesContext(connection) as queries:
        html(rows)
    return len(queries)
load(Author, [{"name": "A", "bio": "$1 & $2"}, {"name": "B", "country": None or ""}])
load(Book, [{"title": f"No. {n}", "author_id": Author.objects.first().pk} for n in range(25)])
class Loud(models.QuerySet):
    def __repr__(self): return "LOUD"
rows = Book.objects.order_by("id")
"""
ALL = "A queryset: frame(...) reads it into a DataFrame."
FIRST = "The first 20 rows of a queryset: frame(...) reads all into a DataFrame."


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with scratch() as url, Kernel({"DATABASE_URL": url}) as running:
        running.run("%manage migrate -v 0")
        assert not running.run(PREPARED).error
        yield running


def lines(kernel: Kernel, rows: str) -> list[list[str]]:
    """The texts of a queryset's table, and what stands below it."""
    html = kernel.run(f"print(html({rows}))").stdout.partition("</style>")[2]
    return [
        [unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", line)]
        for line in re.findall(r"<tr>.*?</tr>", html)
    ] + [re.findall(r">([^<>]+)</div>\s*$", html)]


def test_nothing_fails_where_there_is_no_table_to_make(kernel: Kernel) -> None:
    assert kernel.run("html(rows.none()), html(Author.objects.filter(name='qqqq'))").result == "(None, None)"
    assert kernel.run("rows.none()").result == "<QuerySet []>"
    assert kernel.run("html(Author.objects.raw('SELECT * FROM catalog_author'))").result == ""
    assert kernel.run("html(Author.objects.first())").result == ""
    assert kernel.run("[rows[:1]], {'a': rows.none()}").result == (
        "([<QuerySet [<Book: No. 0>]>], {'a': <QuerySet []>})"
    )
    kernel.run("pd.set_option('display.notebook_repr_html', False)")
    assert kernel.run("html(rows)").result == ""
    kernel.run("pd.reset_option('display.notebook_repr_html')")
    failed = kernel.run("Book.objects.extra(select={'x': '1/0'})")
    assert failed.result == ""
    assert "".join(failed.error).count("division by zero") == 1


def test_the_text_stays_djangos(kernel: Kernel) -> None:
    for rows in ("rows", "rows[:2]", "rows.values('id')", "rows.values_list('title', flat=True)"):
        assert kernel.run(f"get_ipython().display_formatter.format({rows})[0]['text/plain'] == repr({rows})")
        text = kernel.run(rows).result
        assert text == kernel.run(f"print(repr({rows}))").stdout.rstrip("\n")
    assert kernel.run("Loud(Book)").result == "LOUD"


def test_it_asks_once_and_leaves_the_queryset_as_it_is(kernel: Kernel) -> None:
    assert kernel.run("asked(rows), asked(rows[:3]), asked(rows.values('title'))").result == "(1, 1, 1)"
    assert kernel.run("rows._result_cache is None").result == "True"
    assert kernel.run("read = rows.all(); len(read); asked(read)").result == "0"


def test_the_first_rows_are_a_table_as_frame_would_make_it(kernel: Kernel) -> None:
    head, *body, (said,) = lines(kernel, "rows")
    assert head[1:] == kernel.run("print(*frame(rows).columns)").stdout.split()
    assert len(body) == 20
    assert body[0][:3] == ["0", kernel.run("rows[0].pk").result, "No. 0"]
    assert said == FIRST
    *_, (said,) = lines(kernel, "rows[:20]")
    assert said == ALL


@pytest.mark.parametrize(
    ("rows", "table"),
    [
        ("rows.values('title', 'author__name')[:1]", [["", "title", "author__name"], ["0", "No. 0", "A"]]),
        (
            "rows.values_list('title', 'author__name')[:1]",
            [["", "title", "author__name"], ["0", "No. 0", "A"]],
        ),
        ("rows.values_list('title', named=True)[:1]", [["", "title"], ["0", "No. 0"]]),
        ("rows.values_list('title', flat=True)[:1]", [["", "title"], ["0", "No. 0"]]),
        (
            "rows.only('title').annotate(n=Count('id'))[:1].values('title', 'n')",
            [["", "title", "n"], ["0", "No. 0", "1"]],
        ),
        (
            "Author.objects.values('name').union(Author.objects.values('name')).order_by('name')",
            [["", "name"], ["0", "A"], ["1", "B"]],
        ),
        (
            "Author.objects.order_by('name').annotate(n=Max('book__author')).values('n', 'bio')",
            [["", "n", "bio"], ["0", "1", "$1 & $2"], ["1", "NULL", "''"]],
        ),
    ],
)
def test_so_are_values_of_every_kind(kernel: Kernel, rows: str, table: list[list[str]]) -> None:
    assert lines(kernel, rows) == [*table, [ALL]]


def test_joined_models_have_their_columns_beside(kernel: Kernel) -> None:
    for rows in ("rows.select_related('author')", "rows.defer('title').annotate(n=Count('id'))"):
        head, *_ = lines(kernel, rows)
        assert head[1:] == kernel.run(f"print(*frame({rows}).columns)").stdout.split()
