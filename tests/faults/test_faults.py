"""A few faults each time, all but the slow ones where everything is tested, and those that found a bug."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.expect import judge
from tests.faults.fault import faults
from tests.faults.stage import Stage
from tests.throwaway import EVERYTHING

FAULTS = {each.name: each for each in faults()}
# Cheap ones of several rooms, each with a seed that takes the embedded server.
FEW = [
    ("server: restarted between two cells", 2),
    ("server: a session ended by its administrator", 1),
    ("kernel: interrupted in load", 1),
    ("transactions: left open by a cell", 1),
]
# Those that wait for half a minute each: make faults tries them.
SLOW = ("network: half-open in the middle of ", "network: 2 s late")
ALL = [(name, 1) for name in FAULTS if not name.startswith(SLOW)]
CHOSEN = ALL if os.environ.get(EVERYTHING) else FEW
# What found a bug, with the seed that it was found by.
SEEDS = [
    ("kernel: interrupted in migrate", 32),
    ("kernel: interrupted in frame", 2),
    ("network: half-open and interrupted in frame.chunks", 306),
    ("network: half-open and interrupted in load", 300),
    ("network: half-open and interrupted in migrate", 607),
    ("network: half-open and interrupted in populate", 144),
    ("network: half-open and interrupted in rehearse", 43),
]


@pytest.fixture(scope="module")
def stages() -> Iterator[list[Stage]]:
    """The stage that faults share; a fresh one in its place after an expectation that did not hold."""
    shared = [Stage()]
    yield shared
    shared[0].close()


@pytest.mark.parametrize(("name", "seed"), CHOSEN + SEEDS)
def test_after_a_fault_the_next_cell_works_and_nothing_is_lost(
    name: str, seed: int, stages: list[Stage]
) -> None:
    try:
        assert FAULTS[name].attempt(stages[0], seed).lost == 0
    except Exception:
        stages[0].close()
        stages[0] = Stage()
        raise


@pytest.mark.parametrize(
    "said",
    [
        "OperationalError: server closed the connection unexpectedly",
        "server closed the connection unexpectedly: try again.",
        "Something went wrong.",
        "---------------------------------------------------------------------------",
        "DatabaseError: error with status PGRES_COPY_OUT and no message from the libpq",
        "The server is gone: it said 'terminating connection due to administrator command'.",
    ],
)
def test_what_is_no_sentence_with_a_remedy_is_told_from_one(said: str) -> None:
    judge("The server is gone: try again when it is back.")
    with pytest.raises(AssertionError):
        judge(said)
