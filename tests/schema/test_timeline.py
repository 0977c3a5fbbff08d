"""``timeline``: every migration of an app, with what it does and whether it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.exceptions import IrreversibleError

from tests.schema.places import app, migrate, run
from workbench.schema import SchemaError, timeline

Install = Callable[[dict[str, str]], None]

FIRST = """
initial = True
operations = [migrations.CreateModel("Entry", [("id", models.BigAutoField(primary_key=True))])]
"""
SECOND = """
dependencies = [("ledger", "0001_first")]
operations = [migrations.AddField("entry", "note", models.TextField(default=""))]
"""


def after(name: str, operations: str, more: str = "") -> str:
    return f'dependencies = [("ledger", "{name}")]\n{more}\noperations = [{operations}]'


@pytest.fixture
def ledger(db: None, tmp_path: Path) -> Iterator[Install]:
    """Install an app called ledger, of the given migrations."""
    with ExitStack() as stack:
        yield lambda migrations: stack.enter_context(app(tmp_path, "ledger", "", migrations))


@pytest.mark.parametrize(
    ("app_label", "said"),
    [
        ("catalogue", "No app 'catalogue' is installed: did you mean catalog?"),
        ("messages", "The app messages has no migrations: its models have one state only."),
    ],
)
def test_an_app_without_a_history_is_said_in_a_sentence(db: None, app_label: str, said: str) -> None:
    with pytest.raises(SchemaError) as raised:
        timeline(app_label)
    assert str(raised.value) == said


def test_an_unknown_migration_is_said_in_a_sentence(db: None) -> None:
    with pytest.raises(SchemaError, match=r"^catalog has no migration '0009'\.$"):
        timeline("catalog")["0009"]


def test_an_app_whose_migrations_are_all_still_to_be_written_says_so(ledger: Install) -> None:
    ledger({})
    assert repr(timeline("ledger")) == "ledger has no migrations."


def test_every_migration_stands_in_its_order_with_its_operations_and_sql(db: None) -> None:
    found = timeline("catalog")
    assert [step.name for step in found] == ["0001_initial", "0002_author_country"]
    assert len(found) == 2
    assert found["0002"].operations == ("Add field country to author",)
    assert 'ALTER TABLE "catalog_author" ADD COLUMN "country" varchar(100)' in found["0002"].sql
    assert 'CREATE TABLE "catalog_book"' in found["0001"].sql
    assert all(step.is_reversible and not step.is_evolved for step in found)


def test_a_migration_has_the_time_when_it_was_applied_in_the_zone_of_the_project(
    db: None, settings: Any
) -> None:
    moment = datetime(2024, 5, 6, 22, 30, tzinfo=UTC)
    run(f"UPDATE django_migrations SET applied = '{moment.isoformat()}' WHERE name = '0001_initial'")
    run("DELETE FROM django_migrations WHERE name = '0002_author_country'")
    assert timeline("catalog")["0001"].applied == moment
    assert "[X]  0001_initial         2024-05-06 22:30" in repr(timeline("catalog"))
    settings.TIME_ZONE = "Asia/Tokyo"
    assert "[X]  0001_initial         2024-05-07 07:30" in repr(timeline("catalog"))
    assert timeline("catalog")["0002"].applied is None
    assert "[ ]  0002_author_country  not applied" in repr(timeline("catalog"))


def test_a_project_without_time_zones_has_a_timeline_too(db: None, settings: Any) -> None:
    settings.USE_TZ = False
    assert "[X]  0001_initial" in repr(timeline("catalog"))


def test_an_app_of_which_nothing_is_applied_has_the_same_sql_as_after(ledger: Install) -> None:
    ledger({"0001_first": FIRST, "0002_note": SECOND})
    before = timeline("ledger")
    migrate("ledger", "0002_note")
    later = timeline("ledger")
    assert [step.applied for step in before] == [None, None]
    assert all(step.applied for step in later)
    assert [step.sql for step in before] == [step.sql for step in later]


def test_a_record_whose_file_is_gone_is_named(db: None) -> None:
    run("INSERT INTO django_migrations (app, name, applied) VALUES ('catalog', '0009_gone', now())")
    found = timeline("catalog")
    assert found.gone == ("0009_gone",)
    assert "! 0009_gone is recorded as applied, and its file is gone." in repr(found)
    assert "0009_gone is recorded" in found._repr_html_()


@pytest.mark.parametrize(
    ("operation", "irreversible"),
    [
        ('migrations.RunSQL("SELECT 1")', "Raw SQL operation"),
        ('migrations.RunSQL("SELECT 1", "SELECT 2")', ""),
        ('migrations.RunSQL("SELECT 1", migrations.RunSQL.noop)', ""),
        ("migrations.RunPython(migrations.RunPython.noop)", "Raw Python operation"),
        ("migrations.RunPython(migrations.RunPython.noop, migrations.RunPython.noop)", ""),
        (
            'migrations.SeparateDatabaseAndState([migrations.RunSQL("SELECT 1")])',
            "Custom state/database change",
        ),
    ],
)
def test_what_cannot_be_undone_is_named(ledger: Install, operation: str, irreversible: str) -> None:
    ledger({"0001_first": FIRST, "0002_odd": after("0001_first", operation)})
    migrate("ledger", "0002_odd")
    step = timeline("ledger")["0002"]
    assert ", ".join(step.irreversible).startswith(irreversible)
    assert step.is_reversible == (not irreversible)
    assert (f"irreversible: {irreversible}" if irreversible else "reversible") in repr(step)
    if irreversible:
        with pytest.raises((IrreversibleError, NotImplementedError)):
            migrate("ledger", "0001_first")
    else:
        migrate("ledger", "0001_first")


def test_sql_of_a_migration_is_as_it_was_written(ledger: Install) -> None:
    operation = """migrations.RunSQL([("INSERT INTO ledger_entry VALUES (%s)", [7]), "SELECT '100%'"])"""
    ledger({"0001_first": FIRST, "0002_odd": after("0001_first", operation)})
    sql = timeline("ledger")["0002"].sql
    assert "INSERT INTO ledger_entry VALUES (7)" in sql
    assert "SELECT '100%'" in sql
    assert run("SELECT to_regclass('ledger_entry')") == [(None,)]


def test_python_and_nothing_are_said_to_be_so(ledger: Install) -> None:
    ledger(
        {
            "0001_first": FIRST,
            "0002_python": after("0001_first", "migrations.RunPython(migrations.RunPython.noop)"),
            "0003_nothing": after("0002_python", ""),
        }
    )
    found = timeline("ledger")
    assert "CANNOT BE WRITTEN AS SQL" in found["0002"].sql
    assert found["0003"].sql == "-- nothing to do in the database"


@pytest.mark.parametrize("atomic", [True, False])
def test_sql_that_cannot_be_told_says_so_and_harms_neither_the_rest_nor_the_transaction(
    ledger: Install, atomic: bool
) -> None:
    lookup = "migrations.RunPython(migrations.RunPython.noop)"
    ledger(
        {
            "0001_first": 'import importlib\ninitial = True\noperations = [migrations.CreateModel("Entry", '
            '[("id", models.BigAutoField(primary_key=True)), ("a", models.IntegerField()), '
            '("b", models.IntegerField())], options={"unique_together": {("a", "b")}})]',
            "0002_apart": after(
                "0001_first", 'migrations.AlterUniqueTogether("entry", set())', f"atomic = {atomic}"
            ),
            "0003_last": after("0002_apart", lookup),
        }
    )
    found = timeline("ledger")
    assert found["0002"].sql.startswith("-- cannot be told while the database is where it is: ")
    assert "CANNOT BE WRITTEN AS SQL" in found["0003"].sql
    assert run("SELECT 1") == [(1,)]
    migrate("ledger", "0001_first")
    assert 'ALTER TABLE "ledger_entry" DROP CONSTRAINT' in timeline("ledger")["0002"].sql


SQUASHED = """
initial = True
replaces = [("ledger", "0001_first"), ("ledger", "0002_note")]
operations = [
    migrations.CreateModel(
        "Entry", [("id", models.BigAutoField(primary_key=True)), ("note", models.TextField(default=""))]
    )
]
"""


def test_a_squashed_migration_stands_for_those_that_it_replaces_once_all_are_applied(ledger: Install) -> None:
    ledger({"0001_first": FIRST, "0002_note": SECOND, "0001_squashed_0002_note": SQUASHED})
    assert [(step.name, step.applied) for step in timeline("ledger")] == [("0001_squashed_0002_note", None)]
    run(
        "INSERT INTO django_migrations (app, name, applied) VALUES "
        "('ledger', '0001_first', '2024-01-01 00:00+00')"
    )
    assert [step.name for step in timeline("ledger")] == ["0001_first", "0002_note"]
    run(
        "INSERT INTO django_migrations (app, name, applied) VALUES "
        "('ledger', '0002_note', '2024-01-02 00:00+00')"
    )
    (step,) = timeline("ledger")
    assert (step.name, step.applied) == ("0001_squashed_0002_note", datetime(2024, 1, 2, tzinfo=UTC))
    assert timeline("ledger").gone == ()


def test_two_ends_of_a_history_are_both_there(ledger: Install) -> None:
    other = SECOND.replace('"note"', '"other"')
    ledger({"0001_first": FIRST, "0002_note": SECOND, "0002_other": other})
    assert {step.name for step in timeline("ledger")} == {"0001_first", "0002_note", "0002_other"}


def test_looking_changes_nothing(db: None) -> None:
    before = run("SELECT * FROM django_migrations ORDER BY id")
    for label in ("catalog", "auth", "admin", "contenttypes", "sessions"):
        assert repr(timeline(label))
    assert run("SELECT * FROM django_migrations ORDER BY id") == before
    assert not connection.needs_rollback
