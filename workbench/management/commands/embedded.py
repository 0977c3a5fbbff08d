from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from workbench.connection import embedded


class Command(BaseCommand):
    help = "Says whether the embedded Postgres runs, or stops it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["status", "stop"], default="status")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        home = settings.WORKBENCH_HOME
        try:
            self.stdout.write(self._stop(home) if action == "stop" else self._status(home))
        except embedded.EmbeddedError as error:
            raise CommandError(str(error)) from None

    def _stop(self, home: Path) -> str:
        return "Stopped." if embedded.stop(home) else "It does not run."

    def _status(self, home: Path) -> str:
        status = embedded.status(home)
        if not status.running:
            return f"Not running. It starts with the first connection. Data: {home}"
        return (
            f"PostgreSQL {status.version} runs since {status.since:%Y-%m-%d %H:%M} as process {status.pid}, "
            f"with {status.sessions} session{'' if status.sessions == 1 else 's'} "
            f"and {filesizeformat(status.bytes)} in its database. Data: {home}"
        )
