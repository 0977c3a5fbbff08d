"""``evolve``: what a cell's classes, or functions, would be as a migration; and every way to get it wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import connection, migrations
from django.db.models.options import Options

from tests.throwaway import PROJECT, environment
from workbench.schema import SchemaError, evolve, snapshot
from workbench.schema.evolve import Answers, Evolution

pytestmark = pytest.mark.django_db

AUTHOR = """class Author(models.Model):
    name = models.CharField(max_length=100)
    bio = models.TextField(blank=True)
    country = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
"""
BOOK = """class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.ForeignKey("Author", on_delete=models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)
"""
# What a kernel has imported.
NAMES = {"settings": settings, "User": User, "Group": Group}


def adding(*lines: str, to: str = AUTHOR) -> str:
    return to + "".join(f"    {line}\n" for line in lines)


def meta(*lines: str, to: str = AUTHOR) -> str:
    return adding("", "class Meta:", *(f"    {line}" for line in lines), to=to)


def evolved(cell: str, *, app_label: str = "catalog", name: str | None = None, **answers: Any) -> Evolution:
    return evolve(app_label, cell, answers=Answers(**answers), name=name, namespace=NAMES)


def refused(cell: str, **options: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        evolved(cell, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert " at 0x" not in said
    return said


def operations(evolution: Evolution) -> list[str]:
    return [operation.describe() for step in evolution.steps for operation in step.migration.operations]


# A cell's error: the cell, the text of the line that it names, what it says.
WRONG: dict[str, tuple[str, str, str]] = {
    "a colon is missing": (
        "import os\n\nclass Author(models.Model)\n    x = 1",
        "class Author(models.Model)",
        "expected ':'",
    ),
    "a bracket stays open": ("x = (", "x = (", "'(' was never closed"),
    "an indent is missing": ("class Author(models.Model):\npass", "pass", "expected an indented block"),
    "an unknown field class": (
        adding("x = models.CharFeild(max_length=3)"),
        "x = models.CharFeild(max_length=3)",
        "did you mean CharField?",
    ),
    "an unknown name": (
        adding("x = modls.TextField()"),
        "x = modls.TextField()",
        "name 'modls' is not defined: did you mean models?",
    ),
    "an unknown base": (
        "class Author(models.Modle):\n    pass",
        "class Author(models.Modle):",
        "did you mean Model?",
    ),
    "a base that is no class": (
        "class Author(1, models.Model):\n    pass",
        "class Author(1, models.Model):",
        "metaclass conflict",
    ),
    "an exception in the class": (adding("x = 1 / 0"), "x = 1 / 0", "division by zero (ZeroDivisionError)."),
    "an exception in a function of the cell": (
        "def ask():\n    raise ValueError('no answer')\n" + adding("x = ask()"),
        "raise ValueError('no answer')",
        "no answer (ValueError).",
    ),
    "an unknown argument": (
        adding("x = models.TextField(nul=True)"),
        "x = models.TextField(nul=True)",
        "unexpected keyword argument 'nul'",
    ),
    "an argument that is missing": (
        adding("x = models.ForeignKey('Book')"),
        "x = models.ForeignKey('Book')",
        "missing 1 required positional argument: 'on_delete'",
    ),
    "an argument of the wrong type": (
        adding("x = models.CharField(max_length='3', null=True)"),
        "x = models.CharField(max_length='3', null=True)",
        "'max_length' must be a positive integer",
    ),
    "decimals without places": (
        adding("x = models.DecimalField(null=True)"),
        "x = models.DecimalField(null=True)",
        "must define a 'decimal_places' attribute",
    ),
    "a name with two underscores": (
        adding("x__y = models.TextField(null=True)"),
        "x__y = models.TextField(null=True)",
        'must not contain "__"',
    ),
    "a reserved name": (
        adding("pk = models.TextField(null=True)"),
        "pk = models.TextField(null=True)",
        "'pk' is a reserved word",
    ),
    "a name of a method that Django needs": (
        adding("check = models.TextField(null=True)"),
        "check = models.TextField(null=True)",
        "check",
    ),
    "a foreign key to nobody": (
        adding("x = models.ForeignKey('Nobody', on_delete=models.CASCADE, null=True)"),
        "x = models.ForeignKey('Nobody', on_delete=models.CASCADE, null=True)",
        "app 'catalog' doesn't provide model 'nobody'",
    ),
    "a foreign key to an app that is not there": (
        adding("x = models.ForeignKey('shop.Item', on_delete=models.CASCADE, null=True)"),
        "x = models.ForeignKey('shop.Item', on_delete=models.CASCADE, null=True)",
        "app 'shop' isn't installed",
    ),
    "a table between that is not there": (
        adding("x = models.ManyToManyField('Book', through='Nothing')"),
        "x = models.ManyToManyField('Book', through='Nothing')",
        "app 'catalog' doesn't provide model 'nothing'",
    ),
    "names that clash on the other side": (
        adding("editor = models.ForeignKey(Author, on_delete=models.CASCADE, null=True)", to=BOOK),
        'author = models.ForeignKey("Author", on_delete=models.CASCADE)',
        "Add or change a related_name",
    ),
    "an unknown option": (meta("orderin = ['name']"), "class Author(models.Model):", "orderin"),
    "an index on an unknown field": (
        meta("indexes = [", "    models.Index(fields=['nme'], name='x'),", "]"),
        "models.Index(fields=['nme'], name='x'),",
        "'indexes' refers to the nonexistent field 'nme'",
    ),
    "a constraint on an unknown field": (
        meta("constraints = [", "    models.UniqueConstraint(fields=['nme'], name='x'),", "]"),
        "models.UniqueConstraint(fields=['nme'], name='x'),",
        "'constraints' refers to the nonexistent field 'nme'",
    ),
    "unique_together of an unknown field": (
        meta("unique_together = [('name', 'nme')]"),
        "unique_together = [('name', 'nme')]",
        "'unique_together' refers to the nonexistent field 'nme'",
    ),
    "an order by an unknown field": (
        meta("ordering = ['-nme']"),
        "ordering = ['-nme']",
        "'ordering' refers to the nonexistent field",
    ),
    "an app_label of another app": (
        meta("app_label = 'auth'"),
        "class Author(models.Model):",
        "Author is of the app auth, and the cell is of catalog",
    ),
    "a new field without a value for the rows": (
        adding("x = models.IntegerField()"),
        "x = models.IntegerField()",
        "Author.x needs a value for the rows that are there: add --default Author.x=... to the first line, "
        "or give the field a default, db_default or null=True.",
    ),
    "a time of making without a value for the rows": (
        adding("x = models.DateTimeField(auto_now_add=True)"),
        "x = models.DateTimeField(auto_now_add=True)",
        "add --default Author.x=timezone.now to the first line, or give the field null=True.",
    ),
    "a default that no file can hold": (
        adding("x = models.IntegerField(default=lambda: 3)"),
        "x = models.IntegerField(default=lambda: 3)",
        "Cannot serialize function: lambda",
    ),
    "a manager that is in the cell only": (
        "class Loud(models.Manager):\n    use_in_migrations = True\n\n" + adding("objects = Loud()"),
        "objects = Loud()",
        "Could not find manager Loud in catalog.models.",
    ),
    "a class defined twice": (
        "class Author(models.Model):\n    pass\n\n" + adding("x = models.IntegerField()"),
        "x = models.IntegerField()",
        "Author.x needs a value",
    ),
    "a class under a condition": (
        "if True:\n    class Shelf(models.Model):\n        x = models.CharField(max_length='3')",
        "x = models.CharField(max_length='3')",
        "'max_length' must be a positive integer",
    ),
    "classes beside a data migration": (
        "def forwards(apps, schema_editor): ...\n\n\n" + AUTHOR,
        "class Author(models.Model):",
        "make two of it",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_names_the_line_of_the_cell_and_what_is_wrong_there(case: str) -> None:
    cell, text, said = WRONG[case]
    shown = refused(cell)
    # The last line of this text: a class that is defined twice counts as Python counts it.
    line = [row.strip() for row in ["%%evolve", *cell.splitlines()]]
    number = len(line) - line[::-1].index(text)
    assert shown.startswith(f"Line {number} of the cell ({text}): ")
    assert said in shown


NOT_BY_LINE: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing": (
        "x = 1",
        {},
        "The cell defines no model of catalog, and no function forwards(apps, schema_edi",
    ),
    "a class that is no model": ("class Author:\n    name = 'x'", {}, "The cell defines no model of catalog"),
    "an unknown app": (AUTHOR, {"app_label": "catalgo"}, "No app 'catalgo' is installed: did you mean catal"),
    "an app without migrations": (AUTHOR, {"app_label": "messages"}, "The app messages has no migrations"),
    "a field that seems renamed": (
        AUTHOR.replace("bio", "about"),
        {},
        "Author.bio is gone and about is new: if that is a rename, add --rename Author.bio=about to the "
        "first line and its values stay; if not, add --no-renames, which drops a column and makes another.",
    ),
    "a model that seems renamed": (
        AUTHOR.replace("Author", "Writer") + BOOK.replace("Author", "Writer"),
        {"removed": ["Author"]},
        "Author is gone and Writer is new: if that is a rename, add --rename Author=Writer to the first line "
        "and its rows stay; if not, add --no-renames, which drops a table and makes another.",
    ),
    "a rename of what is not there": (
        AUTHOR,
        {"renames": {"Author.boi": "bio"}},
        "There is no Author.boi to rename",
    ),
    "a rename of no model": (AUTHOR, {"renames": {"Athor": "Author"}}, "There is no Athor to rename"),
    "a rename that is none": (
        AUTHOR,
        {"renames": {"Author.bio": "about"}},
        "Author.bio to about is no rename: Author.bio must be gone from the cell, and about must be new",
    ),
    "a rename to a model that is there": (
        AUTHOR.replace("Author", "Book"),
        {"renames": {"Author": "Book"}},
        "Book",
    ),
    "a default that nobody asks for": (
        adding("x = models.IntegerField(null=True)"),
        {"defaults": {"Author.x": "3"}},
        "Author.x needs no default: nothing asks for one.",
    ),
    "a default of no field": (AUTHOR, {"defaults": {"x": "3"}}, "x needs no default"),
    "a default that is no Python": (
        adding("x = models.IntegerField()"),
        {"defaults": {"Author.x": "3 +"}},
        "--default Author.x=3 +: SyntaxError: invalid syntax",
    ),
    "a default of an unknown name": (
        adding("x = models.IntegerField()"),
        {"defaults": {"Author.x": "nothing"}},
        "--default Author.x=nothing: NameError: name 'nothing' is not defined",
    ),
    "a default that is no value of the field": (
        adding("x = models.IntegerField()"),
        {"defaults": {"Author.x": "'three'"}},
        "expected a number but got 'three'",
    ),
    "filled that needs no filling": (AUTHOR, {"backfilled": ["Author.bio"]}, "Author.bio needs no default"),
    "a model to remove that is not there": (
        "",
        {"removed": ["Publisher"]},
        "There is no model Publisher to remove: catalog has Author, Book.",
    ),
    "a model to remove that another needs": ("", {"removed": ["Author"]}, "catalog.Book.author"),
    "a name that is no name": (
        adding("x = models.IntegerField(null=True)"),
        {"name": "../x y"},
        "../x y",
    ),
    "a check that Postgres does not understand": (
        meta(
            "constraints = [models.CheckConstraint(condition=models.Q(name__gt=models.Value(5)), name='x')]"
        ),
        {},
        "Postgres refuses this (Create constraint x on model author): operator does not exist: character",
    ),
    "an index that Postgres does not allow": (
        meta("indexes = [models.Index(models.functions.Now(), name='x')]"),
        {},
        "Postgres refuses this (Create index x on Now() on model author): functions in index expression",
    ),
    "two indexes of one name": (
        meta("indexes = [models.Index(fields=[each], name='x') for each in ('name', 'bio')]"),
        {},
        'Postgres refuses this (Create index x on field(s) bio of model author): relation "x" already exist',
    ),
    "what only the cell has": (
        "def three():\n    return 3\n\n\n" + adding("x = models.IntegerField(default=three)"),
        {},
        "The migration cannot stand alone (module 'catalog.models' has no attribute 'three'): what its "
        "fields refer to must be in the app's models.py, or in another module.",
    ),
}


@pytest.mark.parametrize("case", NOT_BY_LINE)
def test_what_no_line_is_to_blame_for_is_one_sentence(case: str) -> None:
    cell, options, said = NOT_BY_LINE[case]
    shown = refused(cell, **options)
    assert said in shown
    assert not re.search(r"\?\.", shown)


def test_where_null_ends_it_asks_for_a_value_or_a_word_that_none_is_left() -> None:
    before = evolved(AUTHOR.replace("TextField(blank=True)", "TextField(null=True)"))
    with pytest.raises(SchemaError, match=r"^Line 4 of the cell .*add --default Author.bio=.*--backfilled"):
        evolve("catalog", AUTHOR, start=before)


def test_an_answer_that_is_asked_for_is_an_answer_that_is_taken() -> None:
    """A model and one of its fields get other names at once, as makemigrations can."""
    cell = (AUTHOR + BOOK).replace("Author", "Writer").replace("bio", "about")
    said = refused(cell, renames={"Author": "Writer"})
    asked = re.search(r"--rename (\S+)=(\S+)", said)
    assert asked
    found = evolved(cell, renames={"Author": "Writer", asked[1]: asked[2]})
    assert operations(found) == ["Rename model Author to Writer", "Rename field bio on writer to about"]


STAY = """

