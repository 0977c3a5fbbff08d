"""How a failure looks that one sentence explains, and how such a sentence may end."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OneSentence(Exception):
    """IPython shows what it says, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def or_rather(name: str, known: Iterable[str], otherwise: str = ".") -> str:
    """Return the end of a sentence: a guess at what was meant, or ``otherwise`` where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else otherwise
