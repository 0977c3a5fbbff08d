"""Interrupting a cell cancels its query, and says so in one line."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from workbench.connection import interrupt


def register(shell: InteractiveShell) -> None:
    def explain(
        shell: InteractiveShell, kind: type[KeyboardInterrupt], error: KeyboardInterrupt, trace: Any, **_: Any
    ) -> None:
        lines = [f"KeyboardInterrupt: {error}"]
        if not str(error):
            # Which takes long enough for a second interrupt, whereupon IPython would not ask us any more.
            with suppress(KeyboardInterrupt):
                lines = shell.InteractiveTB.structured_traceback(kind, error, trace)
        shell._showtraceback(kind, error, lines)

    def begin(*_: object) -> None:
        _stop.error = None  # The last cell may have been one that Python could not read.
        # The last cell may have taken the wakeup descriptor for itself, as an event loop does.
        interrupt.watch(anew=True)

    before_cell(shell, begin)
    shell.set_custom_exc((KeyboardInterrupt,), explain)
    shell.ast_transformers.append(_stop)


def before_cell(shell: InteractiveShell, hook: Callable[..., None]) -> None:
    """Call ``hook``, which may have to wait, before each cell. An interrupt of it is one of the cell.

    IPython would go on with the cell, for which the person would have to interrupt it again.
    """

    def stoppable(*arguments: Any) -> None:
        try:
            hook(*arguments)
        except KeyboardInterrupt as error:
            _stop.error = error

    shell.events.register("pre_run_cell", stoppable)


class _Stop(ast.NodeTransformer):
    """Makes a cell that was interrupted before it began raise that instead."""

    error: KeyboardInterrupt | None = None

    def visit(self, node: ast.AST) -> ast.AST:
        if self.error is None:
            return node
        said, self.error = str(self.error), None
        return ast.parse(f"raise KeyboardInterrupt({said!r})")


_stop = _Stop()
