"""A cell within a cell, for a magic that stands above one."""

from __future__ import annotations

from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

from workbench.notebook.errors import CellError


def run(shell: InteractiveShell, cell: str) -> ExecutionResult:
    """Run a cell in a cell; an error is in the result, and not shown yet."""
    # The last is what an interrupt is shown by.
    names = ("showtraceback", "showsyntaxerror", "showindentationerror", "CustomTB")
    kept = {name: getattr(shell, name) for name in names}
    for name in kept:
        setattr(shell, name, lambda *_, **__: None)
    try:
        result: ExecutionResult = shell.run_cell(cell, store_history=False)
        return result
    finally:
        for name, method in kept.items():
            setattr(shell, name, method)


def check(shell: InteractiveShell, cell: str, refusal: str) -> None:
    """Refuse a cell that has an await of its own, for which no cell in a cell can wait. Raises CellError."""
    if shell.should_run_async(cell, transformed_cell=shell.transform_cell(cell)):
        raise CellError(refusal)
