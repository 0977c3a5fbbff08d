"""Interrupting a cell cancels its query, and says so in one line."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from workbench.connection import interrupt


def register(shell: InteractiveShell) -> None:
    def explain(
        shell: InteractiveShell, kind: type[KeyboardInterrupt], error: KeyboardInterrupt, trace: Any, **_: Any
    ) -> None:
        interrupt.end_cell()
        lines = [f"KeyboardInterrupt: {error}"]
        if not str(error):
            lines = shell.InteractiveTB.structured_traceback(kind, error, trace)
        shell._showtraceback(kind, error, lines)

    def begin() -> None:
        # The last cell may have been one that Python could not read.
        _stop.error = None
        interrupt.take()

    shell.events.register("pre_execute", begin)
    shell.events.register("post_execute", interrupt.end_cell)
    shell.set_custom_exc((KeyboardInterrupt,), explain)
    shell.ast_transformers.append(_stop)


def before_cell(shell: InteractiveShell, hook: Callable[..., None]) -> None:
    """Call ``hook``, which may have to wait, before each cell. An interrupt of it is one of the cell.

    IPython would go on with the cell, for which the person would have to interrupt it again.
    """

    def stoppable(*arguments: Any) -> None:
        try:
            with interrupt.Outside():
                hook(*arguments)
        except KeyboardInterrupt as error:
            _stop.error = error

    shell.events.register("pre_run_cell", stoppable)


class _Stop(ast.NodeTransformer):
    """Makes a cell that was interrupted before it began raise that instead."""

    error: KeyboardInterrupt | None = None

    def visit(self, node: ast.AST) -> ast.AST:
        if interrupt.begin_cell() and self.error is None:
            self.error = KeyboardInterrupt()
        if self.error is None:
            return node
        interrupt.end_cell()
        said, self.error = str(self.error), None
        return ast.parse(f"raise KeyboardInterrupt({said!r})")


_stop = _Stop()
