"""Django's executor of migrations, that is patient, and says in one sentence what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from traceback import walk_tb
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from workbench.connection import StatementFailed
from workbench.errors import OneSentence
from workbench.schema import patience
from workbench.schema.effects import described
from workbench.schema.errors import SchemaError
from workbench.schema.repair import InvalidIndex, invalid_indexes


class Executor(MigrationExecutor):
    """Within a Patience an atomic migration that does not get a lock in time is run again, as a whole, and
    what Postgres refuses is a SchemaError. Elsewhere it is Django's.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, progress_callback: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(connection, self._report)  # type: ignore[arg-type]
        self._callback = progress_callback
        self._patience = patience.current.get()
        self._is_again = False

    def apply_migration(
        self, state: ProjectState, migration: Migration, fake: bool = False, fake_initial: bool = False
    ) -> ProjectState:
        def run(number: int) -> ProjectState:
            # What failed has changed the state, nobody knows how far.
            before = self._state() if number else state
            return super(Executor, self).apply_migration(before, migration, fake, fake_initial)

        after = self._run(migration, run)
        self.loader.applied_migrations[migration.app_label, migration.name] = migration
        return after

    def unapply_migration(
        self, state: ProjectState, migration: Migration, fake: bool = False
    ) -> ProjectState:
        def run(number: int) -> ProjectState:
            return super(Executor, self).unapply_migration(state, migration, fake)

        return self._run(migration, run)

    def _run(self, migration: Migration, run: Callable[[int], ProjectState]) -> ProjectState:
        if self._patience is None:
            return run(0)
        self._patience.begin()
        invalid = [] if migration.atomic else invalid_indexes(self.connection)

        def attempt(number: int) -> ProjectState:
            self._is_again = number > 0
            return run(number)

        try:
            return self._patience.whole(attempt) if migration.atomic else attempt(0)
        except Error as error:
            # A sentence of our own has said it all; what the server fails at is said where it happened.
            if issubclass(type(error), OneSentence) and not isinstance(error, StatementFailed):
                raise
            operation = _operation(error)
            said = [self._failure(migration, operation, error), self._outcome(migration, operation, invalid)]
            if len(self._patience.waited_for) == 1 and patience.is_lock_missed(error):
                said.append(self._patience.waited_for[0].remedy)
            raise SchemaError(" ".join(filter(None, said))) from error

    def _report(self, action: str, migration: Migration | None = None, fake: bool = False) -> None:
        if self._callback and not (self._is_again and action in ("apply_start", "unapply_start")):
            self._callback(action, migration, fake)

    def _state(self) -> ProjectState:
        state: ProjectState = self._create_project_state(True)  # type: ignore[attr-defined]
        _ = state.apps  # As Django does before the first: what follows renders only what changes.
        return state

    def _failure(self, migration: Migration, operation: Operation | None, error: Error) -> str:
        assert self._patience is not None
        if self._patience.is_patient and patience.is_lock_missed(error):
            them = patience.named(self._patience.waited_for) or "another session"
            return (
                f"{migration} waited {self._patience.seconds:g} seconds (--lock-wait) for a lock of {them}."
            )
        at = f" at '{described(operation)}'" if operation else ""
        return f"{migration} failed{at}: {one_line(error)}"

    def _outcome(
        self, migration: Migration, operation: Operation | None, before: Sequence[InvalidIndex]
    ) -> str:
        raw = self.connection.connection
        if raw is None or raw.closed:
            return "Migrate again when the server is back."
        if migration.atomic:
            return "Nothing of it was changed."
        way_on = "when the cause is gone, migrate with --repair, which goes on from there."
        left = [] if raw.autocommit is False else invalid_indexes(self.connection)
        if names := [index.name for index in left if index not in before]:
            return f"It left the index {', '.join(names)} invalid: {way_on}"
        is_first = operation is not None and operation is migration.operations[0]
        return "" if is_first else f"What it did before stays: {way_on}"


def one_line(error: BaseException) -> str:
    """Return what Postgres said, in one line that ends with a full stop."""
    if isinstance(error, StatementFailed):
        return error.what
    said = str(error).strip().partition("\n")[0].rstrip(".")
    detail = getattr(getattr(error.__cause__, "diag", None), "message_detail", None)
    return f"{said}. {' '.join(detail.split())}" if detail else f"{said}."


def _operation(error: Error) -> Operation | None:
    """Return the operation in which an error was raised."""
    codes = (Migration.apply.__code__, Migration.unapply.__code__)
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code in codes:
            operation: Operation | None = frame.f_locals.get("operation")
            return operation
    return None
