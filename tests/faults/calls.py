"""The calls that take long, each disturbed at a random moment, and what the data must be afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.expect import text
from tests.faults.stage import Server, Stage
from tests.kernel import Kernel

# What each kernel needs before it makes one of the calls.
PREPARE = """
if "many" not in globals():
    many = pd.DataFrame({"name": [f"many {number}" for number in range(30_000)]})
    LONG = "SELECT n, repeat('x', 40) AS text, n / 7.0 AS seventh FROM generate_series(1, 200000) AS n"
"""


@dataclass(frozen=True)
class Call:
    """A cell, what must have been done before it, and how many authors and books there are once it is
    complete, out of how many there were.
    """

    name: str
    cell: str
    before: str = ""
    then: Callable[[int, int], tuple[int, int]] = lambda authors, books: (authors, books)


CALLS = {
    call.name: call
    for call in (
        Call("a query", "connection.cursor().execute('SELECT pg_sleep(1.5)')"),
        Call("frame", "frame(LONG).shape"),
        Call("frame.chunks", "sum(len(chunk) for chunk in frame.chunks(LONG, rows=10_000))"),
        Call("load", "load(Author, many)", then=lambda authors, books: (authors + 30_000, books)),
        Call(
            "populate", "%manage populate --authors 1003 --books 10007 -v 0", then=lambda *_: (1_003, 10_007)
        ),
        Call("migrate", "%manage migrate catalog -v 0", before="%manage migrate catalog 0001 -v 0"),
        Call("%branch create", "%branch create faulty --end"),
        Call("%branch reset", "%branch reset faulty --end", before="%branch create faulty --end"),
        Call("rehearse", "rehearse('catalog', [migrations.RunSQL('DELETE FROM catalog_book')]) and None"),
        Call("snapshot", "for _ in range(20):\n    snapshot()"),
    )
}

# Where the history says that a migration is applied, its column is there.
HISTORY = """
SELECT (SELECT count(*) FROM django_migrations WHERE app = 'catalog' AND name LIKE '0002%')
     = (SELECT count(*) FROM information_schema.columns
        WHERE table_name = 'catalog_author' AND column_name = 'country')
"""
DATABASES = "SELECT count(*) FROM pg_database WHERE datname LIKE current_database() || '@%'"
# Sessions that work, or hold a transaction.
BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'
"""

CLEAN = """
from workbench import branches as _branches
for _each in _branches.branches():
    if not _each.is_main:
        _branches.drop(_each.name, end_sessions=True)
"""
EMPTY = "SET lock_timeout = '60s'; TRUNCATE catalog_author CASCADE"
WRITE = """
_written = Author.objects.bulk_create([Author(name=f"written {{n}}") for n in range({rows})])
len(Book.objects.bulk_create([Book(title="written", author=each) for each in _written]))
"""


class Data:
    """The rows that completed statements wrote, as the administrator counts them."""

    def __init__(self, server: Server, kernel: Kernel, chance: random.Random) -> None:
        self._server = server
        server.ask(EMPTY)
        rows = chance.randint(1, 50)
        written = kernel.run(PREPARE + WRITE.format(rows=rows))
        assert (written.error, written.result) == ([], str(rows)), text(written)
        self._before = self._counted()
        assert self._before == (rows, rows)

    def _counted(self) -> tuple[int, int]:
        return self._server.count("catalog_author"), self._server.count("catalog_book")

    def lost(self, call: Call | None = None, *, is_complete: bool = False) -> int:
        """Return how many rows are lost, having checked that the call, if any, is done or not at all."""
        authors, books = self._before
        after = self._counted()
        may_be = {self._before}
        if call is not None:
            done = call.then(authors, books)
            may_be = {done} if is_complete else {self._before, done}
        assert after in may_be, f"authors and books: {self._before}, and then {after}"
        assert self._server.ask(HISTORY), "the history tells of other tables than there are"
        return max(0, authors - after[0]) + max(0, books - after[1])


def settle(kernel: Kernel) -> None:
    """Bring the tables and branches back to where each call begins."""
    outcome = kernel.run(f"{CLEAN}\n%manage migrate catalog -v 0")
    assert outcome.error == [], text(outcome)


def lasts(stage: Stage, server: Server, kernel: Kernel, call: Call) -> float:
    """Return how many seconds the call takes if nobody disturbs it."""
    key = f"{call.name} on {type(server).__name__} lasts"
    if key not in stage.kept:
        for cell in (PREPARE, call.before, call.cell):
            began = time.monotonic()
            outcome = kernel.run(cell)
            assert outcome.error == [], text(outcome)
            stage.kept[key] = time.monotonic() - began
        settle(kernel)
    seconds: float = stage.kept[key]
    return seconds


def begin(
    stage: Stage, server: Server, kernel: Kernel, call: Call, chance: random.Random
) -> tuple[str, Data]:
    """Begin the call and return at a random moment of it, with its request and the data before it."""
    seconds = lasts(stage, server, kernel, call)
    data = Data(server, kernel, chance)
    if call.before:
        prepared = kernel.run(call.before)
        assert prepared.error == [], text(prepared)
    request = kernel.begin(call.cell)
    kernel.await_start(request)
    time.sleep(chance.uniform(0, seconds))
    return request, data
