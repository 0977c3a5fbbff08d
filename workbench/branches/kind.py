"""What every kind of branch can do, and what is known of one."""

from __future__ import annotations

import re
import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from workbench import errors
from workbench.connection.program import is_notebook

# The name under which every kind knows the database that DATABASE_URL leads to.
MAIN = "main"
# As a parent: a database without tables.
EMPTY = "empty"
# What is not complete yet, and a copy for a moment, is called so; the digits are random.
TEMPORARY = re.compile("tmp-([0-9a-f]{12})")


@dataclass(frozen=True)
class Branch:
    """A copy of a database to work on, or that database itself.

    ``parent`` is the name of what it was copied from, ``EMPTY``, or ``""`` for what is no copy. Times are
    aware. A guarded one is never written to by a verb: it is not reset, dropped, renamed or made to expire. A
    fleeting one goes with the process that made it. ``key`` is how its kind finds it: a database's name, or
    Neon's id.
    """

    name: str
    parent: str = ""
    created: datetime | None = None
    expires: datetime | None = None
    bytes: int | None = None
    is_main: bool = False
    is_guarded: bool = False
    is_fleeting: bool = False
    key: str = field(default="", repr=False, compare=False)


def temporary() -> str:
    return f"tmp-{secrets.token_hex(6)}"


def has_magic() -> bool:
    """Tell whether there is %branch here; elsewhere there is the command, which cannot go to a branch."""
    return errors.is_in_kernel or is_notebook()


def typed(line: str) -> str:
    """Return a line about branches as it is typed where this process is: ``%branch drop x`` in a kernel."""
    return f"%branch {line}" if has_magic() else errors.command(f"branch {line}")


def this() -> str:
    """Return what this process is to the person."""
    return "this notebook" if is_notebook() else "this process"


class Kind(Protocol):
    """One server's branches. Every method raises BranchError where it cannot be done, with what to do."""

    def all(self) -> list[Branch]:
        """Return what there is, the main one first, without what others are making or leave to be swept."""

    def sweep(self) -> list[str]:
        """Remove what is past its time, and what calls that were interrupted left; say each in a phrase."""

    def create(
        self, name: str, parent: Branch | None, *, expires: datetime | None, end_sessions: bool
    ) -> Branch:
        """Copy a parent; None makes an empty one."""

    def fleeting(
        self, name: str, parent: Branch | None, *, end_sessions: bool
    ) -> AbstractContextManager[Branch]:
        """Copy a parent for as long as the context lasts. If the process dies, the next sweep removes it."""

    def reset(self, branch: Branch, *, end_sessions: bool) -> Branch:
        """Make it again what its parent is now."""

    def drop(self, branch: Branch, *, end_sessions: bool) -> None: ...

    def rename(self, branch: Branch, name: str, *, end_sessions: bool) -> Branch: ...

    def settings(self, branch: Branch) -> dict[str, Any]:
        """Return the entry of Django's DATABASES that leads there."""
