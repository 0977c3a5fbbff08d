"""A class: many kernels on one machine run the first four lessons at once, each on a branch of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from nbformat import NotebookNode

from tests.benchmarks.samples import sampled
from tests.kernel import Kernel
from tests.notebooks.lessons import LESSONS, read
from tests.throwaway import PROJECT, environment
from workbench.connection import embedded

LESSONS_RUN = 4
SECONDS = 900.0
SAMPLE_SECONDS = 1.0


@dataclass
class Room:
    """What the kernels of a class share, and what was seen of them."""

    home: Path
    count: int
    barrier: threading.Barrier
    failures: list[str] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)

    def together(self, step: str) -> None:
        """Wait for all the others, and remember when they were there."""
        self.barrier.wait(SECONDS)
        self.times[step] = time.perf_counter()


def measure(work: str, method: str) -> dict[str, float]:
    """Run as many kernels as the work says; with ``method`` "told" they start on branches that are there.

    With "create" each makes its branch in its first cells, all at once. ``seconds`` is from the start of the
    first kernel to the end of the last one; ``started``, ``branched`` and ``lessons`` are parts of that.
    ``kernel`` and ``most`` are the median and highest proportional set size of a kernel, ``all`` that of all,
    ``server`` that of all of Postgres at its highest, in bytes. ``sessions`` is the most at once.
    """
    count = int(work.rpartition("-")[2])
    with _home() as home:
        room = Room(home, count, threading.Barrier(count))
        names = [f"student-{number:02}" for number in range(count)]
        if method == "told":
            for name in names:
                _manage(home, "branch", "create", name)
        student = {"told": _told, "create": _created}[method]
        began = time.perf_counter()
        with _watched(home) as samples, ThreadPoolExecutor(count) as pool:
            for each in [pool.submit(_sit_down, room, name, student) for name in names]:
                each.result()
        seconds = time.perf_counter() - began
        for said in room.failures:
            print(f"  {said}", file=sys.stderr)
    return {
        "seconds": seconds,
        "started": room.times["started"] - began,
        "branched": room.times["branched"] - room.times["started"],
        "lessons": room.times["learned"] - room.times["branched"],
        "failed": len(room.failures),
        "kernel": median(room.pss),
        "most": max(room.pss),
        "all": sum(room.pss),
        "server": max(size for size, _ in samples),
        "sessions": max(sessions for _, sessions in samples),
    }


def said(figures: dict[str, float]) -> str:
    return (
        f"{figures['seconds']:.0f} s, of which {figures['started']:.0f} to start, {figures['branched']:.0f} "
        f"to branch, {figures['lessons']:.0f} for the lessons; {figures['failed']:.0f} cells failed; "
        f"{figures['kernel'] / 1e6:.0f} MB a kernel, {figures['all'] / 1e9:.1f} GB all, Postgres "
        f"{figures['server'] / 1e6:.0f} MB; {figures['sessions']:.0f} sessions"
    )


def _sit_down(room: Room, name: str, student: Callable[[Room, str, Kernel], None]) -> None:
    variables = {
        "WORKBENCH_HOME": str(room.home),
        "DATABASE_URL": "",
        "JPY_SESSION_NAME": f"{name}.ipynb",
        "WORKBENCH_BRANCH": name if student is _told else "",
    }
    with Kernel(variables) as kernel:
        student(room, name, kernel)


def _told(room: Room, name: str, kernel: Kernel) -> None:
    _ask(room, name, kernel, "where()")
    room.together("started")
    room.together("branched")
    _learn(room, name, kernel)


def _created(room: Room, name: str, kernel: Kernel) -> None:
    # As one does who opens a lesson: by now all of them are connected to main.
    _ask(room, name, kernel, "where()")
    room.together("started")
    _ask(room, name, kernel, f"%branch create {name}\n%branch use {name}")
    room.together("branched")
    _learn(room, name, kernel)
    _ask(room, name, kernel, f"%branch drop {name}")


def _learn(room: Room, name: str, kernel: Kernel) -> None:
    for lesson in LESSONS[:LESSONS_RUN]:
        for cell in read(lesson).cells:
            if cell.cell_type == "code":
                _ask(room, name, kernel, cell.source, cell)
    process = psutil.Process(int(kernel.run("import os; print(os.getpid())").stdout))
    room.pss.append(process.memory_full_info().pss)
    room.together("learned")


def _ask(room: Room, name: str, kernel: Kernel, code: str, cell: NotebookNode | None = None) -> None:
    outcome = kernel.run(code, timeout=SECONDS)
    tags = cell.metadata.get("tags", []) if cell else []
    if bool(outcome.error) != ("raises-exception" in tags):
        room.failures.append(f"{name}: {code.splitlines()[0]}: {' '.join(outcome.error) or 'no error'}")


def _manage(home: Path, *arguments: str) -> None:
    variables = environment({"WORKBENCH_HOME": str(home), "DATABASE_URL": ""})
    subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=variables,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def _home() -> Iterator[Path]:
    """Give the folder of an embedded server, with the example's authors and books in it."""
    home = Path(tempfile.mkdtemp(prefix="workbench-class-"))
    home.chmod(0o755)
    try:
        _manage(home, "migrate", "-v", "0")
        _manage(home, "populate", "-v", "0")
        # The server goes with the last that uses it.
        embedded.start(home)
        yield home
    finally:
        embedded.stop(home)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _watched(home: Path) -> Iterator[list[tuple[int, int]]]:
    """Collect, while the block runs, the memory of Postgres and the number of its sessions."""
    cluster = embedded.Cluster(home)
    server = cluster.postmaster()
    assert server

    def look() -> tuple[int, int]:
        size = 0
        for process in [server, *server.children()]:
            with suppress(psutil.Error):  # It may have ended by now.
                size += process.memory_full_info().pss
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        ((sessions,),) = cursor.fetchall()
        connection.rollback()
        return size, sessions

    # Beside all branches, and in nobody's way.
    with (
        closing(cluster.connect()) as connection,
        connection.cursor() as cursor,
        sampled(look, SAMPLE_SECONDS) as samples,
    ):
        yield samples
