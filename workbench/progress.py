"""What takes longer than a second is shown while it does: how far it is, how fast, how long it will take."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from django.conf import settings

from workbench import words
from workbench.show import printable

SECONDS_BEFORE_SHOWN = 1.0
SECONDS_BETWEEN = 0.25
# What a rate is taken of: how fast it is now says more than how fast it once was.
RECENT_SECONDS = 5.0
# From fewer of them nobody can tell how long the next will take.
COUNT_BEFORE_RATE = 5

BAR_LETTERS = 20

# What shows a Progress, again and again; the last time it is over.
Show = Callable[["Progress"], None]


class Progress:
    """Something that may take long: ``with`` it, and add to ``done`` where there is something to count.

    ``what`` says what goes on, as in *Copying main*; ``now``, which may change, what part of that. What is
    counted are ``rows``, ``bytes`` or another ``unit``, out of ``total`` where that is known. One within
    another is shown in its place.

    A thread shows those of all threads now and then, so that counting costs nothing, and a wait for the first
    row is shown too. WORKBENCH_PROGRESS=0 hides it.

    Example::

        with Progress("Reading", unit="lines") as progress:
            for line in file:
                progress.done += 1
    """

    def __init__(self, what: str, total: int | None = None, *, unit: str = "rows") -> None:
        self.what = what
        self.now = ""
        # What Postgres says of itself, for the moment.
        self.detail = ""
        self.done = 0
        self.total = total
        self.unit = unit
        # How it ended: took, was interrupted after, failed after.
        self.end = ""
        self._began = self._seconds = 0.0
        self._inner: Progress | None = None
        self._stack: list[Progress] | None = None
        self._recent: deque[tuple[float, int]] = deque()
        self._show: Show | None = None
        # Of who works: a cell's output is found by it.
        self._context = copy_context()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if _is_wanted():
            self._stack = _stack()
            if self._stack:
                self._stack[-1]._inner = self
            self._stack.append(self)
            if len(self._stack) == 1:
                _shower.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, GeneratorExit):
            self._close("took")
        else:
            is_interrupt = issubclass(kind, KeyboardInterrupt)
            self._close("was interrupted after" if is_interrupt else "failed after")

    def _close(self, end: str) -> None:
        stack = self._stack
        if stack is None or self not in stack:
            return
        self._seconds = self.seconds
        self.end = end
        place = stack.index(self)
        # With what was begun in it and is not over: a generator that nobody reads to its end.
        del stack[place:]
        if place:
            stack[place - 1]._inner = None
        else:
            _shower.remove(self)

    @property
    def seconds(self) -> float:
        return self._seconds if self.end else time.monotonic() - self._began

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1: of what is in it, if that is known. None where nothing is."""
        inner = self._inner
        share = inner.share if inner else None
        if share is not None or not self.total:
            return share
        return min(self.done / self.total, 1.0)

    def __str__(self) -> str:
        if self.end:
            said = f"{self.what} {self.end} {words.span(self.seconds)}"
            rate = self.done / (self.seconds or 1) if self.done >= COUNT_BEFORE_RATE else 0.0
            return f"{said}: {', '.join(self._counted(rate))}" if self.done else said
        said = ": ".join(filter(None, [self.what, ", ".join(filter(None, [self.now, self.detail]))]))
        if inner := self._inner:
            amount = f", {self._amount}" if self.total else ""
            return f"{said}{amount}: {inner.what[:1].lower()}{str(inner)[1:]}"
        is_counted = self.total is not None or self.done
        return ", ".join([said, *(self._counted(self._rate()) if is_counted else ()), self._time()])

    def show(self) -> None:
        if self._show is None and self.seconds >= SECONDS_BEFORE_SHOWN and not self.end:
            self._show = self._context.run(make_show) or (lambda _: None)
        if self._show is not None:
            # Who cannot be told is not held up by it.
            with suppress(OSError, ValueError):
                self._context.run(self._show, self)

    def note(self) -> None:
        """Remember how far it is, for the rate."""
        if inner := self._inner:
            inner.note()
        now = time.monotonic()
        self._recent.append((now, self.done))
        while now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()

    def _rate(self) -> float:
        """Return how many are done in a second now; 0 where that is not known."""
        if self.done < COUNT_BEFORE_RATE:
            return 0.0
        if not self._recent:
            return self.done / (self.seconds or 1)
        then, done = self._recent[0]
        if (length := time.monotonic() - then) < SECONDS_BETWEEN / 2:
            then, done = self._began, 0
            length = time.monotonic() - then
        return (self.done - done) / (length or 1)

    def _time(self) -> str:
        rate = self._rate()
        if self.total and rate > 0 and 0 < self.done < self.total:
            # It is not there yet.
            return f"{words.whole(max(1, (self.total - self.done) / rate))} to go"
        return words.whole(self.seconds)

    @property
    def _amount(self) -> str:
        if self.unit == "bytes" and not self.done:
            return words.size(self.total)  # Nobody may have counted them.
        is_whole = self.total is None or self.done >= self.total
        unit = self.unit.removesuffix("s") if is_whole and self.done == 1 else self.unit
        done = self._number(self.done)
        total = "" if is_whole else f" of {self._number(self.total or 0)}"
        return f"{done}{total}" if self.unit == "bytes" else f"{done}{total} {unit}"

    def _counted(self, rate: float) -> list[str]:
        is_complete = self.total is not None and self.done >= self.total and not self.end
        if rate < 1 or is_complete:
            return [self._amount]
        return [
            self._amount,
            f"{words.size(round(rate))}/s" if self.unit == "bytes" else f"{rate:,.0f} {self.unit}/s",
        ]

    def _number(self, count: int) -> str:
        return words.size(count) if self.unit == "bytes" else f"{count:,}"


