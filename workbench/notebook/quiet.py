"""Looking at names without reaching the database: what Tab and Shift+Tab do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from django.db import connections


class Refused(Exception):
    """What an attribute raises that would have to query."""


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing inside reach a database through Django's connections of this thread."""
    # Those that an outer one has not quieted already.
    found = [each for each in connections.all() if "ensure_connection" not in vars(each)]
    for connection in found:
        # Every cursor begins with it.
        connection.ensure_connection = _refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        for connection in found:
            del vars(connection)["ensure_connection"]


def _refuse() -> NoReturn:
    raise Refused("This would query the database.")
