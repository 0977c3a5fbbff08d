"""What must hold after a fault."""

from __future__ import annotations

import re
import time

from tests.kernel import Kernel, Outcome

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# It may begin with the name of a migration or of a server, or with what is missing; its remedy stands after a
# colon, or in a second sentence.
SENTENCE = re.compile(
    r"(?!\w+(Error|Exception): )([A-Z%/\"']|[a-z_]+\.\d|[a-z][\w.-]*:\d+ |(relation|column) \")"
    r".*(: |\. )\w.*\."
)
# What libpq, psycopg2 and Python say, which tells a person too little.
RAW = (
    "Traceback",
    "server closed the connection unexpectedly",
    "This probably means",
    "SSL SYSCALL",
    "SSL connection has been closed",
    "terminating connection due to",
    "connection already closed",
    "connection pointer is NULL",
    "could not receive data",
    "could not send",
    "Errno",
    "FATAL:",
    "psycopg2",
)
CANCELLED = "KeyboardInterrupt: the query was cancelled."


def text(outcome: Outcome) -> str:
    """Return a cell's error without its colours; empty if there is none."""
    return COLOUR.sub("", "\n".join(outcome.error)).strip()


def sentence(outcome: Outcome) -> str:
    """Return the first line of a cell's error, which must be one clear sentence with its remedy."""
    said = text(outcome)
    assert said, f"no error, but: {outcome}"
    judge(said)
    return said.splitlines()[0]


def judge(said: str) -> None:
    """Check that the first line is one clear sentence with its remedy."""
    first = said.splitlines()[0]
    assert SENTENCE.fullmatch(first), f"not a sentence with a remedy: {said}"
    assert not [each for each in RAW if each in first], f"raw: {said}"


def interrupted(outcome: Outcome) -> None:
    """Check that a cell ended as an interrupted one does, or was through before."""
    said = text(outcome)
    assert not said or said == CANCELLED or said.splitlines()[-1].startswith("KeyboardInterrupt"), said


def works(
    kernel: Kernel,
    since: float | None = None,
    cell: str = "Author.objects.count() >= 0",
    result: str = "True",
) -> float:
    """Run the next cell, which must work, and return the seconds since the cause ended (or it began)."""
    began = time.monotonic() if since is None else since
    outcome = kernel.run(cell)
    assert (outcome.error, outcome.result) == ([], result), f"the next cell: {text(outcome) or outcome}"
    return time.monotonic() - began
