"""``%%evolve`` and ``%%diff`` in a real kernel: what is shown, applied and written, and what is left."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.conftest import Manage
from tests.kernel import Kernel, Outcome
from tests.schema.test_evolve import AUTHOR, BOOK, adding
from tests.throwaway import HOME, PROJECT
from workbench import evolved

AGE = adding("age = models.IntegerField(null=True)")
UNIQUE = AUTHOR.replace(
    "name = models.CharField(max_length=100)", "name = models.CharField(max_length=90, unique=True)"
)
DATA = """def forwards(apps, schema_editor):
    authors = apps.get_model("catalog", "Author").objects
    authors.update(bio="forwards")
    authors.update(country="XX")


def backwards(apps, schema_editor):
    apps.get_model("catalog", "Author").objects.update(bio="backwards")
    apps.get_model("catalog", "Author").objects.update(country="")
"""
FILES = "catalog\n [X] 0001_initial\n [X] 0002_author_country\n"
UNCHANGED = "Nothing has changed: --apply migrates this database with it, --write keeps it as a file.\n"
EVOLVED = evolved.folder(connection) / "catalog"


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run("%manage migrate -v 0")
        running.run("start = snapshot()")
        yield running


@pytest.fixture(autouse=True)
def as_it_was(kernel: Kernel) -> Iterator[None]:
    """Every test leaves the database as the files have it, and empty."""
    yield
    kernel.run("%manage migrate catalog 0002 -v 0")
    kernel.run("Group.objects.all().delete(); Author.objects.all().delete()")
    left = applied(kernel), kernel.run("snapshot() - start").result
    if left != (FILES, "No difference."):
        kernel.run(
            "with connection.cursor() as cursor:\n"
            "    for table in connection.introspection.table_names(cursor):\n"
            "        if table.startswith('catalog'): cursor.execute(f'DROP TABLE {table} CASCADE')\n"
            "    cursor.execute(\"DELETE FROM django_migrations WHERE app = 'catalog'\")"
        )
        kernel.run("%manage migrate -v 0")
    shutil.rmtree(HOME / "evolved", ignore_errors=True)
    assert left == (FILES, "No difference.")


def evolve(kernel: Kernel, options: str, cell: str) -> Outcome:
    return kernel.run(f"%%evolve catalog {options}\n{cell}")


def said(outcome: Outcome) -> str:
    """Return an error, which is one line."""
    (line,) = outcome.error
    assert "\n" not in line
    return line


def applied(kernel: Kernel) -> str:
    return kernel.run("%manage showmigrations catalog").stdout


def kept() -> set[str]:
    return {path.name for path in EVOLVED.glob("*.py")}


def test_nothing_has_changed_and_it_says_so(kernel: Kernel, manage: Manage) -> None:
    files = {path: path.read_bytes() for path in (PROJECT / "catalog").rglob("*.py")}
    names = kernel.run("sorted(name for name in globals() if not name.startswith('_'))").result
    outcome = evolve(kernel, "", AGE + "\n\nclass Shelf(models.Model):\n    pass\n\n\nlength = 3\n")
    assert outcome.error == []
    assert outcome.stdout == UNCHANGED
    assert (
        "catalog/migrations/0003_shelf_author_age.py\nfrom django.db import migrations, models"
        in outcome.result
    )
    assert 'ALTER TABLE "catalog_author" ADD COLUMN "age" integer NULL;' in outcome.result
    assert "Add field age to author  locks ACCESS EXCLUSIVE on catalog_author  no rewrite" in outcome.result
    assert kernel.run("sorted(name for name in globals() if not name.startswith('_'))").result == names
    assert kernel.run("Author, hasattr(Author(), 'age')").result == "(catalog.models.Author, False)"
    assert kernel.run("snapshot() - start").result == "No difference."
    assert {path: path.read_bytes() for path in (PROJECT / "catalog").rglob("*.py")} == files
    assert (applied(kernel), manage("showmigrations", "catalog").stdout) == (FILES, FILES)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("catalgo", "No app 'catalgo' is installed: did you mean catalog?"),
        ("", "the following arguments are required: app_label. The line is: %%evolve [--apply]"),
        ("catalog --aply", "unrecognized arguments: --aply. The line is: %%evolve [--apply]"),
        ("catalog --back Author.age", "unrecognized arguments: --back Author.age"),
        ("catalog --rename Author", "--rename Author says too little: write --rename old=new."),
        ("catalog --default Author.age=", "--default Author.age= says too little"),
        ("catalog --default Author.age=3", "Author.age needs no default: nothing asks for one."),
        ("catalog --from 0009", "catalog has no migration '0009': it has 0001_initial, 0002_author_country."),
        ("catalog --name 'a b'", "'a b'"),
        ("catalog --name 'a", "This line cannot be read: No closing quotation. Close its quotes."),
        ("catalog --database other", "There is no database"),
        ("catalog --remove Publisher", "There is no model Publisher to remove: catalog has Author, Book."),
    ],
)
def test_a_mistake_on_the_first_line_is_one_sentence(kernel: Kernel, options: str, expected: str) -> None:
    assert expected in said(kernel.run(f"%%evolve {options}\n{AGE}"))


def test_lines_of_the_cell_are_counted_from_the_magic(kernel: Kernel) -> None:
    outcome = evolve(kernel, "", "\n\n# a comment\nclass Author(models.Model):\n    x = models.CharFeild()\n")
    assert said(outcome) == (
        "Line 6 of the cell (x = models.CharFeild()): module 'django.db.models' has no attribute "
        "'CharFeild': did you mean CharField?"
    )


def test_what_is_applied_is_known_everywhere_until_it_is_undone(kernel: Kernel, manage: Manage) -> None:
    evolve(kernel, "--apply", AGE)
    known = f"{FILES} [X] 0003_author_age\n"
    assert (applied(kernel), manage("showmigrations", "catalog").stdout) == (known, known)
    assert kernel.run("Author.objects.create(name='A', age=3); Author.objects.get().age").result == "3"
    assert 'ADD COLUMN "age"' in kernel.run("%manage sqlmigrate catalog 0003").result
    assert 'ADD COLUMN "age"' in manage("sqlmigrate", "catalog", "0003").stdout
    again = evolve(kernel, "--apply", AGE)
    assert (again.result, again.error) == ("No change: this is what catalog is as of 0003_author_age.", [])
    undone = manage("migrate", "catalog", "0002")
    assert "Unapplying catalog.0003_author_age... OK" in undone.stdout, undone.stderr
    assert "classes of catalog.models again" in kernel.run("Author").stdout
    assert "No migrations to apply." in manage("migrate").stdout
    assert (applied(kernel), manage("showmigrations", "catalog").stdout) == (FILES, FILES)
    assert said(kernel.run("%manage sqlmigrate catalog 0003")).startswith("Cannot find a migration")
    assert evolve(kernel, "", AGE).stdout == UNCHANGED


def test_what_the_rows_refuse_is_one_sentence_and_leaves_nothing_half_done(kernel: Kernel) -> None:
    kernel.run("for _ in range(2): Author.objects.create(name='twice')")
    refused = evolve(kernel, "--apply", AGE + "\n" + UNIQUE)
    assert "could not create unique index " in said(refused)
    assert said(refused).endswith(" Key (name)=(twice) is duplicated. Nothing of it was changed.")
    assert applied(kernel) == FILES
    assert kernel.run("snapshot() - start").result.count("column") == 0
    kernel.run("Author.objects.first().delete()")
    assert evolve(kernel, "--apply", UNIQUE).error == []
    assert "0003_alter_author_name" in applied(kernel)


def test_a_data_migration_runs_once_and_another_one_is_another_one(kernel: Kernel) -> None:
    kernel.run("Author.objects.create(name='A')")
    bio = "Author.objects.values_list('bio', 'country').get()"
    evolve(kernel, "--apply", DATA)
    assert kernel.run(bio).result == "('forwards', 'XX')"
    kernel.run("Author.objects.update(bio='mine', country='')")
    assert evolve(kernel, "--apply", DATA).result.startswith("No change")
    assert kernel.run(bio).result == "('mine', '')"
    other = DATA.replace('forwards")', 'again")')
    assert "0004_data" in evolve(kernel, "--apply", other).result
    assert kernel.run(bio).result == "('again', 'XX')"
    kernel.run("%manage migrate catalog 0002 -v 0")
    assert kernel.run(bio).result == "('backwards', '')"


def test_a_data_migration_that_lacks_the_last_lines_of_the_one_before_is_another_one(kernel: Kernel) -> None:
    evolve(kernel, "--apply", DATA)
    shorter, _, _ = DATA.rstrip().rpartition("\n")
    assert "0004_data" in evolve(kernel, "", shorter).result


def test_a_data_migration_that_fails_shows_its_line_and_is_as_if_it_had_not_been(kernel: Kernel) -> None:
    kernel.run("Author.objects.create(name='A', bio='as it was')")
    failing = DATA.replace('"XX")', "1 / 0)")
    error = "\n".join(evolve(kernel, "--apply", failing).error)
    assert "ZeroDivisionError" in error
    assert applied(kernel) == FILES
    assert kernel.run("Author.objects.get().bio").result == "'as it was'"
    assert evolve(kernel, "--apply", DATA).error == []


def test_one_may_be_looked_at_after_another_and_both_applied(kernel: Kernel) -> None:
    kernel.run("Author.objects.create(name='A')")
    assert evolve(kernel, "", AGE).stdout == UNCHANGED
    filling = (
        'def forwards(apps, schema_editor):\n    apps.get_model("catalog", "Author").objects.update(age=7)\n'
    )
    filling += "\n\ndef backwards(apps, schema_editor): ...\n"
    assert "0004_data" in evolve(kernel, "--continue", filling).result
    full = AGE.replace("null=True", "")
    assert "--backfilled Author.age" in said(evolve(kernel, "--continue", full))
    outcome = evolve(kernel, "--continue --backfilled Author.age --apply", full)
    assert outcome.error == []
    assert applied(kernel) == f"{FILES} [X] 0003_author_age\n [X] 0004_data\n [X] 0005_alter_author_age\n"
    assert kernel.run("Author.objects.get().age").result == "7"
    assert "no evolve to go on from" in said(evolve(kernel, "--continue", AGE))


@pytest.mark.parametrize(
    ("options", "cell", "expected"),
    [
        ("catalog --continue --from 0001", AGE, "--from"),
        ("catalog --remove Author", AUTHOR, "Author"),
        ("auth --continue", "class Badge(models.Model):\n    pass\n", "catalog"),
    ],
)
def test_what_contradicts_itself_is_refused(kernel: Kernel, options: str, cell: str, expected: str) -> None:
    evolve(kernel, "", AGE)
    assert expected in said(kernel.run(f"%%evolve {options}\n{cell}"))


def test_before_the_newest_file_it_is_refused_and_the_way_on_is_free(kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    old = AGE.replace("    country = models.CharField(max_length=100, blank=True)\n", "")
    refused = said(evolve(kernel, "--apply", old))
    assert "catalog goes on to 0002_author_country already" in refused
    assert kept() == set()
    assert evolve(kernel, "--apply --from 0002", AGE).error == []
    assert applied(kernel) == f"{FILES} [X] 0003_author_age\n"
    kernel.run("%manage migrate catalog 0001 -v 0")
    # What a file says already is that file.
    assert evolve(kernel, "--apply", AUTHOR).error == []
    assert applied(kernel) == FILES
    assert kept() == {"0003_author_age.py"}


def test_another_kernel_follows_there_and_back(kernel: Kernel) -> None:
    with Kernel() as other:
        other.run("Author.objects.count()")
        evolve(kernel, "--apply", AGE)
        outcome = other.run("hasattr(Author(), 'age')")
        assert outcome.result == "True"
        assert "Another session migrated catalog to 0003_author_age." in outcome.stdout
        other.run("%manage migrate catalog 0002 -v 0")
        assert "catalog.models again" in kernel.run("Author").stdout


def test_another_database_than_the_embedded_one_wants_a_yes_and_has_its_own(
    kernel: Kernel, manage: Manage, scratch_url: str
) -> None:
    evolve(kernel, "--apply", AGE)
    with Kernel({"DATABASE_URL": scratch_url}) as elsewhere:
        elsewhere.run("%manage migrate catalog -v 0")
        assert applied(elsewhere) == FILES
        wanted = said(evolve(elsewhere, "--apply", adding("height = models.IntegerField(null=True)")))
        assert wanted.startswith("This migrates ")
        assert wanted.endswith(": add --yes if that is what you want.")
        files = kept()
        assert applied(elsewhere) == FILES
        # Of the same name as the one that the first database has.
        other = AGE.replace("IntegerField(null=True)", 'TextField(default="elsewhere")')
        assert evolve(elsewhere, "--apply --yes", other).error == []
        assert elsewhere.run("Author.objects.create(name='A').age").result == "'elsewhere'"
        there = elsewhere.run("%manage sqlmigrate catalog 0003").result
    here = manage("sqlmigrate", "catalog", "0003").stdout
    found = 'ADD COLUMN "age" text' in there, 'ADD COLUMN "age" integer' in here, files
    assert found == (True, True, {"0003_author_age.py"})


def test_where_its_file_is_gone_the_next_one_says_so(kernel: Kernel) -> None:
    evolve(kernel, "--apply", AGE)
    file = EVOLVED / "0003_author_age.py"
    text = file.read_text()
    file.unlink()
    try:
        outcome = evolve(kernel, "--apply", AGE + "    height = models.IntegerField(null=True)\n")
        assert kept() == set()
        assert "0003_author_age" in said(outcome)
        assert "gone" in said(outcome)
    finally:
        file.write_text(text)
        kernel.run("%manage migrate -v 0")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, in which files may be written."""
    for name in ("catalog", "workbench", "notebooks"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "manage.py", tmp_path)
    return tmp_path


