"""WORKBENCH_READ_ONLY in a real kernel: all that reads works, and what writes says why it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import scratch
from tests.kernel import Kernel

WHY = "This connection only reads, because WORKBENCH_READ_ONLY is set"
COLUMNS = "name = models.CharField(max_length=100); born = models.IntegerField(null=True)"
CLASS = f"class Author(models.Model): {COLUMNS}"

READS = [
    "Author.objects.count()",
    "frame(Author), [len(chunk) for chunk in frame.chunks(Book, rows=1)]",
    'snapshot(), snapshot() - models_at("catalog")',
    'states("catalog"), timeline("catalog"), diagram("catalog"), who_blocks(), rehearse()',
    "%branch list",
    "%%queries --analyze\nlist(Author.objects.all())",
    "%manage showmigrations catalog",
    "%manage migrate",
    "%manage check",
    f"%%evolve catalog\n{CLASS}",
]
WRITES = [
    'Author.objects.create(name="x")',
    'Author.objects.update(name="x")',
    'load(Author, [{"name": "x"}])',
    'with connection.cursor() as cursor: cursor.execute("DELETE FROM catalog_author")',
    "with transaction.atomic(): Author.objects.select_for_update().first()",
    "%manage populate",
    "%manage migrate catalog zero",
    "%manage analyst",
    "%branch create try-out",
    "with branch('scratch'): pass",
    f"%%evolve catalog --apply\n{CLASS}",
    f"%%evolve catalog --rehearse\n{CLASS}",
]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel that only reads, on a database of its own with its migrations and one author."""
    variables = {"WORKBENCH_READ_ONLY": "1", "WORKBENCH_STATEMENT_TIMEOUT": "2s"}
    with scratch() as url:
        with Kernel({"DATABASE_URL": url}) as owner:
            assert not owner.run("%manage migrate --verbosity 0").error
            assert not owner.run('Author.objects.create(name="Ursula K. Le Guin")').error
        with Kernel({"DATABASE_URL": url, **variables}) as running:
            yield running


def test_it_says_that_it_only_reads(kernel: Kernel) -> None:
    assert (
        ", read-only; all migrations applied"
        in kernel.run("Author", attended=True).result
        + kernel.run("Author.objects.count()", attended=True).result
    )
    assert kernel.run("where()").result.endswith(", read-only")


@pytest.mark.parametrize("cell", READS)
def test_what_reads_works(kernel: Kernel, cell: str) -> None:
    assert kernel.run(cell).error == []


@pytest.mark.parametrize("cell", WRITES)
def test_what_writes_is_one_sentence_that_says_why(kernel: Kernel, cell: str) -> None:
    sentence, *_ = kernel.run(cell).error
    assert WHY in sentence
    assert "\n" not in sentence.strip()
    assert kernel.run("Author.objects.get().name").result == "'Ursula K. Le Guin'"


def test_a_statement_may_not_take_longer_than_was_said(kernel: Kernel) -> None:
    (sentence,) = kernel.run('frame("SELECT pg_sleep(30)")').error
    assert "took longer than statement_timeout allows (2s, WORKBENCH_STATEMENT_TIMEOUT)" in sentence
    assert kernel.run("Author.objects.count()").result == "1"


def test_it_is_the_servers_word_until_somebody_takes_it_back(kernel: Kernel) -> None:
    said = kernel.run(
        "with connection.cursor() as cursor:\n"
        "    cursor.execute('SET default_transaction_read_only = off')\n"
        "where()"
    )
    assert "read-only" not in said.result
    kernel.run("connection.close()")
    assert kernel.run("where()").result.endswith(", read-only")
