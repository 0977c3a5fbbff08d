"""A request to cancel that holds nobody up.

psycopg2's own ``cancel()`` keeps Python's lock while it connects to the server and waits for its answer:
where none comes, the whole process stands still. libpq, called directly, lets go of the lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any
from weakref import finalize

import psycopg2
import psycopg2._psycopg

TEXT_BYTES = 256


def _libpq() -> Any:
    """Return the libpq of psycopg2; None where it is hidden in it, as on Windows."""
    try:
        library = ctypes.CDLL(psycopg2._psycopg.__file__)
        library.PQgetCancel.argtypes, library.PQgetCancel.restype = [ctypes.c_void_p], ctypes.c_void_p
        library.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        library.PQfreeCancel.argtypes = [ctypes.c_void_p]
    except (AttributeError, OSError):
        return None
    return library


libpq = _libpq()


def canceller(raw: Any) -> Callable[[], None] | None:
    """Return what cancels the statements of an open connection, from any thread; None where libpq is hidden.

    It raises psycopg2.OperationalError where nobody could be asked.
    """
    if libpq is None:
        return None
    # Now, while the connection cannot be closed by another thread.
    pointer = libpq.PQgetCancel(raw.pgconn_ptr)

    def cancel() -> None:
        text = ctypes.create_string_buffer(TEXT_BYTES)
        if not libpq.PQcancel(pointer, text, TEXT_BYTES):
            raise psycopg2.OperationalError(text.value.decode(errors="replace"))

    finalize(cancel, libpq.PQfreeCancel, pointer)
    return cancel
