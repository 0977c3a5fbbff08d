"""Control-C cancels the query that a connection waits for.

While Postgres works, Python's main thread waits inside libpq, where no KeyboardInterrupt can reach it. The
signal's number does arrive at the wakeup descriptor
(https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd), and another thread may ask the server
to cancel, again and again until the statement ends. Its end raises the interrupt.

Nothing else raises it while a statement runs: psycopg2 runs Python in its midst, and so does whatever is
freed there, and both lose a KeyboardInterrupt.

Where the server does not answer that either, the connection is given up: by itself after a unit of silence
(``silence.py``), and at once for a second interrupt. To connect is waited for in another thread.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.connection import silence

# Fingers, and frontends, may interrupt twice where once was meant.
ONCE_SECONDS = 1.0
SETTLING_SECONDS = 0.02
PAUSE_SECONDS = 0.05
READ_BYTES = 4096
# The callbacks of weak references are theirs.
FREEING = ("weakref", "_weakrefset")

CANCELLED = "the query was cancelled."
OVER = "it came when the query was over."
GIVEN_UP = (
    "the server did not answer, and the connection was given up. Look whether the query ran, if it writes."
)

Made = TypeVar("Made")


class Watched:
    """Connections, for as long as they live: one thread may go through them while another adds one."""

    def __init__(self) -> None:
        self._connections: WeakSet[BaseDatabaseWrapper] = WeakSet()
        self._lock = threading.Lock()

    def add(self, connection: BaseDatabaseWrapper) -> None:
        with self._lock:
            self._connections.add(connection)

    def clear(self) -> None:
        """Forget them in a forked process, where nobody would give the lock back."""
        self.__init__()  # type: ignore[misc]

    def __iter__(self) -> Iterator[BaseDatabaseWrapper]:
        with self._lock:
            found = [*self._connections]
        return iter(found)


# Of every thread: asynchronous queries run in one of their own.
watched = Watched()

# How many statements the main thread is in, as Django's may stand within each other.
_depth = 0
# Whether an interrupt came that has ended nothing yet, whether Python is to raise it a little later, and what
# keeps two threads from answering it.
_is_due = _is_put_off = False
_lock = threading.RLock()
# When the server was first asked to cancel what a connection waits for, and how often.
_asked: WeakKeyDictionary[Any, tuple[float, int]] = WeakKeyDictionary()
# Those who are asking a server, with the connection whose statement it is to cancel.
_asking: list[tuple[threading.Thread, Any]] = []
# The ends of the pipe that signals are told through.
_reading = _writing = -1


def watch(connection: BaseDatabaseWrapper | None = None, *, anew: bool = False) -> None:
    """From now on let SIGINT cancel what ``connection``, and those watched before, wait for.

    Does nothing outside the main thread, on Windows, whose event loops need the wakeup descriptor, and where
    somebody else has it. With ``anew``, where a cell begins, it is taken from whoever had it in the last one,
    and an interrupt of that is over.
    """
    global _depth, _reading, _writing
    settle()
    if connection is not None:
        watched.add(connection)
    if os.name == "nt" or not _is_main():
        return
    if anew:
        _meet()
        _asked.clear()
        _depth = 0
    if _writing < 0:
        _reading, _writing = os.pipe()
        os.set_blocking(_reading, False)
        os.set_blocking(_writing, False)
        threading.Thread(target=_listen, args=[_reading], name="workbench-interrupt", daemon=True).start()
    other = signal.set_wakeup_fd(_writing, warn_on_full_buffer=False)
    if other not in (-1, _writing) and not anew:
        signal.set_wakeup_fd(other)
        return
    handler = signal.getsignal(signal.SIGINT)
    # Where a cell begins it is ipykernel's, which may be another one.
    if handler is signal.default_int_handler or (
        anew and callable(handler) and not isinstance(handler, _Handler)
    ):
        signal.signal(signal.SIGINT, _Handler(handler))


class _Handler:
    """Python's handler of SIGINT, which leaves for later what would be lost: in a statement, for its end."""

    def __init__(self, before: Callable[..., Any]) -> None:
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        global _is_due, _is_put_off
        if _depth or _is_lost_in(frame):
            _is_due, _is_put_off = True, not _depth
            return None
        with _lock:
            _press(is_new=True)  # What other threads wait for.
            _meet()
        return self.before(number, frame)


def _is_lost_in(frame: FrameType | None) -> bool:
    """Tell whether Python would only print the exception, as in what it calls while it frees something."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in FREEING:
            return True
        frame = frame.f_back
    return False


def _forget() -> None:
    """Leave the signals of a forked process to itself: all that is known here is of its parent."""
    global _depth, _is_due, _is_put_off, _lock, _reading, _writing
    watched.clear()
    _asked.clear()
    _asking.clear()
    _depth, _is_due, _is_put_off = 0, False, False
    if _writing < 0:
        return
    signal.set_wakeup_fd(-1)
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, _Handler):
        signal.signal(signal.SIGINT, handler.before)
    _reading = _writing = -1
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def enter() -> None:
    """Begin a statement, when nobody is asked any more to cancel another: an interrupt is left to its end."""
    global _depth
    settle()
    if _is_main():
        _depth += 1


def leave(raw: Any) -> bool:
    """End what psycopg2's connection waited for, and tell whether that is to raise a KeyboardInterrupt."""
    global _depth
    if _asked and raw is not None:
        _asked.pop(raw, None)
    is_due = False
    if _is_main():
        _depth = max(_depth - 1, 0)
        is_due = _is_due
        if is_due and not _depth:
            _meet()
    settle()
    return is_due


