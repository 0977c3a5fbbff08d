"""A server elsewhere that has fallen silent: noticed, and its connection given up.

A laptop slept, a middlebox forgot a connection, a proxy holds one that leads nowhere: whoever is nearest may
keep a line alive on which nobody answers, and TCP itself would wait for hours. The unit is WORKBENCH_SILENCE,
of 5 seconds unless it is set:

- a small question of ours, as before each cell, is answered within a unit, or the connection is given up;
- after six units of silence in a statement, and every six, a session beside asks the server what ours does.
  If it does not work on the statement, or cannot be reached, and still so two units later, it is given up;
- an interrupt after which a statement goes on in silence for a unit gives it up (``interrupt.py``).

Given up means that its socket is shut down, whereupon libpq meets its end. Silence is no byte in either
direction while a statement runs: a slow reader is none, nor is a slow line. The embedded server and Unix
sockets are not watched, as they cannot fall silent, and no poolers, behind which nobody can say which session
runs a statement.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE

from workbench import words
from workbench.connection.glance import APPLICATION
from workbench.connection.url import is_neon

SECONDS = 5.0
UNITS_BEFORE_LOOK = 6
UNITS_BEFORE_SECOND_LOOK = 2
UNITS_TO_CONNECT = 3
TICKS_IN_A_UNIT = 5

SELF = "SELECT pid, backend_start FROM pg_stat_get_activity(pg_backend_pid())"
DOES = "SELECT state, state_change, wait_event FROM pg_stat_get_activity(%s) WHERE backend_start = %s"
GONE, UNREACHABLE = "gone", "unreachable"
# In what a server says, or a proxy before it, and not in what libpq says of the network.
SPOKEN = re.compile("FATAL|ERROR|PANIC")

# tcpi_bytes_acked and tcpi_bytes_received in Linux' struct tcp_info, since 4.2.
BYTES = slice(120, 136)
BYTES_ACKED = 8


@dataclass
class Line:
    """What is known of a connection: how long a silence is noticed after, in seconds, and how to look.

    Without a ``backend``, which are the process and the start of the server's session, nobody can.
    """

    unit: float
    params: dict[str, Any]
    backend: tuple[int, Any] | None = None
    # Whether it is asked what any server that is there answers at once.
    is_small: bool = False
    # Whether all rows of a COPY are on their way: if the server waits for more, some were lost.
    is_fed: bool = False
    heard: bytes = b""
    since: float = 0.0
    # The silence after which to look, and what was seen the last time, if that was bad.
    due: float = 0.0
    seen: Any = None

    def listen(self, raw: Any) -> float:
        """Return the seconds of silence so far. They begin anew with each byte, and when nothing is asked."""
        now = time.monotonic()
        is_silent, heard, _ = hear(raw)
        if not is_silent or heard != self.heard or not self.since:
            self.heard, self.since, self.seen = heard, now, None
            self.due = UNITS_BEFORE_LOOK * self.unit
        return now - self.since


_lines: WeakKeyDictionary[Any, Line] = WeakKeyDictionary()
_given_up: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def watch(connection: BaseDatabaseWrapper) -> None:
    """Watch the connection just made if it leads elsewhere. Costs a round trip.

    Raises psycopg2.Error.
    """
    settings, raw = connection.settings_dict, connection.connection
    if settings.get("EMBEDDED") or settings.get("DISABLE_SERVER_SIDE_CURSORS") or is_near(raw):
        return
    line = _attach(raw, Line(settings.get("SILENCE", SECONDS), connection.get_connection_params()))
    with asking(connection), raw.cursor() as cursor:
        cursor.execute(SELF)
        backend = cursor.fetchone()
        if not raw.autocommit:
            raw.commit()
    # A pooler tells a number of its own, as Neon's proxy does, which leads to one session all the same.
    if backend and (backend[0] == raw.info.backend_pid or is_neon(raw.info.host)):
        line.backend = backend


def is_near(raw: Any) -> bool:
    """Tell whether a connection is through a Unix socket."""
    return not raw.info.host or raw.info.host.startswith(("/", "@"))


@contextmanager
def asking(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Inside, give a watched connection up as soon as a unit passes in silence: what is asked is small."""
    line = _line(connection.connection)
    if line is None:
        yield
        return
    was_small, line.since, line.is_small = line.is_small, 0.0, True
    try:
        yield
    finally:
        line.is_small = was_small


def feeds(connection: BaseDatabaseWrapper, *, is_fed: bool) -> None:
    """Say that all rows of a COPY are on their way, or that it is over."""
    if line := _line(connection.connection):
        line.is_fed = is_fed


def unit_of(raw: Any) -> float | None:
    """Return the seconds of a unit; None for a connection that is not watched."""
    line = _line(raw)
    return None if line is None else line.unit


def waits(raw: Any) -> bool:
    """Tell whether a statement runs, as psycopg2's connection knows it."""
    return bool(not raw.closed and raw.get_transaction_status() == TRANSACTION_STATUS_ACTIVE)


