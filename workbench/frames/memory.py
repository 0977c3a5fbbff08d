"""How much memory is left, and a watch over a reading that may need more.

Our limit may be below what the machine has: a container's (cgroup version 1 or 2,
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files) or the process's (RLIMIT_AS).
Whoever goes beyond it is killed, or gets a MemoryError in the middle of anything.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, NamedTuple, Self

import psutil

from workbench.words import size

CGROUPS: Final = Path("/sys/fs/cgroup")
# Of whole memory, what a reading leaves to others; and what it leaves at least, in bytes.
SHARE_LEFT: Final = 0.05
LEAST_LEFT: Final = 100_000_000
# What a row may take beside its frame while that is made: a column is held twice for a moment.
BYTES_A_ROW: Final = 16
# What a byte on the wire becomes at least, as measured: of numbers alone a half, of books 0.85, of texts
# 1.1, of UUIDs 3, of JSON and numeric 10. How much the process has grown tells it better, unless it grows
# into what an earlier frame has left.
FRAME_TO_WIRE: Final = 0.5
# Of the memory that is left, what comes in before the planner is asked how much will come.
SHARE_BEFORE_ASKING: Final = 1 / 64
# And so much at least, in bytes: of less nobody can tell how much a row takes.
LEAST_BEFORE_ASKING: Final = 16_000_000
# What a reading takes beside its rows.
ITS_OWN: Final = 8_000_000
# The fastest that memory is used up, in bytes a second: it is looked at before it can be.
FASTEST: Final = 2_000_000_000


class Memory(NamedTuple):
    """How much is left, out of how much, in bytes."""

    left: int
    total: int


@dataclass(frozen=True)
class Limit:
    """A limit of a cgroup of ours, in bytes, and the files that say how much is used and how much of that the
    system would give back by itself: files that it keeps in memory.
    """

    bytes: int
    used: Path
    stat: Path
    given_back: str

    @property
    def left(self) -> int:
        used = int(self.used.read_text())
        kept = next((int(words[1]) for words in self._lines() if words[0] == self.given_back), 0)
        return max(self.bytes - used + kept, 0)

    def _lines(self) -> Iterator[list[str]]:
        yield from map(str.split, self.stat.read_text().splitlines())


def cgroup_limits(membership: str, root: Path = CGROUPS) -> list[Limit]:
    """Return the limits of the cgroups that ``/proc/self/cgroup`` names, and of those above them.

    In a container the path may be the host's, and what is mounted the container's own cgroup.
    """
    found = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        names = ("memory.max", "memory.current", "inactive_file")
        places = [root, root / "unified"]
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            places = [root / "memory"]
        inside = PurePosixPath(path).relative_to("/")
        for folder in (place / above for place in places for above in (inside, *inside.parents)):
            try:
                limit = int((folder / names[0]).read_text())
            except (OSError, ValueError):
                continue  # There is none there, or it says "max".
            found.append(Limit(limit, folder / names[1], folder / "memory.stat", names[2]))
    # Version 1 says no limit by a number that no machine has.
    return [limit for limit in found if limit.bytes < psutil.virtual_memory().total]


def our_limits() -> list[Limit]:
    try:
        return cgroup_limits(Path("/proc/self/cgroup").read_text())
    except OSError:
        return []


def memory(limits: list[Limit]) -> Memory:
    """Return what is left of the memory that this process may have, by the tightest of its limits."""
    machine = psutil.virtual_memory()
    found = [Memory(machine.available, machine.total)]
    for limit in limits:
        try:
            found.append(Memory(limit.left, limit.bytes))
        except (OSError, ValueError):
            continue
    if sys.platform != "win32":
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            found.append(Memory(max(most - psutil.Process().memory_info().vms, 0), most))
    return min(found)


class Watch:
    """Within, a thread looks how much memory is left while rows come in, and calls ``stop`` if too little is.

    ``read`` returns how many rows and bytes came in so far. ``expected`` returns how many rows will come, by
    the planner, or None: it is asked once, when some have. ``warning`` is what to tell the person, until it
    is told; ``shortage`` how much was left when it was stopped.
    """

    def __init__(
        self,
        read: Callable[[], tuple[int, int]],
        expected: Callable[[], int | None],
        stop: Callable[[], object],
        indexes: int = 0,
    ) -> None:
        self._read, self._expected, self._stop = read, expected, stop
        self._beside = BYTES_A_ROW * (1 + indexes)
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self.warning = ""
        self.shortage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def begin(self) -> None:
        """Look from now on: a reading that is soon over need not be watched."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="workbench-memory", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        limits, process = our_limits(), psutil.Process()
        before = process.memory_info().rss
        is_asked = False
        while True:
            left, total = memory(limits)
            rows, wire = self._read()
            reserve = max(LEAST_LEFT, int(total * SHARE_LEFT)) + rows * self._beside
            if left < reserve:
                # In this order: a cancel that arrives after who waits has gone on would end what comes next.
                self._stop()
                self.shortage = size(left)
                return
            held = max(process.memory_info().rss - before - ITS_OWN, int(wire * FRAME_TO_WIRE))
            if not is_asked and rows and held > max(left * SHARE_BEFORE_ASKING, LEAST_BEFORE_ASKING):
                is_asked = True
                if (coming := self._expected()) is not None:
                    needed = coming * (held // rows + self._beside)
                    if needed > left + held - reserve:
                        self.warning = (
                            f"About {coming:,} rows will come, which take about {size(needed)} of memory, "
                            f"and {size(left + held)} were left"
                        )
            if self._is_over.wait(min(max((left - reserve) / FASTEST, 0.02), 0.5)):
                return


def release() -> None:
    """Give back to the system what was let go of: glibc keeps it for whoever asks next in this process."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def person_level() -> int:
    """Return the ``stacklevel`` for a warning to the line that called ``frame``, for the caller of this."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and not (
        frame.f_code.co_name == "__call__" and frame.f_code.co_filename.startswith(package)
    ):
        frame = frame.f_back
        level += 1
    return level + 1
