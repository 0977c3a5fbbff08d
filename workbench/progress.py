"""What takes longer than a second is shown while it does: a count of rows, or what is going on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from django.conf import settings

SECONDS_BEFORE_SHOWN = 1.0
SECONDS_BETWEEN = 0.25

# What shows a Progress, again and again; the last time it is done.
Show = Callable[["Progress"], None]


def in_terminal() -> Show | None:
    """Return what shows progress in one line of stderr, or None where that is a file or a pipe."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(progress: Progress) -> None:
        sys.stderr.write("\r\x1b[K" if progress.is_done else f"\r{progress}\x1b[K")
        sys.stderr.flush()

    return show


# A kernel puts its own in place.
make_show: Callable[[], Show | None] = in_terminal


class Progress:
    """A count of rows, out of ``total`` where that is known. ``with`` it, and add to ``rows``.

    Where there is nothing to count, ``what`` says what is going on, and may change.

    One thread shows those of all threads now and then, so that counting costs nothing, and a wait for the
    first row is shown too. WORKBENCH_PROGRESS=0 hides it.
    """

    def __init__(self, total: int | None = None, *, what: str = "") -> None:
        self.what = what
        self.rows = 0
        self.total = total
        self.is_done = False
        self._began = 0.0
        self._is_wanted = False
        self._show: Show | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._is_wanted = getattr(settings, "WORKBENCH_PROGRESS", True)
        if self._is_wanted:
            _shower.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_wanted:
            _shower.remove(self)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def __str__(self) -> str:
        if self.what:
            return f"{self.what}, {self.seconds:.0f} s"
        amount = f"{self.rows:,} rows" if not self.total else f"{self.rows:,} of {self.total:,} rows"
        if not self.rows:
            return f"{amount}, waiting for {self.seconds:.0f} s"
        rate = self.rows / self.seconds
        if self.is_done or not self.total:
            return f"{amount}, {rate:,.0f} rows/s, {self.seconds:.0f} s"
        return f"{amount}, {rate:,.0f} rows/s, {(self.total - self.rows) / rate:.0f} s to go"

    def show(self) -> None:
        if self._show is None and self.seconds >= SECONDS_BEFORE_SHOWN and not self.is_done:
            self._show = make_show() or (lambda _: None)
        if self._show is not None:
            self._show(self)


class _Shower:
    """The thread that shows what runs. It sleeps while nothing does."""

    def __init__(self) -> None:
        self._running: list[Progress] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, progress: Progress) -> None:
        with self._changed:
            self._running.append(progress)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="workbench-progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, progress: Progress) -> None:
        with self._changed:
            self._running.remove(progress)
            progress.is_done = True
            progress.show()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running)
                for progress in self._running:
                    progress.show()
            time.sleep(SECONDS_BETWEEN)


_shower = _Shower()
