"""The connections around each cell, and the transactions that cells leave open.

Django drops dead, old and broken connections around HTTP requests only; a kernel has none.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

from workbench.connection import failures
from workbench.connection.interrupt import watched
from workbench.connection.sessions import (
    IDLE_IN_TRANSACTION,
    forget,
    holds_transaction,
    is_alive,
    roll_back,
    ways_out,
)
from workbench.connection.url import ENGINE
from workbench.notebook.interrupt import before_cell
from workbench.notebook.request import is_cell
from workbench.words import ago

# A cell that ends its transaction itself is told nothing of it.
ENDS = re.compile(r"\b(commit|rollback|__exit__|close)\b", re.IGNORECASE)


@dataclass
class Open:
    """A transaction that a cell left open: the cell's number, if it has one, and when it ended."""

    cell: int | None
    since: float
    is_told: bool = False

    def __str__(self) -> str:
        cell = f"cell [{self.cell}]" if self.cell else "an earlier cell"
        return f"since {cell} ({ago(time.monotonic() - self.since, 's')} ago)"


def register(shell: InteractiveShell) -> None:
    for entry in connections.settings.values():
        if entry["ENGINE"] == ENGINE:
            session = entry.setdefault("SESSION", {})
            session.setdefault(IDLE_IN_TRANSACTION, settings.WORKBENCH_TRANSACTION_TIMEOUT)
    cells = Cells(shell)
    connection_created.connect(lambda connection, **_: watched.add(connection), weak=False)
    before_cell(shell, cells.begin)
    shell.events.register("post_run_cell", cells.end)


class Cells:
    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._open: WeakKeyDictionary[BaseDatabaseWrapper, Open] = WeakKeyDictionary()
        # What the next cell is told: what runs between may be a frontend's own.
        self._news: list[str] = []
        # The cells that run in this thread, each within the one before.
        self._running = threading.local()

    def begin(self, info: ExecutionInfo) -> None:
        """Before a cell: drop the connections that died or are too old, and tell of open transactions."""
        running = self._stack()
        running.append(info)
        if len(running) > 1:
            return
        for connection in connections.all(initialized_only=True):
            self._meet_loss(connection)
        _refresh()
        if is_cell(self._shell):
            self._news += self._states(info.raw_cell or "")
        self._tell()

    def end(self, result: ExecutionResult) -> None:
        """After a cell: end a transaction that cannot go on, so that the next can query."""
        running = self._stack()
        while running and running.pop() is not result.info:
            pass
        if running:
            return
        for connection in connections.all(initialized_only=True):
            self._settle(connection, result)
        self._tell()

    def _tell(self) -> None:
        if is_cell(self._shell):
            while self._news:
                print(self._news.pop(0), file=sys.stderr)

    def _stack(self) -> list[ExecutionInfo]:
        stack: list[ExecutionInfo] = self._running.__dict__.setdefault("stack", [])
        return stack

    def _meet_loss(self, connection: BaseDatabaseWrapper) -> None:
        """Notice that a session has ended in the middle of a transaction."""
        raw = connection.connection
        if raw is None or not holds_transaction(connection):
            return
        is_open, is_off = _is_open(connection), not (connection.in_atomic_block or connection.autocommit)
        if is_alive(raw):
            return
        since = self._open.pop(connection, "")
        said = [failures.ending(connection)]
        if is_open:
            said.append(
                f"A transaction was open there{since and f' {since}'}: what was not committed is gone."
            )
        if is_off:
            said.append("Autocommit is on again.")
        self._news.append(" ".join(said))
        forget(connection)

    def _settle(self, connection: BaseDatabaseWrapper, result: ExecutionResult) -> None:
        raw = connection.connection
        found = self._open.pop(connection, None)
        if raw is None or raw.closed:
            if found or connection.in_atomic_block or (raw is not None and not connection.autocommit):
                # Django's own close() was the person's, who knows.
                is_own = raw is None or connection.closed_in_transaction
                if not is_own and failures.GONE not in str(result.error_in_exec):
                    self._news.append(f"The session with the open transaction has ended. {failures.GONE}")
                forget(connection)
        elif raw.get_transaction_status() == TRANSACTION_STATUS_INERROR or connection.needs_rollback:
            which = f"The transaction that was open {found}" if found else "The open transaction"
            try:
                roll_back(connection)
            except Error:
                forget(connection)
            self._news.append(
                f"{which} was rolled back, because a statement in it failed: nothing of it was kept."
            )
        elif _is_open(connection):
            is_same = found and not ENDS.search(getattr(result.info, "raw_cell", "") or "")
            self._open[connection] = (
                found if found and is_same else Open(result.execution_count, time.monotonic())
            )

    def _states(self, cell: str) -> Iterator[str]:
        """Say once of each transaction that it is open, unless the cell will end it."""
        for connection in connections.all(initialized_only=True):
            found = self._open.get(connection)
            if found and not found.is_told and not ENDS.search(cell):
                found.is_told = True
                keep, undo = ways_out(connection)
                limit = connection.settings_dict.get("SESSION", {}).get(IDLE_IN_TRANSACTION, "0")
                idle = "" if limit == "0" else f", as Postgres does once it is idle for {limit}"
                yield f"A transaction is open {found}: {keep} keeps what it did, {undo} takes it back{idle}."


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a session that is there has begun a transaction, or Django a block."""
    began = connection.connection.get_transaction_status() != TRANSACTION_STATUS_IDLE
    return bool(connection.in_atomic_block or began)


def _refresh() -> None:
    for connection in connections.all(initialized_only=True):
        connection.failure = None  # type: ignore[attr-defined]
        if not holds_transaction(connection):
            connection.close_if_unusable_or_obsolete()
    for connection in watched:
        # Only its own thread may close it, and does if this check fails at its next query.
        is_open = connection.in_atomic_block or not connection.autocommit
        connection.health_check_done = is_open  # type: ignore[attr-defined]
