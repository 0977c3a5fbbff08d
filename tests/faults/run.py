"""Faults tried many times, two rooms at a time."""

from __future__ import annotations

import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context

import pytest

from tests.faults.fault import Fault, Seen, faults
from tests.faults.stage import Stage
from tests.throwaway import pytest_sessionfinish


@dataclass
class Row:
    """A line of the table."""

    fault: Fault
    seen: list[Seen] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    absent: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        outcome = self.fault.outcome
        if self.absent:
            outcome = f"not tried: {self.absent}"
        if self.failed:
            outcome = f"FAILED with --seed {', '.join(map(str, self.failed))}"
        return (
            self.fault.name,
            str(sum(each.faults for each in self.seen) + len(self.failed)),
            outcome,
            f"{max((each.recovery for each in self.seen), default=0):.1f} s",
            str(sum(each.lost for each in self.seen)),
        )


class Room:
    """Faults that share a stage, as long as nothing unexpected happens on it."""

    def __init__(self) -> None:
        self._stage = Stage()

    def attempt(self, row: Row, seed: int) -> None:
        try:
            row.seen.append(row.fault.attempt(self._stage, seed))
        except pytest.skip.Exception as reason:
            row.absent = str(reason)
        except Exception:
            row.failed.append(seed)
            again = f"python -m tests.faults --only {row.fault.name!r} --seed {seed} --times 1"
            print(f"{traceback.format_exc()}To repeat it: {again}", file=sys.stderr, flush=True)
            self.close()
            self._stage = Stage()

    def close(self) -> None:
        self._stage.close()


def attempt_all(room: str, word: str, seed: int, times: int) -> list[Row]:
    """Try the faults of a room, in a process of its own."""
    rows = [Row(each) for each in faults(word) if each.room == room]
    try:
        with closing(Room()) as going:
            for row in rows:
                began = time.monotonic()
                for number in range(max(1, round(times * row.fault.share))):
                    if not row.absent:
                        going.attempt(row, seed + number)
                name, tried, *_ = row.cells
                seconds = time.monotonic() - began
                print(f"{name}: {tried} in {seconds:.0f} s", file=sys.stderr, flush=True)
    finally:
        pytest_sessionfinish()
    return rows


def run(word: str, seed: int, times: int) -> list[Row]:
    """Try the faults whose name has ``word`` in it, two rooms at a time: most of them wait."""
    rooms = list(dict.fromkeys(each.room for each in faults(word)))
    with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1) as pool:
        trying = [pool.submit(attempt_all, room, word, seed, times) for room in rooms]
        return [row for room in trying for row in room.result()]
