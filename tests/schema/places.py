"""What these tests work with: SQL, an app that is installed for a moment, another database."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.apps import AppConfig, apps
from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.migrations.executor import MigrationExecutor

from workbench.schema.history import Models

# An app without tables of its own.
BARE = "messages"

IMPORTS = """\
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import IntegerRangeField
from django.db import migrations, models
"""


def run(*statements: str, using: str = DEFAULT_DB_ALIAS) -> list[Any]:
    """Run SQL, and return what the last statement gives."""
    with connections[using].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def as_models(*classes: type[models.Model], using: str = DEFAULT_DB_ALIAS) -> Models:
    return Models(BARE, "the test", {model.__name__: model for model in classes}, using)


def make(classes: Iterable[type[models.Model]]) -> None:
    """Make the tables of the classes for real."""
    with connections[DEFAULT_DB_ALIAS].schema_editor() as editor:
        for model in classes:
            editor.create_model(model)


def migrate(app_label: str, name: str | None, *, fake: bool = False) -> None:
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    executor.migrate([(app_label, name)], fake=fake)


@contextmanager
def app(folder: Path, label: str, classes: str, migrations: Mapping[str, str]) -> Iterator[None]:
    """Install an app of which the texts are given: its models, and the bodies of its migrations."""
    home = folder / label
    (home / "migrations").mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "migrations" / "__init__.py").touch()
    (home / "models.py").write_text(f"from django.db import models\n{classes}")
    for name, body in migrations.items():
        write_migration(home, name, body)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        config = AppConfig.create(label)
        apps.app_configs[label] = config
        config.apps = apps
        config.import_models()
        apps.clear_cache()
        yield
    finally:
        apps.app_configs.pop(label, None)
        apps.all_models.pop(label, None)
        apps.clear_cache()
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == label]:
            del sys.modules[name]


def write_migration(home: Path, name: str, body: str) -> None:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = f"{IMPORTS}\n\nclass Migration(migrations.Migration):\n{lines}\n"
    (home / "migrations" / f"{name}.py").write_text(text)


def settings_for(url: str) -> dict[str, Any]:
    """Return Django's settings for another database on the run's server."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        **connections[DEFAULT_DB_ALIAS].settings_dict,
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username,
        "PASSWORD": parts.password or "",
        "HOST": query["host"][0],
        "PORT": query["port"][0],
    }