def received(raw: Any) -> bytes:
    """Return what changes with each byte that comes from the server; b"" where that is not known."""
    with suppress(OSError, psycopg2.Error):
        return hear(raw)[1][BYTES_ACKED:]
    return b""


def give_up(raw: Any, why: str) -> None:
    """Shut the socket of a connection down, from whatever thread. ``why`` is a sentence."""
    _given_up[raw] = why
    with suppress(OSError, psycopg2.Error), _socket(raw) as line:
        line.shutdown(socket.SHUT_RDWR)


def why_given_up(raw: Any) -> str:
    """Return the sentence; "" if it was not."""
    return "" if raw is None else _given_up.get(raw, "")


def _line(raw: Any) -> Line | None:
    return None if raw is None else _lines.get(raw)


def _attach(raw: Any, line: Line) -> Line:
    global _thread
    with _lock:
        _lines[raw] = line
        # None of those before a fork is alive after it.
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="workbench-silence", daemon=True)
            _thread.start()
    return line


def hear(raw: Any) -> tuple[bool, bytes, bool]:
    """Return whether a statement runs and there is nothing to read, all bytes so far, whether more may go.

    The second changes with each byte that comes or arrives there; it is empty where that is not known.
    """
    if not waits(raw):
        return False, b"", True
    with _socket(raw) as line, selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ | selectors.EVENT_WRITE)
        events = sum(event for _, event in selector.select(0))
        counted = b""
        if sys.platform == "linux" and not is_near(raw):
            counted = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES.stop)[BYTES]
    has_room = bool(events & selectors.EVENT_WRITE)
    # Where bytes are not counted, those that wait to be sent may be on their way.
    is_silent = not events & selectors.EVENT_READ and (has_room or bool(counted))
    return is_silent, counted, has_room


@contextmanager
def _socket(raw: Any) -> Iterator[socket.socket]:
    """Give a copy of the connection's socket. Raises OSError where that is closed by now."""
    number = raw.fileno()
    with closing(socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM)) as copied:
        # The number may have been another's already when it was copied.
        if raw.closed or raw.fileno() != number:
            raise OSError("The connection is closed.")
        yield copied


def _work() -> None:
    while True:
        time.sleep(_listen() / TICKS_IN_A_UNIT)


def _listen() -> float:
    """Listen to all lines, and return the shortest unit."""
    with _lock:
        lines = [*_lines.items()]
    for raw, line in lines:
        with suppress(OSError, psycopg2.Error):
            silence = line.listen(raw)
            if line.is_small and silence > line.unit:
                give_up(raw, f"The server timed out: it did not answer within {words.whole(line.unit)}.")
            elif line.backend and silence > line.due:
                line.due = float("inf")
                threading.Thread(target=_look, args=[raw, line], name="workbench-look", daemon=True).start()
    return min((line.unit for _, line in lines), default=SECONDS)


def _look(raw: Any, line: Line) -> None:
    """Ask what the server does with a silent statement, and give it up for what was seen twice."""
    seen = _asked(line)
    with suppress(OSError, psycopg2.Error):
        silence = line.listen(raw)
        if silence < UNITS_BEFORE_LOOK * line.unit:
            return
        if not _is_bad(seen, line, has_room=hear(raw)[2]):
            line.seen, line.due = None, silence + UNITS_BEFORE_LOOK * line.unit
        elif seen != line.seen:
            line.seen, line.due = seen, silence + UNITS_BEFORE_SECOND_LOOK * line.unit
        else:
            reason = "cannot be reached" if seen == UNREACHABLE else "does not work on the statement any more"
            give_up(raw, f"The server was silent for {words.whole(silence)}, and {reason}.")


def _asked(line: Line) -> Any:
    """Return the server's word on the session: its state, since when, and what it waits for."""
    assert line.backend is not None
    try:
        beside = psycopg2.connect(
            **{
                **line.params,
                "application_name": APPLICATION,
                "connect_timeout": max(2, round(UNITS_TO_CONNECT * line.unit)),
            }
        )
    except psycopg2.OperationalError as error:
        # Who is turned away by somebody has reached him, and knows no more.
        return None if SPOKEN.search(str(error)) else UNREACHABLE
    try:
        _attach(beside, Line(line.unit, {}, is_small=True))
        with beside.cursor() as cursor:
            cursor.execute(DOES, line.backend)
            return cursor.fetchone() or GONE
    except psycopg2.Error:
        return UNREACHABLE
    finally:
        beside.close()


def _is_bad(seen: Any, line: Line, *, has_room: bool) -> bool:
    if seen is None or seen in (GONE, UNREACHABLE):
        return seen is not None
    state, _, waits_for = seen
    if state != "active":
        return str(state).startswith("idle")
    # We wait for it and it for us: what was sent is lost on the way. Not so of a COPY whose next rows are not
    # made yet.
    return waits_for == "ClientWrite" or (waits_for == "ClientRead" and (line.is_fed or not has_room))
