from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.conftest import Manage, scratch
from tests.kernel import Kernel
from tests.migrating import Migrator, at_hand, beside, session, until, write_app
from tests.migrator import HERE, migrate
from tests.schema.places import run
from workbench.connection.turns import turn


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


STORE = {
    "0001_initial": """
        initial = True
        operations = [
            migrations.CreateModel("Item", [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.TextField(default="n")),
            ]),
        ]
    """,
    "0002_index": """
        atomic = False
        dependencies = [("store", "0001_initial")]
        operations = [AddIndexConcurrently("item", models.Index(fields=["name"], name="item_name"))]
    """,
}
STORE_MORE = {
    **STORE,
    "0003_within": """
        dependencies = [("store", "0002_index")]
        def migrate_within(apps, editor):
            from django.core.management import call_command
            call_command("migrate", "contenttypes", database=editor.connection.alias, verbosity=0)
        operations = [migrations.RunPython(migrate_within, migrations.RunPython.noop)]
    """,
    "0004_once": """
        dependencies = [("store", "0003_within")]
        operations = [
            migrations.RunSQL("INSERT INTO store_item (name) VALUES ('a'), ('a')", ""),
            migrations.AddConstraint("item", models.UniqueConstraint(fields=["name"], name="item_once")),
        ]
    """,
}


@pytest.fixture(scope="module")
def migrators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Migrator]]:
    """Three processes of a project that has one more app."""
    environment = write_app(tmp_path_factory.mktemp("store"), "store", STORE)
    started = [Migrator(environment) for _ in range(3)]
    yield started
    for each in started:
        each.close()


@pytest.fixture
def here(scratch_url: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with at_hand(scratch_url, django_db_blocker):
        yield scratch_url


def test_of_three_that_migrate_at_once_one_does_it(
    migrators: list[Migrator], django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> None:
    for _ in range(3):
        with scratch() as url, at_hand(url, django_db_blocker):
            for each in migrators:
                each.begin(url)
            done = [each.end() for each in migrators]
            recorded = run("SELECT app, name FROM django_migrations", using=HERE)
        assert [each.error for each in done] == [""] * 3
        assert sorted("No migrations to apply" in each.stdout for each in done) == [False, True, True]
        assert ("store", "0002_index") in recorded
        assert len(recorded) == len(set(recorded))


def test_whoever_waits_says_for_whom_and_an_interrupt_or_a_kill_lets_the_next_one_in(
    migrators: list[Migrator], here: str
) -> None:
    first, second, third = migrators
    first.begin(here, "store", "0001")
    assert first.end().error == ""
    with session() as holder:
        holder("BEGIN", "DELETE FROM store_item")
        first.begin(here, "store")
        until(lambda: holder("SELECT 1 FROM pg_index WHERE NOT indisvalid"))
        second.begin(here, "store", "--wait", "1.2")
        in_the_way = f"(migrate by process {first.process.pid} on "
        failed = second.end()
        assert in_the_way in failed.stderr
        assert in_the_way in failed.error
        assert "--wait SECONDS" in failed.error
        second.begin(here, "store", "--repair")
        first.process.send_signal(signal.SIGINT)
        interrupted = first.end()
        holder("COMMIT")
    assert interrupted.error == "interrupted"
    assert interrupted.stderr.startswith("Invalid, so that no query uses it: item_name of store_item.")
    repaired = second.end()
    assert (repaired.error, repaired.stderr) == ("", "")
    assert "Applying store.0002_index... OK" in repaired.stdout
    with session() as holder:
        holder("BEGIN", "SELECT * FROM store_item")
        third.begin(here, "store", "zero")
        until(lambda: holder("SELECT 1 FROM pg_locks WHERE NOT granted"))
        third.process.kill()
        first.begin(here, "store", "zero")
        # Postgres goes on with a statement when the one who asked is gone.
        assert "1 of its 1 operations is undone" in first.end().error
    second.begin(here, "store", "zero", "--repair")
    assert second.end().error == ""
    with session() as anybody:
        assert not anybody("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'migrate by %'")


def test_what_postgres_refuses_is_one_line_that_says_where(
    manage: Manage, scratch_url: str, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": scratch_url, **write_app(tmp_path, "store", STORE_MORE)}
    failed = manage("migrate", **environment)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line == (
        "CommandError: store.0004_once failed at 'Create constraint item_once on model item': could not "
        'create unique index "item_once". Key (name)=(a) is duplicated. Nothing of it was changed.'
    )
    # The migrate within a migration went through.
    assert "Applying store.0003_within... OK" in failed.stdout
    assert "psycopg2.errors.UniqueViolation" in manage("migrate", "--traceback", **environment).stderr


def test_what_only_looks_waits_for_nobody(here: str) -> None:
    with turn(connections[HERE], patience=0, tell=print), ThreadPoolExecutor() as others:
        planned = others.submit(beside, "catalog", plan=True).result(10)
        changed = others.submit(beside, "catalog", wait=0).result(10)
    assert "catalog.0001_initial" in planned.stdout
    assert "Another migrate is at work" in changed.error


def test_in_a_kernel_the_cell_says_whom_it_waits_for(here: str) -> None:
    migrate("catalog")
    with Kernel({"DATABASE_URL": here, "WORKBENCH_YES": "1"}) as kernel, session() as holder:
        holder("BEGIN", "SELECT * FROM catalog_author")
        outcome = kernel.run("%manage migrate catalog 0001 --lock-wait 1.2")
        assert "Unapplying catalog.0002_author_country... waits for process " in outcome.stdout
        assert outcome.error[0].startswith("catalog.0002_author_country waited 1.2 seconds (--lock-wait) for")
        holder("COMMIT")
        assert kernel.run("%manage migrate catalog 0001 -v 0").error == []
        assert kernel.run("connection.cursor().execute('SHOW lock_timeout')").error == []
        left = holder("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'migrate by %'")
    assert left == []
