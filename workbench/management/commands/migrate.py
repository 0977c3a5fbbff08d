from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import connections
from django.db.migrations.exceptions import IrreversibleError
from django.db.models.signals import pre_migrate

from workbench.connection import where
from workbench.schema import losses


class Command(migrate.Command):
    """Django's migrate, which on any database but the embedded one says what it would drop, and asks."""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--yes", action="store_true", help="Go on where the migration drops columns or tables."
        )

    def handle(self, *args: Any, **options: Any) -> str | None:
        asked = False

        def ask_once(*, plan: list[Any], using: str, **_: Any) -> None:
            nonlocal asked
            if not asked:
                asked = True
                self._ask(plan, using, options)

        # Django sends this with the final plan, before the first migration runs.
        pre_migrate.connect(ask_once)
        try:
            return super().handle(*args, **options)
        except IrreversibleError as error:
            raise CommandError(f"{error}.") from error
        finally:
            pre_migrate.disconnect(ask_once)

    def _ask(self, plan: list[Any], using: str, options: dict[str, Any]) -> None:
        is_settled = options["yes"] or getattr(settings, "WORKBENCH_YES", False) or options["fake"]
        if is_settled or connections[using].settings_dict.get("EMBEDDED"):
            return
        lost = losses(connections[using], plan)
        if not lost:
            return
        question = f"This drops {', '.join(lost)} from {where(using)}."
        if options["interactive"] and sys.stdin is not None and sys.stdin.isatty():
            if input(f"{question} Type 'yes' to go on: ").strip().lower() == "yes":
                return
            raise CommandError("Nothing was changed.")
        raise CommandError(
            f"{question} Nothing was changed. If that is what you want, add --yes to the command; "
            f"WORKBENCH_YES=1 in the environment or in .env says so for every command."
        )
