from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS

from workbench.branches import InUse
from workbench.errors import OneSentence
from workbench.schema import rehearse

HURTS, FAILS = 2, 3


class Command(BaseCommand):
    help = (
        "Runs migrations on a copy of the database, and reports what they did. Exit status: 0 where "
        f"nothing hurts, {HURTS} where something does, {FAILS} where a migration fails, 1 without one."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("app_label", nargs="?", help="Otherwise all that is not applied.")
        parser.add_argument("migration", nargs="?", help="A name or how it begins; otherwise the last.")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="Everything that was seen, as JSON.")
        form.add_argument("--markdown", action="store_true", help="A comment for a pull request.")
        parser.add_argument("--tolerate", action="store_true", help="Exit with 0 though something hurts.")
        parser.add_argument("--end", action="store_true", help="End others' sessions that prevent a copy.")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS)

    def handle(self, *args: Any, app_label: str | None, migration: str | None, **options: Any) -> None:
        try:
            seen = rehearse(app_label, migration, using=options["database"], end_sessions=options["end"])
        except InUse as error:
            raise CommandError(error.on_a_line) from None
        except OneSentence as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(seen.as_dict(), indent=2, ensure_ascii=False))
        else:
            self.stdout.write(seen.as_markdown() if options["markdown"] else repr(seen))
        if seen.failure:
            sys.exit(FAILS)
        if seen.hurts and not options["tolerate"]:
            sys.exit(HURTS)
