"""What it costs a cell that the shell's models follow the database, in a kernel of its own."""

from __future__ import annotations

import re

from tests.benchmarks.server import Server
from tests.kernel import Kernel

# Cells within a cell: the frontend's messages, which take longer than what is measured, are not timed.
TIMED = """
import time
def timed(cell, repeated=200):
    shell, seconds = get_ipython(), []
    for _ in range(repeated):
        began = time.perf_counter()
        shell.run_cell(cell, store_history=False)
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[repeated // 2]
"""
# Before there is a connection.
OFF = """
from django.db.backends.signals import connection_created
events, found = get_ipython().events, 0
for event in ("pre_run_cell", "post_run_cell"):
    for callback in [*events.callbacks[event]]:
        following = getattr(callback, "__self__", None)
        if type(following).__name__ == "Following":
            events.unregister(event, callback)
            connection_created.disconnect(following.attach)
            found += 1
assert found == 2 and connection.connection is None
"""
CELLS = {"schema-cell": "found = Book.objects.first()", "schema-idle": "found = 1 + 1"}


def measure(found: Server, work: str, method: str) -> dict[str, float]:
    cell = CELLS[work]
    log = found.folder / "log"
    with Kernel({"DATABASE_URL": found.url("tcp")}) as kernel:

        def run(code: str) -> str:
            outcome = kernel.run(code)
            assert not outcome.error, outcome.error
            return outcome.stdout

        run(TIMED)
        if method == "not following":
            run(OFF)
        seconds = float(run(f"timed({cell!r}, 10); print(timed({cell!r}))"))
        # The server knows what it was asked.
        run("connection.cursor().execute('SET log_statement = \"all\"')")
        before = log.stat().st_size
        run(cell)
        run("connection.cursor().execute('SET log_statement = \"none\"')")
        statements = re.findall(r"LOG:  statement: (?!SET )", log.read_text()[before:])
    return {"seconds": seconds, "statements": len(statements)}
