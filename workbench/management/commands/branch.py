from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from workbench.branches import branches, swept
from workbench.errors import OneSentence
from workbench.management import branching


class Command(BaseCommand):
    help = "Says which branch of the database this is; makes, lists, compares, resets and drops branches."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        branching.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        def say(said: list[str], **_: Any) -> None:
            # What it answers may be read by a program.
            self.stderr.write(branching.removed(said))

        if not swept.has_listeners():
            swept.connect(say)
        try:
            self.stdout.write(
                self._use(options) if options["verb"] == "use" else repr(branching.answer(options))
            )
        except OneSentence as error:
            raise CommandError(str(error)) from None
        finally:
            swept.disconnect(say)

    def _use(self, options: dict[str, Any]) -> str:
        name = branches(options["database"])[options["name"]].name
        return (
            f"A command ends, and with it where it went: set WORKBENCH_BRANCH={name} in the environment "
            f"or in .env, and the next ones start there."
        )
