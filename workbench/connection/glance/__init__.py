"""Sessions that only look, for a moment: they are in nobody's way.

Such a session starts no server, is gone after a few queries, and says by its name that nobody need end it:
who needs a database for himself waits for it. ``base.py`` is its Django backend.
"""

from __future__ import annotations

from typing import Any

from workbench.connection.program import START
from workbench.connection.url import past_pooler

APPLICATION = f"{START}the page"
CONNECT_TIMEOUT_SECONDS = 10


def glancing(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of DATABASES whose connections only look.

    They go past a pooler: that would keep a session on a branch after they are gone.
    """
    options = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **entry["OPTIONS"]}
    return {
        **past_pooler(entry),
        "ENGINE": __name__,
        "OPTIONS": {**options, "application_name": APPLICATION},
    }
