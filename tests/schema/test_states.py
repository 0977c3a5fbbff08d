"""``states``: classes, files, records and tables side by side; what it advises to mend them, mends them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.apps import apps
from django.db import models

from catalog.models import Author
from tests.schema.places import app, migrate, run
from workbench.schema import SchemaError, models_at, snapshot, states, timeline
from workbench.schema.states import States

Install = Callable[..., None]

CLASSES = """
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import IntegerRangeField

class Account(models.Model):
    name = models.CharField(max_length=20, unique=True)
    sorted = models.CharField(max_length=20, db_collation="C")
    number = models.IntegerField(db_default=3)
    double = models.GeneratedField(
        expression=models.F("number") * 2, output_field=models.IntegerField(), db_persist=True
    )
    span = IntegerRangeField()
    small = models.SmallIntegerField(null=True)

    class Meta:
        indexes = [models.Index(fields=["small"], name="account_small")]
        constraints = [
            models.CheckConstraint(name="account_positive", condition=models.Q(number__gt=0)),
            models.UniqueConstraint(name="account_once", fields=["number"]),
            models.UniqueConstraint(name="account_some", fields=["number"], condition=models.Q(small=1)),
            ExclusionConstraint(name="account_apart", expressions=[("span", "&&")]),
        ]

class Entry(models.Model):
    account = models.ForeignKey(Account, models.CASCADE)
    note = models.TextField(db_column="Note, of it")

    class Meta:
        db_table = 'books"."entry'
