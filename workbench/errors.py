"""How a failure looks that one sentence explains."""

from __future__ import annotations


class OneSentence(Exception):
    """IPython shows what it says, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
