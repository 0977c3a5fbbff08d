"""Django's Postgres backend, for a server that may have to be started or woken first."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg2
import psycopg2.errors
from django.db import Error
from django.db.backends.postgresql import base, client
from django.db.backends.utils import CursorWrapper
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg2 import OperationalError
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, TRANSACTION_STATUS_INTRANS

from workbench.connection import embedded, failures, interrupt, silence
from workbench.connection.backend.operations import DatabaseOperations
from workbench.connection.failures import (
    BrokenTransaction,
    ConnectionFailed,
    TransactionOpen,
    delays,
    explain,
    passes,
    refuses_settings,
)
from workbench.connection.sessions import Connection, holds_transaction, startup, ways_out
from workbench.progress import Progress
from workbench.redaction import Secret, remember

AT_ONCE_SECONDS = 1.0

logger = logging.getLogger(__name__)

SPOILED = (
    "A statement of this transaction failed, so nothing of it is kept.",
    "Run it again without that one, or with another transaction.atomic() around it.",
)
BROKEN_BLOCK = (
    "A statement in this atomic block failed, so it takes no other one.",
    "What the block had changed is taken back at its end: begin anew after that, and next time put another "
    "transaction.atomic() around what may fail.",
)

# What finds the branch that a process is told to start on, and puts its address into the settings. The app
# sets it: this room knows nothing of branches.
find_branch: Callable[[DatabaseWrapper], None] | None = None


class DatabaseClient(client.DatabaseClient):
    """psql for ``dbshell``: for the embedded server, the one that came with it if no other is installed."""

    def runshell(self, parameters: Iterable[str]) -> None:
        if home := self.connection.settings_dict.get("EMBEDDED"):
            from workbench.connection.supervisor import Owner, binary

            self.connection.ensure_connection()
            address = embedded.Cluster(Path(home)).address()
            self.connection.settings_dict["HOST"] = address["host"]
            self.connection.settings_dict["PORT"] = address["port"]
            self.connection.settings_dict["PASSWORD"] = address.get("password", "")
            os.environ |= {"PGSSLMODE": address["sslmode"], "PGCHANNELBINDING": address["channel_binding"]}
            if shutil.which(self.executable_name) is None:
                os.environ["PATH"] += os.pathsep + str(binary("psql", Owner()).parent)
        super().runshell(parameters)


class ErrorWrapper(DatabaseErrorWrapper):
    """Django's, which also tells in one sentence of what is not the statement's own fault.

    An interrupt that came inside is raised at the end, instead of whatever came of it.
    """

    wrapper: DatabaseWrapper

    def __enter__(self) -> None:
        interrupt.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # No name here for psycopg2's connection: with the error's traceback it would be held on to.
        is_interrupted = interrupt.leave(self.wrapper.connection)
        if kind is None and not is_interrupted:
            return
        if why := silence.why_given_up(self.wrapper.connection):
            # libpq may not have met the end yet.
            self.wrapper.connection.close()
        try:
            super().__exit__(kind, error, trace)
        except Error as django:
            assert isinstance(error, psycopg2.Error)
            if not is_interrupted:
                told = failures.told(django, error, self.wrapper, is_commit=self.wrapper.is_committing)
                if told is None:
                    raise
                raise told.with_traceback(trace) from error
        if is_interrupted and kind is not KeyboardInterrupt:
            is_cancelled = isinstance(error, psycopg2.errors.QueryCanceled)
            said = interrupt.CANCELLED if is_cancelled else interrupt.OVER
            raise KeyboardInterrupt(interrupt.GIVEN_UP if why else said) from error


class _Rows:
    """Rows of a cursor, each part of which is a statement of its own: what is done with them is none."""

    def __iter__(self: Any) -> Iterator[Any]:
        if self.cursor.name:
            while rows := self.fetchmany(self.cursor.itersize):
                yield from rows
        else:
            yield from iter(self.fetchone, None)


class Cursor(_Rows, CursorWrapper):
    """Django's, which would leave an interrupt of a loop over rows to the end of it."""


