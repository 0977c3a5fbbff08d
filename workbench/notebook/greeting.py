"""Where the kernel is, said once: in the first cell that connects to the database."""

from __future__ import annotations

import threading
from html import escape
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.migrations.executor import MigrationExecutor
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from workbench.connection import where
from workbench.notebook.interrupt import before_cell
from workbench.notebook.request import is_cell

LINE = '<div style="font-size: var(--jp-code-font-size, 13px); padding: 0 .6em .4em">{}</div>'


def register(shell: InteractiveShell) -> None:
    greeter = Greeter(shell)
    before_cell(shell, greeter.begin)
    shell.events.register("post_run_cell", greeter.end)
    connection_created.connect(greeter.connected, weak=False)


class Greeter:
    """Greets who can answer: in a run by nbval or nbconvert, what a cell puts out stays the cell's own."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._is_in_cell = self._is_done = False

    def begin(self, *_: object) -> None:
        self._is_in_cell = _somebody_is_there(self._shell)
        if connections[DEFAULT_DB_ALIAS].connection is not None:
            self._greet()

    def end(self, *_: object) -> None:
        self._is_in_cell = False

    def connected(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        is_cells_own = threading.current_thread() is threading.main_thread()
        if is_cells_own and connection is connections[DEFAULT_DB_ALIAS]:
            self._greet()

    def _greet(self) -> None:
        if self._is_done or not self._is_in_cell:
            return
        self._is_done = True
        try:
            said = greeting()
        except Exception:
            return  # A database, or migrations, in which something is wrong: who asks for them is told.
        display({"text/plain": said, "text/html": LINE.format(escape(said))}, raw=True)


def greeting() -> str:
    """Say where the default connection leads, and what is to do there. Raises DatabaseError."""
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    pending = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if pending:
        todo = f"{pending} migration{'' if pending == 1 else 's'} pending"
    else:
        todo = "all migrations applied"
    return f"{where()}; {todo}. %workbench lists what can be done."


def _somebody_is_there(shell: Any) -> bool:
    if not hasattr(shell, "get_parent"):
        return True  # A terminal.
    return is_cell(shell) and bool(shell.get_parent().get("content", {}).get("allow_stdin"))