def test_what_is_written_is_a_file_that_makemigrations_has_nothing_to_add_to(
    kernel: Kernel, checkout: Path
) -> None:
    folder = checkout / "catalog" / "migrations"
    before = set(folder.iterdir())
    python = f'!"{sys.executable}" "{checkout / "manage.py"}"'
    with Kernel(cwd=checkout / "notebooks") as copy:
        copy.run("Author.objects.create(name='twice'); Author.objects.create(name='twice')")
        assert "duplicated" in said(evolve(copy, "--write --apply", UNIQUE))
        assert set(folder.glob("*.py")) <= before
        assert "goes on to 0002_author_country already" in said(
            evolve(copy, "--write --from 0001", AUTHOR.replace("country", "nation"))
        )
        assert set(folder.glob("*.py")) <= before

        evolve(copy, "--apply", AGE)
        copy.run("Author.objects.update(age=3)")
        evolve(copy, "--apply", DATA)
        outcome = evolve(copy, "--write", AGE)
        assert outcome.error == []
        names = ["0003_author_age.py", "0004_data.py"]
        assert sorted(path.name for path in set(folder.glob("*.py")) - before) == names
        for name in names:
            assert f"Wrote {Path('catalog', 'migrations', name)}." in outcome.stdout
            head, _, body = (folder / name).read_text().partition("\n\n")
            assert head.startswith("# Generated by Django 5.2")
            assert body == (EVOLVED / name).read_text()
        assert "Put the classes into the models.py of catalog too, and restart the kernel." in outcome.stdout
        assert copy.run("%evolve catalog --write").stdout == "The files are there already.\n"

        (checkout / "catalog" / "models.py").write_text(f"from django.db import models\n\n\n{AGE}\n\n{BOOK}")
        assert "No changes detected" in copy.run(f"{python} makemigrations --check catalog").stdout
        assert "Unapplying catalog.0003" in copy.run("%manage migrate catalog 0002").stdout
        # Without --apply before it.
        for name in names:
            os.remove(folder / name)
        evolve(copy, "", AGE)
        assert "0004_data" in evolve(copy, "--continue --write", DATA).stdout
        assert sorted(path.name for path in set(folder.glob("*.py")) - before) == names
        assert "Applying catalog.0004_data... OK" in copy.run(f"{python} migrate catalog --no-color").stdout
        copy.run("%manage migrate catalog 0002 -v 0")
    assert not (PROJECT / "catalog" / "migrations" / names[0]).exists()