class Stay(models.Model):
    author = models.ForeignKey(Author, models.CASCADE)
    book = models.ForeignKey("Book", models.CASCADE)
"""
NEVER_RUN = {
    "a table between, where there was another": (
        adding("books = models.ManyToManyField('Book', related_name='+')"),
        adding("books = models.ManyToManyField('Book', through='Stay', related_name='+')") + STAY,
        "cannot alter to or from M2M fields, or add or remove through=",
    ),
    "a base less": (
        "class Poet(Author):\n    metre = models.TextField()\n",
        "class Poet(models.Model):\n    metre = models.TextField()\n",
        "Local field 'id' in class 'Poet' clashes with field of the same name from base class 'Author'",
    ),
    "a comment that Django takes for a template": (
        "",
        adding("x = models.TextField(null=True, db_comment='100 %s')"),
        "Add field x to author",
    ),
}


@pytest.mark.parametrize("case", NEVER_RUN)
def test_what_django_writes_but_cannot_run_is_refused_like_what_postgres_refuses(case: str) -> None:
    before, after, said = NEVER_RUN[case]
    with pytest.raises(SchemaError, match=re.escape(said)):
        evolve("catalog", after, start=evolved(before) if before else None)


def test_a_new_models_key_is_of_the_kind_that_its_app_says() -> None:
    """Of django.contrib.auth it is AutoField, whatever the settings have."""
    (step,) = evolved("class Badge(models.Model):\n    pass\n", app_label="auth").steps
    assert "('id', models.AutoField(auto_created=True" in step.text


@dataclass(frozen=True)
class Change:
    """A cell, what is said to its questions on the first line, and to makemigrations'."""

    cell: str
    answers: dict[str, Any] = field(default_factory=dict)
    typed: str = ""
    name: str | None = None
    others: str = ""


