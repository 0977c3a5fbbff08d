"""Statements that fail, and transactions that are left open."""

from __future__ import annotations

import random
import re
import time
from contextlib import suppress

from tests.faults.calls import BUSY, Data
from tests.faults.expect import judge, sentence, text, works
from tests.faults.fault import Seen, fault
from tests.faults.stage import Stage, until
from tests.kernel import Kernel

FAILING = (
    "SELECT 1/0",
    "SELECT nothing",
    "SELEC 1",
    "INSERT INTO catalog_book (title) VALUES (NULL)",
    "SELECT * FROM nowhere",
    "DELETE FROM catalog_author; SELECT 'x'::int",
)
WRITE = "Author.objects.create(name='open')"
# The three ways there are to begin a transaction that a cell leaves open.
BEGINNINGS = (
    "transaction.set_autocommit(False)",
    "connection.cursor().execute('BEGIN')",
    "transaction.atomic().__enter__()",
)
WAYS_OUT = re.compile(r": (?P<keep>.+) keeps what it did, (?P<undo>.+?) takes it back")


def leave_open(kernel: Kernel, chance: random.Random) -> None:
    outcome = kernel.run(f"{chance.choice(BEGINNINGS)}\n{WRITE}")
    assert outcome.error == [], text(outcome)


def told(kernel: Kernel) -> str:
    """Run the next cell, which must work, and return the sentence about what was open before it."""
    outcome = kernel.run("Author.objects.count() >= 0")
    assert (outcome.error, outcome.result) == ([], "True"), text(outcome)
    (said,) = outcome.stderr.splitlines()
    judge(said)
    return said


def close(kernel: Kernel) -> None:
    with suppress(TimeoutError):
        kernel.run("connection.close(); connection.set_autocommit(True)")


@fault("transactions", "a statement fails", share=3)
def a_statement_fails(stage: Stage, chance: random.Random) -> Seen:
    """The cell shows the error; the next one works."""
    kernel = stage.kernel()
    data = Data(stage.embedded, kernel, chance)
    outcome = kernel.run(f"connection.cursor().execute({chance.choice(FAILING)!r})")
    assert re.search(r"(Error|Warning)\b|: ", text(outcome)), outcome
    recovery = works(kernel)
    return Seen(recovery, data.lost())


@fault("transactions", "an error inside atomic", share=3)
def error_inside_atomic(stage: Stage, chance: random.Random) -> Seen:
    """Nothing of the block is kept; the next cell works."""
    kernel = stage.kernel()
    data = Data(stage.embedded, kernel, chance)
    failing = chance.choice(
        [
            "    1 / 0",
            f"    connection.cursor().execute({chance.choice(FAILING)!r})",
            "    with transaction.atomic():\n        Book.objects.create(title='x', author_id=0)",
            "    raise KeyboardInterrupt",
        ]
    )
    outcome = kernel.run(f"with transaction.atomic():\n    {WRITE}\n{failing}")
    assert outcome.error, outcome
    recovery = works(kernel)
    assert stage.embedded.ask(BUSY) == 0
    return Seen(recovery, data.lost())


@fault("transactions", "an error inside atomic, caught there", share=2)
def caught_inside_atomic(stage: Stage, chance: random.Random) -> Seen:
    """The next statement of the block fails, with a sentence that says so; the next cell works."""
    kernel = stage.kernel()
    data = Data(stage.embedded, kernel, chance)
    outcome = kernel.run(
        f"with transaction.atomic():\n    {WRITE}\n"
        f"    try:\n        connection.cursor().execute({chance.choice(FAILING)!r})\n"
        f"    except Exception:\n        pass\n"
        f"    Author.objects.count()"
    )
    sentence(outcome)
    recovery = works(kernel)
    return Seen(recovery, data.lost())


@fault("transactions", "left open by a cell", share=2)
def left_open(stage: Stage, chance: random.Random) -> Seen:
    """The next cell works, and says what is open; what it says to type keeps it, or takes it back."""
    kernel = stage.kernel()
    data = Data(stage.embedded, kernel, chance)
    leave_open(kernel, chance)
    since = time.monotonic()
    ways = WAYS_OUT.search(told(kernel))
    recovery = time.monotonic() - since
    assert ways is not None
    way = chance.choice(["keep", "undo"])
    ended = kernel.run(ways[way])
    assert ended.error == [], text(ended)
    assert stage.embedded.count("catalog_author", "name = 'open'") == (way == "keep")
    close(kernel)
    stage.embedded.ask("DELETE FROM catalog_author WHERE name = 'open'")
    return Seen(recovery, data.lost())


@fault("transactions", "a statement fails in one left open", share=2)
def failed_while_open(stage: Stage, chance: random.Random) -> Seen:
    """The cell says that nothing of the transaction was kept; the next one works."""
    kernel = stage.kernel()
    data = Data(stage.embedded, kernel, chance)
    leave_open(kernel, chance)
    outcome = kernel.run(f"connection.cursor().execute({chance.choice(FAILING)!r})")
    assert outcome.error
    judge(outcome.stderr.splitlines()[-1])
    recovery = works(kernel)
    close(kernel)
    return Seen(recovery, data.lost())


@fault("transactions", "its session lost between two cells", share=2)
def lost_between(stage: Stage, chance: random.Random) -> Seen:
    """The next cell works, and says that what was not committed is gone."""
    server = stage.embedded
    kernel = stage.kernel()
    data = Data(server, kernel, chance)
    leave_open(kernel, chance)
    server.end_sessions()
    since = time.monotonic()
    assert "gone" in told(kernel)
    recovery = time.monotonic() - since
    close(kernel)
    return Seen(recovery, data.lost())


@fault("transactions", "its session lost in the middle of a statement", share=2)
def lost_in_statement(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says that what was not committed is gone; the next cell works."""
    server = stage.embedded
    kernel = stage.kernel()
    data = Data(server, kernel, chance)
    is_block = chance.random() < 0.5
    sleep = "connection.cursor().execute('SELECT pg_sleep(30)')"
    if is_block:
        request = kernel.begin(f"with transaction.atomic():\n    {WRITE}\n    {sleep}")
    else:
        leave_open(kernel, chance)
        request = kernel.begin(sleep)
    until(lambda: server.running("pg_sleep(30)"), "a statement that runs")
    server.end_sessions()
    since = time.monotonic()
    outcome = kernel.finish(request)
    sentence(outcome)
    assert "What was not committed is gone." in text(outcome) + outcome.stderr, text(outcome)
    recovery = works(kernel, since)
    close(kernel)
    return Seen(recovery, data.lost())


@fault("transactions", "idle for longer than WORKBENCH_TRANSACTION_TIMEOUT", share=0.5)
def idle_too_long(stage: Stage, chance: random.Random) -> Seen:
    """Postgres ends it; the next cell works, and says that what was not committed is gone."""
    server = stage.embedded
    # Writing all that has a transaction, too.
    data = Data(server, stage.kernel(), chance)
    kernel = stage.kernel(WORKBENCH_TRANSACTION_TIMEOUT="1s")
    leave_open(kernel, chance)
    until(lambda: server.ask(BUSY) == 0, "no session idle in a transaction")
    since = time.monotonic()
    assert "idle" in told(kernel)
    recovery = time.monotonic() - since
    close(kernel)
    return Seen(recovery, data.lost())