class _Line:
    """The line at the end of a terminal, which belongs to the first that is shown in it."""

    def __init__(self) -> None:
        self.is_lent = False
        self._owner: Progress | None = None
        self._letters = 0

    def show(self, progress: Progress) -> None:
        if self.is_lent or self._owner not in (None, progress):
            return
        if progress.end:
            self.clear()
            self._owner = None
            return
        line = _fitting(progress, _columns() - 1)
        # Carriage returns and spaces: every terminal knows them. What others print begins at the margin.
        self._write(f"\r{line.ljust(self._letters)}\r")
        self._owner, self._letters = progress, len(line)

    def clear(self) -> None:
        if self._letters:
            self._write(f"\r{' ' * self._letters}\r")
            self._letters = 0

    def _write(self, text: str) -> None:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr.write(text.encode(encoding, "replace").decode(encoding))
        sys.stderr.flush()


def _fitting(progress: Progress, columns: int) -> str:
    line, share = printable(str(progress)), progress.share
    if share is not None and len(line) + BAR_LETTERS + 3 <= columns:
        full = round(share * BAR_LETTERS)
        return f"[{'#' * full}{'.' * (BAR_LETTERS - full)}] {line}"
    return line if len(line) <= columns else f"{line[: max(columns - 3, 0)]}..."


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


_line = _Line()


def in_terminal() -> Show | None:
    """Return what shows progress in one line of stderr, or None where that is a file or a pipe."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    return _line.show


# A kernel puts its own in place.
make_show: Callable[[], Show | None] = in_terminal


@contextmanager
def whole_lines(stream: Any) -> Iterator[Any]:
    """Give what to write to instead of ``stream``: a line is written when it is whole.

    Half a line, and the progress of what is to end it, would be in each other's way. Where none can be shown
    it is ``stream`` itself.
    """
    if not is_visible():
        yield stream
        return
    lines = _Lines(stream)
    try:
        yield lines
    finally:
        lines.write_rest()


@contextmanager
def lent() -> Iterator[None]:
    """Show nothing in the terminal, where a question is asked inside."""
    with _shower.changed:
        _line.clear()
        _line.is_lent = True
    try:
        yield
    finally:
        _line.is_lent = False


class _Lines:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        whole, end, self._rest = f"{self._rest}{text}".rpartition("\n")
        if end:
            self._put(whole + end)

    def write_rest(self) -> None:
        if self._rest:
            self._put(self._rest)
            self._rest = ""

    def _put(self, text: str) -> None:
        # The progress comes back below.
        with _shower.changed, suppress(OSError, ValueError):
            _line.clear()
        self._stream.write(text)
        self._stream.flush()


def _is_wanted() -> bool:
    return bool(getattr(settings, "WORKBENCH_PROGRESS", True))


def is_visible() -> bool:
    """Tell whether somebody sees it: nobody does in a file or a pipe."""
    return _is_wanted() and make_show() is not None


def is_within() -> bool:
    """Tell whether this thread is within a progress."""
    return bool(_stack())


def end_all() -> None:
    """End what this thread has begun and not ended: whoever waited for it waits no more."""
    if stack := _stack():
        stack[0]._close("took")


_local = threading.local()


def _stack() -> list[Progress]:
    """Return what this thread is in, the innermost last."""
    stack: list[Progress] = _local.__dict__.setdefault("stack", [])
    return stack


class _Shower:
    """The thread that shows what runs. It sleeps while nothing does."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._running: list[Progress] = []
        self._thread: threading.Thread | None = None

    def add(self, progress: Progress) -> None:
        with self.changed:
            self._running.append(progress)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="workbench-progress", daemon=True)
                self._thread.start()
            self.changed.notify()

    def remove(self, progress: Progress) -> None:
        with self.changed:
            if progress in self._running:
                self._running.remove(progress)
                progress.show()

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._running)
                for progress in self._running:
                    progress.note()
                    progress.show()
                # Whoever ended one may have been interrupted before it was taken away.
                self._running = [progress for progress in self._running if not progress.end]
            time.sleep(SECONDS_BETWEEN)


_shower = _Shower()
