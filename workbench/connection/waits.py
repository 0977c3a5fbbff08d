"""Notices that a statement waits for other sessions, while it waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import psycopg2
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.connection.queue import Session, blockers_of

# How long a statement may take before somebody looks whom it waits for. Each look costs a connection, so the
# pauses between the next ones grow.
FIRST_SECONDS = 0.25
LONGEST_SECONDS = 5.0
AT_MOST_SECONDS = 1.0


class Watch:
    """Tells whom the statements of a connection wait for: once, until the next ``begin()``.

    A context manager with a thread, which calls ``tell``. ``found`` are those that were last waited for since
    ``begin()``.
    """

    def __init__(self, connection: BaseDatabaseWrapper, tell: Callable[[Sequence[Session]], None]) -> None:
        self.found: Sequence[Session] = ()
        self._connection = connection
        self._tell = tell
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        # The statement that runs: the session's process, and when it began.
        self._running: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        # It may be connecting to a server that does not answer.
        self._thread.join(AT_MOST_SECONDS)

    def begin(self) -> None:
        self.found = ()

    @contextmanager
    def statement(self) -> Iterator[None]:
        """Around a statement of the connection."""
        raw = self._connection.connection
        self._running = None if raw is None else (raw.info.backend_pid, time.monotonic())
        try:
            yield
        finally:
            self._running = None

    def _work(self) -> None:
        looked, pause = None, FIRST_SECONDS
        while not self._is_over.wait(FIRST_SECONDS):
            running = self._running
            if running is None:
                continue
            if running is not looked:
                looked, pause = running, FIRST_SECONDS
            if time.monotonic() - running[1] >= pause:
                pause = 2 * pause if pause < LONGEST_SECONDS else pause + LONGEST_SECONDS
                with suppress(Error, psycopg2.Error):  # Then nothing is told.
                    self._look(running)

    def _look(self, running: tuple[int, float]) -> None:
        found = blockers_of(running[0], self._connection)
        # What was seen of a statement that has ended may be of another occasion.
        if found and self._running is running:
            is_told, self.found = bool(self.found), found
            if not is_told:
                self._tell(found)
