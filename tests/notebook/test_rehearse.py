"""Rehearsals in a kernel: of what is in a cell, and without a trace in what the kernel knows."""

from __future__ import annotations

from tests.kernel import Kernel

START = "%manage migrate catalog zero -v 0\n%manage migrate -v 0\n%manage populate -v 0"
CELL = """
class Author(models.Model):
    name = models.CharField(max_length=100, db_index=True)
    bio = models.TextField(blank=True)
    country = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
"""


def test_a_cell_is_rehearsed_and_nothing_has_happened(kernel: Kernel) -> None:
    kernel.run(START)
    shown = kernel.run(f"%%evolve catalog --rehearse\n{CELL}")
    assert not shown.error
    assert "catalog.0003_alter_author_name on a copy of" in shown.result
    assert "were built from all rows of catalog_author while nobody could write to it." in shown.result
    after = kernel.run("(Author, Author.objects.count(), '@' in connection.settings_dict['NAME'])")
    assert after.result == "(catalog.models.Author, 3, False)"
    assert "Another session" not in after.stdout + shown.stdout


def test_a_cell_that_spans_a_transaction_says_so_in_one_sentence(kernel: Kernel) -> None:
    kernel.run(START)
    said = kernel.run(
        "from django.db import transaction\nwith transaction.atomic():\n    rehearse('catalog', '0001')"
    )
    assert len(said.error) == 1
    assert "transaction" in said.error[0]


def test_another_database_is_not_written_to(kernel: Kernel) -> None:
    kernel.run(START)
    kernel.run("from django.db import connections, migrations")
    kernel.run("connections.settings['other'] = {**connections.settings['default']}")
    said = kernel.run(
        "def stray(apps, editor):\n"
        "    connections['other'].cursor().execute('CREATE TABLE stray (id int)')\n"
        "str(rehearse('catalog', [migrations.RunPython(stray)]).failure)"
    )
    assert (
        "It does more than SELECT in the database 'other', of which a rehearsal makes no copy." in said.result
    )


def test_an_interrupt_ends_it_and_leaves_nothing(kernel: Kernel) -> None:
    kernel.run(START)
    kernel.run("from django.db import migrations")
    said = kernel.run("rehearse('catalog', [migrations.RunSQL('SELECT pg_sleep(60)')])", interrupt_after=2)
    assert said.error == ["KeyboardInterrupt: the query was cancelled."]
    assert kernel.run("Author.objects.count()").result == "3"
    assert kernel.run("%branch list").result.count("\n") == 1


def test_it_runs_again(kernel: Kernel) -> None:
    kernel.run(START)
    kernel.run("from django.db import migrations, models")
    kernel.run("year = migrations.AddField('book', 'year', models.IntegerField(null=True))")
    assert [kernel.run("rehearse('catalog', [year]).hurts").result for _ in range(2)] == ["False"] * 2