"""
# What makemigrations makes of the classes, without a line of it written here.
FIRST = """
initial = True
operations = [
    migrations.RunSQL("CREATE SCHEMA books", "DROP SCHEMA books"),
    migrations.CreateModel(
        "Account",
        [
            ("id", models.BigAutoField("ID", auto_created=True, primary_key=True, serialize=False)),
            ("name", models.CharField(max_length=20, unique=True)),
            ("sorted", models.CharField(max_length=20, db_collation="C")),
            ("number", models.IntegerField(db_default=3)),
            (
                "double",
                models.GeneratedField(
                    expression=models.F("number") * 2, output_field=models.IntegerField(), db_persist=True
                ),
            ),
            ("span", IntegerRangeField()),
            ("small", models.SmallIntegerField(null=True)),
        ],
        options={
            "indexes": [models.Index(fields=["small"], name="account_small")],
            "constraints": [
                models.CheckConstraint(name="account_positive", condition=models.Q(number__gt=0)),
                models.UniqueConstraint(name="account_once", fields=["number"]),
                models.UniqueConstraint(name="account_some", fields=["number"], condition=models.Q(small=1)),
                ExclusionConstraint(name="account_apart", expressions=[("span", "&&")]),
            ],
        },
    ),
    migrations.CreateModel(
        "Entry",
        [
            ("id", models.BigAutoField("ID", auto_created=True, primary_key=True, serialize=False)),
            ("account", models.ForeignKey("ledger.account", models.CASCADE)),
            ("note", models.TextField(db_column="Note, of it")),
        ],
        options={"db_table": 'books"."entry'},
    ),
]
"""


@pytest.fixture
def install(db: None, tmp_path: Path) -> Iterator[Install]:
    """Install an app called ledger."""
    with ExitStack() as stack:
        yield lambda classes, migrations: stack.enter_context(app(tmp_path, "ledger", classes, migrations))


@pytest.fixture
def ledger(install: Install) -> None:
    """An app that has everything, migrated."""
    install(CLASSES, {"0001_first": FIRST})
    migrate("ledger", "0001_first")


def said(found: States) -> list[str]:
    return [str(each) for each in found.disagreements]


@pytest.mark.parametrize(
    ("app_label", "words"),
    [
        ("catalo", "No app 'catalo' is installed: did you mean catalog?"),
        ("messages", "The app messages has no migrations: its models have one state only."),
        ("django.contrib.auth", "No app 'django.contrib.auth' is installed"),
    ],
)
def test_an_app_that_cannot_be_compared_is_said_in_a_sentence(db: None, app_label: str, words: str) -> None:
    with pytest.raises(SchemaError) as raised:
        states(app_label)
    assert str(raised.value).startswith(words)


@pytest.mark.parametrize("label", ["catalog", "auth", "admin", "contenttypes", "sessions"])
def test_after_migrate_all_four_agree(db: None, label: str) -> None:
    found = states(label)
    assert said(found) == []
    assert not found
    assert repr(found).endswith("All four agree.")
    assert " ! " not in repr(found)


def test_an_app_with_everything_agrees(ledger: None) -> None:
    assert said(states("ledger")) == []


def test_the_four_stand_side_by_side(db: None) -> None:
    run("ALTER TABLE catalog_author ADD extra int, ALTER bio DROP NOT NULL")
    lines = [line.split() for line in repr(states("catalog")).splitlines()]
    assert ["!", "extra", "—", "—", "—", "integer"] in lines
    assert ["!", "bio", "text", "NOT", "NULL", "″", "″", "text"] in lines
    assert ["name", "varchar(100)", "NOT", "NULL", "″", "″", "″"] in lines


# Files and records.


def test_what_is_not_applied_is_named_with_the_command_for_it(db: None) -> None:
    migrate("catalog", "0001_initial")
    found = states("catalog")
    assert said(found) == [
        "Not applied: 0002_author_country. "
        "%manage migrate catalog 0002_author_country brings the database there."
    ]
    assert found.at == ("as loaded", "0002_author_country", "0001_initial", "as they are")
    migrate("catalog", "0002_author_country")
    assert not states("catalog")


def test_before_the_first_migration_everything_is_still_to_be_applied(db: None) -> None:
    migrate("catalog", None)
    found = states("catalog")
    assert found.at[2] == "zero"
    assert said(found)[0].startswith("Not applied: 0001_initial, 0002_author_country.")
    assert len(found.disagreements) == 1


def test_a_record_whose_file_is_gone_is_named(db: None) -> None:
    run("INSERT INTO django_migrations (app, name, applied) VALUES ('catalog', '0009_gone', now())")
    assert said(states("catalog")) == [
        "0009_gone is recorded as applied, and its file is gone. Bring the file back, or forget the record "
        "with %manage migrate catalog --prune."
    ]


def test_records_that_do_not_fit_together_are_said_and_the_rest_is_shown(db: None) -> None:
    run("DELETE FROM django_migrations WHERE name = '0001_initial' AND app = 'catalog'")
    found = states("catalog")
    assert any("The recorded history does not fit together." in each for each in said(found))
    assert "catalog_author" in repr(found)


def test_a_squashed_migration_whose_parts_are_applied_agrees(install: Install) -> None:
    key = '("id", models.BigAutoField(primary_key=True, serialize=False))'
    first = f'operations = [migrations.CreateModel("Thing", [{key}])]'
    second = 'dependencies = [("ledger", "0001_a")]\noperations = [migrations.RunSQL("SELECT 1")]'
    squashed = f'replaces = [("ledger", "0001_a"), ("ledger", "0002_b")]\n{first}'
    classes = "class Thing(models.Model):\n    id = models.BigAutoField(primary_key=True)"
    install(classes, {"0001_a": first, "0002_b": second, "0001_squashed": squashed})
    migrate("ledger", "0001_squashed")
    assert said(states("ledger")) == []
    run("DELETE FROM django_migrations WHERE app = 'ledger' AND name = '0001_squashed'")
    run(
        "INSERT INTO django_migrations (app, name, applied) SELECT 'ledger', n, now() "
        "FROM unnest(ARRAY['0001_a', '0002_b']) n WHERE NOT EXISTS "
        "(SELECT FROM django_migrations WHERE app = 'ledger' AND name = n)"
    )
    assert said(states("ledger")) == []


# Classes.


@pytest.fixture
def edited(db: None) -> Iterator[None]:
    """Author has another field, of which no migration knows."""
    field = models.IntegerField()
    field.contribute_to_class(Author, "shoe_size")
    apps.clear_cache()
    yield
    Author._meta.local_fields.remove(field)
    del Author.shoe_size  # type: ignore[attr-defined]
    apps.clear_cache()


def test_a_class_that_is_ahead_of_its_migrations_is_named(edited: None) -> None:
    found = states("catalog")
    assert said(found) == [
        "The classes are ahead of the files (Add field shoe_size to author). "
        "%manage makemigrations catalog writes the migration."
    ]
    lines = [line.split() for line in repr(found).splitlines()]
    assert ["!", "shoe_size", "integer", "NOT", "NULL", "—", "—", "—"] in lines


# Records and tables.


@pytest.mark.parametrize(
    ("recorded", "real"),
    [
        ("0002_author_country", "0001_initial"),
        ("0002_author_country", "zero"),
        ("0001_initial", "0002_author_country"),
        ("zero", "0001_initial"),
        ("zero", "0002_author_country"),
        ("0001_initial", "zero"),
    ],
)
def test_tables_of_another_point_than_is_recorded_are_recognized_and_fake_records_them(
    db: None, recorded: str, real: str
) -> None:
    migrate("catalog", None if real == "zero" else real)
    migrate("catalog", None if recorded == "zero" else recorded, fake=True)
    found = states("catalog")
    last = found.disagreements[-1]
    there = "There are no tables" if real == "zero" else f"The tables are those of {real}"
    assert last.what == f"{there}, and {recorded} is recorded."
    assert last.mend == f"%manage migrate catalog {real} --fake records what is there."
    migrate("catalog", None if real == "zero" else real, fake=True)
    left = states("catalog").disagreements
    assert [each.what.partition(":")[0] for each in left] == ([] if real[:4] == "0002" else ["Not applied"])


def test_where_tables_are_there_already_nobody_is_sent_to_make_them_again(db: None) -> None:
    migrate("catalog", "0001_initial", fake=True)
    mends = [each.mend for each in states("catalog").disagreements]
    assert mends == ["%manage migrate catalog 0002_author_country --fake records what is there."]


CATALOG = [
    "ALTER TABLE catalog_author ADD extra int NOT NULL DEFAULT 3",
    'ALTER TABLE catalog_author ADD "say ""hi""" int',
    'ALTER TABLE catalog_author ADD "100%" int',
    "ALTER TABLE catalog_author DROP bio",
    "ALTER TABLE catalog_author RENAME bio TO life",
    "ALTER TABLE catalog_author ALTER name TYPE text",
    "ALTER TABLE catalog_author ALTER name TYPE int USING 0",
    "ALTER TABLE catalog_author ALTER name DROP NOT NULL",
    "ALTER TABLE catalog_author ALTER name SET DEFAULT 'x'",
    'ALTER TABLE catalog_author ALTER name TYPE varchar(100) COLLATE "C"',
    "ALTER TABLE catalog_author ALTER id DROP IDENTITY",
    "ALTER TABLE catalog_author ALTER id SET GENERATED ALWAYS",
    "ALTER TABLE catalog_author DROP id CASCADE",
    "ALTER TABLE catalog_author ADD CONSTRAINT odd CHECK (id > 0)",
    'ALTER TABLE catalog_author ADD CONSTRAINT "o""d" UNIQUE (name)',
    "ALTER TABLE catalog_author ADD CONSTRAINT odd EXCLUDE USING hash (name WITH =)",
    "CREATE INDEX odd ON catalog_author (name)",
    'CREATE UNIQUE INDEX "o""d" ON catalog_author (name)',
    "ALTER TABLE catalog_book DROP author_id",
    "ALTER TABLE catalog_book DROP CONSTRAINT catalog_book_pkey",
    "CREATE TABLE catalog_odd (id int)",
    'CREATE TABLE "catalog_o""d" (id int)',
]
LEDGER = [
    "ALTER TABLE ledger_account DROP double",
    "ALTER TABLE ledger_account ALTER double DROP EXPRESSION",
    "ALTER TABLE ledger_account DROP sorted",
    "ALTER TABLE ledger_account ALTER number DROP DEFAULT",
    "ALTER TABLE ledger_account ALTER number SET DEFAULT 4",
    "ALTER TABLE ledger_account ALTER small SET NOT NULL",
    "ALTER TABLE ledger_account DROP CONSTRAINT account_positive",
    "ALTER TABLE ledger_account DROP CONSTRAINT account_once",
    "ALTER TABLE ledger_account DROP CONSTRAINT account_apart",
    "ALTER TABLE ledger_account RENAME CONSTRAINT account_once TO odd",
    "ALTER TABLE ledger_account RENAME CONSTRAINT account_positive TO odd",
    "ALTER TABLE ledger_account DROP CONSTRAINT account_positive, "
    "ADD CONSTRAINT account_positive CHECK (number > 1)",
    "DROP INDEX account_some",
    "DROP INDEX account_small",
    "DROP INDEX account_small; CREATE INDEX account_small ON ledger_account (number)",
    "DROP INDEX account_some; CREATE INDEX account_some ON ledger_account (number)",
    "ALTER INDEX account_small RENAME TO odd",
    "ALTER TABLE books.entry ADD extra int",
    "ALTER TABLE books.entry DROP account_id",
    'ALTER TABLE books.entry DROP "Note, of it"',
    "CREATE INDEX odd ON books.entry (id)",
]


