from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.core.management.commands import migrate
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.exceptions import IrreversibleError
from django.db.models.signals import pre_migrate

from workbench.connection import ConnectionFailed, Session, interrupt, silence, where
from workbench.connection.gauges import building
from workbench.connection.limits import ONLY_READS
from workbench.connection.turns import turn
from workbench.errors import OneSentence
from workbench.progress import Progress, lent, whole_lines
from workbench.schema import losses
from workbench.schema.executor import Executor, one_line
from workbench.schema.patience import Patience, named
from workbench.schema.repair import interruptions, invalid_indexes
from workbench.show import printable

# Django's handle() looks it up there. Outside of a Patience it is Django's own.
migrate.MigrationExecutor = Executor  # type: ignore[attr-defined]


class Command(migrate.Command):
    """Django's migrate: one at a time, patient with locks, able to repair what an interrupted one left.

    On any database but the embedded one it says what it would drop, and asks.
    """

    # Whether a line "Applying ..." waits for its end.
    _is_in_line = False

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--yes", action="store_true", help="Go on where the migration drops columns or tables."
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=600,
            metavar="SECONDS",
            help="How long to wait for another migrate of the same database; by default 600.",
        )
        parser.add_argument(
            "--lock-wait",
            type=float,
            default=60,
            metavar="SECONDS",
            help="How long a migration tries to get its locks, a few seconds at a time so that others can "
            "work meanwhile; by default 60. With 0 it waits as long as it takes, and others behind it.",
        )
        parser.add_argument(
            "--repair",
            action="store_true",
            help="Go on with migrations that were interrupted, and rebuild invalid indexes.",
        )

    def handle(self, *args: Any, **options: Any) -> str | None:
        connection = connections[options["database"]]
        if options["plan"] or options["check_unapplied"] or connection.vendor != "postgresql":
            return super().handle(*args, **options)
        interrupt.watch(connection)
        try:
            with (
                Progress("Migrating", unit="migrations") as self._progress,
                building(self._progress, connection),
                self._whole_lines(),
                turn(connection, patience=options["wait"], tell=self._say_turn),
                Patience(connection, options["lock_wait"], self._say_waiting),
            ):
                return self._migrate(connection, args, options)
        except IrreversibleError as error:
            raise CommandError(f"{error}.") from error
        except ConnectionFailed:
            raise
        except OneSentence as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(one_line(error)) from error
        finally:
            # In a terminal the error would stand behind the dots.
            if self._is_in_line and getattr(self, "_called_from_command_line", False):
                self.stdout.write("")
            self._is_in_line = False

    def _migrate(
        self, connection: BaseDatabaseWrapper, args: tuple[Any, ...], options: dict[str, Any]
    ) -> str | None:
        self._progress.now = ""
        is_prepared = False

        def prepare(*, plan: list[Any], using: str, **_: Any) -> None:
            nonlocal is_prepared
            if not is_prepared:
                is_prepared = True
                if plan and connection.settings_dict.get("READ_ONLY"):
                    raise CommandError(ONLY_READS)
                self._progress.total = len(plan)
                self._go_on(connection, plan, options)
                self._ask(plan, using, options)

        # Django sends this with the final plan, before the first migration runs.
        pre_migrate.connect(prepare)
        try:
            done = super().handle(*args, **options)
        except KeyboardInterrupt:
            # Nobody who interrupts wants to wait for a server that does not answer.
            with suppress(Error), silence.asking(connection):
                if connection.connection is not None and connection.is_usable():
                    self._mention(connection)
            raise
        finally:
            pre_migrate.disconnect(prepare)
        if options["repair"]:
            self._repair(connection)
        else:
            self._mention(connection)
        return done

    def _go_on(
        self, connection: BaseDatabaseWrapper, plan: list[tuple[Migration, bool]], options: dict[str, Any]
    ) -> None:
        """Stop before a migration that was interrupted, or prepare it to go on."""
        if options["fake"] or options["fake_initial"]:
            return
        for interruption in interruptions(connection, plan):
            if not options["repair"]:
                raise CommandError(f"{interruption} Add --repair to go on from there.")
            if self.verbosity > 0:
                self.stdout.write(f"{interruption} Going on from there.")
            interruption.go_on()

    def _ask(self, plan: list[Any], using: str, options: dict[str, Any]) -> None:
        is_settled = options["yes"] or getattr(settings, "WORKBENCH_YES", False) or options["fake"]
        if is_settled or connections[using].settings_dict.get("EMBEDDED"):
            return
        lost = losses(connections[using], plan)
        if not lost:
            return
        question = f"This drops {', '.join(lost)} from {where(using)}."
        if options["interactive"] and sys.stdin is not None and sys.stdin.isatty():
            with lent():
                answer = input(f"{question} Type 'yes' to go on: ")
            if answer.strip().lower() == "yes":
                return
            raise CommandError("Nothing was changed.")
        raise CommandError(
            f"{question} Nothing was changed. If that is what you want, add --yes to the command; "
            f"WORKBENCH_YES=1 in the environment or in .env says so for every command."
        )

    def _repair(self, connection: BaseDatabaseWrapper) -> None:
        for index in invalid_indexes(connection):
            if self.verbosity > 0:
                self.stdout.write(printable(f"Repairing {index.sql_name} of {index.table}: {index.remedy}"))
            try:
                with connection.cursor() as cursor:
                    cursor.execute(index.remedy)
            except Error as error:
                raise CommandError(f"{index.remedy} failed: {one_line(error)}") from error

    def _mention(self, connection: BaseDatabaseWrapper) -> None:
        if found := invalid_indexes(connection):
            names = ", ".join(f"{index.sql_name} of {index.table}" for index in found)
            sql = " ".join(f"{index.remedy};" for index in found)
            self._say(f"Invalid, so that no query uses it: {names}. Run {sql} or migrate with --repair.")

    def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
        super().migration_progress_callback(action, migration, fake)
        is_start = action in ("apply_start", "unapply_start")
        self._is_in_line = self.verbosity > 0 and is_start
        if is_start:
            self._progress.now = str(migration)
        elif action in ("apply_success", "unapply_success"):
            self._progress.done += 1

    @contextmanager
    def _whole_lines(self) -> Iterator[None]:
        before = self.stdout, self.stderr
        with whole_lines(self.stdout._out) as out, whole_lines(self.stderr._out) as error:
            self.stdout, self.stderr = _onto(out, self.stdout), _onto(error, self.stderr)
            try:
                yield
            finally:
                self.stdout, self.stderr = before

    def _say_waiting(self, found: Sequence[Session]) -> None:
        if self._is_in_line:
            self.stdout.write(f" waits for {named(found)}...", ending="")
            self.stdout.flush()
            self._progress.now += f", held up by {named(found)}"
        else:
            self._say(f"Waiting for {named(found)}.")

    def _say_turn(self, text: str) -> None:
        self._say(text)
        self._progress.now = "waiting for its turn"

    def _say(self, text: str) -> None:
        self.stderr.write(text, self.style.WARNING)


def _onto(stream: Any, before: OutputWrapper) -> OutputWrapper:
    """Return what writes to a stream as a command did before."""
    wrapper = OutputWrapper(stream)
    wrapper.style_func = before.style_func
    return wrapper
