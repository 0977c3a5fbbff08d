"""What IPython keeps of a cell's outputs holds no secret either: it is not sent, but written to files.

By ``%notebook``, ``%history -o``, and ``%logstart -o``.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from IPython.core.history import HistoryOutput
from IPython.core.interactiveshell import InteractiveShell

from workbench.redaction import redacted, redacted_all


class Kept(dict[int, Any]):
    """By the number of a cell, what is kept of it."""

    def __setitem__(self, number: int, content: Any) -> None:
        super().__setitem__(number, redacted_all(content))


def register(shell: InteractiveShell) -> None:
    history, log = shell.history_manager, shell.logger
    if history is None:
        return
    write, read = log.log_write, history.get_range

    def log_write(data: str, kind: str = "input") -> None:
        write(redacted(data) if kind == "output" else data, kind)

    def get_range(*arguments: Any, **options: Any) -> Any:
        # Only here: a stream comes in pieces, and most are never asked for.
        for output in chain.from_iterable(history.outputs.values()):
            output.bundle = _redacted(output)
        return read(*arguments, **options)

    history.output_hist_reprs, history.exceptions = Kept(), Kept()
    log.log_write, history.get_range = log_write, get_range


def _redacted(output: HistoryOutput) -> Any:
    if output.output_type in ("out_stream", "err_stream"):
        return {name: [redacted("".join(pieces))] for name, pieces in output.bundle.items()}
    return redacted_all(output.bundle)
