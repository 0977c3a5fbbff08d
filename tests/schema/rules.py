"""What strong_migrations and django-migration-linter warn of, as migrations of Django, and what these do.

strong_migrations calls its rules by keys (lib/strong_migrations/error_messages.rb; those for Postgres are
here, and what its README alone has), django-migration-linter by codes in capitals
(docs/incompatibilities.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import IntegerRangeField
from django.contrib.postgres.functions import RandomUUID
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
    ValidateConstraint,
)
from django.db import models
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
    DeleteModel,
    Migration,
    RemoveConstraint,
    RemoveField,
    RemoveIndex,
    RenameField,
    RenameModel,
    RunPython,
    RunSQL,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.models.functions import Upper

STRONG = """
add_check_constraint add_column_auto_incrementing add_column_default add_column_default_callable
add_column_generated_stored add_column_json add_exclusion_constraint add_foreign_key add_index
add_index_columns add_index_corruption add_reference add_unique_constraint backfilling_data change_column
change_column_constraint change_column_default change_column_null change_column_null_postgresql
change_column_with_not_null change_table create_table execute remove_column remove_index rename_column
rename_schema rename_table validate_check_constraint validate_foreign_key
""".split()
LINTER = """
ADD_UNIQUE ALTER_COLUMN CREATE_INDEX CREATE_INDEX_EXCLUSIVE DROP_COLUMN DROP_INDEX DROP_TABLE NOT_NULL REINDEX
RENAME_COLUMN RENAME_TABLE RUNPYTHON_ARGS_NAMING_CONVENTION RUNPYTHON_MODEL_IMPORT
RUNPYTHON_MODEL_VARIABLE_NAME RUNPYTHON_REVERSIBLE RUNSQL_REVERSIBLE
""".split()
LEFT_OUT = {
    "create_table": "Django has no option that drops a table of the same name",
    "change_column_default": "Active Record leaves what it takes for the default out of an INSERT",
    "rename_schema": "Django's own table of migrations would go along",
    "change_table": "its block is Active Record's; what cannot be inspected is SQL here",
    "add_index_corruption": "only in Postgres 14.0 to 14.3",
    "add_index_columns": "whether an index is of use is not seen by building it",
    "RUNPYTHON_ARGS_NAMING_CONVENTION": "a name is not seen by running it",
    "RUNPYTHON_MODEL_VARIABLE_NAME": "a name is not seen by running it",
}

A, B = "library_author", "library_book"
A_WHOLE = {A, f"{A}_pkey"}
# The locks: the first keeps readers out and writers, the next two writers, the last nobody.
X, SRX, S, RX = "ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE", "ROW EXCLUSIVE"
BATCH = 10_000


def step(*operations: Operation, atomic: bool = True) -> type[Migration]:
    return type("Migration", (Migration,), {"operations": operations, "atomic": atomic})


@dataclass(frozen=True)
class Rule:
    """A migration that is warned of, where ``before`` was applied, and the migrations to have instead.

    ``of`` names the rules that it stands for. Then what it does, as tables, indexes, columns, and what is
    said of it: rules that are grave, and remarks. ``safe`` is one release, ``later`` comes after that, when
    all code knows it; ``still`` are remarks that hold of them.
    """

    of: str
    bad: type[Migration]
    hurts: str = ""
    remarks: str = ""
    before: Sequence[Operation] = ()
    locks: dict[str, str] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)
    built: int = 0
    scanned: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    required: set[str] = field(default_factory=set)
    safe: Sequence[type[Migration]] = ()
    later: Sequence[type[Migration]] = ()
    still: str = ""


def filled(**values: Any) -> type[Migration]:
    """Give all authors values, so many at a time that nobody waits for long."""

    def fill(apps: Any, schema_editor: Any) -> None:
        rows = apps.get_model("library", "Author").objects.using(schema_editor.connection.alias)
        last = rows.order_by("pk").last()
        for start in range(0, last.pk + 1 if last else 0, BATCH):
            rows.filter(pk__gte=start, pk__lt=start + BATCH).update(**values)

    return step(RunPython(fill, RunPython.noop), atomic=False)


def fill_at_once(apps: Any, schema_editor: Any) -> None:
    apps.get_model("library", "Author").objects.using(schema_editor.connection.alias).update(bio="?")


def imports_a_model(apps: Any, schema_editor: Any) -> None:
    from django.contrib.auth.models import Group

    str(Group)


def asks_for_a_model(apps: Any, schema_editor: Any) -> None:
    apps.get_model("library", "Author")


def to_author(**options: Any) -> models.ForeignKey[Any, Any]:
    return models.ForeignKey("library.Author", models.CASCADE, related_name="+", **options)


AT_ONCE = RunPython(fill_at_once, RunPython.noop)
AGE = AddField("author", "age", models.IntegerField(null=True))
BY_NAME = models.Index(fields=["name"], name="by_name")
NAMED = models.CheckConstraint(condition=~models.Q(name=""), name="named")
HAS_BORN = models.CheckConstraint(condition=models.Q(born__isnull=False), name="has_born")
HAS_CODE = models.CheckConstraint(condition=models.Q(code__isnull=False), name="has_code")
HAS_MOTTO = models.CheckConstraint(condition=models.Q(motto__isnull=False), name="has_motto")
ONCE = models.UniqueConstraint(fields=["name"], name="once")
BIO_GOES = SeparateDatabaseAndState(state_operations=[RemoveField("author", "bio")])
BOOK_GOES = SeparateDatabaseAndState(state_operations=[DeleteModel("Book")])
EDITOR_ALONE = AddField("book", "editor", to_author(null=True, db_constraint=False, db_index=False))
EDITOR_KEY = RunSQL(
    f"ALTER TABLE {B} ADD CONSTRAINT editor_key FOREIGN KEY (editor_id) REFERENCES {A} NOT VALID",
    f"ALTER TABLE {B} DROP CONSTRAINT editor_key",
    state_operations=[AlterField("book", "editor", to_author(null=True))],
)

RULES = {
    "removing a column": Rule(
        of="remove_column DROP_COLUMN",
        bad=step(RemoveField("author", "bio")),
        locks={A: X},
        gone={f"{A}.bio"},
        hurts="gone",
        safe=[step(AlterField("author", "bio", models.TextField(null=True)), BIO_GOES)],
        later=[step(RunSQL(f"ALTER TABLE {A} DROP bio", f"ALTER TABLE {A} ADD bio text"))],
    ),
    "dropping a table": Rule(
        of="DROP_TABLE",
        bad=step(DeleteModel("Book")),
        locks={A: X, B: X},
        gone={B},
        hurts="gone",
        safe=[step(AlterField("book", "author", to_author(db_constraint=False)), BOOK_GOES)],
        later=[step(RunSQL(f"DROP TABLE {B}"))],
        still="one-way",
    ),
    "changing the type of a column": Rule(
        of="change_column ALTER_COLUMN",
        bad=step(AlterField("author", "born", models.BigIntegerField(null=True))),
        locks={A: X},
        rewritten=A_WHOLE,
        scanned={A},
        hurts="rewrite",
        safe=[
            step(AddField("author", "born_new", models.BigIntegerField(null=True))),
            filled(born_new=models.F("born")),
        ],
    ),
    "a shorter varchar, where a longer one is free": Rule(
        of="change_column ALTER_COLUMN",
        bad=step(AlterField("author", "name", models.CharField(max_length=50))),
        locks={A: X},
        rewritten=A_WHOLE,
        scanned={A},
        hurts="rewrite",
        safe=[
            step(AlterField("author", "name", models.CharField(max_length=200))),
            step(AlterField("author", "name", models.TextField())),
        ],
    ),
    "changing the type of a column that a check looks at": Rule(
        of="change_column_constraint",
        before=[AddConstraint("author", NAMED)],
        bad=step(AlterField("author", "name", models.CharField(max_length=200))),
        locks={A: X},
        scanned={A},
        hurts="scan",
        safe=[
            step(
                RemoveConstraint("author", "named"),
                AlterField("author", "name", models.CharField(max_length=200)),
                AddConstraintNotValid("author", NAMED),
            ),
            step(ValidateConstraint("author", "named")),
        ],
    ),
    "changing the type of a column, and NOT NULL": Rule(
        of="change_column_with_not_null",
        before=[AddField("author", "motto", models.CharField(max_length=9, null=True, db_default=""))],
        bad=step(AlterField("author", "motto", models.TextField(db_default=""))),
        locks={A: X},
        scanned={A},
        hurts="scan",
        safe=[
            step(AlterField("author", "motto", models.TextField(null=True, db_default=""))),
            step(AddConstraintNotValid("author", HAS_MOTTO)),
            step(ValidateConstraint("author", "has_motto")),
            step(
                AlterField("author", "motto", models.TextField(db_default="")),
                RemoveConstraint("author", "has_motto"),
            ),
        ],
    ),
    "renaming a column": Rule(
        of="rename_column RENAME_COLUMN",
        bad=step(RenameField("author", "bio", "about")),
        locks={A: X},
        gone={f"{A}.bio"},
        required={f"{A}.about"},
        hurts="gone",
        safe=[
            step(
                AlterField("author", "bio", models.TextField(blank=True, db_column="bio")),
                RenameField("author", "bio", "about"),
            )
        ],
    ),
    "renaming a table": Rule(
        of="rename_table RENAME_TABLE",
        bad=step(RenameModel("Author", "Writer")),
        locks={A: X, B: X},
        scanned={"library_writer", B},
        gone={A},
        hurts="foreign-key gone",
        safe=[step(AlterModelTable("Author", A), RenameModel("Author", "Writer"))],
    ),
    "a column that counts": Rule(
        of="add_column_auto_incrementing",
        bad=step(RunSQL(f"ALTER TABLE {A} ADD number bigserial", f"ALTER TABLE {A} DROP number")),
        locks={A: X},
        rewritten=A_WHOLE,
        scanned={A},
        hurts="rewrite",
        safe=[
            step(
                AddField("author", "number", models.BigIntegerField(null=True)),
                RunSQL(
                    f"CREATE SEQUENCE numbers OWNED BY {A}.number; "
                    f"ALTER TABLE {A} ALTER number SET DEFAULT nextval('numbers')",
                    f"ALTER TABLE {A} ALTER number DROP DEFAULT; DROP SEQUENCE numbers",
                ),
            ),
            filled(number=models.Func(models.Value("numbers"), function="nextval")),
        ],
    ),
    "a stored generated column": Rule(
        of="add_column_generated_stored",
        bad=step(
            AddField(
                "author",
                "loud",
                models.GeneratedField(
                    expression=Upper("name"), output_field=models.TextField(), db_persist=True
                ),
            )
        ),
        locks={A: X},
        rewritten=A_WHOLE,
        scanned={A},
        hurts="rewrite",
        safe=[step(AddField("author", "loud", models.TextField(null=True))), filled(loud=Upper("name"))],
    ),
    "a column with a volatile default, where a constant one is free": Rule(
        of="add_column_default add_column_default_callable",
        bad=step(AddField("author", "code", models.UUIDField(db_default=RandomUUID()))),
        locks={A: X},
        rewritten=A_WHOLE,
        scanned={A},
        hurts="rewrite",
        safe=[
            step(
                AddField("author", "code", models.UUIDField(null=True)),
                AlterField("author", "code", models.UUIDField(null=True, db_default=RandomUUID())),
            ),
            filled(code=RandomUUID()),
            step(AddConstraintNotValid("author", HAS_CODE)),
            step(ValidateConstraint("author", "has_code")),
            step(
                AlterField("author", "code", models.UUIDField(db_default=RandomUUID())),
                RemoveConstraint("author", "has_code"),
            ),
            step(AddField("author", "rank", models.IntegerField(db_default=3))),
        ],
    ),
    "a column with a default that only Django knows": Rule(
        of="NOT_NULL",
        bad=step(AddField("author", "country", models.CharField(max_length=9, default="?"))),
        locks={A: X},
        required={f"{A}.country"},
        hurts="required",
        safe=[
            step(AddField("author", "country", models.CharField(max_length=9, default="?", db_default="?")))
        ],
    ),
    "a json column": Rule(
        of="add_column_json",
        bad=step(RunSQL(f"ALTER TABLE {A} ADD facts json", f"ALTER TABLE {A} DROP facts")),
        locks={A: X},
        remarks="json",
        safe=[step(AddField("author", "facts", models.JSONField(null=True)))],
    ),
    "NOT NULL": Rule(
        of="change_column_null_postgresql NOT_NULL",
        bad=step(AlterField("author", "born", models.IntegerField())),
        locks={A: X},
        scanned={A},
        required={f"{A}.born"},
        hurts="scan",
        safe=[
            step(AddConstraintNotValid("author", HAS_BORN)),
            step(ValidateConstraint("author", "has_born")),
            step(AlterField("author", "born", models.IntegerField()), RemoveConstraint("author", "has_born")),
        ],
    ),
    "NOT NULL, and a default for the rows without": Rule(
        of="change_column_null",
        before=[RunSQL(f"UPDATE {A} SET born = NULL")],
        bad=step(AlterField("author", "born", models.IntegerField(default=3))),
        locks={A: X},
        scanned={A},
        written={A},
        required={f"{A}.born"},
        hurts="backfill",
        safe=[
            filled(born=3),
            step(AddConstraintNotValid("author", HAS_BORN)),
            step(ValidateConstraint("author", "has_born")),
            step(
                RunSQL(
                    f"ALTER TABLE {A} ALTER born SET NOT NULL",
                    f"ALTER TABLE {A} ALTER born DROP NOT NULL",
                    state_operations=[AlterField("author", "born", models.IntegerField(default=3))],
                ),
                RemoveConstraint("author", "has_born"),
            ),
        ],
    ),
    "a check": Rule(
        of="add_check_constraint",
        bad=step(AddConstraint("author", NAMED)),
        locks={A: X},
        scanned={A},
        hurts="scan",
        safe=[step(AddConstraintNotValid("author", NAMED)), step(ValidateConstraint("author", "named"))],
    ),
    "a check, validated where it was added": Rule(
        of="validate_check_constraint",
        bad=step(AddConstraintNotValid("author", NAMED), ValidateConstraint("author", "named")),
        locks={A: X},
        scanned={A},
        hurts="scan",
        safe=[step(AddConstraintNotValid("author", NAMED)), step(ValidateConstraint("author", "named"))],
    ),
    "a foreign key": Rule(
        of="add_reference add_foreign_key",
        bad=step(AddField("book", "editor", to_author(null=True))),
        locks={A: SRX, B: X},
        scanned={B},
        built=1,
        hurts="foreign-key",
        safe=[
            step(EDITOR_ALONE),
            step(
                RunSQL(
                    f"CREATE INDEX CONCURRENTLY by_editor ON {B} (editor_id)",
                    "DROP INDEX CONCURRENTLY by_editor",
                ),
                atomic=False,
            ),
            step(EDITOR_KEY),
            step(ValidateConstraint("book", "editor_key")),
        ],
    ),
    "a foreign key of a column that is there": Rule(
        of="add_foreign_key",
        before=[AddField("book", "editor", to_author(null=True, db_constraint=False))],
        bad=step(AlterField("book", "editor", to_author(null=True))),
        locks={A: SRX, B: SRX},
        scanned={B},
        hurts="foreign-key",
        safe=[step(EDITOR_KEY), step(ValidateConstraint("book", "editor_key"))],
    ),
    "a foreign key, validated where it was added": Rule(
        of="validate_foreign_key",
        before=[EDITOR_ALONE],
        bad=step(EDITOR_KEY, ValidateConstraint("book", "editor_key")),
        locks={A: SRX, B: SRX},
        scanned={B},
        hurts="scan",
        safe=[step(EDITOR_KEY), step(ValidateConstraint("book", "editor_key"))],
    ),
    "an index": Rule(
        of="add_index CREATE_INDEX",
        bad=step(AddIndex("author", BY_NAME)),
        locks={A: S},
        scanned={A},
        built=1,
        hurts="index",
        safe=[step(AddIndexConcurrently("author", BY_NAME), atomic=False)],
    ),
    "an index where the table was altered before": Rule(
        of="CREATE_INDEX_EXCLUSIVE",
        bad=step(AGE, AddIndex("author", BY_NAME)),
        locks={A: X},
        scanned={A},
        built=1,
        hurts="index",
        safe=[step(AGE), step(AddIndexConcurrently("author", BY_NAME), atomic=False)],
    ),
    "removing an index": Rule(
        of="remove_index DROP_INDEX",
        before=[AddIndex("author", BY_NAME)],
        bad=step(RemoveIndex("author", "by_name")),
        locks={A: X},
        remarks="drop-index",
        safe=[step(RemoveIndexConcurrently("author", "by_name"), atomic=False)],
    ),
    "building the indexes anew": Rule(
        of="REINDEX",
        bad=step(RunSQL(f"REINDEX TABLE {A}", RunSQL.noop)),
        locks={A: S},
        rewritten={f"{A}_pkey"},
        scanned={A},
        hurts="index",
        safe=[step(RunSQL(f"REINDEX TABLE CONCURRENTLY {A}", RunSQL.noop), atomic=False)],
    ),
    "a unique constraint": Rule(
        of="add_unique_constraint ADD_UNIQUE",
        bad=step(AddConstraint("author", ONCE)),
        locks={A: X},
        scanned={A},
        built=1,
        hurts="index",
        safe=[
            step(
                RunSQL(
                    f"CREATE UNIQUE INDEX CONCURRENTLY once ON {A} (name)",
                    "DROP INDEX CONCURRENTLY IF EXISTS once",
                ),
                RunSQL(
                    f"ALTER TABLE {A} ADD CONSTRAINT once UNIQUE USING INDEX once",
                    f"ALTER TABLE {A} DROP CONSTRAINT once",
                    state_operations=[AddConstraint("author", ONCE)],
                ),
                atomic=False,
            )
        ],
    ),
    # For which there is no safe way.
    "an exclusion constraint": Rule(
        of="add_exclusion_constraint",
        before=[AddField("author", "years", IntegerRangeField(null=True))],  # type: ignore[misc]
        bad=step(
            AddConstraint(
                "author",
                ExclusionConstraint(name="apart", index_type="SPGIST", expressions=[("years", "&&")]),
            )
        ),
        locks={A: X},
        scanned={A},
        built=1,
        hurts="index",
    ),
    "all rows in one transaction": Rule(
        of="backfilling_data",
        bad=step(AT_ONCE),
        locks={A: RX},
        scanned={A},
        written={A},
        hurts="backfill",
        safe=[filled(bio="?")],
    ),
    "all rows in SQL": Rule(
        of="execute",
        bad=step(RunSQL(f"UPDATE {A} SET bio = '?'", RunSQL.noop)),
        locks={A: RX},
        scanned={A},
        written={A},
        hurts="backfill",
        safe=[filled(bio="?")],
    ),
    "all rows where the table was altered before": Rule(
        of="backfilling_data",
        bad=step(AGE, AT_ONCE),
        locks={A: X},
        scanned={A},
        written={A},
        hurts="backfill",
        safe=[step(AGE), filled(bio="?")],
    ),
    "Python without a way back": Rule(
        of="RUNPYTHON_REVERSIBLE",
        bad=step(RunPython(asks_for_a_model)),
        remarks="one-way",
        safe=[step(RunPython(asks_for_a_model, RunPython.noop))],
    ),
    "SQL without a way back": Rule(
        of="RUNSQL_REVERSIBLE",
        bad=step(RunSQL("SELECT 1")),
        remarks="one-way",
        safe=[step(RunSQL("SELECT 1", RunSQL.noop))],
    ),
    "Python that imports a model": Rule(
        of="RUNPYTHON_MODEL_IMPORT",
        bad=step(RunPython(imports_a_model, RunPython.noop)),
        remarks="live-models",
        safe=[step(RunPython(asks_for_a_model, RunPython.noop))],
    ),
}