class Outside:
    """Within it Python raises a KeyboardInterrupt at once, though a statement is being waited for."""

    _depth = 0

    def __enter__(self) -> None:
        global _depth
        if _is_main():
            self._depth, _depth = _depth, 0

    def __exit__(self, *_: object) -> None:
        global _depth
        if _is_main():
            _depth = self._depth


def cancel(connection: BaseDatabaseWrapper) -> bool:
    """Ask the server to cancel what this connection waits for, and tell whether there was something.

    If no answer comes, the connection is given up.
    """
    raw = connection.connection
    if raw is None or not silence.waits(raw):
        return False
    first, times = _asked.get(raw, (time.monotonic(), 0))
    _asked[raw] = first, times + 1
    _asking.append((ask(raw), raw))
    if not times and (unit := silence.unit_of(raw)):
        arguments = [raw, unit, silence.received(raw)]
        threading.Thread(target=_end, args=arguments, name="workbench-end", daemon=True).start()
    return True


def ask(raw: Any) -> threading.Thread:
    """Ask the server to cancel what psycopg2's connection waits for, in a thread, which is returned.

    It takes as long as it takes to connect to the server once more, and to hear that it is done.
    """

    def work() -> None:
        # If the server is gone, so is the waiting.
        with suppress(psycopg2.Error):
            raw.cancel()

    asking = threading.Thread(target=work, name="workbench-cancel", daemon=True)
    asking.start()
    return asking


def settle() -> None:
    """Wait until each server was asked, after a statement that was to be cancelled: it might cancel the next.

    Nobody is waited for whose connection is given up, nor for longer than a silence may be.
    """
    if not _asking:
        return
    deadline = time.monotonic() + silence.SECONDS
    for asking, raw in [*_asking]:
        while asking.is_alive() and not silence.why_given_up(raw) and time.monotonic() < deadline:
            asking.join(SETTLING_SECONDS)
        with suppress(ValueError):  # Another thread waited for it, too.
            _asking.remove((asking, raw))


def _end(raw: Any, unit: float, received: bytes) -> None:
    """Give it up after a unit of silence."""
    while True:
        time.sleep(unit)
        if raw not in _asked or not silence.waits(raw):
            return
        before, received = received, silence.received(raw)
        if received == before:
            silence.give_up(raw, GIVEN_UP)
        elif _is_due:
            continue
        # Whoever has said anything since is there, and what runs may be another statement that needs longer.
        return


def apart(make: Callable[[], Made], undo: Callable[[Made], None]) -> Made:
    """Return what ``make`` returns, called in another thread: so a KeyboardInterrupt ends the wait for it.

    What was made nevertheless is then given to ``undo``. Only the main thread is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        return make()
    future: Future[Made] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="workbench-connecting", daemon=True).start()
    try:
        while not future.done():
            # On Windows a wait is not interrupted.
            with suppress(TimeoutError):
                future.exception(timeout=0.1 if os.name == "nt" else None)
    except KeyboardInterrupt:
        future.add_done_callback(lambda done: None if done.exception() else undo(done.result()))
        raise
    return future.result()


def _listen(reading: int) -> None:
    while True:
        select.select([reading], [], [])
        # It may have come when a statement was about to begin, and the server may have heard of it before.
        while _is_awaited():
            time.sleep(PAUSE_SECONDS)


def _is_awaited() -> bool:
    """Have what is waited for cancelled if an interrupt is due, and tell whether one is."""
    global _is_due, _is_put_off
    with _lock:
        if _is_put_off and not _depth:
            _is_put_off = False
            _thread.interrupt_main()
        is_new = _is_told()
        handler = signal.getsignal(signal.SIGINT)
        is_ours = isinstance(handler, _Handler)
        if is_new and not is_ours and handler is not signal.default_int_handler:
            return False  # Somebody else decides what is to end.
        _is_due = _is_due or is_new
        if _is_due:
            _press(is_new=is_new)
        if not _depth and not is_ours:
            _is_due = False  # It was raised without us.
        return _is_due


def _press(*, is_new: bool) -> None:
    for connection in watched:
        raw = connection.connection
        if raw is None:
            continue
        first, times = _asked.get(raw, (0.0, 0))
        seconds = time.monotonic() - first
        if times and is_new and seconds > ONCE_SECONDS:
            silence.give_up(raw, GIVEN_UP)
        elif not times or (not is_new and seconds > times * ONCE_SECONDS):
            cancel(connection)


def _meet() -> None:
    """Take note that the main thread has met what interrupts it."""
    global _is_due, _is_put_off
    with _lock:
        _is_told()
        _is_due = _is_put_off = False


def _is_told() -> bool:
    """Tell whether a SIGINT has come that nobody has read of."""
    try:
        return _reading >= 0 and signal.SIGINT in os.read(_reading, READ_BYTES)
    except BlockingIOError:
        return False


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