class DebugCursor(_Rows, base.CursorDebugWrapper):
    """The same, which remembers its statements."""


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, with what an entry of DATABASES may have beside Django's own parts.

    ``SESSION`` are settings of the server for each session, as in ``{"lock_timeout": "5s"}``; those in the
    person's ``options`` win. A pooler, which has sessions of its own, gets none: neither where
    ``DISABLE_SERVER_SIDE_CURSORS`` says that it is one, nor where it refuses them. With ``READ_ONLY`` they
    are what the person relies on: such a pooler is then refused.
    """

    client_class = DatabaseClient
    ops_class = DatabaseOperations
    # Where the open connection leads to; None if that is over.
    leads_to: tuple[Any, ...] | None = None
    # When connecting failed the last time, if that took long.
    failure: tuple[float, ConnectionFailed] | None = None
    is_committing = False

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)

    def _commit(self) -> None:
        raw = self.connection
        if raw is not None and not raw.closed and raw.get_transaction_status() == TRANSACTION_STATUS_INERROR:
            # Postgres would roll back, and call that no error: nobody would know that nothing was kept.
            raise BrokenTransaction(*SPOILED)
        self.is_committing = True
        try:
            super()._commit()  # type: ignore[misc]
        except KeyboardInterrupt as interrupted:
            was_over = interrupted.args == (interrupt.OVER,) and interrupted.__cause__ is None
            self._end_interrupted(is_committed=was_over)
            raise
        finally:
            self.is_committing = False

    def _end_interrupted(self, *, is_committed: bool) -> None:
        """Do what Django does after an error of the database only."""
        if is_committed:
            self.run_commit_hooks_on_set_autocommit_on = True
            return
        self.run_on_commit = []
        with contextlib.suppress(Error):
            self._rollback()

    def _rollback(self) -> None:
        # Small, and what is left to do after an interrupt.
        with silence.asking(self):
            super()._rollback()  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        with silence.asking(self):
            super()._savepoint_rollback(sid)  # type: ignore[misc]

    def set_autocommit(
        self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False
    ) -> None:
        """Turn it on or off. For a session that is over none is made just for that: the next has it on."""
        if autocommit and self.connection is None and self.settings_dict["AUTOCOMMIT"]:
            self.autocommit = True
            self.run_commit_hooks_on_set_autocommit_on = False
            return
        try:
            super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)
        except KeyboardInterrupt:
            # Django and psycopg2 may be of two minds, and then nothing would be committed.
            if self.connection is not None and not self.connection.closed:
                with contextlib.suppress(psycopg2.Error):
                    self.connection.autocommit = True
                self.autocommit = self.connection.autocommit
            raise

    def _set_autocommit(self, autocommit: bool) -> None:
        raw = self.connection
        if autocommit != raw.autocommit and raw.get_transaction_status() == TRANSACTION_STATUS_INTRANS:
            keep, undo = ways_out(self)
            raise TransactionOpen(
                "A transaction is open already.",
                f"Do this after its end: {keep} keeps what it did, {undo} takes it back.",
            )
        super()._set_autocommit(autocommit)  # type: ignore[misc]

    def validate_no_broken_transaction(self) -> None:
        if self.needs_rollback:
            raise BrokenTransaction(*BROKEN_BLOCK) from self.rollback_exc  # type: ignore[attr-defined]

    def ensure_connection(self) -> None:
        """Connect, and anew where the settings lead elsewhere by now: on a branch, in every thread.

        A transaction is ended where it was begun.
        """
        raw = self.connection
        is_elsewhere = raw is not None and self.leads_to != address(self.settings_dict)
        if is_elsewhere and not holds_transaction(self):
            self.close()
        super().ensure_connection()

    def copy(self, alias: str | None = None) -> DatabaseWrapper:
        self._find_branch()
        copied: DatabaseWrapper = super().copy(alias)
        return copied

    def _find_branch(self) -> None:
        if find_branch is not None and self.settings_dict.get("BRANCH"):
            find_branch(self)

    def connect(self) -> None:
        """Connect. Who asks again right after that took long and failed, as a cell may, fails at once.

        Raises ConnectionFailed.
        """
        began = time.monotonic()
        if self.failure and began - self.failure[0] < AT_ONCE_SECONDS:
            raise ConnectionFailed(str(self.failure[1])) from self.failure[1].__cause__
        self.failure = None
        try:
            # What is waited for here is not only libpq.
            with interrupt.Outside():
                super().connect()
        except ConnectionFailed as error:
            now = time.monotonic()
            if now - began > AT_ONCE_SECONDS:
                self.failure = now, error
            raise

    def get_connection_params(self) -> dict[str, Any]:
        self._find_branch()
        self.leads_to = address(self.settings_dict)
        params = super().get_connection_params()
        params.setdefault("connection_factory", Connection)
        if session := self._session():
            params["options"] = startup(session, self._own_options())
        if home := self.settings_dict.get("EMBEDDED"):
            try:
                params.update(embedded.lease(Path(home)).address())
            except embedded.EmbeddedError as error:
                raise ConnectionFailed(str(error)) from None
        if password := params.get("password"):
            params["password"] = Secret(password)
            names = (params.get(name) for name in ("user", "dbname", "host"))
            remember(password, *filter(None, names))
        return params

    def make_cursor(self, cursor: Any) -> CursorWrapper:
        return Cursor(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> DebugCursor:
        return DebugCursor(cursor, self)

    def _session(self) -> dict[str, Any]:
        is_pooled = self.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        return {} if is_pooled else self.settings_dict.get("SESSION", {})

    def _own_options(self) -> str:
        # What libpq would read by itself, were there no options of ours.
        own: str = self.settings_dict["OPTIONS"].get("options") or os.environ.get("PGOPTIONS", "")
        return own

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect, starting the embedded server or waking a sleeping one where need be.

        Only this is ever tried again, never a statement: that one may have run.
        """
        try:
            try:
                return self._connect_anyhow(conn_params)
            except OperationalError as error:
                is_required = self.settings_dict.get("READ_ONLY")
                if not (self._session() and refuses_settings(error)) or is_required:
                    raise
            conn_params["options"] = self._own_options()
            return self._connect_anyhow(conn_params)
        except OperationalError as error:
            is_gone = f'database "{conn_params.get("dbname")}" does not exist' in str(error)
            if is_gone and (branch := self.settings_dict.get("BRANCH")):
                raise ConnectionFailed(
                    f"There is no branch {branch} any more: %branch use main goes back."
                ) from error
            raise explain(error, conn_params) from error

    def _connect_anyhow(self, params: dict[str, Any]) -> Any:
        if home := self.settings_dict.get("EMBEDDED"):
            return self._connect_embedded(Path(home), params)
        return self._connect_patiently(params)

    def _connect_embedded(self, home: Path, params: dict[str, Any]) -> Any:
        cluster = embedded.Cluster(home)
        try:
            if cluster.is_supervised():
                with contextlib.suppress(OperationalError):
                    return super().get_new_connection(params)
            is_new = not cluster.data.exists()
            with Progress(f"{'Setting up' if is_new else 'Starting'} the embedded Postgres"):
                embedded.start(home)
            params.update(cluster.address())
        except embedded.EmbeddedError as error:
            raise ConnectionFailed(str(error)) from None
        return super().get_new_connection(params)

    def _connect_patiently(self, params: dict[str, Any]) -> Any:
        with Progress("Connecting") as progress:
            try:
                for delay in delays():
                    try:
                        return self._connect_apart(params)
                    except OperationalError as error:
                        if not passes(error, params.get("host", ""), progress.seconds):
                            raise
                    logger.info("Waking %s", params.get("host"))
                    progress.now = "the server is not there yet"
                    time.sleep(delay)
                return self._connect_apart(params)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("nobody answered yet, so nothing was asked.") from None

    def _connect_apart(self, params: dict[str, Any]) -> Any:
        # libpq waits where no KeyboardInterrupt could reach it.
        connect = super().get_new_connection
        return interrupt.apart(lambda: connect(params), lambda raw: raw.close())

    def init_connection_state(self) -> None:
        try:
            silence.watch(self)
            with silence.asking(self):
                super().init_connection_state()
        except OperationalError as error:
            why = silence.why_given_up(self.connection)
            self.close()
            met = OperationalError(why) if why else error
            raise explain(met, self.get_connection_params()) from error

    def is_usable(self) -> bool:
        """Tell whether the server answers, within a unit of silence."""
        with silence.asking(self):
            usable: bool = super().is_usable()
            return usable


def address(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells whether two entries of DATABASES lead to the same database."""
    return tuple(settings.get(part) for part in ("NAME", "USER", "PASSWORD", "HOST", "PORT"))
