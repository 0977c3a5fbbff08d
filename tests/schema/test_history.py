"""The models as of a migration, and names that follow, in a project with more of a past than the catalog."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import scratch
from tests.kernel import Kernel
from tests.schema import press

KEPT = "CREATE TABLE IF NOT EXISTS kept AS TABLE django_migrations"
BACK = "TRUNCATE django_migrations; INSERT INTO django_migrations OVERRIDING SYSTEM VALUE TABLE kept"
FILL = """
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
person = Person.objects.create(name="Ada")
article = Article.objects.create(heading="News", editor=person)
article.labels.add(Label.objects.create(word="new"))
Reading.objects.create(article=article, person=person)
Review.objects.create(heading="Good", editor=person)
count = lambda: Tine.objects.count()
"""

Add = Callable[[str, str, str], Path]


@dataclass
class Project:
    folder: Path
    kernel: Kernel

    def line(self, cell: str) -> str:
        """Return the one line that a cell fails with."""
        outcome = self.kernel.run(cell)
        assert len(outcome.error) == 1, outcome.error or f"{cell} gave {outcome.result}"
        return outcome.error[0]

    def value(self, cell: str) -> str:
        outcome = self.kernel.run(cell)
        assert not outcome.error, outcome.error
        return outcome.result

    def said(self, cell: str) -> list[str]:
        outcome = self.kernel.run(cell)
        assert not outcome.error, outcome.error
        return outcome.stdout.splitlines()

    def sql(self, *statements: str) -> None:
        for statement in statements:
            self.value(f"connection.cursor().execute({statement!r})")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("press")
    press.write(folder)
    with (
        scratch() as url,
        scratch() as archive,
        Kernel({"DATABASE_URL": url, "ARCHIVE_URL": archive}, cwd=folder) as kernel,
    ):
        project = Project(folder, kernel)
        project.value("%manage migrate -v 0")
        project.value("%manage migrate ledger -v 0 --database archive")
        project.value(FILL)
        project.sql(KEPT)
        yield project


@pytest.fixture
def add(project: Project) -> Iterator[Add]:
    """Write a migration file into the project while its kernel runs; it goes again after the test."""
    made: list[Path] = []

    def write(label: str, name: str, body: str) -> Path:
        made.append(press.write_migration(project.folder, label, name, body))
        return made[-1]

    yield write
    for path in made:
        path.unlink(missing_ok=True)


@pytest.fixture
def records(project: Project) -> Iterator[Callable[..., None]]:
    """Change django_migrations with SQL, for the time of the test."""
    yield project.sql
    project.sql(BACK)
    project.value("count()")


@pytest.fixture
def moved(project: Project) -> Iterator[None]:
    """Bring both databases back to the newest migrations."""
    yield
    project.value("%manage migrate -v 0")
    project.value("%manage migrate ledger -v 0 --database archive")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("models_at('nope')", "No app 'nope' is installed."),
        ("models_at('pres')", "No app 'pres' is installed: did you mean press?"),
        ("models_at('django.contrib.auth')", "No app 'django.contrib.auth' is installed: did you mean auth?"),
        ("models_at('plain')", "The app plain has no migrations: its models have one state only."),
        (
            "models_at('press', '0009')",
            "press has no migration '0009': it has 0001_initial, 0002_more, 0003_words.",
        ),
        ("models_at('press', '0003_wrods')", "press has no migration '0003_wrods': did you mean 0003_words?"),
        (
            "models_at('fork', '0002')",
            "'0002' may be 0002_left or 0002_right of fork: say more of the name.",
        ),
        ("models_at('press', '0001').Label", "press as of 0001_initial (Tag, Article) has no Label."),
        (
            "models_at('press', '0001').article",
            "press as of 0001_initial (Tag, Article) has no article: did you mean Article?",
        ),
        ("models_at('press', using='nope')", "There is no database alias 'nope'"),
    ],
)
def test_what_is_not_in_the_history_is_one_sentence(project: Project, cell: str, sentence: str) -> None:
    line = project.line(cell)
    assert line == sentence or (not sentence.endswith((".", "?")) and line.startswith(sentence))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("'press', 'zero'", "press as of zero (no models)"),
        ("'press', '0001'", "press as of 0001_initial (Tag, Article)"),
        ("'press', '0002_more'", "press as of 0002_more (Tag, Article, Headline, Review, Reading)"),
        ("'press'", "press as of 0003_words (Article, Headline, Review, Reading, Label)"),
        ("'auth'", "auth as of 0012_alter_user_first_name_max_length (Permission, Group)"),
        ("'accounts', '0001'", "accounts as of 0001_initial (Person)"),
        ("'fork'", "fork as of 0003_merge (Tine)"),
        ("'ledger', '0001', using='archive'", "ledger as of 0001_initial (Entry, Draft)"),
    ],
)
def test_a_point_of_the_history_shows_its_models(project: Project, arguments: str, shown: str) -> None:
    assert project.value(f"models_at({arguments})") == shown


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("then.Article", "<class 'press.Article' as of 0003_words>"),
        ("then.Article.labels.through", "<class 'press.Article_labels' as of 0003_words>"),
        ("[model.__name__ for model in then][:2]", "['Article', 'Headline']"),
        (
            "import copy; copy.copy(then)",
            "press as of 0003_words (Article, Headline, Review, Reading, Label)",
        ),
        ("then.Article.published.loud().count()", "2"),
        ("old.heading, old.labels.get().word, old.readers.count()", "('News', 'new', 1)"),
        ("old.editor, old.editor.nickname", "(<Person: Person object (1)>, '')"),
        ("then.Person = 1; old.editor.article_set.count()", "2"),
        ("then.Headline.objects.count(), then.Review.objects.get().heading", "(2, 'Good')"),
        ("then.Review.objects.get().article_ptr == old", "False"),
        ("list(frame(then.Article.objects.order_by('id'))['heading'])", "['News', 'Good']"),
        ("models_at('ledger', '0002').Entry.objects.count()", "0"),
        ("models_at('ledger', '0002').Entry.objects.all().db", "'archive'"),
        (
            "with transaction.atomic():\n"
            "    made = then.Review.objects.create(heading='More', editor_id=old.editor_id)\n"
            "    made.labels.add(old.labels.get()); old.readers.clear()\n"
            "    counts = Review.objects.count(), Article.objects.get(heading='More').labels.count()\n"
            "    counts = *counts, Reading.objects.count(); transaction.set_rollback(True)\n"
            "counts",
            "(2, 1, 0)",
        ),
    ],
)
def test_models_of_the_past_query_and_write_like_any_others(project: Project, cell: str, value: str) -> None:
    project.value("then = models_at('press', '0003'); old = then.Article.objects.get(heading='News')")
    assert project.value(cell) == value


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("old.nothing", "Article as of 0003_words has no nothing."),
        (
            "old.shout()",
            "Article as of 0003_words has no shout, which press.models.Article has: "
            "methods and properties are not part of the history.",
        ),
        (
            "models_at('accounts', '0001').Person(name='x').nickname",
            "Person as of 0001_initial has no nickname, which accounts.models.Person has.",
        ),
        ("then.Article.recent", "Article as of 0003_words has no recent, which press.models.Article has"),
    ],
)
def test_what_a_class_of_the_past_lacks_is_one_sentence(project: Project, cell: str, said: str) -> None:
    project.value("then = models_at('press', '0003'); old = then.Article.objects.get(heading='News')")
    line = project.line(cell)
    assert line == said or (not said.endswith(".") and line.startswith(said))


@pytest.mark.parametrize("cell", ["old.review", "then.Reading().article", "then.Review(editor=None).editor"])
def test_a_related_object_that_is_not_there_is_missed_as_by_any_model(project: Project, cell: str) -> None:
    project.value("then = models_at('press', '0003'); old = then.Article.objects.get(heading='News')")
    assert project.value(
        f"try: {cell}; said = 'found'\nexcept ObjectDoesNotExist: said = 'missed'\nsaid"
    ) == ("'missed'")


def test_a_point_that_is_not_the_databases_own_is_one_sentence_and_its_own_works(
    project: Project, moved: None
) -> None:
    line = project.line("list(models_at('press', '0002').Article.objects.all())")
    assert "column press_article.title does not exist" in line
    assert "0002_more" in line
    assert "0003_words" in line
    project.value("%manage migrate press 0002 -v 0")
    assert project.value("models_at('press', '0002').Article.objects.first().title") == "'News'"
    line = project.line("list(models_at('press', '0003').Article.objects.all())")
    assert line.startswith(
        "column press_article.heading does not exist: the database is at 0002_more of press"
    )
    assert project.value("MigrationRecorder(connection).migration_qs.filter(app='press').count()") == "2"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("syntax", "dependencies = ["),
        ("name", "dependencies = [nonsense]"),
        ("value", "dependencies = [][1]"),
        ("parent", "dependencies = [('fork', '0009_nowhere')]"),
        ("circle", "dependencies = [('fork', '0003_merge'), ('fork', '0004_circle')]"),
        (
            "model",
            "dependencies = [('fork', '0003_merge')]\n"
            "operations = [migrations.AddField('nowhere', 'x', models.IntegerField())]",
        ),
        (
            "reference",
            "dependencies = [('fork', '0003_merge')]\n"
            "operations = [migrations.AddField('tine', 'x', models.ForeignKey('gone.Gone', models.CASCADE))]",
        ),
    ],
)
def test_a_broken_migration_file_is_one_sentence_and_nothing_else_breaks(
    project: Project, records: Callable[..., None], add: Add, name: str, body: str
) -> None:
    path = add("fork", f"0004_{name}", body)
    # As if another session had migrated: the next query looks at the files.
    records(f"INSERT INTO django_migrations (app, name, applied) VALUES ('fork', '0004_{name}', now())")
    outcome = project.kernel.run("count()")
    assert (outcome.result, outcome.error) == ("0", [])
    assert "Error in callback" not in outcome.stdout
    assert re.search(rf"\b0004_{name}\b|\bfork\.Tine\.x\b", project.line("models_at('fork')"))
    path.unlink()
    assert project.value("models_at('fork')") == "fork as of 0003_merge (Tine)"


def test_a_migration_that_appears_while_the_kernel_runs_is_seen_and_so_is_that_it_went(
    project: Project, add: Add
) -> None:
    body = 'dependencies = [("bundle", "0003_colour")]\noperations = [migrations.DeleteModel("Parcel")]'
    path = add("bundle", "0004_seen", body)
    assert project.value("models_at('bundle')") == "bundle as of 0004_seen (no models)"
    path.unlink()
    assert project.value("models_at('bundle')") == "bundle as of 0003_colour (Parcel)"


def test_so_is_the_first_of_an_app(project: Project, add: Add) -> None:
    note = f"operations = [migrations.CreateModel('Note', [{press.PK}, ('text', models.TextField())])]"
    path = add("plain", "0001_initial", note)
    try:
        assert project.value("models_at('plain')") == "plain as of 0001_initial (Note)"
    finally:
        shutil.rmtree(path.parent)
        project.value("import sys; del sys.modules['plain.migrations']")


def test_two_ends_are_said_and_each_can_be_named(project: Project, add: Add) -> None:
    add("fork", "0003_rival", 'dependencies = [("fork", "0002_left")]')
    assert project.line("models_at('fork')") == (
        "fork has two ends, 0003_merge and 0003_rival: merge them with makemigrations --merge."
    )
    said = project.value("models_at('fork', '0003_m'), models_at('fork', '0003_rival')")
    assert said == "(fork as of 0003_merge (Tine), fork as of 0003_rival (Tine))"


@pytest.mark.parametrize("name", ["0009_lost", "0009"])
def test_a_migration_that_is_applied_and_has_no_file_is_said_to_be_gone(
    project: Project, records: Callable[..., None], name: str
) -> None:
    records("INSERT INTO django_migrations (app, name, applied) VALUES ('fork', '0009_lost', now())")
    assert "its file is gone" in project.line(f"models_at('fork', '{name}')")
    assert project.value("count()") == "0"


@pytest.mark.parametrize(
    ("forgotten", "points"),
    [
        ([], {"0001": "0001_squashed_0002_weight", "0001_s": "0001_squashed_0002_weight"}),
        (
            ["0001_squashed_0002_weight", "0002_weight", "0003_colour"],
            {"0001": "0001_initial", "0001_s": "0001_squashed_0002_weight"},
        ),
        (
            ["0001_initial", "0001_squashed_0002_weight", "0002_weight", "0003_colour"],
            {"0001": "0001_squashed_0002_weight", "0001_s": "0001_squashed_0002_weight"},
        ),
    ],
    ids=["all applied", "partly applied", "none applied"],
)
def test_a_squash_and_what_it_replaces_can_be_named_however_much_is_applied(
    project: Project, records: Callable[..., None], forgotten: list[str], points: dict[str, str]
) -> None:
    names = ", ".join(f"'{name}'" for name in ["", *forgotten])
    records(f"DELETE FROM django_migrations WHERE app = 'bundle' AND name IN ({names})")
    everywhere = {"0001_i": "0001_initial", "0002": "0002_weight", "0003": "0003_colour"}
    for name, meant in {**everywhere, **points}.items():
        assert project.value(f"models_at('bundle', '{name}')") == f"bundle as of {meant} (Parcel)"
    fields = "[field.name for field in models_at('bundle', '{}').Parcel._meta.fields]"
    assert project.value(fields.format("0001_i")) == "['id']"
    assert project.value(fields.format("0002")) == "['id', 'weight']"
    assert project.value(fields.format("0003")) == "['id', 'weight', 'colour']"


def test_names_are_at_what_is_applied_of_a_squash(project: Project, records: Callable[..., None]) -> None:
    records("DELETE FROM django_migrations WHERE app = 'bundle' AND name <> '0001_initial'")
    assert project.value("Parcel") == "<class 'bundle.Parcel' as of 0001_initial>"


def test_what_to_do_about_a_history_that_makes_no_sense_can_be_done(
    project: Project, records: Callable[..., None]
) -> None:
    lost = "(app, name) IN (('bundle', '0003_colour'), ('accounts', '0001_initial'))"
    said = project.said(f'connection.cursor().execute("DELETE FROM django_migrations WHERE {lost}")')
    assert "accounts.0001_initial, which it needs, is not" in said[-1]
    advice = re.search(r"run (migrate \w+ \w+)?(.*)\.$", said[-1])
    assert advice, said
    project.value(f"%manage {advice[1]} --fake -v 0" if advice[1] else advice[2])
    assert project.value("Parcel") == "<class 'bundle.Parcel' as of 0001_squashed_0002_weight>"


def test_names_follow_again_once_a_broken_file_is_mended(
    project: Project, records: Callable[..., None], add: Add
) -> None:
    path = add("fork", "0004_unmended", "dependencies = [('fork', '0009_unmended')]")
    records("DELETE FROM django_migrations WHERE app = 'bundle' AND name = '0003_colour'")
    path.unlink()
    assert project.value("Parcel").startswith("<class 'bundle.Parcel' as of ")


def test_models_of_the_past_alone_have_a_free_name_while_the_database_has_them(
    project: Project, moved: None
) -> None:
    (said,) = project.said("%manage migrate press 0002 -v 0")
    assert said.startswith("Article, Headline, Reading, Review and ")
    assert "1 others" not in said
    assert project.value("Tag.objects.get().word, Article.objects.first().labels.get()") == (
        "('new', <Tag: Tag object (1)>)"
    )
    assert project.line("Label.objects.count()").startswith('relation "press_label" does not exist')
    project.value("kept = Tag.objects.all()")
    assert project.said("%manage migrate press -v 0") == [
        "Article, Headline, Reading and Review are the classes of press.models again."
    ]
    assert "NameError" in "".join(project.kernel.run("Tag").error)
    assert project.line("list(kept)").startswith(
        "This Tag is as of 0002_more, and the database is at 0003_words"
    )
    project.value("Tag = 'mine'")
    project.value("%manage migrate press 0002 -v 0")
    assert project.value("Tag") == "'mine'"
    project.value("del Tag")


def test_a_move_of_one_app_says_nothing_of_another(project: Project, moved: None) -> None:
    project.value("%manage migrate press 0002 -v 0")
    assert project.said("%manage migrate fork 0001 -v 0") == [
        "Tine is now as of 0001_initial: Tine has no left or right."
    ]
    assert project.value("Tag") == "<class 'press.Tag' as of 0002_more>"
    assert project.value("Article.objects.select_related('editor').first().labels.get().word") == "'new'"


def test_a_name_follows_the_database_that_its_app_is_on(project: Project, moved: None) -> None:
    assert project.said("%manage migrate ledger 0001 -v 0 --database archive") == [
        "Entry and Draft are now as of 0001_initial: Entry has no memo."
    ]
    # Of the other database, where the app has no tables, the record alone changes.
    assert project.said("%manage migrate ledger zero -v 0") == []
    assert project.value("Entry.objects.count(), Draft.objects.count()") == "(0, 0)"
    project.value("%manage migrate ledger -v 0 --database archive")
    project.value("%manage migrate -v 0")
    assert project.said("%manage migrate ledger 0001 -v 0") == []
    assert project.value("'Draft' in globals(), Entry") == "(False, ledger.models.Entry)"


def test_what_is_missing_in_another_database_is_migrated_there(project: Project, moved: None) -> None:
    project.value("%manage migrate ledger zero -v 0 --database archive")
    line = project.line("Entry.objects.count()")
    advice = re.search(r"%manage (.+) makes its tables", line)
    assert advice, line
    project.value(f"%manage {advice[1]} -v 0")
    assert project.value("Entry.objects.count()") == "0"


def test_an_edited_model_file_is_said_once_with_what_to_do_and_a_touched_one_is_not(project: Project) -> None:
    path = project.folder / "fork" / "models.py"
    text = path.read_text()
    project.value("1")
    os.utime(path, (1, 1))
    assert project.kernel.run("1").stderr == ""
    path.write_text(f"{text}\n# edited\n")
    assert project.kernel.run("1").stderr == (
        "fork/models.py has changed since this kernel started, which still works with what it was: "
        "restart the kernel.\n"
    )
    assert project.kernel.run("1").stderr == ""
    path.write_text(text)
    assert project.kernel.run("1").stderr == ""