CHANGES = {
    "nothing": Change(AUTHOR),
    "fields of many kinds": Change(
        adding(
            "age = models.PositiveSmallIntegerField(null=True, db_index=True, help_text='years')",
            "code = models.SlugField(default='', max_length=20)",
            "kind = models.CharField(max_length=1, choices=Kind, default=Kind.POET)",
            "price = models.DecimalField(max_digits=6, decimal_places=2, db_default=0)",
            "seen = models.DateTimeField(db_default=models.functions.Now())",
            "loud = models.GeneratedField(expression=models.functions.Upper('name'), "
            "output_field=models.TextField(), db_persist=True)",
            "data = models.JSONField(default=dict, blank=True)",
        ).replace(
            "class Author",
            "class Kind(models.TextChoices):\n    POET = 'p'\n    OTHER = 'o'\n\n\nclass Author",
        )
    ),
    "fields that change, and one that goes": Change(
        """class Author(models.Model):
    name = models.CharField("full name", max_length=200, unique=True)
    bio = models.CharField(max_length=50, db_column="story", db_comment="short")
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
"""
    ),
    "a value for the rows": Change(
        adding("x = models.IntegerField()"), {"defaults": {"Author.x": "7"}}, typed="1\n7\n"
    ),
    "a time for the rows": Change(
        adding("x = models.DateTimeField(auto_now_add=True)"),
        {"defaults": {"Author.x": "timezone.now"}},
        typed="1\n\n",
    ),
    "a field of another name": Change(
        AUTHOR.replace("bio", "about"), {"renames": {"Author.bio": "about"}}, typed="y\n"
    ),
    "a field gone, and another": Change(AUTHOR.replace("bio", "about"), {"no_renames": True}, typed="n\n"),
    "a model of another name": Change(
        (AUTHOR + BOOK).replace("Author", "Writer"), {"renames": {"Author": "Writer"}}, typed="y\n"
    ),
    "a model gone, and another": Change(
        (AUTHOR + BOOK).replace("Author", "Writer"),
        {"removed": ["Author"], "no_renames": True},
        typed="n\n",
    ),
    "a model gone": Change("", {"removed": ["Book"]}),
    "all gone": Change("", {"removed": ["Book", "Author"]}),
    "new models, in a circle": Change(
        """class Shelf(models.Model):
    first = models.ForeignKey("Box", models.CASCADE, related_name="+")
    author = models.ForeignKey("Author", models.PROTECT)


class Box(models.Model):
    shelf = models.ForeignKey(Shelf, models.CASCADE, null=True)
    inside = models.OneToOneField("self", models.SET_NULL, null=True, related_name="around")
""",
        name="storage",
    ),
    "keys to other apps": Change(
        adding(
            "user = models.OneToOneField(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)",
            "other = models.ForeignKey(User, models.SET_NULL, null=True, related_name='+')",
            "groups = models.ManyToManyField(Group, blank=True)",
            "mentor = models.ForeignKey('self', models.SET_NULL, null=True, db_constraint=False)",
            "best = models.ForeignKey('Book', models.SET_NULL, null=True, related_name='+')",
        )
    ),
    "many to many through a table": Change(
        adding("places = models.ManyToManyField('Place', through='Stay')")
        + """

class Place(models.Model):
    name = models.TextField(primary_key=True)


class Stay(models.Model):
    place = models.ForeignKey(Place, models.CASCADE)
    author = models.ForeignKey(Author, models.CASCADE)
    year = models.IntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["place", "author", "year"], name="stays_once")]
"""
    ),
    "a table for the subclass": Change(
        adding("x = models.IntegerField(default=3)")
        + "\n\nclass Poet(Author):\n    metre = models.TextField()\n"
    ),
    "proxies, also of another app's model": Change(
        meta("proxy = True", to="class Poet(Author):\n")
        + "\n\n"
        + meta("proxy = True", "ordering = ['username']", to="class Reader(User):\n")
    ),
    "an abstract base in the cell": Change(
        """class Stamped(models.Model):
    changed_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
        ordering = ["changed_at"]


"""
        + AUTHOR.replace("models.Model", "Stamped")
        + BOOK.replace("models.Model", "Stamped")
    ),
    "indexes and constraints": Change(
        meta(
            "indexes = [",
            "    models.Index(fields=['name', '-created_at']),",
            "    models.Index(models.functions.Lower('name'), name='lower_name'),",
            "    models.Index(fields=['bio'], name='some', condition=models.Q(country='')),",
            "]",
            "constraints = [",
            "    models.CheckConstraint(condition=~models.Q(name=''), name='is_named'),",
            "    models.UniqueConstraint(fields=['name', 'country'], name='once', "
            "deferrable=models.Deferrable.DEFERRED),",
            "    models.UniqueConstraint(models.functions.Lower('bio'), name='bio_once'),",
            "]",
        )
    ),
    "unique together": Change(meta("unique_together = [('name', 'country')]")),
    "options": Change(
        meta(
            "ordering = ['name']",
            "verbose_name = 'writer'",
            "db_table = 'authors'",
            "get_latest_by = 'created_at'",
            "permissions = [('praise', 'Can praise')]",
            "db_table_comment = 'who writes'",
            "default_related_name = 'works'",
        )
    ),
    "an order of its own": Change(meta("order_with_respect_to = 'author'", to=BOOK)),
    "a manager for migrations": Change(
        "from django.contrib.auth.models import UserManager\n\n\n" + adding("objects = UserManager()")
    ),
    "a type of Postgres": Change(
        "from django.contrib.postgres.fields import ArrayField\n"
        "from django.contrib.postgres.indexes import GinIndex\n\n\n"
        + meta(
            "indexes = [GinIndex(fields=['tags'], name='tags')]",
            to=adding("tags = ArrayField(models.TextField(), default=list)"),
        )
    ),
    "another app's key and no table": Change(
        meta(
            "managed = False",
            to=adding(
                "group = models.ForeignKey(Group, models.DO_NOTHING)", to="class View(models.Model):\n"
            ),
        )
    ),
}
HEAD = """from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import models


"""


