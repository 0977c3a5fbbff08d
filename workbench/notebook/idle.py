"""A kernel that nobody works in lets go of its sessions: they would be in the way of what needs to be alone.

Only where nothing shows it: the next query connects anew.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg2
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell

from workbench.connection.sessions import Connection, accompany, is_as_new
from workbench.notebook.interrupt import before_cell

# After a cell. To connect anew takes milliseconds on this machine, and round trips with TLS elsewhere. The
# first is less than what needs a database for itself waits for others (branches/maintenance.py).
NEAR_SECONDS = 3.0
FAR_SECONDS = 60.0

# What a session keeps, and tells nobody: settings with a name of the person's own, the last number of a
# sequence, the seed of random().
UNSEEN = re.compile(
    r"""
    \b(currval|lastval|nextval|setseed|dblink_connect\w*) \s* \(
    | \b set_config \s* \( (?! \s* '\w+' )
    | \b set \s+ (session\s+)? "?\w+"? \. "?\w
    | ^ \s* load \b
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Rows to write may be millions of letters.
READ_LETTERS = 2_000
# Who works with psycopg2's connection itself finds None where it was let go.
USES_RAW = re.compile(r"(?<!\bworkbench)(?<!\bdjango\.db)\.connection\b")


def register(shell: InteractiveShell) -> None:
    idle = Idle()
    connection_created.connect(idle.attach, weak=False)
    before_cell(shell, idle.begin)
    shell.events.register("post_run_cell", idle.end)


class Idle:
    def __init__(self) -> None:
        self._due: list[asyncio.TimerHandle] = []
        self._let_go: list[BaseDatabaseWrapper] = []
        self._uses_raw = False

    def attach(self, connection: BaseDatabaseWrapper, **_: object) -> None:
        accompany(connection, self._watch)

    def begin(self, info: ExecutionInfo) -> None:
        """Before a cell: what is due is not any more."""
        # A subshell's cells have connections of their own.
        if threading.current_thread() is not threading.main_thread():
            return
        while self._due:
            self._due.pop().cancel()
        if USES_RAW.search(info.raw_cell or ""):
            self._uses_raw = True
            for connection in self._let_go:
                with suppress(Error):  # The cell itself will meet it, and show it.
                    connection.ensure_connection()
        self._let_go.clear()

    def end(self, *_: object) -> None:
        """After a cell: let go in a while, if there is a loop to wait in. A terminal has none."""
        if self._uses_raw or threading.current_thread() is not threading.main_thread():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        for connection in connections.all(initialized_only=True):
            if (raw := connection.connection) is not None and not raw.closed:
                self._due.append(loop.call_later(_patience(connection), self._leave, connection))

    def _leave(self, connection: BaseDatabaseWrapper) -> None:
        # One that is gone already is met by the next query.
        with suppress(Error, psycopg2.Error):
            if connection.connection is not None and is_as_new(connection):
                connection.close()
                self._let_go.append(connection)

    def _watch(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        raw = context["connection"].connection
        if isinstance(raw, Connection) and UNSEEN.search(str(sql)[:READ_LETTERS]):
            raw.is_kept = True
        del raw
        return execute(sql, params, many, context)


def _patience(connection: BaseDatabaseWrapper) -> float:
    is_embedded = bool(connection.settings_dict.get("EMBEDDED"))
    is_near = is_embedded or connection.connection.info.host.startswith("/")
    return NEAR_SECONDS if is_near else FAR_SECONDS
