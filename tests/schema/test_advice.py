"""What is said of operations that really ran, on tables with rows; the safe way that it names is run too."""

from __future__ import annotations

import ast
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import models as auth_models
from django.contrib.auth.models import Group
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import IntegerRangeField
from django.contrib.postgres.functions import RandomUUID
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
    ValidateConstraint,
)
from django.db import connections, models
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
    AlterUniqueTogether,
    CreateModel,
    DeleteModel,
    Migration,
    RemoveField,
    RemoveIndex,
    RenameField,
    RenameModel,
    RunPython,
    RunSQL,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.functions import Upper
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from tests.conftest import scratch
from tests.schema.places import run, settings_for
from workbench.schema.advice import MANY, verdicts
from workbench.schema.facts import Lock, Passage, Verdict
from workbench.schema.observe import Observer

LABEL, ROWS = "library", MANY + 100
AUTHOR, BOOK = "library_author", "library_book"
KEY = ("id", models.BigAutoField(primary_key=True))
TABLES: list[Operation] = [
    CreateModel(
        "Author",
        [
            KEY,
            ("name", models.CharField(max_length=100)),
            ("bio", models.TextField(blank=True)),
            ("born", models.IntegerField(null=True)),
        ],
    ),
    CreateModel(
        "Book",
        [
            KEY,
            ("title", models.CharField(max_length=200)),
            ("author", models.ForeignKey("library.Author", models.CASCADE)),
            ("year", models.IntegerField(null=True)),
        ],
    ),
]
ROWS_OF = (
    f"INSERT INTO {AUTHOR} (name, bio, born) SELECT 'No. ' || n, '', n FROM generate_series(1, {ROWS}) n",
    f"INSERT INTO {BOOK} (title, author_id, year) SELECT 'No. ' || id, id, id FROM {AUTHOR}",
)
BY_NAME = AddIndex("author", models.Index(fields=["name"], name="by_name"))
NAMED = models.CheckConstraint(condition=~models.Q(name=""), name="named")
HAS_BORN = models.CheckConstraint(condition=models.Q(born__isnull=False), name="has_born")
TO_AUTHOR: dict[str, Any] = {"to": "library.Author", "on_delete": models.CASCADE, "related_name": "+"}

KEY_NOT_VALID = RunSQL(
    f"ALTER TABLE {BOOK} ADD CONSTRAINT author_key FOREIGN KEY (author_id) REFERENCES {AUTHOR} NOT VALID",
    f"ALTER TABLE {BOOK} DROP CONSTRAINT author_key",
)


def shout(apps: Any, schema_editor: Any) -> None:
    apps.get_model("library", "Author").objects.using(schema_editor.connection.alias).update(bio="!")


def add_many(apps: Any, schema_editor: Any) -> None:
    author = apps.get_model("library", "Author")
    author.objects.using(schema_editor.connection.alias).bulk_create(
        author(name="x") for _ in range(2 * MANY)
    )


def in_batches(apps: Any, schema_editor: Any) -> None:
    rows = apps.get_model("library", "Author").objects.using(schema_editor.connection.alias).order_by("pk")
    for start in range(0, ROWS, 500):
        rows.filter(pk__in=list(rows.values_list("pk", flat=True)[start : start + 500])).update(bio="!")


@dataclass(frozen=True)
class Case:
    """A migration; the rules that speak of it, in order; those that still speak of each safe way."""

    operations: tuple[Operation, ...]
    rules: str = ""
    still: str = ""
    before: tuple[Operation, ...] = ()
    sql: tuple[str, ...] = ()
    # Operations of its own that the safe way follows.
    first: tuple[Operation, ...] = ()
    is_atomic: bool = True


def case(*operations: Operation, **options: Any) -> Case:
    return Case(operations, **options)


