from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Manage


def test_going_back_on_another_database_says_what_it_drops_and_stops(
    manage: Manage, scratch_url: str
) -> None:
    manage("migrate", DATABASE_URL=scratch_url)
    manage("populate", DATABASE_URL=scratch_url)
    refused = manage("migrate", "catalog", "zero", DATABASE_URL=scratch_url)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "column catalog_author.country (3 rows)" in line
    assert "table catalog_author (3 rows)" in line
    assert "table catalog_book (7 rows)" in line
    assert "database scratch_" in line
    assert "--yes" in line
    assert "[X] 0002_author_country" in manage("showmigrations", "catalog", DATABASE_URL=scratch_url).stdout


def test_it_goes_on_when_the_person_says_yes(manage: Manage, scratch_url: str) -> None:
    manage("migrate", DATABASE_URL=scratch_url)
    back = manage("migrate", "catalog", "0001", "--yes", DATABASE_URL=scratch_url)
    assert back.returncode == 0, back.stderr
    by_variable = manage("migrate", "catalog", "zero", DATABASE_URL=scratch_url, WORKBENCH_YES="1")
    assert by_variable.returncode == 0, by_variable.stderr


def test_what_drops_nothing_is_not_asked_about(manage: Manage, scratch_url: str) -> None:
    forwards = manage("migrate", DATABASE_URL=scratch_url)
    assert forwards.returncode == 0, forwards.stderr
    faked = manage("migrate", "catalog", "zero", "--fake", DATABASE_URL=scratch_url)
    assert faked.returncode == 0, faked.stderr


def test_the_embedded_database_goes_back_without_a_question(manage: Manage) -> None:
    manage("migrate", DATABASE_URL="")
    back = manage("migrate", "catalog", "0001", DATABASE_URL="")
    assert back.returncode == 0, back.stderr
    manage("migrate", DATABASE_URL="")


SHOP = {
    "0001_initial": """
        initial = True
        operations = [
            migrations.CreateModel("Item", [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.TextField(default="n")),
                ("note", models.TextField(default="x")),
            ]),
            migrations.RunSQL("INSERT INTO shop_item (name, note) VALUES ('a', 'b')", ""),
        ]
    """,
    "0002_rename": """
        dependencies = [("shop", "0001_initial")]
        operations = [migrations.RenameField("item", "name", "label")]
    """,
    "0003_remove": """
        dependencies = [("shop", "0002_rename")]
        operations = [migrations.RemoveField("item", "note")]
    """,
    "0004_drop": """
        dependencies = [("shop", "0003_remove")]
        operations = [migrations.RunSQL('drop table if exists shop_item, "shop_Nothing" cascade')]
    """,
}


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, str]:
    """The environment of a project that has one more app, with a history of its own."""
    folder = tmp_path / "shop" / "migrations"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    for name, body in SHOP.items():
        head = "from django.db import migrations, models\n\n\nclass Migration(migrations.Migration):\n"
        (folder / f"{name}.py").write_text(head + body)
    (tmp_path / "shop_settings.py").write_text(
        "from workbench.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'shop']\n"
    )
    return {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "shop_settings"}


def test_what_forwards_migrations_drop_is_said_too_and_only_what_is_there(
    manage: Manage, scratch_url: str, shop: dict[str, str]
) -> None:
    environment = {"DATABASE_URL": scratch_url, **shop}
    # On an empty database the whole history runs: it drops only what it made itself.
    empty = manage("migrate", "shop", **environment)
    assert empty.returncode == 0, empty.stderr
    manage("migrate", "shop", "0004", "--fake", **environment)
    manage("migrate", "shop", "zero", "--fake", **environment)
    renamed = manage("migrate", "shop", "0002", **environment)
    assert renamed.returncode == 0, renamed.stderr
    (line,) = manage("migrate", "shop", **environment).stderr.splitlines()
    assert "This drops column shop_item.note (1 row), table shop_item (1 row) from PostgreSQL" in line


def test_a_migration_that_cannot_go_back_is_one_line(
    manage: Manage, scratch_url: str, shop: dict[str, str]
) -> None:
    manage("migrate", "shop", DATABASE_URL=scratch_url, **shop)
    done = manage("migrate", "shop", "zero", DATABASE_URL=scratch_url, **shop)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "is not reversible" in line
