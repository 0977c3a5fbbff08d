"""The faults that the suite knows, each with what must hold after it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.stage import Stage

# In the table's order. Each fault stands in the module of its room, or in one beside that.
ROOMS = ("server", "network", "kernel", "transactions", "disk", "memory", "web")


@dataclass(frozen=True)
class Seen:
    """What came of a try.

    ``recovery`` is in seconds, from the end of the cause to the end of the first cell that worked; ``lost``
    counts rows of completed statements that are gone; ``faults`` is how many were injected.
    """

    recovery: float = 0.0
    lost: int = 0
    faults: int = 1


Inject = Callable[["Stage", random.Random], Seen]


@dataclass(frozen=True)
class Fault:
    room: str
    what: str
    inject: Inject
    share: float

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a fault travel between processes by its name."""
        return _named, (self.name,)

    @property
    def name(self) -> str:
        return f"{self.room}: {self.what}"

    @property
    def outcome(self) -> str:
        """Return what a person sees, as the function's docstring says it."""
        said = inspect.getdoc(self.inject) or "The next cell works."
        return " ".join(said.split("\n\n")[0].split())

    def attempt(self, stage: Stage, seed: int) -> Seen:
        """Inject it as the seed says, and raise whatever an expectation raises that does not hold."""
        return self.inject(stage, random.Random(f"{self.name} {seed}"))


FAULTS: list[Fault] = []


def fault(room: str, what: str, *, share: float = 1.0) -> Callable[[Inject], Inject]:
    """Register a function that sets the stage, injects a fault and asserts what must hold.

    The first paragraph of its docstring is the table's "outcome". ``share`` is how many of a run's tries
    it gets: less than 1 where one takes long, more where one takes no time.
    """

    def register(inject: Inject) -> Inject:
        found = Fault(room, what, inject, share)
        assert found.name not in {each.name for each in FAULTS}, found.name
        FAULTS.append(found)
        return inject

    return register


def _named(name: str) -> Fault:
    return next(each for each in faults(name) if each.name == name)


def faults(word: str = "") -> list[Fault]:
    """Return those of all rooms whose name has ``word`` in it, in the table's order."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith(("_", "test")):
            importlib.import_module(f"tests.faults.{module.name}")
    chosen = [each for each in FAULTS if word in each.name]
    return sorted(chosen, key=lambda each: ROOMS.index(each.room))
