"""What an operation does in Postgres is said of empty copies of the tables; real tables with rows agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import connection, models, transaction
from django.db.migrations import Migration, RunPython
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from catalog.models import Author, Book
from tests.schema.test_evolve import AUTHOR, BOOK, adding, meta
from workbench.connection.locks import LOCK_MODES
from workbench.schema import evolve
from workbench.schema.effects import Effect, effects
from workbench.schema.evolve import Answers
from workbench.schema.history import history_of

A, B = "catalog_author", "catalog_book"
EXCLUSIVE, SHARE, SHARE_ROW, SHARE_UPDATE = (
    "ACCESS EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
)
POSTGRES = "from django.contrib.postgres.functions import RandomUUID\n\n\n"


@dataclass(frozen=True)
class Case:
    """A cell that makes one operation, and that does; ``before`` is what the class is before it."""

    cell: str
    locks: dict[str, str]
    rewritten: tuple[str, ...] = ()
    scanned: tuple[str, ...] = ()
    before: str = ""
    answers: Answers = Answers()  # noqa: RUF009


def renamed(cell: str) -> str:
    return cell.replace("Author", "Writer")


NULL_AGE = adding("age = models.IntegerField(null=True)")
# https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
CASES = {
    "a column that may be NULL": Case(NULL_AGE, {A: EXCLUSIVE}),
    "a column with a default for the rows": Case(
        adding("age = models.IntegerField(default=3)"), {A: EXCLUSIVE}
    ),
    "a column with a default of the database": Case(
        adding("age = models.IntegerField(db_default=3)"), {A: EXCLUSIVE}
    ),
    "a column with another default in each row": Case(
        POSTGRES + adding("code = models.UUIDField(db_default=RandomUUID())"), {A: EXCLUSIVE}, (A,), (A,)
    ),
    "a generated column": Case(
        adding(
            "loud = models.GeneratedField(expression=models.functions.Upper('name'), "
            "output_field=models.TextField(), db_persist=True)"
        ),
        {A: EXCLUSIVE},
        (A,),
        (A,),
    ),
    "a unique column": Case(
        adding("age = models.IntegerField(null=True, unique=True)"), {A: EXCLUSIVE}, scanned=(A,)
    ),
    "a foreign key": Case(
        adding("group = models.ForeignKey(Group, models.CASCADE, null=True)", to=BOOK),
        {"auth_group": SHARE_ROW, B: EXCLUSIVE},
        scanned=(B,),
    ),
    "a foreign key to itself": Case(
        adding("mentor = models.ForeignKey('self', models.CASCADE, null=True)"),
        {A: EXCLUSIVE},
        scanned=(A,),
    ),
    "many to many": Case(
        adding("groups = models.ManyToManyField(Group)"), {A: SHARE_ROW, "auth_group": SHARE_ROW}
    ),
    "a column less": Case(AUTHOR.replace("    bio = models.TextField(blank=True)\n", ""), {A: EXCLUSIVE}),
    "a column of another name": Case(
        AUTHOR.replace("bio", "about"), {A: EXCLUSIVE}, answers=Answers(renames={"Author.bio": "about"})
    ),
    "a table of another name": Case(
        renamed(AUTHOR + BOOK),
        {A: EXCLUSIVE, B: EXCLUSIVE},
        scanned=(B,),
        answers=Answers(renames={"Author": "Writer"}),
    ),
    "a table less": Case("", {A: EXCLUSIVE, B: EXCLUSIVE}, answers=Answers(removed=["Book"])),
    "a new table": Case("class Tag(models.Model):\n    name = models.TextField()\n", {}),
    "a wider column": Case(
        AUTHOR.replace("name = models.CharField(max_length=100", "name = models.CharField(max_length=200"),
        {A: EXCLUSIVE},
    ),
    "a column without a limit": Case(
        AUTHOR.replace("name = models.CharField(max_length=100)", "name = models.TextField()"), {A: EXCLUSIVE}
    ),
    "a narrower column": Case(
        AUTHOR.replace("name = models.CharField(max_length=100", "name = models.CharField(max_length=50"),
        {A: EXCLUSIVE},
        (A,),
        (A,),
    ),
    "larger numbers": Case(
        NULL_AGE.replace("IntegerField", "BigIntegerField"), {A: EXCLUSIVE}, (A,), (A,), before=NULL_AGE
    ),
    "no NULL any more": Case(
        NULL_AGE.replace("null=True", ""),
        {A: EXCLUSIVE},
        scanned=(A,),
        before=NULL_AGE,
        answers=Answers(backfilled=["Author.age"]),
    ),
    "a value instead of NULL": Case(
        NULL_AGE.replace("null=True", "default=3"), {A: EXCLUSIVE}, scanned=(A,), before=NULL_AGE
    ),
    "NULL again": Case(NULL_AGE, {A: EXCLUSIVE}, before=adding("age = models.IntegerField(default=3)")),
    "an index of a column": Case(
        AUTHOR.replace("auto_now_add=True", "auto_now_add=True, db_index=True"), {A: SHARE}, scanned=(A,)
    ),
    "an index": Case(
        meta("indexes = [models.Index(fields=['name'], name='by_name')]"), {A: SHARE}, scanned=(A,)
    ),
    "an index less": Case(
        meta("indexes = []"),
        {A: EXCLUSIVE},
        before=meta("indexes = [models.Index(fields=['name'], name='by_name')]"),
    ),
    "a unique constraint": Case(
        meta("constraints = [models.UniqueConstraint(fields=['id', 'name'], name='once')]"),
        {A: EXCLUSIVE},
        scanned=(A,),
    ),
    "a check": Case(
        meta("constraints = [models.CheckConstraint(condition=~models.Q(name=''), name='named')]"),
        {A: EXCLUSIVE},
        scanned=(A,),
    ),
    "a comment": Case(meta("db_table_comment = 'who writes'"), {A: SHARE_UPDATE}),
    "an option that is Django's alone": Case(meta("ordering = ['name']"), {}),
}


@cache
def one(name: str) -> tuple[Effect, Operation, ProjectState]:
    """Return what the cell's operation does, the operation, and the models before it."""
    case = CASES[name]
    before = evolve("catalog", case.before) if case.before else None
    evolution = evolve("catalog", case.cell, start=before, answers=case.answers, namespace={"Group": Group})
    (step,) = evolution.steps
    (effect,) = step.effects
    (operation,) = step.migration.operations
    start = before.point if before else history_of(connection).now()
    return effect, operation, start.state


