"""Migrations that wait for locks: others go on meanwhile, and what waits too long is as if it never ran."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from tests.conftest import scratch
from tests.migrating import at_hand, beside, bodies, session, until
from tests.migrator import HERE, Done, migrate
from tests.schema.places import app, run
from workbench.schema import snapshot
from workbench.schema.patience import CHANGES_TABLES, CONCURRENTLY, FIRST_SECONDS

SHOP = {
    "0001_initial": """
        initial = True
        operations = [
            migrations.CreateModel("Item", [("id", models.BigAutoField(primary_key=True))]),
            migrations.CreateModel(
                "Shelf",
                [("id", models.BigAutoField(primary_key=True)), ("place", models.TextField(null=True))],
            ),
        ]
    """,
    "0002_both": """
        dependencies = [("shop", "0001_initial")]
        operations = [
            migrations.RenameField("shelf", "place", "number"),
            migrations.AddField("item", "number", models.IntegerField(null=True)),
        ]
    """,
    "0003_one_by_one": """
        atomic = False
        dependencies = [("shop", "0002_both")]
        operations = [
            migrations.AddField("shelf", "name", models.TextField(null=True)),
            migrations.AddField("item", "name", models.TextField(null=True)),
        ]
    """,
    "0004_index": """
        from django.contrib.postgres.operations import AddIndexConcurrently
        atomic = False
        dependencies = [("shop", "0003_one_by_one")]
        operations = [AddIndexConcurrently("item", models.Index(fields=["name"], name="item_name"))]
    """,
}
SHOP["0005_label"] = """
    dependencies = [("shop", "0004_index")]
    operations = [
        migrations.CreateModel(
            "Label",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("item", models.ForeignKey("shop.item", models.CASCADE)),
            ],
        ),
    ]
"""
READS = "SELECT count(*) FROM shop_item"


@pytest.fixture(scope="module", autouse=True)
def shop(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    with (
        scratch() as url,
        at_hand(url, django_db_blocker),
        app(tmp_path_factory.mktemp("shop"), "shop", "", bodies(SHOP)),
    ):
        yield


def at(name: str) -> None:
    assert migrate("shop", name).error == ""


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def waiting() -> bool:
    """Whether something waits for the table's lock now."""
    with session() as sql:
        return bool(sql("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'shop_item'::regclass"))


def test_who_never_gets_a_lock_says_who_has_it_and_has_changed_nothing() -> None:
    at("0001")
    before = snapshot(using=HERE)
    with session() as reader:
        ((pid,),) = reader("BEGIN", READS, "SELECT pg_backend_pid()")
        done = migrate("shop", "0002", lock_wait=1.2)
        assert reader("SHOW lock_timeout") == run("SHOW lock_timeout", using=HERE)
    who = rf"process {pid} \(somebody, workbench, idle in transaction for .*\), which ran SELECT .*\(\)"
    assert re.fullmatch(
        rf"shop.0002_both waited 1.2 seconds \(--lock-wait\) for a lock of {who}. Nothing of it was changed. "
        rf"Commit or roll back there, or end it: SELECT pg_terminate_backend\({pid}\).",
        done.error,
    )
    assert re.search(rf"Applying shop.0002_both\.\.\. waits for {who}\.\.\.$", done.stdout)
    assert snapshot(using=HERE) == before


def test_those_who_come_later_do_not_wait_longer_than_an_attempt_and_it_gets_through_in_the_end(
    others: ThreadPoolExecutor,
) -> None:
    at("0001")
    took = []
    with session() as holder, session() as reader:
        holder("BEGIN", READS)
        done = others.submit(beside, "shop", "0002")
        for _ in range(2):
            until(waiting)
            began = time.monotonic()
            reader(READS)
            took.append(time.monotonic() - began)
        assert not done.done()
        holder("COMMIT")
        stdout, _, error = done.result()
    assert error == ""
    # The second attempt is twice as long.
    assert max(took) < 2 * FIRST_SECONDS + 1
    # Its first operation ran each time, from the state that the database was in.
    assert stdout.count("Applying") == 1
    assert stdout.endswith("... OK\n")
    assert list(snapshot("shop", using=HERE)["shop_shelf"].columns) == ["id", "number"]


def test_what_django_does_at_the_end_of_a_migration_is_part_of_it(others: ThreadPoolExecutor) -> None:
    at("0004")
    with session() as holder:
        holder("BEGIN", "DELETE FROM shop_item")
        given_up = migrate("shop", "0005", lock_wait=0.4)
        assert run("SELECT to_regclass('shop_label')::text", using=HERE) == [(None,)]
        done = others.submit(beside, "shop", "0005")
        until(waiting)
        until(lambda: not waiting())
        holder("COMMIT")
        assert done.result().error == ""
    assert "shop.0005_label waited 0.4 seconds" in given_up.error
    at("0004")


