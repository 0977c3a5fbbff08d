"""A migration run on a copy does what it would do, is told as it was, and leaves the original alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import connection, migrations, models, transaction

from tests.schema.places import app, migrate, run
from workbench.branches import BranchError, branches
from workbench.schema import evolve, snapshot
from workbench.schema.errors import SchemaError
from workbench.schema.facts import Passage
from workbench.schema.rehearsal import rehearse
from workbench.schema.report import Rehearsal
from workbench.schema.stakes import checksums

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 2_000
A, B = "library_author", "library_book"

MODELS = """
class Author(models.Model):
    name = models.CharField(max_length=100)
    bio = models.TextField(blank=True)
    born = models.IntegerField(null=True)

class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.ForeignKey(Author, models.CASCADE)
    year = models.IntegerField(null=True)
"""
ID = 'models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")'
FIRST = f"""
initial = True
operations = [
    migrations.CreateModel("Author", [
        ("id", {ID}),
        ("name", models.CharField(max_length=100)),
        ("bio", models.TextField(blank=True)),
        ("born", models.IntegerField(null=True)),
    ]),
    migrations.CreateModel("Book", [
        ("id", {ID}),
        ("title", models.CharField(max_length=200)),
        ("author", models.ForeignKey("library.Author", models.CASCADE)),
        ("year", models.IntegerField(null=True)),
    ]),
]
"""
FILL = """
INSERT INTO library_author (name, bio, born)
SELECT 'author ' || i, 'bio', i % 100 FROM generate_series(1, {0}) i;
INSERT INTO library_book (title, author_id, year)
SELECT 'book ' || i, i, i % 100 FROM generate_series(1, {0}) i;
ANALYZE library_author, library_book
"""


def second(operations: str, *, head: str = "", python: str = "") -> str:
    return f'{python}\ndependencies = [("library", "0001_first")]\n{head}\noperations = [{operations}]'


@contextmanager
def library(folder: Path, **files: str) -> Iterator[None]:
    """Install an app whose first migration is applied, with rows; the others are not."""
    with app(folder, "library", MODELS, {"0001_first": FIRST, **files}):
        migrate("library", "0001_first")
        run(FILL.format(ROWS))
        try:
            yield
        finally:
            connection.rollback() if not connection.get_autocommit() else None
            run(
                f"DROP TABLE IF EXISTS {B}, {A} CASCADE",
                "DELETE FROM django_migrations WHERE app = 'library'",
            )


def rehearsed(folder: Path, operations: str, **options: str) -> Rehearsal:
    """Rehearse one migration, and see that it left nothing and changed nothing."""
    with library(folder, **{"0002_second": second(operations, **options)}), untouched():
        return rehearse("library")


@contextmanager
def untouched() -> Iterator[None]:
    before = snapshot(), sums(), recorded()
    yield
    assert (snapshot(), sums(), recorded()) == before
    assert [each.name for each in branches()] == ["main"]
    assert run("SELECT count(*) FROM pg_database WHERE datname LIKE current_database() || '@%'") == [(0,)]


def sums() -> dict[str, Any]:
    with connection.cursor() as cursor:
        return checksums(cursor, [each.sql_name for each in snapshot()])


def recorded() -> list[Any]:
    return run("SELECT app, name FROM django_migrations ORDER BY id")


def facts(passage: Passage) -> tuple[dict[str, str], set[str], set[str], set[str]]:
    """Return locks, rewritten, scanned and written tables."""
    return (
        {lock.table: lock.mode for lock in passage.locks},
        set(passage.rewritten) & {A, B},
        set(passage.scanned),
        set(passage.written),
    )


def test_a_migration_that_fails_is_told_in_a_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.AddField("author", "age", models.IntegerField(null=True)),'
        'migrations.AddConstraint("author", models.UniqueConstraint(fields=["born"], name="once"))',
    )
    assert seen.hurts
    assert str(seen.failure) == (
        "library.0002_second fails, at 'Create constraint once on model author': could not create "
        'unique index "once". Key (born)=(1) is duplicated.'
    )
    assert [step.operation for step in seen] == ["Add field age to author"]
    assert str(seen.failure) in repr(seen)


def test_python_that_fails_is_told_too(tmp_path: Path) -> None:
    python = "def fill(apps, editor):\n    raise ValueError('no such thing')\n"
    seen = rehearsed(tmp_path, "migrations.RunPython(fill)", python=python)
    assert "at 'Run fill()': ValueError: no such thing." in str(seen.failure)


def test_a_way_back_that_fails_is_told(tmp_path: Path) -> None:
    seen = rehearsed(tmp_path, 'migrations.RunSQL("SELECT 1", "SELECT 1 / 0")')
    assert "fails on the way back, at 'Run SELECT 1': division by zero." in str(seen.failure)
    assert seen[0].backwards is None


def test_what_cannot_go_forwards_again_is_told(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path, 'migrations.RunSQL("ALTER TABLE library_author ADD age int", migrations.RunSQL.noop)'
    )
    assert "fails when run again after that, at 'Run ALTER TABLE library_author ADD age int': column" in str(
        seen.failure
    )


def test_nothing_can_be_copied_in_an_open_transaction(tmp_path: Path) -> None:
    with library(tmp_path), transaction.atomic(), pytest.raises(BranchError, match="transaction"):
        rehearse("library", [migrations.RunSQL("SELECT 1")])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "No app 'nothing' is installed"),
        (("library", "0009"), "library has no migration '0009'"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    with library(tmp_path), pytest.raises(SchemaError, match=re.escape(said)):
        rehearse(*arguments)


def test_where_nothing_is_to_be_done_nothing_is_rehearsed(tmp_path: Path) -> None:
    with library(tmp_path), untouched():
        seen = rehearse("library")
    assert (len(seen), seen.hurts, seen.migrations) == (0, False, ())
    assert repr(seen) == "Nothing to rehearse: everything asked for is applied."
    assert seen.as_markdown() == "### No migration to rehearse"


PYTHON = """
def fill(apps, editor):
    from django.db import connection
    from library.models import Author
    Author.objects.filter(born__lt=50).update(bio="changed")
    Author.objects.using(editor.connection.alias).create(name="new")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM library_book WHERE id = 1")

