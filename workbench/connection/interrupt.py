"""Control-C cancels the query that a connection waits for.

While Postgres works, Python's main thread waits inside libpq, where no KeyboardInterrupt can reach it. The
signal's number does arrive at the wakeup descriptor
(https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd), and another thread may ask the server
to cancel. The query then ends, and the interrupt is raised.

Where the server does not answer that either, the connection is given up: by itself after a unit of silence
(``silence.py``), and at once for a second interrupt. To connect is waited for in another thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg2.errors
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.connection import silence

# Fingers, and frontends, may interrupt twice where once was meant.
ONCE_SECONDS = 1.0
SETTLING_SECONDS = 0.02
PAUSE_SECONDS = 0.05

Made = TypeVar("Made")


class Watched:
    """Connections, for as long as they live: one thread may go through them while another adds one."""

    def __init__(self) -> None:
        self._connections: WeakSet[BaseDatabaseWrapper] = WeakSet()
        self._lock = threading.Lock()

    def add(self, connection: BaseDatabaseWrapper) -> None:
        with self._lock:
            self._connections.add(connection)

    def __iter__(self) -> Iterator[BaseDatabaseWrapper]:
        with self._lock:
            found = [*self._connections]
        return iter(found)


# Of every thread: asynchronous queries run in one of their own.
watched = Watched()
cancelled = threading.Event()
# Whether the thread that listens is done with an interrupt since the last watch().
_is_heard = threading.Event()
# What is said where the server did not cancel it.
given_up = ""
GIVEN_UP = (
    "the server did not answer, and the connection was given up. Look whether the query ran, if it writes."
)

# When the server was asked to cancel, and what had come from it by then.
_asked: WeakKeyDictionary[Any, tuple[float, bytes]] = WeakKeyDictionary()
# Those who are asking a server, with the connection whose statement it is to cancel.
_asking: list[tuple[threading.Thread, Any]] = []
_writing: int | None = None


def watch(connection: BaseDatabaseWrapper | None = None, *, instead_of_others: bool = False) -> None:
    """From now on let SIGINT cancel what ``connection``, and those watched before, wait for.

    Does nothing outside the main thread, on Windows, whose event loops need the wakeup descriptor, and where
    somebody else has it, unless ``instead_of_others``.
    """
    global given_up, _writing
    settle()
    cancelled.clear()
    _is_heard.clear()
    given_up = ""
    _asked.clear()
    if connection is not None:
        watched.add(connection)
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        return
    if _writing is None:
        reading, _writing = os.pipe()
        os.set_blocking(_writing, False)
        threading.Thread(target=_listen, args=[reading], name="workbench-interrupt", daemon=True).start()
    other = signal.set_wakeup_fd(_writing, warn_on_full_buffer=False)
    if other not in (-1, _writing) and not instead_of_others:
        signal.set_wakeup_fd(other)


def is_met(error: BaseException | None) -> bool:
    """Tell whether psycopg2's ``error`` is how the main thread meets an interrupt.

    psycopg2 loses a KeyboardInterrupt that comes while it makes an error of the server's answer.
    """
    is_main = threading.current_thread() is threading.main_thread()
    is_answer = isinstance(error, psycopg2.errors.QueryCanceled) or bool(given_up)
    return is_main and cancelled.is_set() and is_answer


def cancel(connection: BaseDatabaseWrapper, *, is_stuck: bool = False) -> bool:
    """Ask the server to cancel what this connection waits for, and tell whether there was something.

    If no answer comes, or this is the second time that it is to end, the connection is given up. ``is_stuck``
    says that the main thread has not run Python since the first time.
    """
    raw = connection.connection
    if raw is None or not silence.waits(raw):
        return False
    now, received = time.monotonic(), silence.received(raw)
    began, before = _asked.get(raw, (now, received))
    if now - began > ONCE_SECONDS and (is_stuck or received == before):
        _give_up(raw)
        return True
    _asked[raw] = began, received
    _asking.append((ask(raw), raw))
    if unit := silence.unit_of(raw):
        threading.Thread(target=_end, args=[raw, unit, received], name="workbench-end", daemon=True).start()
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


def settle(*, is_interrupted: bool = False) -> None:
    """Wait until each server was asked, after a statement that was to be cancelled: it might cancel the next.

    With ``is_interrupted`` somebody may be about to ask. Nobody is waited for whose connection is given up,
    nor for longer than a silence may be.
    """
    if is_interrupted and _writing is not None:
        begun = time.monotonic()
        # In steps: the thread that listens may itself wait until this one runs Python.
        while not _is_heard.wait(SETTLING_SECONDS) and time.monotonic() - begun < ONCE_SECONDS:
            pass
    deadline = time.monotonic() + silence.SECONDS if _asking else 0.0
    while _asking:
        asking, raw = _asking[-1]
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
            _give_up(raw)
        elif not _is_back.is_set():
            continue
        # Whoever has said anything since is there, and what runs may be another statement that needs longer.
        return


def _give_up(raw: Any) -> None:
    global given_up
    given_up = GIVEN_UP
    silence.give_up(raw, GIVEN_UP)


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
    while number := os.read(reading, 1):
        if number[0] != signal.SIGINT:
            continue
        # Before the server is asked: its answer may be there before ours.
        cancelled.set()
        is_stuck = not _is_back.is_set()
        _is_back.clear()
        ctypes.pythonapi.Py_AddPendingCall(_pending_call, None)
        while not sum(cancel(each, is_stuck=is_stuck) for each in watched):
            # It may have come when a statement was about to begin: Python would not see it before its end.
            if _is_back.wait(PAUSE_SECONDS):
                cancelled.clear()
                break
        _is_heard.set()


# Set once the main thread runs Python again, and so has met what interrupts it:
# https://docs.python.org/3/c-api/threads.html#c.Py_AddPendingCall
_is_back = threading.Event()


def _come_back(_: object) -> int:
    _is_back.set()
    return 0


_pending_call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_come_back)
