"""Applied migrations that have no file among the app's own: who sees them, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from tests.schema.test_evolve import AUTHOR, adding
from workbench import evolved
from workbench.schema import SchemaError, evolve, models_at, states
from workbench.schema.evolve import keep
from workbench.schema.history import history_of

pytestmark = pytest.mark.django_db
KEY = ("catalog", "0003_author_age")
AGE = adding("age = models.IntegerField(null=True)")


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.WORKBENCH_HOME = tmp_path
    return evolved.folder(connection)


def seen(using: Any = connection) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set(MigrationLoader(using).disk_migrations)
    return found


def record(name: str = KEY[1]) -> None:
    MigrationRecorder(connection).record_applied("catalog", name)


def test_one_is_seen_while_it_is_applied_or_offered_and_by_nobody_else(folder: Path) -> None:
    keys = keep(evolve("catalog", AGE))
    assert keys == {KEY}
    assert (folder / "catalog" / "0003_author_age.py").read_text() == evolved.text(connection, *KEY)
    assert KEY not in seen()
    with evolved.offered(keys):
        assert KEY in seen()
    assert KEY not in seen()
    record()
    assert KEY in seen()
    assert KEY not in seen(None)
    assert history_of(connections[DEFAULT_DB_ALIAS]).now().as_of["catalog"] == KEY[1]
    assert history_of(connections[DEFAULT_DB_ALIAS]).newest().as_of["catalog"] == "0002_author_country"
    MigrationRecorder(connection).record_unapplied(*KEY)
    assert KEY not in seen()


def test_the_folder_is_asked_anew_each_time(folder: Path) -> None:
    """A file may come back, or change: by another kernel, by hand, out of a backup."""
    keep(evolve("catalog", AGE))
    record()
    assert {field.name for field in models_at("catalog").Author._meta.fields} >= {"age"}
    file = folder / "catalog" / "0003_author_age.py"
    text = file.read_text()
    file.unlink()
    assert history_of(connections[DEFAULT_DB_ALIAS]).gone("catalog") == [KEY[1]]
    file.write_text(text.replace("name='age'", "name='years'"))
    assert {field.name for field in models_at("catalog").Author._meta.fields} >= {"years"}


def test_a_file_of_the_app_wins_and_an_unknown_app_does_not_matter(folder: Path) -> None:
    for label, name in (("catalog", "0001_initial"), ("nowhere", "0001_initial")):
        evolved.write(connection, label, name, "raise SystemError('never loaded')")
        MigrationRecorder(connection).record_applied(label, name)
    assert not evolved.is_one(MigrationLoader(connection).disk_migrations["catalog", "0001_initial"])
    assert not any(label == "nowhere" for label, _ in seen())


@pytest.mark.parametrize("cell", [AGE, adding("height = models.IntegerField(null=True)")])
def test_where_the_file_is_gone_a_next_one_is_refused_with_what_to_do(folder: Path, cell: str) -> None:
    record()
    with pytest.raises(SchemaError, match=r"0003_author_age .*gone.*--prune"):
        keep(evolve("catalog", cell))
    assert not folder.exists()


def test_a_broken_file_is_one_sentence() -> None:
    record()
    for text in ("class Migration(", "nothing", "import nothing_there"):
        evolved.write(connection, *KEY, text)
        with pytest.raises(SchemaError, match=r"^The migration files cannot be loaded: .*$"):
            models_at("catalog")


def test_the_four_states_say_that_the_files_know_nothing_of_it() -> None:
    keep(evolve("catalog", AGE))
    record()
    said = [str(each) for each in states("catalog").disagreements]
    assert any(each.startswith("0003_author_age was made in a cell") for each in said)


def test_what_goes_another_way_than_the_files_is_refused_and_not_kept(folder: Path) -> None:
    with pytest.raises(SchemaError, match=r"0002_.* is not the next: catalog goes on to 0002_author_country"):
        keep(evolve("catalog", AUTHOR.replace("country", "nation"), start="0001"))
    assert not folder.exists()
    assert keep(evolve("catalog", AUTHOR, start="0001")) == set()
    assert not folder.exists()