@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES)
def test_an_operation_says_what_it_locks_rewrites_and_reads(case: str) -> None:
    expected = CASES[case]
    found, _, _ = one(case)
    assert (found.locks, found.rewritten, found.scanned) == (
        expected.locks,
        expected.rewritten,
        expected.scanned,
    )
    assert found.is_known
    assert found.is_reversible
    assert found.loses == case.endswith(("column less", "table less"))
    assert ("updates rows" in found.said[3]) == (case == "a value instead of NULL")


TABLES = """
SELECT c.oid, c.relname, pg_relation_filenode(c.oid), coalesce(s.seq_scan, 0)
FROM pg_class c LEFT JOIN pg_stat_xact_all_tables s ON s.relid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
"""
LOCKS = "SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid()"


def rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def run(operation: Operation, state: ProjectState) -> ProjectState:
    after = state.clone()
    operation.state_forwards("catalog", after)
    with connection.schema_editor(atomic=False) as editor:
        operation.database_forwards("catalog", editor, state, after)
    return after


def observed(name: str) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Run the operation on the real tables in a transaction, look, and take it all back."""
    case = CASES[name]
    _, operation, state = one(name)
    steps = evolve("catalog", case.before).steps if case.before else ()
    start = history_of(connection).now().state.clone()
    with transaction.atomic():
        if steps:
            run(steps[0].migration.operations[0], start)
        if case.answers.backfilled:
            rows("UPDATE catalog_author SET age = 3 RETURNING id")
        before = {oid: (name, file, scans) for oid, name, file, scans in rows(TABLES)}
        run(operation, state.clone())
        now = {oid: (file, scans) for oid, _, file, scans in rows(TABLES)}
        locks = sorted(rows(LOCKS), key=lambda row: LOCK_MODES.index(row[1]))
        transaction.set_rollback(True)
    there = sorted((*before[oid], *now[oid]) for oid in before.keys() & now.keys())
    strongest = {before[oid][0]: mode for oid, mode in locks if oid in before}
    said = {name: re.sub("(?=[A-Z])", " ", mode.removesuffix("Lock")) for name, mode in strongest.items()}
    return (
        {name: mode.strip().upper() for name, mode in sorted(said.items())},
        tuple(name for name, file, _, file_now, _ in there if file != file_now),
        tuple(name for name, _, scans, _, scans_now in there if scans_now > scans),
    )


@pytest.mark.django_db(transaction=True)
def test_real_tables_with_rows_agree() -> None:
    """In one test: the tables are emptied after each."""
    group = Group.objects.create(name="readers")
    for number in range(50):
        author = Author.objects.create(name=f"No. {number}", bio="long" * 100)
        Book.objects.create(title="x", author=author)
    assert group.pk
    wrong = {}
    for name, case in CASES.items():
        scanned = case.scanned
        if name == "a table of another name":
            # Where there are rows, the new key is checked by a join.
            scanned = (A, B)
        found, expected = observed(name), (case.locks, case.rewritten, scanned)
        if found != expected:
            wrong[name] = found
    assert wrong == {}


@pytest.mark.django_db
def test_a_check_that_is_validated_later_locks_less() -> None:
    point = history_of(connection).now()
    check = models.CheckConstraint(condition=~models.Q(name=""), name="named")
    migration = Migration("0003_named", "catalog")
    migration.operations = [  # type: ignore[misc]
        AddConstraintNotValid("author", check),
        ValidateConstraint("author", "named"),
    ]
    touched = point.models("catalog").values()
    added, validated = effects(connection, point.state.clone(), migration, touched)
    assert (added.locks, added.scanned) == ({A: EXCLUSIVE}, ())
    assert (validated.locks, validated.scanned) == ({A: SHARE_UPDATE}, (A,))


@pytest.mark.django_db
def test_python_is_not_run_and_says_what_it_cannot_know() -> None:
    ran = []
    point = history_of(connection).now()
    migration = Migration("0003_python", "catalog")
    migration.operations = [RunPython(lambda *_: ran.append(1))]  # type: ignore[misc]
    (effect,) = effects(connection, point.state.clone(), migration, ())
    assert (effect.is_known, effect.is_reversible, ran) == (False, False, [])
    assert effect.said == ["Run <lambda>()", "runs Python", "", "", "irreversible"]


@pytest.mark.django_db
def test_operations_build_on_one_another_and_names_need_not_be_free_outside() -> None:
    """The tables are temporary: nothing of the real ones is touched, or in the way."""
    before = [row[:3] for row in rows(TABLES)]
    cell = AUTHOR.replace("bio", "about") + meta(
        "indexes = [models.Index(fields=['about'], name='on_about')]", to=""
    )
    (step,) = evolve("catalog", cell, answers=Answers(renames={"Author.bio": "about"})).steps
    assert [effect.locks for effect in step.effects] == [{A: EXCLUSIVE}, {A: SHARE}]
    assert step.sql.count("ALTER TABLE") == 1
    assert [row[:3] for row in rows(TABLES)] == before