def unfill(apps, editor):
    pass
"""


def test_python_that_asks_the_default_connection_changes_the_copy_only(tmp_path: Path) -> None:
    seen = rehearsed(tmp_path, "migrations.RunPython(fill, unfill)", python=PYTHON)
    (step,) = seen
    assert step.forwards.written == {A: 1_001, B: 1}
    assert step.lost == (
        "the rows of library_author (2,000 before, 2,001 after)",
        "the rows of library_book (2,000 before, 1,999 after)",
    )


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    python = "def fill(apps, editor):\n    raise KeyboardInterrupt\n"
    with (
        library(tmp_path, **{"0002_second": second("migrations.RunPython(fill)", python=python)}),
        untouched(),
        pytest.raises(KeyboardInterrupt),
    ):
        rehearse("library")


def test_a_session_that_is_ended_under_it_is_a_failure_and_leaves_nothing(tmp_path: Path) -> None:
    seen = rehearsed(tmp_path, 'migrations.RunSQL("SELECT pg_terminate_backend(pg_backend_pid())")')
    assert "The connection to Postgres was lost" in str(seen.failure)


def test_an_operation_tells_what_it_locked_rewrote_read_and_wrote(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.AlterField("book", "year", models.BigIntegerField(null=True)),'
        'migrations.AddIndex("author", models.Index(fields=["born"], name="by_born")),'
        'migrations.RunSQL("UPDATE library_author SET born = 1 WHERE id <= 10", migrations.RunSQL.noop),'
        'migrations.AddField("author", "age", models.IntegerField(default=1)),',
    )
    retyped, indexed, updated, added = (step.forwards for step in seen)
    assert facts(retyped) == ({B: "ACCESS EXCLUSIVE"}, {B}, {B}, set())
    assert "library_book_pkey" in retyped.rewritten
    assert facts(indexed) == ({A: "SHARE"}, set(), {A}, set())
    assert (indexed.built, indexed.scanned) == (("by_born",), {A: ROWS})
    assert (updated.written, dict(facts(updated)[0])) == ({A: 10}, {A: "SHARE"})
    assert facts(added) == ({A: "ACCESS EXCLUSIVE"}, set(), set(), set())
    assert added.required == ("library_author.age",)
    # The first lock is held until the end of the transaction.
    assert retyped.locks[0].seconds > retyped.seconds + indexed.seconds
    assert all(step.backwards is not None for step in seen)
    assert "ALTER TABLE" in retyped.sql[0]


def test_a_foreign_key_that_is_made_at_the_end_belongs_to_its_operation(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.AddField("author", "best", models.ForeignKey("library.Book", models.CASCADE, null=True)),'
        'migrations.AddField("author", "age", models.IntegerField(null=True))',
    )
    key, age = (step.forwards for step in seen)
    assert {lock.table: lock.mode for lock in key.locks} == {A: "ACCESS EXCLUSIVE", B: "SHARE ROW EXCLUSIVE"}
    assert any("CREATE INDEX" in text for text in key.sql)
    assert [text for text in age.sql if "INDEX" in text] == []


def test_what_runs_outside_of_a_transaction_is_seen_as_well(tmp_path: Path) -> None:
    python = (
        "from django.contrib.postgres.operations import AddIndexConcurrently\n"
        "def fill(apps, editor):\n"
        "    Author = apps.get_model('library', 'Author')\n"
        "    for author in Author.objects.order_by('id')[:20]:\n"
        "        Author.objects.filter(pk=author.pk).update(born=7)\n"
    )
    seen = rehearsed(
        tmp_path,
        'AddIndexConcurrently("book", models.Index(fields=["year"], name="by_year")),'
        "migrations.RunPython(fill, migrations.RunPython.noop),"
        'migrations.AddField("author", "age", models.IntegerField(null=True)),',
        head="atomic = False",
        python=python,
    )
    index, fill, age = (step.forwards for step in seen)
    assert facts(index) == ({B: "SHARE UPDATE EXCLUSIVE"}, set(), {B}, set())
    assert index.built == ("by_year",)
    assert fill.written == {A: 20}
    assert facts(fill)[0] == {A: "ROW EXCLUSIVE"}
    assert any("born" in text for text in fill.sql)
    assert facts(age)[0] == {A: "ACCESS EXCLUSIVE"}
    assert age.locks[0].seconds < 0.2


def test_new_tables_are_nobodys_trouble(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True)),'
        ' ("name", models.TextField())]),'
        'migrations.AddIndex("tag", models.Index(fields=["name"], name="by_name")),'
        'migrations.AddField("tag", "age", models.IntegerField(default=1))',
    )
    assert [facts(step.forwards)[0] for step in seen] == [{}, {}, {}]
    assert [step.forwards.required for step in seen] == [(), (), ()]
    assert not seen.hurts


def test_what_is_dropped_or_renamed_is_gone(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.RemoveField("author", "bio"),'
        'migrations.RenameField("book", "year", "published"),'
        'migrations.RenameModel("Book", "Volume")',
    )
    assert [step.forwards.gone for step in seen] == [
        ("library_author.bio",),
        ("library_book.year",),
        ("library_book",),
    ]
    assert [step.lost for step in seen] == [("the values of library_author.bio (2,000 before)",), (), ()]


def test_a_reader_and_a_writer_say_how_long_they_waited(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.AddField("author", "age", models.IntegerField(null=True)),'
        'migrations.RunSQL("SELECT pg_sleep(0.4)", migrations.RunSQL.noop),',
    )
    assert max(step.forwards.reader for step in seen) > 0.3
    assert max(step.forwards.writer for step in seen) > 0.3
    assert re.search(r"reader waited \d+ ms", repr(seen))


def test_who_only_reads_is_not_held_up_by_a_plain_index(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.AddIndex("author", models.Index(fields=["born"], name="by_born")),'
        'migrations.RunSQL("SELECT pg_sleep(0.4)", migrations.RunSQL.noop),',
    )
    assert max(step.forwards.reader for step in seen) < 0.2
    assert max(step.forwards.writer for step in seen) > 0.3


def test_a_writer_never_brings_a_migration_into_a_deadlock(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.RunSQL("UPDATE library_author SET born = 1; SELECT pg_sleep(0.2)", ""),'
        'migrations.AddField("author", "age", models.IntegerField(null=True)),',
    )
    assert seen.failure is None


def test_what_cannot_be_undone_is_not_tried(tmp_path: Path) -> None:
    seen = rehearsed(tmp_path, 'migrations.RunSQL("UPDATE library_author SET born = 1")')
    (step,) = seen
    assert (step.is_reversible, step.backwards, step.seconds_at(10)) == (False, None, None)
    assert step.lost == ()


def test_time_without_rows_tells_what_grows(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        'migrations.RunSQL("SELECT pg_sleep(0.2)", migrations.RunSQL.noop),'
        'migrations.RunSQL("SELECT pg_sleep(id / 20000.0) FROM library_author WHERE id <= 100",'
        " migrations.RunSQL.noop)",
    )
    constant, growing = seen
    assert constant.seconds_at(10) == pytest.approx(constant.forwards.seconds, rel=0.5)
    grown = growing.seconds_at(10)
    assert grown is not None
    assert grown == pytest.approx(10 * growing.forwards.seconds, rel=0.1)


def test_several_migrations_are_rehearsed_in_their_order_and_back(tmp_path: Path) -> None:
    third = (
        'dependencies = [("library", "0002_second")]\noperations = [migrations.RemoveField("author", "born")]'
    )
    add = second('migrations.AddField("author", "age", models.IntegerField(null=True))')
    with library(tmp_path, **{"0002_second": add, "0003_third": third}), untouched():
        seen = rehearse("library")
        assert seen.migrations == ("library.0002_second", "library.0003_third")
        assert all(step.backwards for step in seen)
        assert rehearse("library", "0002").migrations == ("library.0002_second",)


def test_going_back_can_be_rehearsed(tmp_path: Path) -> None:
    add = second('migrations.AddField("author", "age", models.IntegerField(default=3))')
    with library(tmp_path, **{"0002_second": add}):
        migrate("library", "0002_second")
        run("UPDATE library_author SET age = id")
        with untouched():
            seen = rehearse("library", "0001")
    (step,) = seen
    assert step.operation == "Undo: Add field age to author"
    assert step.forwards.gone == ("library_author.age",)
    assert step.lost == ("the values of library_author.age (2,000 before)",)


def test_a_migration_from_a_cell_is_rehearsed(tmp_path: Path) -> None:
    with library(tmp_path), untouched():
        changed = MODELS.replace(
            "born = models.IntegerField(null=True)", "born = models.BigIntegerField(null=True)"
        )
        seen = rehearse(evolve("library", changed))
        assert [facts(step.forwards)[:2] for step in seen] == [({A: "ACCESS EXCLUSIVE"}, {A})]


def test_the_figures_are_a_table_and_json(tmp_path: Path) -> None:
    seen = rehearsed(tmp_path, 'migrations.AddIndex("author", models.Index(fields=["born"], name="by_born"))')
    row = seen.table.iloc[0]
    assert (row["locks"], row["reads"], row["rewrites"]) == (
        "SHARE on library_author",
        "2,000 of library_author",
        "",
    )
    told = json.loads(json.dumps(seen.as_dict()))
    assert told["steps"][0]["forwards"]["scanned"] == {A: ROWS}
    assert told["hurts"] is True
    markdown = seen.as_markdown()
    assert markdown.startswith("### library.0002_second hurts")
    assert "| Create index by_born" in markdown


def test_operations_and_classes_of_a_cell_are_rehearsed_without_a_file(tmp_path: Path) -> None:
    age = migrations.AddField("author", "age", models.IntegerField(null=True))

    class Concurrent(migrations.Migration):
        atomic = False
        operations = [AddIndexConcurrently("author", models.Index(fields=["born"], name="by_born"))]

    class Second(migrations.Migration):
        operations = [age]

    with library(tmp_path), untouched():
        assert rehearse("library", [age]).migrations == ("library.0002_rehearsed",)
        seen = rehearse("library", [Concurrent, Second])
        assert seen.migrations == ("library.0002_concurrent", "library.0003_second")
        assert facts(seen[0].forwards)[0] == {A: "SHARE UPDATE EXCLUSIVE"}
        assert not rehearse("library", Concurrent.operations, atomic=False).failure
        assert "atomic = False" in str(rehearse("library", Concurrent.operations).failure)
        with pytest.raises(SchemaError, match="not both at once"):
            rehearse("library", [age, Second])
