"""What tests of migrating share: a database at hand, somebody else's session, processes, an app."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import psycopg2
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.migrator import HERE, Done, migrate
from tests.schema.places import settings_for
from tests.throwaway import PROJECT, environment


@contextmanager
def at_hand(url: str, blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let the alias HERE lead to a database."""
    connections.databases[HERE] = settings_for(url)
    with blocker.unblock():
        yield
        connections[HERE].close()
    del connections[HERE]
    del connections.databases[HERE]


@contextmanager
def session(using: str = HERE) -> Iterator[Callable[..., list[Any]]]:
    """Give a session of somebody else's: call it with SQL for what that gives."""
    params = connections[using].get_connection_params()
    params["application_name"] = "somebody"
    with closing(psycopg2.connect(**params)) as connection:
        connection.autocommit = True

        def run(*statements: str) -> list[Any]:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

        yield run


def beside(*arguments: str, **options: Any) -> Done:
    """Migrate in a thread, that is in another session, which is closed in the end."""
    try:
        return migrate(*arguments, **options)
    finally:
        connections[HERE].close()


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what is found, once it is."""
    deadline = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < deadline, "It never came."
        time.sleep(0.02)
    return it


class Migrator:
    """A process that migrates databases when it is told to."""

    def __init__(self, changes: Mapping[str, str | None]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.migrator"],
            cwd=PROJECT,
            env=environment({**changes, "PYTHONPATH": f"{PROJECT}:{changes.get('PYTHONPATH', '')}"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def begin(self, url: str, *arguments: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([settings_for(url), *arguments]) + "\n")
        self.process.stdin.flush()

    def end(self) -> Done:
        assert self.process.stdout is not None
        return Done(*json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def bodies(migrations: Mapping[str, str]) -> dict[str, str]:
    """Return them without the indentation that they share."""
    return {name: dedent(body).strip() for name, body in migrations.items()}


def write_app(folder: Path, label: str, migrations: Mapping[str, str]) -> dict[str, str]:
    """Write an app, and return the environment of a project that has it."""
    home = folder / label / "migrations"
    home.mkdir(parents=True)
    for package in (home.parent, home):
        (package / "__init__.py").touch()
    head = (
        "from django.contrib.postgres.operations import AddIndexConcurrently\n"
        "from django.db import migrations, models\n\n\n"
        "class Migration(migrations.Migration):\n"
    )
    for name, body in bodies(migrations).items():
        (home / f"{name}.py").write_text(head + indent(body, "    "))
    (folder / f"{label}_settings.py").write_text(
        f"from workbench.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, '{label}']\n"
    )
    return {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": f"{label}_settings"}
