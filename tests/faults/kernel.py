"""The kernel is interrupted, killed, doubled, and its cells are run in any order."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.calls import BUSY, CALLS, Call, begin, settle
from tests.faults.expect import interrupted, sentence, text, works
from tests.faults.fault import Seen, fault
from tests.faults.stage import Stage, until
from tests.kernel import Kernel, Outcome
from tests.notebooks.lessons import LESSONS, read


def interrupted_in(call: Call) -> None:
    @fault("kernel", f"interrupted in {call.name}", share=2)
    def interrupt(stage: Stage, chance: random.Random) -> Seen:
        """The cell ends at once, and its query on the server with it; all of it is done, or nothing."""
        server = stage.embedded
        kernel = stage.kernel(server)
        request, data = begin(stage, server, kernel, call, chance)
        kernel.interrupt()
        since = time.monotonic()
        outcome = kernel.finish(request)
        interrupted(outcome)
        until(lambda: server.ask(BUSY) == 0, "no session that works or holds a transaction")
        recovery = works(kernel, since)
        lost = data.lost(call, is_complete=not outcome.error)
        settle(kernel)
        return Seen(recovery, lost)


def killed_in(call: Call) -> None:
    @fault("kernel", f"killed with -9 in {call.name}", share=0.6)
    def kill(stage: Stage, chance: random.Random) -> Seen:
        """Its sessions end; a new kernel finds all of the call done, or nothing of it."""
        server = stage.embedded
        _, data = begin(stage, server, stage.kernel(server), call, chance)
        stage.kernel(server).kill()
        since = time.monotonic()
        kernel = stage.kernel(server)
        recovery = works(kernel, since)
        until(lambda: server.ask(BUSY) == 0, "no session that works or holds a transaction")
        lost = data.lost(call)
        settle(kernel)
        return Seen(recovery, lost)


for each in CALLS.values():
    interrupted_in(each)
for each in CALLS.values():
    killed_in(each)


@dataclass(frozen=True)
class Cell:
    code: str
    may_fail: bool


def cells(lesson: Path) -> list[Cell]:
    """Return the code of a lesson, and which of it is meant to be refused."""
    return [
        Cell(cell.source, "raises-exception" in cell.metadata.get("tags", []))
        for cell in read(lesson).cells
        if cell.cell_type == "code"
    ]


# Whatever tables there are.
USABLE = "snapshot() is not None"
FIRST_FOUR = {lesson.stem: cells(lesson) for lesson in LESSONS[:4]}


# What Python and Django say of a name, a field or a row that an earlier cell would have made.
NOT_YET = re.compile(r"^(NameError: name |FieldError: Cannot resolve keyword |DoesNotExist: )", re.MULTILINE)


def check(outcome: Outcome, cell: Cell) -> None:
    """Check that a cell out of its order worked, or failed in a way that a person understands."""
    if outcome.error and not cell.may_fail and not NOT_YET.search(text(outcome)):
        sentence(outcome)


def passes(kernel: Kernel, lesson: list[Cell]) -> None:
    """Run a lesson top to bottom, which must pass."""
    for cell in lesson:
        outcome = kernel.run(cell.code)
        assert bool(outcome.error) == cell.may_fail, f"{cell.code}\n{text(outcome)}"


def in_random_order(name: str) -> None:
    @fault("kernel", f"the cells of {name} in random order", share=0.3)
    def shuffled(stage: Stage, chance: random.Random) -> Seen:
        """Each works, or says in a sentence, or by a missing name, what it needs; in order, all pass."""
        kernel = stage.kernel(number=chance.randint(1, 2))
        lesson = FIRST_FOUR[name]
        for cell in chance.sample(lesson, len(lesson)):
            outcome = kernel.run(cell.code)
            check(outcome, cell)
        recovery = works(kernel, cell=USABLE)
        passes(kernel, lesson)
        return Seen(recovery)


def twice(name: str) -> None:
    @fault("kernel", f"every cell of {name} twice", share=0.2)
    def doubled(stage: Stage, chance: random.Random) -> Seen:
        """The second time is as the first, or a sentence says what is done already; in order, all pass."""
        kernel = stage.kernel(number=chance.randint(1, 2))
        lesson = FIRST_FOUR[name]
        for cell in lesson:
            for _ in range(2):
                outcome = kernel.run(cell.code)
                check(outcome, cell)
        recovery = works(kernel, cell=USABLE)
        passes(kernel, lesson)
        return Seen(recovery)


def at_once(name: str) -> None:
    @fault("kernel", f"two notebooks doing {name} at once", share=0.3)
    def both(stage: Stage, chance: random.Random) -> Seen:
        """Each cell works, or says in a sentence what the other did; one after the other, both pass."""
        kernels = [stage.kernel(number=1), stage.kernel(number=2)]
        lesson = FIRST_FOUR[name]
        waiting = [[*lesson], [*lesson]]
        running: list[tuple[str, Cell] | None] = [None, None]
        while any(waiting) or any(running):
            for number, kernel in enumerate(kernels):
                if running[number] is None and waiting[number]:
                    cell = waiting[number].pop(0)
                    running[number] = kernel.begin(cell.code), cell
                    time.sleep(chance.uniform(0, 0.2))
            for number in chance.sample(range(2), 2):
                if (begun := running[number]) is not None:
                    request, cell = begun
                    check(kernels[number].finish(request), cell)
                    running[number] = None
                    break
        since = time.monotonic()
        recovery = max(works(kernel, since, USABLE) for kernel in kernels)
        for kernel in kernels:
            passes(kernel, lesson)
        return Seen(recovery)


for name in FIRST_FOUR:
    at_once(name)
for name in FIRST_FOUR:
    in_random_order(name)
for name in FIRST_FOUR:
    twice(name)