def a_copy(folder: Path, change: Change) -> Path:
    """Make a copy of the app in which the cell stands in models.py, and return where its migrations are."""
    others = shutil.ignore_patterns("__pycache__", "admin.py", "views.py")
    shutil.copytree(PROJECT / "catalog", folder / "catalog", ignore=others)
    gone = [*change.answers.get("removed", []), *change.answers.get("renames", {})]
    kept = [
        text
        for name, text in (("Author", AUTHOR), ("Book", BOOK))
        if f"class {name}(" not in change.cell and name not in gone
    ]
    (folder / "catalog" / "models.py").write_text(HEAD + "\n\n".join([*kept, change.cell]))
    return folder / "catalog" / "migrations"


@pytest.fixture(scope="module")
def by_django(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The files that makemigrations writes, without the line that has the date."""
    copies = tmp_path_factory.mktemp("copies")
    folders = [a_copy(copies / str(number), change) for number, change in enumerate(CHANGES.values())]
    before = {path.name for path in folders[0].iterdir()}
    jobs = [
        [str(folder.parents[1]), change.typed, ["--name", change.name] if change.name else []]
        for folder, change in zip(folders, CHANGES.values(), strict=True)
    ]
    (copies / "jobs").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, "-m", "tests.schema.makemigrations", str(copies / "jobs")],
        cwd=PROJECT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for case, folder in zip(CHANGES, folders, strict=True):
        files = sorted(path for path in folder.glob("*.py") if path.name not in before)
        texts = [path.read_text(encoding="utf-8").partition("\n\n")[2] for path in files]
        found[case] = "".join(f"{path.stem}\n{text}" for path, text in zip(files, texts, strict=True))
    return found


@pytest.mark.parametrize("case", CHANGES)
def test_it_is_what_makemigrations_writes(case: str, by_django: Mapping[str, str]) -> None:
    change = CHANGES[case]
    found = evolved(change.cell, name=change.name, **change.answers)
    assert "".join(f"{step.name}\n{step.text}" for step in found.steps) == by_django[case]
    for step in found.steps:
        module = ModuleType(step.name)
        exec(step.text, vars(module))
        assert issubclass(module.Migration, migrations.Migration)


def test_what_ends_null_is_written_like_the_answers_to_makemigrations() -> None:
    """Its two answers that are no default write the field as it is."""
    before = evolved(AUTHOR.replace("TextField(blank=True)", "TextField(null=True)"))
    filled = evolve("catalog", AUTHOR, start=before, answers=Answers(backfilled=["Author.bio"]))
    (step,) = filled.steps
    assert step.name == "0004_alter_author_bio"
    assert "field=models.TextField(blank=True),\n        )" in step.text
    given = evolve("catalog", AUTHOR, start=before, answers=Answers(defaults={"Author.bio": "'-'"}))
    assert (
        "field=models.TextField(blank=True, default='-'),\n            preserve_default=F"
        in given.steps[0].text
    )


DATA = """
from datetime import date

YEAR = 1999


def forwards(apps, schema_editor):
    apps.get_model("catalog", "Author").objects.update(bio=str(date(YEAR, 1, 1)))


def backwards(apps, schema_editor):
    apps.get_model("catalog", "Author").objects.update(bio="")
"""


def test_functions_are_a_data_migration_that_stands_alone() -> None:
    (step,) = evolved(DATA, name="years").steps
    assert step.name == "0003_years"
    module: Any = ModuleType(step.name)
    exec(step.text, vars(module))
    (operation,) = module.Migration.operations
    assert (operation.code, operation.reverse_code) == (module.forwards, module.backwards)
    assert module.YEAR == 1999
    assert [effect.said[1] for effect in step.effects] == ["runs Python"]
    assert step.effects[0].is_reversible


def test_a_data_migration_may_begin_as_any_module_may() -> None:
    begin = '"""About it."""\n\nfrom __future__ import annotations\n\n'
    (step,) = evolved(begin + DATA).steps
    compile(step.text, "0003_data.py", "exec")


def test_without_a_way_back_it_says_so() -> None:
    (step,) = evolved("def forwards(apps, schema_editor): ...").steps
    assert [effect.is_reversible for effect in step.effects] == [False]


def test_a_way_back_may_be_djangos_own_that_does_nothing() -> None:
    cell = "from django.db import migrations\n\n\ndef forwards(apps, schema_editor): ...\n\n\n"
    (step,) = evolved(cell + "backwards = migrations.RunPython.noop").steps
    assert [effect.is_reversible for effect in step.effects] == [True]


def test_functions_that_django_could_not_call_are_refused_before_anything_runs() -> None:
    said = refused("x = 1\n\ndef forwards(apps):\n    pass")
    assert said.startswith("Line 4 of the cell (def forwards(apps):): ")


def test_one_goes_on_from_another_or_from_where_it_is_told() -> None:
    first = evolved(adding("x = models.IntegerField(null=True)"))
    second = evolve("catalog", DATA, start=first)
    assert [step.name for step in second.chain] == ["0003_author_x", "0004_data"]
    assert second.steps[0].migration.dependencies == [("catalog", "0003_author_x")]
    third = evolve("catalog", AUTHOR, start=second)
    assert operations(third) == ["Remove field x from author"]
    back = evolve("catalog", AUTHOR + BOOK, start="0001")
    assert (back.after, operations(back)) == ("0001_initial", ["Add field country to author"])
    new = evolve("catalog", AUTHOR + BOOK, start="zero")
    assert new.steps[0].name == "0001_initial"
    assert "initial = True" in new.steps[0].text


def registered() -> dict[str, Any]:
    """All that Django knows of classes, and of who refers to whom."""
    found: dict[str, Any] = {}
    for model in apps.get_models(include_auto_created=True, include_swapped=True):
        related = [(each.name, id(each.related_model)) for each in model._meta.related_objects]
        fields = [(each.name, id(each)) for each in model._meta.get_fields(include_hidden=True)]
        found[model._meta.label] = (id(model), related, fields, sorted(vars(model)))
    found["default_apps"] = Options.default_apps
    found["pending"] = {key: len(waiting) for key, waiting in apps._pending_operations.items() if waiting}
    return found


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Nothing that anybody else sees is otherwise after the test."""

    def seen() -> tuple[Any, ...]:
        folders = (PROJECT / "catalog", Path(settings.WORKBENCH_HOME, "evolved"))
        files = {path: path.read_bytes() for each in folders for path in each.rglob("*.py")}
        with connection.cursor() as cursor:
            cursor.execute("SELECT app, name FROM django_migrations")
            return registered(), files, snapshot(), cursor.fetchall(), connection.get_autocommit()

    before = seen()
    yield
    assert seen() == before


@pytest.mark.usefixtures("unchanged")
def test_nothing_changes_whatever_is_asked() -> None:
    for change in CHANGES.values():
        if "unique_together" not in change.cell:
            evolved(change.cell, name=change.name, **change.answers)
    for cell, _, _ in WRONG.values():
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is told elsewhere
            evolved(cell)
    names = dict(NAMES)
    evolve("catalog", DATA, namespace=names)
    assert names == NAMES


def test_what_is_no_change_says_so() -> None:
    assert repr(evolved(AUTHOR)) == "No change: this is what catalog is as of 0002_author_country."
    assert not evolved(BOOK)


@pytest.mark.parametrize(
    "answers", [{"removed": ["Book", "Book"]}, {"removed": ["Book"], "renames": {"Book": "B"}}]
)
def test_what_goes_cannot_go_or_be_renamed_once_more(answers: dict[str, Any]) -> None:
    assert "There is no " in refused("", **answers)


def test_a_data_migration_that_is_run_again_is_no_second_one() -> None:
    cell = "def forwards(apps, schema_editor):\n    pass\n"
    first = evolve("catalog", cell)
    assert [step.name for step in first.chain] == ["0003_data"]
    assert evolve("catalog", cell, start=first).chain == first.chain


def test_a_change_cannot_start_from_one_of_another_app() -> None:
    start = evolve("catalog", AUTHOR)
    with pytest.raises(SchemaError, match="start anew"):
        evolve("auth", "class Badge(models.Model): pass", start=start)


@pytest.mark.parametrize("start", ["zero", "0001"])
def test_from_an_older_migration_other_apps_are_there_as_the_database_has_them(start: str) -> None:
    found = evolve(
        "catalog",
        "class Loan(models.Model):\n    who = models.ForeignKey('auth.User', models.CASCADE)\n",
        start=start,
    )
    assert 'REFERENCES "auth_user" ("id")' in found.steps[0].sql
