"""Which values a migration may lose is known beforehand, and whether it did is seen in sums over rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, migrations, models
from django.db.migrations import Migration
from django.db.migrations.state import ModelState, ProjectState

from tests.schema.places import run
from workbench.schema.stakes import at_stake, checksums, lost

A, B = "library_author", "library_book"


def by_name(apps: Any, _: Any) -> None:
    apps.get_model("library", "Author").objects.update(name="")


def by_sql(_: Any, editor: Any) -> None:
    def inner() -> None:
        editor.execute("UPDATE library_book SET title = ''")

    inner()


def by_nothing(apps: Any, _: Any) -> None:
    for model in apps.get_models():
        model.objects.all().delete()


@pytest.mark.parametrize(
    ("operation", "tables", "undone"),
    [
        (migrations.AddField("author", "age", models.IntegerField(null=True)), set(), {A}),
        (migrations.AddIndex("author", models.Index(fields=["name"], name="by_name")), set(), set()),
        (migrations.RemoveField("author", "name"), {A}, {A}),
        (migrations.AlterField("author", "name", models.TextField()), {A}, {A}),
        (migrations.DeleteModel("Book"), {B}, {B}),
        (migrations.RunSQL("UPDATE library_book SET title = ''", ""), {B}, {B}),
        (migrations.RunSQL("SELECT clean_up()", ""), {A, B}, {A, B}),
        (migrations.RunPython(by_name), {A}, {A}),
        (migrations.RunPython(by_sql), {B}, {B}),
        (migrations.RunPython(by_nothing), {A, B}, {A, B}),
    ],
)
def test_what_an_operation_may_lose(operation: Any, tables: set[str], undone: set[str]) -> None:
    state = ProjectState()
    for name, field in (("Author", "name"), ("Book", "title")):
        fields = [("id", models.AutoField(primary_key=True)), (field, models.CharField(max_length=9))]
        state.add_model(ModelState("library", name, fields))
    migration = type("Migration", (Migration,), {"operations": [operation]})("0002_x", "library")
    assert at_stake([(migration, False)], state) == tables
    assert at_stake([(migration, True)], state) == undone


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("statement", "phrases"),
    [
        ("SELECT 1", set()),
        ("UPDATE stake SET name = 'x' WHERE id = 1", {"the values of stake.name (2 before)"}),
        (
            "UPDATE stake SET name = CASE id WHEN 1 THEN 'b' ELSE 'a' END",
            {"the values of stake.name (2 before)"},
        ),
        ("UPDATE stake SET name = '' WHERE name IS NULL", {"the values of stake.name (2 before)"}),
        ("ALTER TABLE stake DROP name", {"the values of stake.name (2 before)"}),
        ("ALTER TABLE stake ADD age int DEFAULT 3", set()),
        ("ALTER TABLE stake DROP note, ADD note text", set()),
        ("DELETE FROM stake WHERE id = 3", {"the rows of stake (3 before, 2 after)"}),
        ("DROP TABLE stake", {"the rows of stake (3 before, 0 after)"}),
    ],
)
def test_what_is_not_as_it_was_is_seen(statement: str, phrases: set[str]) -> None:
    run(
        "CREATE TABLE stake (id int PRIMARY KEY, name text, note text)",
        "INSERT INTO stake VALUES (1, 'a'), (2, 'b'), (3, NULL)",
    )
    with connection.cursor() as cursor:
        before = checksums(cursor, ["stake", "nowhere"])
        cursor.execute(statement)
        assert {*lost(before, checksums(cursor, before)).values()} == phrases