HURTS = {
    "another type": case(AlterField("author", "born", models.BigIntegerField(null=True)), rules="rewrite"),
    "another kind of type": case(AlterField("author", "born", models.TextField(null=True)), rules="rewrite"),
    "a shorter varchar": case(AlterField("author", "name", models.CharField(max_length=50)), rules="rewrite"),
    "another default in each row": case(
        AddField("author", "code", models.UUIDField(db_default=RandomUUID())), rules="rewrite"
    ),
    "a generated column": case(
        AddField(
            "author",
            "loud",
            models.GeneratedField(expression=Upper("name"), output_field=models.TextField(), db_persist=True),
        ),
        rules="rewrite",
    ),
    "a column that counts": case(
        RunSQL(f"ALTER TABLE {AUTHOR} ADD n bigserial", f"ALTER TABLE {AUTHOR} DROP n"), rules="rewrite"
    ),
    "CLUSTER": case(RunSQL(f"CLUSTER {AUTHOR} USING {AUTHOR}_pkey", RunSQL.noop), rules="rewrite"),
    "TRUNCATE": case(RunSQL(f"TRUNCATE {BOOK}", RunSQL.noop), rules="truncate"),
    "NOT NULL": case(AlterField("author", "born", models.IntegerField()), rules="scan"),
    "NOT NULL, with a default and NULLs": case(
        AlterField("author", "born", models.IntegerField(default=3)),
        rules="backfill",
        sql=(f"UPDATE {AUTHOR} SET born = NULL",),
    ),
    "NOT NULL, with a default that nobody can write down": case(
        AlterField("author", "born", models.IntegerField(default=lambda: 3)),
        rules="backfill",
        sql=(f"UPDATE {AUTHOR} SET born = NULL",),
    ),
    "NOT NULL, with a default of the database and no NULLs": case(
        AlterField("author", "born", models.IntegerField(db_default=3)), rules="scan"
    ),
    "NOT NULL, with a default of Django's, after a check": case(
        AlterField("author", "born", models.IntegerField(default=3)),
        rules="scan",
        before=(AddConstraint("author", HAS_BORN),),
    ),
    "a check": case(AddConstraint("author", NAMED), rules="scan"),
    "a column with a check": case(
        AddField("author", "age", models.PositiveIntegerField(null=True)), rules="scan"
    ),
    "a check of a type": case(
        AlterField("author", "born", models.PositiveIntegerField(null=True)), rules="scan"
    ),
    "validated where it was added": case(
        AddConstraintNotValid("author", NAMED),
        ValidateConstraint("author", "named"),
        rules="scan",
        first=(AddConstraintNotValid("author", NAMED),),
    ),
    "a foreign key, validated where it was added": case(
        KEY_NOT_VALID,
        ValidateConstraint("book", "author_key"),
        rules="scan",
        first=(KEY_NOT_VALID,),
    ),
    "an index": case(BY_NAME, rules="index"),
    "db_index": case(
        AlterField("author", "born", models.IntegerField(null=True, db_index=True)), rules="index"
    ),
    "an index of a new column": case(AddField("author", "slug", models.SlugField(null=True)), rules="index"),
    "indexes in SQL": case(
        RunSQL(
            f"-- Two.\nCREATE INDEX one ON {AUTHOR} (name);\nCREATE INDEX two ON {AUTHOR} (born);", "SELECT 1"
        ),
        rules="index",
    ),
    "REINDEX": case(RunSQL(f"REINDEX TABLE {AUTHOR}", RunSQL.noop), rules="index"),
    "a unique column": case(
        AlterField("author", "name", models.CharField(max_length=100, unique=True)), rules="index"
    ),
    "a new unique column": case(
        AddField("author", "code", models.IntegerField(null=True, unique=True)), rules="index"
    ),
    "unique together": case(AlterUniqueTogether("author", {("name", "born")}), rules="index"),
    "a unique constraint": case(
        AddConstraint(
            "author",
            models.UniqueConstraint(
                fields=["name"], name="once", nulls_distinct=False, deferrable=models.Deferrable.DEFERRED
            ),
        ),
        rules="index",
    ),
    "a unique constraint of some rows": case(
        AddConstraint(
            "author",
            models.UniqueConstraint(fields=["name"], name="once", condition=models.Q(born__gt=3)),
        ),
        rules="index",
    ),
    "an exclusion constraint": case(
        AddConstraint(
            "author",
            ExclusionConstraint(name="apart", index_type="SPGIST", expressions=[("years", "&&")]),
        ),
        rules="index",
        before=(AddField("author", "years", IntegerRangeField(null=True)),),  # type: ignore[misc]
    ),
    "a foreign key": case(
        AddField("book", "editor", models.ForeignKey(null=True, **TO_AUTHOR)), rules="foreign-key"
    ),
    "one to one": case(
        AddField("book", "twin", models.OneToOneField(null=True, **TO_AUTHOR)), rules="foreign-key"
    ),
    "a foreign key that is checked from now on": case(
        AlterField("book", "editor", models.ForeignKey(null=True, **TO_AUTHOR)),
        rules="foreign-key",
        before=(AddField("book", "editor", models.ForeignKey(null=True, db_constraint=False, **TO_AUTHOR)),),
    ),
    "a foreign key that may be NULL": case(
        AlterField("book", "author", models.ForeignKey(null=True, **TO_AUTHOR)), rules="foreign-key"
    ),
    "a foreign key that is NOT NULL": case(
        AlterField("book", "editor", models.ForeignKey(**TO_AUTHOR)),
        rules="foreign-key",
        before=(AddField("book", "editor", models.ForeignKey(null=True, **TO_AUTHOR)),),
        sql=(f"UPDATE {BOOK} SET editor_id = author_id",),
    ),
    "a foreign key that every row has": case(
        AddField("book", "editor", models.ForeignKey(default=1, **TO_AUTHOR)),
        rules="foreign-key required",
        still="foreign-key",
    ),
    "all rows in one transaction": case(RunPython(shout, RunPython.noop), rules="backfill"),
    "all rows in one statement of SQL": case(
        RunSQL(f"UPDATE {AUTHOR} SET bio = '!'", RunSQL.noop), rules="backfill"
    ),
    "all rows where something else has locked them": case(
        AddField("author", "age", models.IntegerField(null=True)),
        RunPython(shout, RunPython.noop),
        rules="backfill",
    ),
    "a column less": case(RemoveField("author", "bio"), rules="gone"),
    "a foreign key less": case(RemoveField("book", "author"), rules="gone"),
    "a column of another name": case(RenameField("author", "bio", "about"), rules="gone"),
    "a foreign key of another name": case(RenameField("book", "author", "writer"), rules="foreign-key gone"),
    "a table of another name": case(RenameModel("Author", "Writer"), rules="foreign-key gone"),
    "a table of another name, with many to many": case(
        RenameModel("Book", "Volume"),
        rules="gone",
        before=(AddField("book", "editors", models.ManyToManyField("library.Author", related_name="+")),),
    ),
    "db_table": case(AlterModelTable("author", "writers"), rules="gone"),
    "a table less": case(DeleteModel("Book"), rules="gone", still="one-way"),
    "a default that only Django knows": case(
        AddField("author", "country", models.CharField(max_length=10, default="?")), rules="required"
    ),
    "a default for the rows alone": case(
        AddField("author", "made", models.DateTimeField(auto_now_add=True, default=timezone.now), False),
        rules="required",
    ),
    "a default that is made anew": case(
        AddField("author", "code", models.UUIDField(default=uuid.uuid4)), rules="required"
    ),
    "a container": case(AddField("author", "facts", models.JSONField(default=dict)), rules="required"),
    "a column that the new code does not know": case(
        SeparateDatabaseAndState(state_operations=[RemoveField("author", "name")]), rules="left-behind"
    ),
    "a reference that the new code does not know": case(
        SeparateDatabaseAndState(state_operations=[DeleteModel("Book")]),
        rules="left-behind",
        still="one-way",
    ),
    "an operation inside another": case(SeparateDatabaseAndState([BY_NAME], [BY_NAME]), rules="index"),
    "an index less": case(RemoveIndex("author", "by_name"), rules="drop-index", before=(BY_NAME,)),
    "db_index no more": case(
        AlterField("author", "born", models.IntegerField(null=True)),
        rules="drop-index",
        still="one-way",
        before=(AlterField("author", "born", models.IntegerField(null=True, db_index=True)),),
    ),
    "json": case(
        RunSQL(f"ALTER TABLE {AUTHOR} ADD COLUMN facts json", f"ALTER TABLE {AUTHOR} DROP facts"),
        rules="json",
    ),
    "no way back": case(RunSQL("SELECT 1"), RunPython(RunPython.noop), rules="one-way one-way"),
}
BATCHES = RunPython(in_batches, RunPython.noop)
CLEAN = {
    "a column that may be NULL": case(AddField("author", "age", models.IntegerField(null=True))),
    "a default of the database": case(AddField("author", "age", models.IntegerField(db_default=3))),
    "a longer varchar": case(AlterField("author", "name", models.CharField(max_length=200))),
    "text": case(AlterField("author", "name", models.TextField())),
    "NULL again": case(
        AlterField("author", "born", models.IntegerField(null=True)),
        before=(AlterField("author", "born", models.IntegerField()),),
    ),
    "NOT NULL after a check": case(
        AlterField("author", "born", models.IntegerField()), before=(AddConstraint("author", HAS_BORN),)
    ),
    # It looks for NULLs first, while others may still do what they like.
    "NOT NULL after a check, with a default of the database": case(
        AlterField("author", "born", models.IntegerField(db_default=3)),
        before=(
            AlterField("author", "born", models.IntegerField(null=True, db_default=3)),
            AddConstraint("author", HAS_BORN),
        ),
    ),
    "many to many": case(AddField("book", "all", models.ManyToManyField("library.Author", related_name="+"))),
    "a table and what happens to it": case(
        CreateModel("Tag", [KEY, ("book", models.ForeignKey("library.Book", models.CASCADE))]),
        AddField("tag", "word", models.CharField(max_length=10, default="", unique=True)),
        AddIndex("tag", models.Index(fields=["book", "word"], name="by_book")),
        RenameField("tag", "word", "name"),
        DeleteModel("Tag"),
    ),
    "a column that comes and goes": case(
        AddField("author", "age", models.IntegerField(null=True)), RemoveField("author", "age")
    ),
    "indexes, concurrently": case(
        AddIndexConcurrently("author", BY_NAME.index),
        RemoveIndexConcurrently("author", "by_name"),
        is_atomic=False,
    ),
    "rows in batches": case(BATCHES, is_atomic=False),
    "rows that are added": case(RunPython(add_many, RunPython.noop)),
    "SQL that only asks": case(RunSQL("SELECT 1; SELECT 2", RunSQL.noop)),
}


