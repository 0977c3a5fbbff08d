"""A list of branches, and how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from workbench.branches.errors import BranchError
from workbench.branches.kind import MAIN, Branch
from workbench.errors import listed, or_rather
from workbench.show import Grid, Part, Row, Shown
from workbench.words import ago, size

HEAD = ("", "branch", "parent", "size", "age", "expires")


@dataclass(frozen=True, repr=False)
class Branches(Shown):
    """The branches that there are, the main one first. ``here`` is the name of the one this process is on."""

    all: tuple[Branch, ...]
    here: str = MAIN

    def __iter__(self) -> Iterator[Branch]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __contains__(self, name: str) -> bool:
        return any(is_called(each, name) for each in self.all)

    def __getitem__(self, name: str) -> Branch:
        """Return one by its name. Raises BranchError."""
        for each in self.all:
            if is_called(each, name):
                return each
        names = [each.name for each in self.all]
        guess = or_rather(name, names, f": there is {listed(names)}.")
        raise BranchError(f"There is no branch {name}{guess}")

    def _parts(self) -> Iterator[Part]:
        yield Grid("", [Row(self._cells(each)) for each in self.all], HEAD, named_by=1)

    def _cells(self, each: Branch) -> list[str]:
        mark = "*" if is_called(each, self.here) else ""
        return [mark, each.name, each.parent, size(each.bytes), age(each), expiry(each)]


def is_called(found: Branch, name: str) -> bool:
    """Tell whether a name means a branch: ``MAIN`` is that of DATABASE_URL, whatever its own is."""
    return found.is_main if name == MAIN else found.name == name


def age(branch: Branch) -> str:
    return ago(datetime.now(UTC) - branch.created) if branch.created else ""


def expiry(branch: Branch) -> str:
    """Say when it goes; "" if it stays."""
    if branch.is_fleeting:
        return "with its process"
    if branch.expires is None:
        return ""
    left = branch.expires - datetime.now(UTC)
    return f"in {ago(left)}" if left.total_seconds() > 0 else f"{ago(-left)} ago"
