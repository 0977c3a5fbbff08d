"""Migrations that were interrupted: how far they came is found, and ``--repair`` goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from pytest_django import DjangoDbBlocker

from tests.conftest import scratch
from tests.migrating import at_hand, bodies, session, until
from tests.migrator import HERE, migrate
from tests.schema.places import app, run
from workbench.schema import snapshot, states
from workbench.schema.repair import interruptions, invalid_indexes

FIRST = """
    initial = True
    operations = [
        migrations.CreateModel(
            "Author",
            [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=20))],
        ),
        migrations.CreateModel(
            "Book",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("code", models.CharField(max_length=20, db_index=True, default="")),
                ("old", models.IntegerField(null=True)),
            ],
        ),
    ]
"""
SECOND = """
    from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
    from django.contrib.postgres.operations import AddConstraintNotValid
    atomic = False
    dependencies = [("library", "0001_first")]
    def fill(apps, editor):
        apps.get_model("library", "book").objects.using(editor.connection.alias).create(code="filled")
    operations = [{}]
"""
ONCE = """
    migrations.RunSQL(
        "CREATE UNIQUE INDEX CONCURRENTLY author_once ON library_author (name) WHERE name > ''",
        "DROP INDEX CONCURRENTLY author_once",
        state_operations=[
            migrations.AddConstraint(
                "author",
                models.UniqueConstraint(
                    fields=["name"], condition=models.Q(name__gt=""), name="author_once"
                ),
            )
        ],
    ),
"""
AGE = 'migrations.AddField("author", "age", models.IntegerField(null=True)),'
AUTHOR = (
    'migrations.AddField("book", "author", models.ForeignKey("library.author", models.CASCADE, null=True)),'
)
INDEX = 'AddIndexConcurrently("author", models.Index(fields=["name"], name="author_name")),'
FILL = "migrations.RunPython(fill, migrations.RunPython.noop),"
CONCURRENTLY = "CREATE INDEX CONCURRENTLY author_name ON library_author (name)"


@pytest.fixture(scope="module", autouse=True)
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with scratch() as url, at_hand(url, django_db_blocker):
        yield


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Any]:
    """Make the tables of the first migration, and give a function that writes a second one's operations."""
    run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", using=HERE)
    with ExitStack() as stack:

        def write(*operations: str) -> None:
            migrations = {
                "0001_first": FIRST,
                "0002_second": SECOND.replace("{}", "".join(map(str.strip, operations))),
            }
            stack.enter_context(app(tmp_path, "library", "", bodies(migrations)))
            assert migrate("library", "0001").error == ""

        yield write


def interrupt(*statements: str) -> None:
    """Leave what an interrupted migration would."""
    run(*statements, using=HERE)


def invalid(statement: str) -> None:
    """Run what builds an index concurrently, so that it does not come to its end."""
    with session() as holder, ThreadPoolExecutor() as pool, session() as builder:
        holder("BEGIN", "LOCK TABLE library_author IN ROW EXCLUSIVE MODE")
        ((pid,),) = builder("SELECT pg_backend_pid()")
        building = pool.submit(builder, statement)
        until(lambda: holder(f"SELECT 1 FROM pg_locks WHERE pid = {pid} AND NOT granted"))
        until(lambda: holder("SELECT 1 FROM pg_index WHERE NOT indisvalid"))
        holder(f"SELECT pg_cancel_backend({pid})")
        assert "canceling statement" in str(building.exception())


def is_as_migrated() -> bool:
    """Whether tables and record are what Django makes of the migrations."""
    recorded = run("SELECT name FROM django_migrations WHERE app = 'library' ORDER BY name", using=HERE)
    return recorded == [("0001_first",), ("0002_second",)] and not drift()


def drift() -> list[str]:
    return [str(each) for each in states("library", using=HERE).disagreements if "classes" not in each.what]


def test_half_of_it_is_found_and_goes_on(library: Any) -> None:
    library(AGE, INDEX)
    interrupt("ALTER TABLE library_author ADD COLUMN age integer")
    assert migrate("library").error == (
        "library.0002_second was interrupted: 1 of its 2 operations is done (Add field age to author). "
        "Add --repair to go on from there."
    )
    assert migrate("library", repair=True).error == ""
    assert is_as_migrated()


def test_an_index_that_was_left_is_dropped_and_made_anew(library: Any) -> None:
    library(AGE, INDEX)
    interrupt("ALTER TABLE library_author ADD COLUMN age integer")
    invalid(CONCURRENTLY)
    assert "is done (Add field age to author), the index author_name is invalid." in migrate("library").error
    assert migrate("library", repair=True).error == ""
    assert is_as_migrated()


