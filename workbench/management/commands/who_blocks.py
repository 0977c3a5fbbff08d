from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from workbench.connection import who_blocks

SHORTEST_SECONDS = 0.1


class Command(BaseCommand):
    help = (
        "Says which sessions wait for a lock, for whom, and what makes those let go. "
        "The exit status is 0 whether anybody waits or not."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections))
        parser.add_argument("--watch", type=float, metavar="SECONDS", help="Look again until interrupted.")
        parser.add_argument("--json", action="store_true", help="A line of JSON for each look.")

    def handle(self, *args: Any, watch: float | None, **options: Any) -> None:
        if watch is None:
            self._look(**options)
            return
        with suppress(KeyboardInterrupt):
            while True:
                if not options["json"]:
                    self.stdout.write(time.strftime("%H:%M:%S"))
                self._look(**options)
                self.stdout.flush()
                time.sleep(max(watch, SHORTEST_SECONDS))

    def _look(self, *, database: str, **options: Any) -> None:
        queue = who_blocks(database)
        self.stdout.write(json.dumps(asdict(queue), ensure_ascii=False) if options["json"] else repr(queue))