def test_a_way_back_is_patient_too(others: ThreadPoolExecutor) -> None:
    at("0002")
    with session() as holder:
        holder("BEGIN", READS)
        done = others.submit(beside, "shop", "0001")
        until(waiting)
        holder("COMMIT")
        assert done.result().error == ""
    assert "number" not in snapshot("shop", using=HERE)["shop_shelf"].columns


def test_a_statement_outside_of_a_transaction_is_tried_again_by_itself(others: ThreadPoolExecutor) -> None:
    at("0002")
    with session() as holder, session() as reader:
        holder("BEGIN", READS)
        done = others.submit(beside, "shop", "0003")
        until(waiting)
        until(lambda: not waiting())
        until(waiting)
        reader(READS)
        holder("COMMIT")
        assert done.result().error == ""
    assert run("SHOW lock_timeout", using=HERE) == [("0",)]


def test_what_stays_of_it_is_said_where_it_never_gets_the_lock() -> None:
    at("0002")
    with session() as holder:
        holder("BEGIN", READS)
        done = migrate("shop", "0003", lock_wait=0.6)
    assert "shop.0003_one_by_one waited 0.6 seconds" in done.error
    assert "What it did before stays: when the cause is gone, migrate with --repair" in done.error
    assert migrate("shop", "0003", repair=True).error == ""


def test_an_index_made_concurrently_is_never_cut_off(others: ThreadPoolExecutor) -> None:
    def with_own_lock_timeout() -> Done:
        run("SET lock_timeout = '100ms'", using=HERE)
        done = migrate("shop", "0004")
        assert run("SHOW lock_timeout", using=HERE) == [("100ms",)]
        connections[HERE].close()
        return done

    at("0003")
    with session() as holder:
        ((pid,),) = holder("BEGIN", "DELETE FROM shop_item", "SELECT pg_backend_pid()")
        done = others.submit(with_own_lock_timeout)
        time.sleep(1)
        holder("COMMIT")
        stdout, _, error = done.result()
    assert error == ""
    assert f"waits for process {pid} (somebody" in stdout
    assert [index.is_valid for index in snapshot("shop", using=HERE)["shop_item"].indexes] == [True]


def test_ones_own_lock_timeout_is_the_length_of_an_attempt(others: ThreadPoolExecutor) -> None:
    at("0001")
    with session() as holder, session() as reader:
        holder("BEGIN", READS)
        done = others.submit(with_options, "-c lock_timeout=100ms", "shop", "0002", lock_wait=1.5)
        until(waiting)
        began = time.monotonic()
        reader(READS)
        took = time.monotonic() - began
        assert "waited 1.5 seconds" in done.result().error
    assert took < FIRST_SECONDS


def with_options(options: str, *arguments: str, **more: Any) -> Done:
    connections[HERE].settings_dict = copy.deepcopy(connections[HERE].settings_dict)
    connections[HERE].settings_dict["OPTIONS"]["options"] = options
    return beside(*arguments, **more)


def test_without_patience_it_waits_in_line_as_django_does(others: ThreadPoolExecutor) -> None:
    at("0001")
    with session() as holder:
        holder("BEGIN", READS)
        done = others.submit(beside, "shop", "0002", lock_wait=0)
        until(waiting)
        time.sleep(FIRST_SECONDS + 0.3)
        assert waiting()
        holder("COMMIT")
        stdout, _, error = done.result()
    assert error == ""
    assert "waits for process" in stdout


def test_what_is_within_somebodys_transaction_waits_in_line(others: ThreadPoolExecutor) -> None:
    """What that one holds it would hold, however short the attempts are."""

    def within() -> Done:
        with transaction.atomic(HERE):
            return migrate("shop", "0002", lock_wait=0.2)

    at("0001")
    with session() as holder:
        holder("BEGIN", READS)
        done = others.submit(within)
        until(waiting)
        time.sleep(0.4)
        assert waiting()
        holder("COMMIT")
        assert done.result().error == ""


@pytest.mark.parametrize(
    ("sql", "is_change", "is_concurrent"),
    [
        ('ALTER TABLE "a" ADD COLUMN "b" int', True, False),
        ("-- why\n/* and\nhow */ create unique index b on a (c)", True, False),
        ("CREATE UNIQUE INDEX CONCURRENTLY b ON a (c)", True, True),
        ("create index\n concurrently if not exists b on a (c)", True, True),
        ("DROP INDEX CONCURRENTLY IF EXISTS b", True, True),
        ("REINDEX (VERBOSE) TABLE CONCURRENTLY a", True, True),
        ("COMMENT ON INDEX b IS 'CREATE INDEX CONCURRENTLY'", True, False),
        ("UPDATE a SET b = 'ALTER TABLE'", False, False),
        ("SELECT 1 -- CREATE INDEX CONCURRENTLY", False, False),
    ],
)
def test_a_statement_is_known_by_how_it_begins(sql: str, is_change: bool, is_concurrent: bool) -> None:
    assert (CHANGES_TABLES.match(sql) is not None, CONCURRENTLY.match(sql) is not None) == (
        is_change,
        is_concurrent,
    )
