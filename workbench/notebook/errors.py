from __future__ import annotations


class CellError(Exception):
    """A cell's failure that one sentence explains: IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
