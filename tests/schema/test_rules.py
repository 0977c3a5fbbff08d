"""What the known linters warn of is rehearsed, and seen to do it; what they would have instead is clean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest
from django.db import connections
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from pytest_django.plugin import DjangoDbBlocker

from tests.conftest import scratch
from tests.schema.places import app, run, settings_for
from tests.schema.rules import LEFT_OUT, LINTER, RULES, STRONG, A, B, Rule
from tests.schema.test_rehearsal import FIRST, MODELS
from tests.throwaway import EVERYTHING
from workbench import evolved
from workbench.branches import branch
from workbench.schema import snapshot
from workbench.schema.advice import STOPS_WRITERS
from workbench.schema.rehearsal import rehearse
from workbench.schema.report import Rehearsal
from workbench.schema.stakes import checksums

ROWS = 200_000 if os.environ.get(EVERYTHING) else 2_000
FILL = (
    f"INSERT INTO {A} (name, bio, born) SELECT 'No. ' || n, '', n FROM generate_series(1, {ROWS}) n",
    f"INSERT INTO {B} (title, author_id, year) SELECT 'No. ' || id, id, 1900 FROM {A}",
    "VACUUM ANALYZE",
)


@pytest.fixture(scope="module")
def place(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The alias of a database with authors and books, which is in the end as it was."""
    folder = tmp_path_factory.mktemp("rules")
    with (
        scratch() as url,
        django_db_blocker.unblock(),
        app(folder, "library", MODELS, {"0001_first": FIRST}),
    ):
        connections.databases["place"] = settings_for(url)
        MigrationExecutor(connections["place"]).migrate([("library", "0001_first")])
        run(*FILL, using="place")
        before = content("place")
        yield "place"
        after = content("place")
        connections["place"].close()
        del connections["place"]
        del connections.databases["place"]
    assert after == before


def content(place: str) -> tuple[Any, ...]:
    with connections[place].cursor() as cursor:
        sums = checksums(cursor, [A, B])
    applied = run("SELECT app, name FROM django_migrations", using=place)
    return snapshot(using=place), sums, applied


@contextmanager
def released(place: str, operations: Sequence[Operation]) -> Iterator[None]:
    """Be where these were applied for real, and the code that runs knows it."""
    if not operations:
        yield
        return
    key = ("library", "0002_released")
    kind = type(
        "Migration", (Migration,), {"operations": operations, "dependencies": [("library", "0001_first")]}
    )
    with branch("released", using=place), evolved.made({key: kind}):
        MigrationExecutor(connections[place]).migrate([key])
        yield


def said(seen: Rehearsal, *, is_grave: bool) -> str:
    return " ".join(
        verdict.rule for step in seen for verdict in step.verdicts if verdict.is_grave == is_grave
    )


def done(seen: Rehearsal) -> dict[str, Any]:
    """Return what the whole of it did, as a rule has it."""
    passages = [step.forwards for step in seen]
    return {
        # Of those on one table the last is the strongest.
        "locks": {lock.table: lock.mode for passage in passages for lock in passage.locks},
        "built": sum(len(passage.built) for passage in passages),
    } | {
        name: {*chain.from_iterable(getattr(passage, name) for passage in passages)}
        for name in ("rewritten", "scanned", "written", "gone", "required")
    }


def check_clean(seen: Rehearsal, remarks: str = "") -> None:
    assert not seen.hurts, seen
    assert said(seen, is_grave=False) == remarks
    for step in seen:
        passage = step.forwards
        assert not {A, B} & {*passage.rewritten}
        closed = {table for table, mode in passage.read_under.items() if mode in STOPS_WRITERS}
        assert not {table for table in closed if passage.scanned[table] >= ROWS}, seen


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in RULES.items()])
def test_what_is_warned_of_is_seen_to_hurt_and_what_is_safe_is_clean(rule: Rule, place: str) -> None:
    with released(place, rule.before):
        seen = rehearse("library", [rule.bad], using=place)
        assert seen.failure is None
        assert done(seen) == {name: getattr(rule, name) for name in done(seen)}
        assert (said(seen, is_grave=True), said(seen, is_grave=False)) == (rule.hurts, rule.remarks)
        assert seen.hurts == bool(rule.hurts)
        for step in seen:
            for table, rows in [*step.forwards.scanned.items(), *step.forwards.written.items()]:
                assert rows >= ROWS, table
        for table, mode in rule.locks.items():
            assert f"{mode} on {table}" in repr(seen)
        if rule.safe:
            check_clean(rehearse("library", rule.safe, using=place))
    if rule.later:
        (now,) = rule.safe
        with released(place, now.operations):
            check_clean(rehearse("library", rule.later, using=place), rule.still)


def test_every_rule_of_theirs_is_rehearsed_or_left_out_for_a_reason() -> None:
    here = {name for rule in RULES.values() for name in rule.of.split()}
    assert here | LEFT_OUT.keys() == {*STRONG, *LINTER}
    assert not here & LEFT_OUT.keys()
