"""Interrupting a cell cancels its query, and says so in one line."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from workbench.connection import interrupt


def register(shell: InteractiveShell) -> None:
    def explain(
        shell: InteractiveShell, kind: type[KeyboardInterrupt], error: KeyboardInterrupt, trace: Any, **_: Any
    ) -> None:
        lines = shell.InteractiveTB.structured_traceback(kind, error, trace)
        if interrupt.cancelled.is_set():
            interrupt.cancelled.clear()
            lines = ["KeyboardInterrupt: the query was cancelled."]
        shell._showtraceback(kind, error, lines)

    def begin(*_: object) -> None:
        # The last cell may have taken the wakeup descriptor for itself, as an event loop does.
        interrupt.watch(instead_of_others=True)

    shell.events.register("pre_run_cell", begin)
    shell.set_custom_exc((KeyboardInterrupt,), explain)
