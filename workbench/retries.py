"""What is tried again, and how long after.

- To connect, where that may pass by itself: ``connection/failures.py`` tells what does, and how often.
- A call of Neon's API that was not carried out, or may be twice: ``branches/api.py``.
- A statement of which Postgres has said that it did nothing, because others were in its way: one that changes
  tables and got no lock (``schema/patience.py``), a copy of a database that somebody uses
  (``branches/template.py``), a look at tables that are just being changed (``page/look.py``).

Never a statement that got no answer: it may have run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator


def pauses(first: float, longest: float, *, least: float = 0.5) -> Iterator[float]:
    """Yield seconds to wait before each new attempt, without end: up to ``first``, then up to twice as many.

    Each is at random, so that those who failed together don't come back together; ``least`` is the part of it
    that is not.
    """
    while True:
        yield random.uniform(least * first, first)
        first = min(2 * first, longest)