@pytest.mark.parametrize(
    ("cell", "expected", "changes"),
    [
        ("Author.objects.create(name='A'); print('printed')", "", "~ rows    0 rows → 1 row"),
        ("1 + 1", "2", "No difference."),
        ("%manage migrate catalog 0001 -v 0", "", "- column  country  varchar(100) NOT NULL"),
        (f"%%evolve catalog --apply\n{AGE}", "What it means", "+ column  age  integer"),
        ("!echo one\n%time 1\nvalue = 5", "", "No difference."),
        ("\n\n", "", "No difference."),
    ],
)
def test_a_diff_shows_what_the_cell_shows_and_what_it_did(
    kernel: Kernel, cell: str, expected: str, changes: str
) -> None:
    outcome = kernel.run(f"%%diff catalog\n{cell}")
    assert outcome.error == []
    assert ("printed" in outcome.stdout) == ("printed" in cell)
    assert ("one" in outcome.stdout.split()) == ("echo" in cell)
    assert expected in outcome.result
    assert changes in outcome.result.splitlines()[-1]


def test_a_diff_looks_at_the_apps_that_it_is_told_or_at_all(kernel: Kernel) -> None:
    make = "Group.objects.create(name='readers')"
    assert "No difference." in kernel.run(f"%%diff catalog\n{make}").result
    assert "auth_group" in kernel.run("%%diff\nGroup.objects.all().delete()").result
    assert "auth_group" in kernel.run(f"%%diff catalog auth\n{make}").result
    assert said(kernel.run("%%diff catalgo\n1")) == "No app 'catalgo' is installed: did you mean catalog?"


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("Author.objects.create(name='A'); never_made", "NameError"),
        ("x = )", "SyntaxError"),
        ("if x:\npass", "IndentationError"),
        ("%manage nothing", "There is no command 'nothing'"),
        ("connection.cursor().execute('SELEC')", "ProgrammingError"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_an_error_in_a_diff_is_shown_once_after_what_it_did(kernel: Kernel, cell: str, error: str) -> None:
    outcome = kernel.run(f"%%diff catalog\n{cell}")
    assert ("0 rows → 1 row" if "create" in cell else "No difference.") in outcome.result
    shown = "\n".join(outcome.error)
    assert error in shown.splitlines()[-1] or error in shown
    assert error not in outcome.stdout + outcome.stderr
    # The kernel's own ways to show an error are back.
    (one, *_) = kernel.run("%manage nothing").error
    assert one.startswith("There is no command 'nothing'")
    assert "ZeroDivisionError" in "\n".join(kernel.run("1 / 0").error)


def test_an_awaited_query_works_in_a_diff_or_is_refused_in_a_sentence(kernel: Kernel) -> None:
    outcome = kernel.run("%%diff catalog\nawait Author.objects.acount()")
    assert outcome.error == [] or said(outcome)
    assert "never awaited" not in outcome.stderr + kernel.run("import gc; gc.collect();").stderr