@pytest.mark.parametrize("sql", CATALOG)
def test_the_sql_that_is_advised_makes_the_tables_agree_again(db: None, sql: str) -> None:
    mended("catalog", sql)


@pytest.mark.parametrize("sql", LEDGER)
def test_the_sql_that_is_advised_mends_what_any_model_may_have(ledger: None, sql: str) -> None:
    mended("ledger", sql)


def test_a_table_that_is_gone_is_made_again_from_the_sql_that_is_pointed_to(db: None) -> None:
    run("DROP TABLE catalog_book")
    assert said(states("catalog")) == [
        "The tables are not what the migrations made: - catalog_book table. "
        "Make it with the CREATE TABLE that timeline() shows."
    ]
    sql = timeline("catalog")["0001"].sql.splitlines()
    run(
        *(
            line
            for line in sql
            if re.match(r'(CREATE TABLE|ALTER TABLE|CREATE INDEX .* ON) "catalog_book"', line)
        )
    )
    assert said(states("catalog")) == []


def mended(label: str, sql: str) -> None:
    """Assert that what ``states`` advises is SQL, and undoes ``sql``."""
    run(sql)
    found = states(label)
    assert found
    for each in found.disagreements:
        assert each.what.startswith("The tables are not what the migrations made: ")
        statements = re.match(r"(?:(?:CREATE|ALTER|DROP) .*;)", each.mend, re.DOTALL)
        assert statements, each.mend
        run(statements[0])
    assert repr(snapshot() - models_at(label)) == "No difference."


def test_looking_changes_nothing(db: None) -> None:
    before = (snapshot(), run("SELECT * FROM django_migrations ORDER BY id"))
    for label in ("catalog", "auth"):
        states(label)
    assert (snapshot(), run("SELECT * FROM django_migrations ORDER BY id")) == before
