"""A project with what a history can hold, written to a folder: swapped users, proxies, tables of parents, M2M
with and without a model of its own, managers, a squash, a merge, an app without migrations, two databases.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import dedent, indent

from tests.throwaway import PROJECT

SETTINGS = """

INSTALLED_APPS += ["accounts", "press", "bundle", "fork", "plain", "ledger"]
AUTH_USER_MODEL = "accounts.Person"
DATABASES["archive"] = database({"DATABASE_URL": os.environ["ARCHIVE_URL"]}, home=WORKBENCH_HOME, web=False)
DATABASE_ROUTERS = ["press_router.Router"]
WORKBENCH_YES = True
"""

ROUTER = """
class Router:
    def db_for_read(self, model, **hints):
        return "archive" if model._meta.app_label == "ledger" else "default"

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return (db == "archive") == (app_label == "ledger")
"""

MODELS = {
    "accounts": """
        from django.contrib.auth.models import AbstractBaseUser

        class Person(AbstractBaseUser):
            name = models.TextField(unique=True)
            nickname = models.TextField(default="")
            USERNAME_FIELD = "name"
    """,
    "press": """
        from django.conf import settings
        from press.managers import Published

        class Label(models.Model):
            word = models.TextField()

        class Article(models.Model):
            heading = models.TextField()
            editor = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
            labels = models.ManyToManyField(Label)
            readers = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="read", through="Reading")
            objects = models.Manager()
            published = Published()
            recent = models.Manager()

            def shout(self):
                return self.heading.upper()

        class Reading(models.Model):
            article = models.ForeignKey(Article, models.CASCADE)
            person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
            minutes = models.IntegerField(default=1)

        class Headline(Article):
            class Meta:
                proxy = True

        class Review(Article):
            stars = models.IntegerField(default=5)
    """,
    "bundle": """
        class Parcel(models.Model):
            weight = models.IntegerField(default=1)
            colour = models.TextField(default="")
    """,
    "fork": """
        class Tine(models.Model):
            left = models.IntegerField(default=1)
            right = models.IntegerField(default=1)
    """,
    "plain": """
        class Note(models.Model):
            text = models.TextField()
    """,
    "ledger": """
        class Entry(models.Model):
            amount = models.IntegerField(default=1)
            memo = models.TextField(default="")
    """,
}

MANAGERS = """
from django.db import models


class Published(models.Manager):
    use_in_migrations = True

    def loud(self):
        return self.filter(pk__gt=0)
"""

HEAD = """
import press.managers
from django.conf import settings
from django.db import migrations, models

class Migration(migrations.Migration):
"""
PK = '("id", models.BigAutoField(primary_key=True))'
USER = "models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)"

MIGRATIONS = {
    "accounts": {
        "0001_initial": f"""
            operations = [migrations.CreateModel("Person", [
                {PK},
                ("password", models.CharField(max_length=128)),
                ("last_login", models.DateTimeField(blank=True, null=True)),
                ("name", models.TextField(unique=True)),
            ])]
        """,
        "0002_nickname": """
            dependencies = [("accounts", "0001_initial")]
            operations = [migrations.AddField("person", "nickname", models.TextField(default=""))]
        """,
    },
    "press": {
        "0001_initial": f"""
            dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
            operations = [
                migrations.CreateModel("Tag", [{PK}, ("word", models.TextField())]),
                migrations.CreateModel(
                    "Article",
                    [
                        {PK},
                        ("title", models.TextField()),
                        ("editor", {USER}),
                        ("labels", models.ManyToManyField("press.Tag")),
                    ],
                    managers=[("objects", models.Manager()), ("published", press.managers.Published())],
                ),
            ]
        """,
        "0002_more": f"""
            dependencies = [("press", "0001_initial"), ("accounts", "0002_nickname")]
            operations = [
                migrations.CreateModel(
                    "Headline", [], options={{"proxy": True}}, bases=("press.article",),
                ),
                migrations.CreateModel(
                    "Review",
                    [
                        ("article_ptr", models.OneToOneField(
                            "press.article", models.CASCADE, auto_created=True, parent_link=True,
                            primary_key=True, serialize=False)),
                        ("stars", models.IntegerField(default=5)),
                    ],
                    bases=("press.article",),
                ),
                migrations.CreateModel("Reading", [
                    {PK},
                    ("article", models.ForeignKey("press.article", models.CASCADE)),
                    ("person", {USER}),
                    ("minutes", models.IntegerField(default=1)),
                ]),
                migrations.AddField("article", "readers", models.ManyToManyField(
                    settings.AUTH_USER_MODEL, related_name="read", through="press.Reading")),
            ]
        """,
        "0003_words": """
            dependencies = [("press", "0002_more")]
            operations = [
                migrations.RenameField("article", "title", "heading"),
                migrations.RenameModel("Tag", "Label"),
            ]
        """,
    },
    "bundle": {
        "0001_initial": f"operations = [migrations.CreateModel('Parcel', [{PK}])]",
        "0002_weight": """
            dependencies = [("bundle", "0001_initial")]
            operations = [migrations.AddField("parcel", "weight", models.IntegerField(default=1))]
        """,
        "0001_squashed_0002_weight": f"""
            replaces = [("bundle", "0001_initial"), ("bundle", "0002_weight")]
            operations = [
                migrations.CreateModel("Parcel", [{PK}, ("weight", models.IntegerField(default=1))])
            ]
        """,
        "0003_colour": """
            dependencies = [("bundle", "0002_weight")]
            operations = [migrations.AddField("parcel", "colour", models.TextField(default=""))]
        """,
    },
    "fork": {
        "0001_initial": f"operations = [migrations.CreateModel('Tine', [{PK}])]",
        "0002_left": """
            dependencies = [("fork", "0001_initial")]
            operations = [migrations.AddField("tine", "left", models.IntegerField(default=1))]
        """,
        "0002_right": """
            dependencies = [("fork", "0001_initial")]
            operations = [migrations.AddField("tine", "right", models.IntegerField(default=1))]
        """,
        "0003_merge": 'dependencies = [("fork", "0002_left"), ("fork", "0002_right")]',
    },
    "ledger": {
        "0001_initial": f"""
            operations = [
                migrations.CreateModel("Entry", [{PK}, ("amount", models.IntegerField(default=1))]),
                migrations.CreateModel("Draft", [{PK}]),
            ]
        """,
        "0002_memo": """
            dependencies = [("ledger", "0001_initial")]
            operations = [
                migrations.AddField("entry", "memo", models.TextField(default="")),
                migrations.DeleteModel("Draft"),
            ]
        """,
    },
}


def write(folder: Path) -> None:
    """Write the project to a folder: the workbench and the catalog as they are, and more apps beside them."""
    for name in ("workbench", "catalog"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "workbench" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (folder / "press_router.py").write_text(ROUTER)
    for label, models in MODELS.items():
        (folder / label).mkdir()
        (folder / label / "__init__.py").touch()
        (folder / label / "models.py").write_text(f"from django.db import models\n{dedent(models)}")
    (folder / "press" / "managers.py").write_text(MANAGERS)
    for label, files in MIGRATIONS.items():
        for name, body in files.items():
            write_migration(folder, label, name, body)


def write_migration(folder: Path, label: str, name: str, body: str) -> Path:
    path = folder / label / "migrations" / f"{name}.py"
    if not path.parent.exists():
        path.parent.mkdir()
        (path.parent / "__init__.py").touch()
    path.write_text(f"{HEAD}{indent(dedent(body).strip(), '    ')}\n")
    return path