def test_duplicates_leave_an_index_that_is_repaired_when_they_are_gone(library: Any) -> None:
    library(ONCE)
    interrupt("INSERT INTO library_author (name) VALUES ('a'), ('a')")
    assert migrate("library").error == (
        "library.0002_second failed at 'Run CREATE UNIQUE INDEX CONCURRENTLY author_once "
        "ON library_author ...': "
        'could not create unique index "author_once". '
        "Key (name)=(a) is duplicated. It left the index author_once invalid: when the cause is gone, "
        "migrate with --repair, which goes on from there."
    )
    assert migrate("library").error == (
        "library.0002_second was interrupted: 0 of its 1 operations are done, the index author_once is "
        "invalid. Add --repair to go on from there."
    )
    # It is there no more than once, however often that is tried.
    assert "Key (name)=(a) is duplicated." in migrate("library", repair=True).error
    interrupt("DELETE FROM library_author")
    assert migrate("library", repair=True).error == ""
    assert is_as_migrated()


def test_an_index_that_django_makes_at_the_end_is_made_too(library: Any) -> None:
    library(AUTHOR, AGE, INDEX)
    fields = "(author_id) REFERENCES library_author (id) DEFERRABLE INITIALLY DEFERRED"
    interrupt(
        "ALTER TABLE library_book ADD COLUMN author_id bigint",
        f"ALTER TABLE library_book ADD CONSTRAINT book_author FOREIGN KEY {fields}",
        "ALTER TABLE library_author ADD COLUMN age integer",
    )
    said = migrate("library").error
    assert (
        "2 of its 3 operations are done (Add field author to book, Add field age to author), the index"
        in said
    )
    assert "is missing. Add --repair" in said
    assert migrate("library", repair=True).error == ""
    assert is_as_migrated()


def test_nothing_but_the_record_is_missing(library: Any) -> None:
    library(AGE)
    interrupt("ALTER TABLE library_author ADD COLUMN age integer")
    assert "1 of its 1 operations is done" in migrate("library").error
    assert migrate("library", repair=True).error == ""
    assert is_as_migrated()


def test_what_leaves_no_trace_is_said_and_runs_again(library: Any) -> None:
    library(AGE, FILL, INDEX)
    interrupt("ALTER TABLE library_author ADD COLUMN age integer")
    assert (
        "Whether it came to Run fill() cannot be told: that runs, perhaps again." in migrate("library").error
    )
    assert migrate("library", repair=True).error == ""
    assert run("SELECT code FROM library_book", using=HERE) == [("filled",)]


def test_what_comes_before_something_that_is_done_was_done(library: Any) -> None:
    """A column that is changed again is not what the first operation made of it."""
    library(
        AGE,
        FILL,
        'migrations.AlterField("author", "age", models.BigIntegerField(null=True)),',
        INDEX,
    )
    interrupt("ALTER TABLE library_author ADD COLUMN age bigint")
    said = migrate("library").error
    assert "3 of its 4 operations are done (Add field age to author, Run fill(), Alter field age" in said
    assert "cannot be told" not in said
    assert migrate("library", repair=True).error == ""
    assert run("SELECT code FROM library_book", using=HERE) == []
    assert is_as_migrated()


def test_half_of_an_operation_is_said_with_the_sql_that_makes_it_whole(library: Any) -> None:
    library('migrations.AddField("author", "age", models.IntegerField(default=3)),', INDEX)
    interrupt("ALTER TABLE library_author ADD COLUMN age integer NOT NULL DEFAULT 3")
    said = migrate("library", repair=True).error
    sql = 'ALTER TABLE library_author ALTER COLUMN "age" DROP DEFAULT;'
    assert said == (
        f"library.0002_second was interrupted within 'Add field age to author': run {sql} Then migrate "
        f"again, with --repair."
    )
    interrupt(sql)
    assert migrate("library", repair=True).error == ""
    assert is_as_migrated()


def test_a_way_back_goes_on_too(library: Any) -> None:
    library(AGE, FILL, INDEX)
    assert migrate("library").error == ""
    interrupt("DROP INDEX author_name")
    assert migrate("library", "0001").error == (
        "library.0002_second was interrupted: 1 of its 3 operations is undone (Concurrently create index "
        "author_name on field(s) name of model author). Whether it came to Run fill() cannot be told: that "
        "runs, perhaps again. Add --repair to go on from there."
    )
    assert migrate("library", "0001", repair=True).error == ""
    assert "age" not in snapshot("library", using=HERE)["library_author"].columns
    assert migrate("library").error == ""
    assert is_as_migrated()