@pytest.fixture(scope="module")
def place(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """The alias of a database of its own."""
    with scratch() as url, django_db_blocker.unblock():
        connections.databases["place"] = settings_for(url)
        yield "place"
        connections["place"].close()
        del connections["place"]
        del connections.databases["place"]


def fresh(place: str, migration: Case) -> ProjectState:
    run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", using=place)
    initial = Migration("0001_initial", LABEL)
    initial.operations = [*TABLES, *migration.before]  # type: ignore[misc]
    with connections[place].schema_editor() as editor:
        state = initial.apply(ProjectState(), editor)
    run(*ROWS_OF, *migration.sql, using=place)
    return state


def heard(
    place: str,
    state: ProjectState,
    operations: tuple[Operation, ...],
    *,
    is_atomic: bool = True,
    undone_from: ProjectState | None = None,
) -> list[Verdict]:
    """Run a migration from a state, which becomes the next, and return what is said of its operations.

    Or undo one, from the state that it led to.
    """
    is_backwards = undone_from is not None
    migration = Migration("0002_it", LABEL)
    migration.operations, migration.atomic = [*operations], is_atomic  # type: ignore[misc]
    known = {
        f"{model._meta.db_table}{column}"
        for model in (undone_from or state).apps.get_models(include_auto_created=True)
        for column in ("", *(f".{each.column}" for each in model._meta.local_fields))
    }
    connection = connections[place]
    with Observer(connection) as observer:
        observer.begin(is_felt=False)
        with observer.migration(migration), connection.schema_editor(atomic=is_atomic) as editor:
            (migration.unapply if is_backwards else migration.apply)(state, editor)
    return [
        verdict
        for each in observer.runs
        for verdict in verdicts(
            each.operation,
            LABEL,
            each.passage,
            known=known,
            state=each.before,
            after=each.after,
            is_backwards=is_backwards,
        )
    ]


def rules(found: list[Verdict]) -> str:
    return " ".join(verdict.rule for verdict in found)


def migrations_in(code: str) -> Iterator[tuple[tuple[Operation, ...], bool]]:
    """Run Python, and yield the operations of each class Migration in it, and whether they are atomic."""
    names: dict[str, Any] = {"__name__": "written"}
    for node in ast.parse(code).body:
        exec(compile(ast.Module([node], []), "written", "exec"), names)
        if isinstance(node, ast.ClassDef):
            yield tuple(names["Migration"].operations), names["Migration"].atomic


@pytest.mark.parametrize("name", HURTS)
def test_what_hurts_is_said_and_the_safe_way_runs_clean(name: str, place: str) -> None:
    """Each migration of the safe way is a deployment of its own: code runs that knows the one before."""
    hurts = HURTS[name]
    found = heard(place, fresh(place, hurts), hurts.operations, is_atomic=hurts.is_atomic)
    assert rules(found) == hurts.rules
    for verdict in found:
        for sentence in (verdict.hurts, verdict.instead):
            assert sentence.endswith(".")
            assert "  " not in sentence
            assert len(sentence) < 300
        compile(verdict.code, "written", "exec")
        if "class Migration" not in verdict.code:
            continue
        # What to do with the rows is for a person to say.
        code = verdict.code.replace("update(...)", "update(bio='?')")
        state = fresh(place, hurts)
        after = heard(place, state, hurts.first)
        for operations, is_atomic in migrations_in(code):
            for some in [operations] if is_atomic else [(each,) for each in operations]:
                after += heard(place, state, some, is_atomic=is_atomic)
        assert verdict.rule not in rules(after)
        assert rules(after) in ("", hurts.still)


BACK = {
    "another type": "rewrite",
    "an index": "drop-index",
    "a column less": "required",
    "a column of another name": "gone",
    "a table of another name": "foreign-key gone",
    "a foreign key that may be NULL": "foreign-key",
    "a default that only Django knows": "gone",
    "a column that the new code does not know": "",
    "an operation inside another": "drop-index",
    "all rows in one transaction": "",
}


@pytest.mark.parametrize("name", BACK)
def test_what_hurts_on_the_way_back_is_better_done_by_going_on(name: str, place: str) -> None:
    undone = HURTS[name]
    start = fresh(place, undone)
    end = start.clone()
    heard(place, end, undone.operations)
    found = heard(place, start, undone.operations, undone_from=end)
    assert rules(found) == BACK[name]
    assert all("go on rather than back" in verdict.instead and not verdict.code for verdict in found)


@pytest.mark.parametrize("name", CLEAN)
def test_of_what_hurts_nobody_nothing_is_said(name: str, place: str) -> None:
    clean = CLEAN[name]
    assert heard(place, fresh(place, clean), clean.operations, is_atomic=clean.is_atomic) == []


NOTHING = RunSQL("SELECT 1", RunSQL.noop)
LOCKED = (Lock(AUTHOR, "ACCESS EXCLUSIVE", 3.1),)
UPDATE = f"UPDATE {AUTHOR} SET bio = ''"
# What takes long, or is rare.
PASSAGES = {
    "a lock that is held for what comes after": (NOTHING, Passage(seconds=0.002, locks=LOCKED), "held"),
    "a lock that goes with its statement": (NOTHING, Passage(locks=LOCKED, is_atomic=False), ""),
    "a long lock for which nobody waits": (NOTHING, Passage(seconds=3.0, locks=LOCKED), ""),
    "a reader waits": (NOTHING, Passage(reader=1.5), "waits"),
    "a writer waits, and it was said why": (
        NOTHING,
        Passage(writer=1.5, rewritten=(AUTHOR,), locks=LOCKED, seconds=3.0),
        "rewrite",
    ),
    "all at once outside of a transaction": (
        NOTHING,
        Passage(sql=(UPDATE,), written={AUTHOR: 200_000}, is_atomic=False),
        "backfill",
    ),
    "batches in a transaction of their own": (
        RunPython(in_batches, RunPython.noop, atomic=True),
        Passage(sql=(f"{UPDATE}  -- 200 times",), written={AUTHOR: 200_000}, is_atomic=False),
        "backfill",
    ),
    "many small statements": (
        NOTHING,
        Passage(sql=(f"{UPDATE}  -- 1,000 times",), written={AUTHOR: 1_000_000}, is_atomic=False),
        "",
    ),
    "rows read before others were kept out": (
        NOTHING,
        Passage(locks=LOCKED, scanned={AUTHOR: 200_000}, read_under={AUTHOR: "ROW EXCLUSIVE"}, seconds=3.0),
        "",
    ),
    "an index built before others were kept out": (
        NOTHING,
        Passage(
            locks=LOCKED,
            built=("by_name",),
            scanned={AUTHOR: 200_000},
            read_under={AUTHOR: "SHARE UPDATE EXCLUSIVE"},
            seconds=3.0,
        ),
        "",
    ),
    "rows read while others were kept out": (
        NOTHING,
        Passage(
            locks=LOCKED, scanned={AUTHOR: 200_000}, read_under={AUTHOR: "ACCESS EXCLUSIVE"}, seconds=3.0
        ),
        "scan",
    ),
    "a few rows": (NOTHING, Passage(sql=(UPDATE,), written={AUTHOR: MANY}), ""),
    "rows added, and then changed": (
        NOTHING,
        Passage(sql=(f"INSERT INTO {AUTHOR} DEFAULT VALUES; {UPDATE}",), written={AUTHOR: MANY + 1}),
        "backfill",
    ),
    "Python that looks at a few rows": (BATCHES, Passage(locks=LOCKED, scanned={AUTHOR: 9}, seconds=3.0), ""),
    "what no running code asks for is gone": (NOTHING, Passage(gone=("old", "old.name")), ""),
    "names that Postgres quotes": (NOTHING, Passage(gone=('"Odd"', '"Odd"."Name"')), "gone"),
    "a table that is not there any more": (NOTHING, Passage(required=("new.name",)), ""),
}


@pytest.mark.parametrize("name", PASSAGES)
def test_what_is_said_follows_from_what_was_seen(name: str) -> None:
    operation, passage, expected = PASSAGES[name]
    known = {AUTHOR, "Odd", "Odd.Name"}
    state = ProjectState()
    found = verdicts(operation, LABEL, passage, known=known, state=state, after=state)
    assert rules(found) == expected


def of_this_file(apps: Any, schema_editor: Any) -> None:
    Group.objects.count()


def of_a_module(apps: Any, schema_editor: Any) -> Any:
    return [auth_models.Group.objects.count() for _ in range(2)]


def imported_inside(apps: Any, schema_editor: Any) -> None:
    from django.contrib.auth.models import Group as Everybody

    Everybody.objects.count()


def by_another(apps: Any, schema_editor: Any) -> None:
    (lambda: of_this_file(apps, schema_editor))()


@pytest.mark.parametrize("code", [of_this_file, of_a_module, imported_inside, by_another])
@pytest.mark.parametrize("is_back", [False, True])
def test_python_that_imports_models_is_a_remark(code: Any, is_back: bool) -> None:
    operation = RunPython(RunPython.noop, code) if is_back else RunPython(code, RunPython.noop)
    state = ProjectState()
    (said,) = verdicts(operation, LABEL, Passage(), known=(), state=state, after=state)
    assert (said.rule, said.is_grave) == ("live-models", False)
    assert "imports Group," in said.hurts
    assert "    Group = apps.get_model('auth', 'Group')" in said.code.splitlines()


def test_what_nobody_waits_for_is_not_grave() -> None:
    state = ProjectState()
    (said,) = verdicts(RunSQL("SELECT 1"), LABEL, Passage(), known=(), state=state, after=state)
    assert (said.rule, said.is_grave) == ("one-way", False)
