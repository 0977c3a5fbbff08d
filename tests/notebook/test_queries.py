"""%%queries in a real kernel, and the same in code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.kernel import Kernel, Outcome

NOTHING = "This cell asked the database nothing: a queryset is only asked when its rows are needed."
COUNT = 'SELECT COUNT(*) AS "__count" FROM "catalog_author"'


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run("%manage migrate catalog zero --yes -v 0")
        running.run("%manage migrate -v 0")
        running.run("%manage populate")
        yield running


def heads(outcome: Outcome) -> list[str]:
    """Return what stands above each statement, without times."""
    return [re.sub(r", [\d.,]+ m?s\b", "", line) for line in re.findall(r"^\d+\. .*", outcome.result, re.M)]


def test_an_error_is_shown_and_what_ran_before_it_too(kernel: Kernel) -> None:
    outcome = kernel.run("%%queries\nAuthor.objects.count()\n1 / 0\nBook.objects.count()")
    assert outcome.result.startswith("1 query, 1 row, ")
    assert heads(outcome) == ["1. line 2, 1 row"]
    assert "ZeroDivisionError" in outcome.error[-1]
    assert (
        kernel.run("any('queries' in each.__module__ for each in connection.execute_wrappers)").result
        == "False"
    )


def test_an_error_of_postgres_is_one_query_that_failed(kernel: Kernel) -> None:
    outcome = kernel.run("%%queries --plan\nconnection.cursor().execute('SELECT nothing')")
    assert heads(outcome) == ['1. line 2, failed: column "nothing" does not exist']
    assert "ProgrammingError" in outcome.error[-1]
    assert kernel.run("Author.objects.count()").result == "3"


@pytest.mark.skipif(os.name == "nt", reason="a query is not interrupted there")
def test_an_interrupt_is_one_line_below_what_ran(kernel: Kernel) -> None:
    cell = "%%queries --analyze\nAuthor.objects.count()\nconnection.cursor().execute('SELECT pg_sleep(20)')"
    outcome = kernel.run(cell, interrupt_after=1.0, timeout=15)
    assert heads(outcome)[0] == "1. line 2, 1 row"
    assert re.search(r"2\. line 3, [\d.]+ m?s, interrupted\nSELECT pg_sleep\(20\)", outcome.result)
    assert outcome.error == ["KeyboardInterrupt: the query was cancelled."]
    assert kernel.run("Author.objects.count(), connection.in_atomic_block").result == "(3, False)"


@pytest.mark.skipif(os.name == "nt", reason="a query is not interrupted there")
def test_an_interrupt_of_the_second_run_is_an_interrupt(kernel: Kernel) -> None:
    kernel.run(
        "connection.cursor().execute('''CREATE FUNCTION pg_temp.nap() RETURNS int IMMUTABLE LANGUAGE plpgsql "
        "AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN 1; END $$''')"
    )
    cell = (
        "%%queries --analyze\nconnection.cursor().execute('SELECT pg_temp.nap() FROM generate_series(1, 1)')"
    )
    outcome = kernel.run(cell, interrupt_after=2.2, timeout=15)
    assert outcome.error == ["KeyboardInterrupt: the query was cancelled."]
    status = "connection.connection.get_transaction_status(), Author.objects.count()"
    assert kernel.run(status).result == "(0, 3)"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            "%%queries\nawait Author.objects.acount()",
            "%%queries cannot wait for an await: put 'with queries() as",
        ),
        (
            "%%queries --fast\n1",
            "unrecognized arguments: --fast. The line is: %%queries [--plan] [--analyze] ",
        ),
        ("%%queries --slow soon\n1", "argument --slow: invalid float value: 'soon'. The line is: %%queries "),
    ],
)
def test_a_mistake_is_one_sentence(kernel: Kernel, cell: str, said: str) -> None:
    (shown,) = kernel.run(cell).error
    assert shown.startswith(said)
    assert "\n" not in shown


def test_a_cell_that_asks_nothing_says_why(kernel: Kernel) -> None:
    assert kernel.run("%%queries\nbooks = Book.objects.all()").result == NOTHING
    assert kernel.run("%%queries\n1 + 1").result == f"2{NOTHING}"


def test_the_rows_that_the_result_needed_are_there_and_the_lines_are_those_of_the_cell(
    kernel: Kernel,
) -> None:
    kernel.run("def named(authors):\n    return [author.name for author in authors]")
    outcome = kernel.run(
        "\n%%queries\n# One\n%matplotlib inline\nnamed(Author.objects.all())\nBook.objects.all()"
    )
    assert heads(outcome) == ["1. line 5, in named(), 3 rows", "2. line 6, 7 rows"]
    outcome = kernel.run("%%queries\nfor book in Book.objects.all():\n    book.author.name")
    assert heads(outcome) == ["1. line 2, 7 rows", "2. line 3, 7 times, 7 rows"]
    assert "! Line 3: Book.author was read 7 times, once for each Book (query 2, " in outcome.result
    assert '\n\nBook.objects.select_related("author")\n\n' in outcome.result
    assert heads(kernel.run("%%queries\n\n%time n = Author.objects.count()")) == ["1. line 3, 1 row"]
    outcome = kernel.run("%%queries\n%manage populate")
    assert any(
        re.search(r"^\d+\. line 2, in catalog/management/commands/populate\.py:\d+", head)
        for head in heads(outcome)
    )


def test_what_the_kernel_asks_for_itself_is_not_there(kernel: Kernel) -> None:
    cell = "%%queries\nwhere(); snapshot(); states('catalog'); who_blocks()\nAuthor.objects.count()\n%branch"
    assert heads(kernel.run(cell)) == ["1. line 3, 1 row"]
    with Kernel() as fresh:
        for attended in (True, False):
            fresh.run("connection.close()")
            outcome = fresh.run("%%queries\nAuthor.objects.count()", attended=attended)
            assert heads(outcome) == ["1. line 2, 1 row"]


def test_it_works_within_diff_and_around_it_and_with_migrations(kernel: Kernel) -> None:
    inner = kernel.run("%%diff catalog\n%%queries\nAuthor.objects.count()\n%manage migrate catalog 0001 -v 0")
    assert "1. line 3, 1 row" in heads(inner)
    assert 'ALTER TABLE "catalog_author" DROP COLUMN "country" CASCADE' in inner.result
    assert inner.result.index("ALTER TABLE") < inner.result.index("- column  country")
    assert "\n! " not in inner.result
    outer = kernel.run("%%queries\n%%diff catalog\nAuthor.objects.count()\n%manage migrate catalog -v 0")
    assert "1. line 3, 1 row" in heads(outer)
    assert outer.result.index("+ column  country") < outer.result.index('ADD COLUMN "country"')


def test_models_of_another_migration_have_their_relations(kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    outcome = kernel.run("%%queries\n[book.author.name for book in Book.objects.all()]")
    kernel.run("%manage migrate catalog -v 0")
    assert 'Book.objects.select_related("author")' in outcome.result


def test_what_it_shows_can_be_chosen(kernel: Kernel) -> None:
    many = "for n in range(30): connection.cursor().execute(f'SELECT 1 AS a{n}')\n"
    slow = "connection.cursor().execute('SELECT pg_sleep(0.05)')"
    outcome = kernel.run(f"%%queries\n{many}{slow}")
    assert len(heads(outcome)) == 20
    assert re.search(
        r"\n11 other statements ran 11 times and took [\d.]+ ms: %%queries --all shows", outcome.result
    )
    assert len(heads(kernel.run(f"%%queries --all\n{many}{slow}"))) == 31
    assert heads(kernel.run(f"%%queries --slow 40\n{many}{slow}")) == ["31. line 3, 1 row"]
    facts = kernel.run("%%queries --facts\nn = Author.objects.count()").result
    assert facts == f"1 query, 1 row.\n\n1. line 2, 1 row\n{COUNT}"
    plan = kernel.run("%%queries --plan\nframe(Author)").result
    assert re.search(
        r"Plan of 1, as planned\n +expected rows\nSeq Scan on catalog_author: reads the whole", plan
    )
    assert "Plan of 1, as it went when run again" in kernel.run("%%queries --analyze\nframe(Author)").result


def test_in_code_it_is_a_value_and_waits_for_an_await(kernel: Kernel) -> None:
    outcome = kernel.run("with queries() as asked:\n    n = await Author.objects.acount()\nn, asked.times")
    assert outcome.result == "(3, 1)"
    assert heads(kernel.run("asked")) == ["1. another thread, 1 row"]
    outcome = kernel.run("with queries() as asked:\n    x = 1\n    Author.objects.count()\nasked")
    assert heads(outcome) == ["1. line 3, 1 row"]
    assert kernel.run("asked.table['line'].tolist()").result == "[3]"


def test_functions_that_run_in_threads_are_heard(kernel: Kernel) -> None:
    outcome = kernel.run(
        "%%queries\nimport threading\ndef work():\n    Author.objects.count()\n    connection.close()\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()"
    )
    assert heads(outcome) == ["1. work(), 1 row"]