@pytest.mark.parametrize(
    ("operations", "before"),
    [
        # The same index is there, under the name that Django gave it for the field.
        (
            'AddIndexConcurrently("book", models.Index(fields=["code"], name="book_code")),'
            'migrations.AlterField("book", "code", models.CharField(max_length=20, default="")),',
            "",
        ),
        # Another app gives its table away: the state has it, the database had it before.
        (
            "migrations.SeparateDatabaseAndState(state_operations=[migrations.CreateModel("
            '"Moved", [("id", models.BigAutoField(primary_key=True))], {"db_table": "moved"})]),' + AGE,
            "CREATE TABLE moved (id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY)",
        ),
        # What somebody did beside the migrations.
        (AGE + INDEX, "ALTER TABLE library_author ADD COLUMN nick text"),
        (AGE + INDEX, "ALTER TABLE library_book DROP COLUMN old"),
        (FILL, ""),
        (
            'AddConstraintNotValid("book", models.CheckConstraint(condition=models.Q(old=0), name="old")),',
            "",
        ),
    ],
)
def test_one_that_never_began_is_let_through(library: Any, operations: str, before: str) -> None:
    library(operations)
    if before:
        interrupt(before)
    assert migrate("library").error == ""


def test_whoever_fakes_it_knows_what_is_there(library: Any) -> None:
    library(AGE)
    interrupt("ALTER TABLE library_author ADD COLUMN age integer")
    assert migrate("library", fake=True).error == ""
    assert is_as_migrated()


def test_an_index_that_somebody_is_making_is_left_to_them(library: Any) -> None:
    library(INDEX)
    with session() as holder, ThreadPoolExecutor() as pool, session() as builder:
        holder("BEGIN", "LOCK TABLE library_author IN ROW EXCLUSIVE MODE")
        building = pool.submit(builder, CONCURRENTLY)
        until(lambda: holder("SELECT 1 FROM pg_index WHERE NOT indisvalid"))
        assert invalid_indexes(connections[HERE]) == []
        assert migrate("library", repair=True).error == (
            "Another session is at work on the index author_name, which library.0002_second makes: migrate "
            "again when it is done."
        )
        holder("COMMIT")
        building.result()
    assert "1 of its 1 operations is done" in migrate("library").error


def test_other_invalid_indexes_are_mentioned_and_repaired(library: Any) -> None:
    library(AGE)
    invalid("CREATE INDEX CONCURRENTLY astray ON library_author (name)")
    interrupt("CREATE INDEX whole ON library_author (name)")
    invalid("REINDEX INDEX CONCURRENTLY whole")
    done = migrate("library")
    assert done.stderr == (
        "Invalid, so that no query uses it: whole_ccnew of library_author, astray of library_author. Run "
        "DROP INDEX CONCURRENTLY whole_ccnew; REINDEX INDEX CONCURRENTLY astray; or migrate with --repair.\n"
    )
    assert (done.error, is_as_migrated()) == ("", False)
    done = migrate("library", repair=True)
    assert "Repairing astray of library_author: REINDEX INDEX CONCURRENTLY astray\n" in done.stdout
    assert done.stderr == ""
    assert [index.name for index in snapshot("library", using=HERE)["library_author"].indexes] == [
        "astray",
        "whole",
    ]
    assert invalid_indexes(connections[HERE]) == []
    interrupt("DROP INDEX astray, whole")
    assert is_as_migrated()


def test_a_repair_that_fails_is_one_sentence(library: Any) -> None:
    library()
    interrupt("INSERT INTO library_author (name) VALUES ('a')")
    invalid("CREATE UNIQUE INDEX CONCURRENTLY once ON library_author (name)")
    interrupt("DROP INDEX once", "INSERT INTO library_author (name) VALUES ('a')")
    with pytest.raises(Exception, match="could not create unique index"):
        interrupt("CREATE UNIQUE INDEX CONCURRENTLY once ON library_author (name)")
    assert migrate("library", repair=True).error == (
        'REINDEX INDEX CONCURRENTLY once failed: could not create unique index "once_ccnew". '
        "Key (name)=(a) is duplicated."
    )


def test_where_every_migration_is_a_transaction_nobody_looks(
    library: Any, django_assert_num_queries: Any
) -> None:
    library()
    plan = [(MigrationLoader(connections[HERE]).get_migration("library", "0001_first"), True)]
    with django_assert_num_queries(0, connection=connections[HERE]):
        assert [*interruptions(connections[HERE], plan)] == []
