from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from workbench.connection import analyst
from workbench.errors import OneSentence, listed
from workbench.schema.executor import one_line

NAME = "analyst"
LISTED = 4


class Command(BaseCommand):
    help = (
        "Makes a role that only reads this database. Its address is kept in a file that only you can read; "
        "a second run lets it read what has come since, and changes its password."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", default=NAME, help=f"By default {NAME}.")
        parser.add_argument("--drop", action="store_true", help="Ends the role's sessions, and removes it.")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections))

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        try:
            file = _Private(settings.BASE_DIR / f".env.{name}", name)
            if options["drop"]:
                analyst.drop(name, options["database"])
                file.path.unlink(missing_ok=True)
                self.stdout.write(f"The role {name} is gone, and {file.path.name} with it.")
                return
            with file:
                made = analyst.make(name, file.write, options["database"])
                file.finish()
        except OneSentence as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"Postgres refused this: {one_line(error)}") from None
        except OSError as error:
            raise CommandError(f"{error.filename} cannot be written: {error.strerror}.") from None
        self.stdout.write("\n".join(_sentences(made, file.path.name)))


class _Private:
    """A role's file, which nobody else can read at any moment, and which is there once it is finished."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._mark = f"# The role {name}, as manage.py analyst made it. Keep it secret.\n"
        self._draft = path.with_name(f"{path.name}.new")
        if path.exists() and not path.read_text(encoding="utf-8").startswith(self._mark):
            raise analyst.AnalystError(f"There is a file {path.name} of another kind: choose another name.")

    def __enter__(self) -> None:
        self._draft.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self._draft.unlink(missing_ok=True)

    def write(self, variables: Mapping[str, str]) -> None:
        lines = [f"{variable}={value}\n" for variable, value in variables.items()]
        with open(os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines([self._mark, *lines])

    def finish(self) -> None:
        self._draft.replace(self.path)


def _sentences(made: analyst.Analyst, file: str) -> Iterator[str]:
    count = len(made.tables)
    yield (
        f"The role {made.name} reads {count} table{'' if count == 1 else 's'} of {made.database} and those "
        f"that you make from now on, and changes none."
    )
    if made.kept:
        yield (
            f"Kept from it: {listed(made.kept, most=LISTED)}. Run this again after a migration that adds "
            f"something like that."
        )
    if made.others:
        yield f"Not yours to let it read: {listed(made.others, most=LISTED)}. Their owners can GRANT SELECT."
    for schema in made.open_schemas:
        yield (
            f"Everybody may make tables in the schema {schema}, so it may, too: REVOKE CREATE ON SCHEMA "
            f"{schema} FROM PUBLIC ends that, for all who are no owners."
        )
    yield f"Its address is in {file}, which only you can read: WORKBENCH_ENV_FILE={file} make lab"
    if made.refused:
        yield f"The server does not let it in yet. {made.refused}"
    if not made.is_asked:
        yield (
            "This server asks nobody for a password: whoever reaches it can be any role. So the role keeps "
            "from mistakes, not from intent."
        )
