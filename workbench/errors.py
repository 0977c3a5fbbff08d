"""How a failure looks that one sentence explains, and how such a sentence may end."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from workbench.show import printable

# What a person can type differs between a kernel and a terminal. The notebook's extension sets it.
is_in_kernel = False
# Tells in lines where in the person's own code an error was met. The notebook's extension sets it.
places: Callable[[BaseException], list[str]] | None = None


class OneSentence(Exception):
    """IPython shows what it says, and its notes, without a traceback.

    Names in it may be anybody's: what a terminal would obey is spelled out.
    """

    def __str__(self) -> str:
        return printable(super().__str__())

    def _render_traceback_(self) -> list[str]:
        return [str(self), *getattr(self, "__notes__", ())]


def command(line: str) -> str:
    """Return a management command as it is typed where one is: ``%manage migrate`` in a kernel."""
    return f"{'%manage' if is_in_kernel else 'python manage.py'} {line}"


def or_rather(name: str, known: Iterable[str], otherwise: str = ".") -> str:
    """Return the end of a sentence: a guess at what was meant, or ``otherwise`` where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else otherwise


def listed(names: Iterable[str], conjunction: str = "and", *, most: int | None = None) -> str:
    """Return names as a sentence has them: "a, b and c", or with ``most`` of 2 "a, b and 3 others"."""
    *firsts, last = [*names]
    if most is not None and len(firsts) > most:
        return f"{', '.join(firsts[:most])} {conjunction} {len(firsts) + 1 - most} others"
    return f" {conjunction} ".join(filter(None, [", ".join(firsts), last]))
