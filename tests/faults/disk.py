"""The files of the embedded server are damaged, elsewhere, somebody else's, or there is no room for them."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.connection.damages import DAMAGES, Damage
from tests.connection.test_embedded import fill, postmasters, small_disk, stranger, supervisors
from tests.faults.expect import sentence, works
from tests.faults.fault import Seen, fault
from tests.faults.stage import KILL, Embedded, Stage, until
from tests.kernel import Kernel
from workbench.connection import embedded

ADD = "Author.objects.create(name=f'Kept {Author.objects.count()}').pk > 0"


def add(kernel: Kernel) -> None:
    """Complete a statement, whose row must be there ever after."""
    outcome = kernel.run(ADD)
    assert (outcome.error, outcome.result) == ([], "True"), outcome


def end(server: Embedded) -> None:
    """Stop the server, and wait until nothing of it runs."""
    server.stop()
    until(lambda: not supervisors(server.home) + postmasters(server.home), "the supervisor's end")


def status(server: Embedded) -> None:
    """Ask for the status, which is told or one sentence, whatever the files are like."""
    with suppress(embedded.EmbeddedError):
        assert not embedded.status(server.home).running
    assert not embedded.stop(server.home)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Inside, the file or folder is elsewhere."""
    elsewhere = path.with_name(f"{path.name}-elsewhere")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


@contextmanager
def copied(data: Path) -> Iterator[None]:
    """Inside, anything may be done to the data; afterwards they are as they were."""
    copy = data.with_name("copy")
    subprocess.run(["cp", "-a", data, copy], check=True)
    try:
        yield
    finally:
        shutil.rmtree(data)
        copy.rename(data)


def damaged(damage: Damage) -> None:
    def inject(stage: Stage, chance: random.Random) -> Seen:
        if damage.as_root and os.geteuid() != 0:
            pytest.skip("must be root")
        server = stage.embedded
        kernel = stage.kernel()
        add(kernel)
        rows = server.count("catalog_author")
        data = server.cluster.data
        end(server)
        if damage.mend:
            damage.happen(data)
            said = sentence(kernel.run("Author.objects.count()"))
            assert re.search(damage.said, said), said
            until(lambda: not supervisors(server.home), "the supervisor's end")
            status(server)
            damage.mend(data, said)
        else:
            with copied(data):
                damage.happen(data)
                assert re.search(damage.said, sentence(kernel.run("Author.objects.count()")))
                until(lambda: not supervisors(server.home), "the supervisor's end")
                status(server)
        recovery = works(kernel)
        return Seen(recovery, rows - server.count("catalog_author"))

    inject.__doc__ = (
        f"A sentence says what is wrong, and what it says to do {'mends it' if damage.mend else 'is safe'}."
    )
    fault("disk", damage.what, share=0.2)(inject)


for each in DAMAGES:
    damaged(each)


def instead(what: str, put: Callable[[Embedded], Path]) -> None:
    @fault("disk", what, share=0.3)
    def inject(stage: Stage, chance: random.Random) -> Seen:
        """A sentence says what is there instead of the data; what is there stays."""
        server = stage.embedded
        kernel = stage.kernel()
        add(kernel)
        rows = server.count("catalog_author")
        end(server)
        with away(server.home if "home" in what else server.cluster.data):
            there = put(server)
            sentence(kernel.run("Author.objects.count()"))
            status(server)
            assert os.path.lexists(there)
            shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()
        recovery = works(kernel)
        return Seen(recovery, rows - server.count("catalog_author"))


def older(server: Embedded) -> Path:
    folder = server.home / "postgres-16"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("16\n")
    return folder


def something_else(server: Embedded) -> Path:
    folder = server.cluster.data
    folder.mkdir()
    (folder / "treasure.txt").write_text("mine")
    return folder


def a_link(path: Path) -> Path:
    path.symlink_to(path.with_name("unplugged"))
    return path


def a_file(path: Path) -> Path:
    path.write_text("mine")
    return path


instead("data of an older version beside", older)
instead("a folder of somebody's instead of the data", something_else)
instead("a link to nowhere instead of the data", lambda server: a_link(server.cluster.data))
instead("a link to nowhere instead of the home", lambda server: a_link(server.home))
instead("a file instead of the home", lambda server: a_file(server.home))


@fault("disk", "a stale socket, and a lock file that names another process")
def stale(stage: Stage, chance: random.Random) -> Seen:
    """Nothing is seen of it; the other process is left alone."""
    server = stage.embedded
    kernel = stage.kernel()
    add(kernel)
    rows, pid = server.count("catalog_author"), str(server.pid)
    for process in supervisors(server.home):
        process.kill()
    server.signal(KILL)
    with stranger("sleep", "600", cwd="/") as innocent:
        for lock in (
            server.cluster.data / "postmaster.pid",
            server.cluster.socket_folder / ".s.PGSQL.5432.lock",
        ):
            lock.write_text(lock.read_text().replace(pid, str(innocent.pid), 1))
        recovery = works(kernel)
        assert innocent.poll() is None
    return Seen(recovery, rows - server.count("catalog_author"))


@fault("disk", "the data moved away while the server runs")
def moved(stage: Stage, chance: random.Random) -> Seen:
    """The server goes on with them, and can be stopped."""
    server = stage.embedded
    kernel = stage.kernel()
    add(kernel)
    rows = server.count("catalog_author")
    running = psutil.Process(server.pid)
    with away(server.cluster.data):
        add(kernel)
        assert embedded.status(server.home).running
        if chance.random() < 0.5:
            assert embedded.stop(server.home)
            until(lambda: not running.is_running() or running.status() == psutil.STATUS_ZOMBIE, "its end")
            until(lambda: not supervisors(server.home), "the supervisor's end")
    recovery = works(kernel)
    return Seen(recovery, rows + 1 - server.count("catalog_author"))


class OnSmallDisk(Embedded):
    """A server on a file system of its own."""

    def __init__(self, disk: Path) -> None:
        self.home = disk / "home"
        self.cluster = embedded.Cluster(self.home)


@contextmanager
def on_small_disk() -> Iterator[tuple[OnSmallDisk, Kernel, Path]]:
    """A server, a kernel on it, and its disk. Raises pytest.skip.Exception where nobody may mount one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("must be root on Linux")
    parent = Path(tempfile.mkdtemp(prefix="workbench-faults-"))
    parent.chmod(0o755)
    disk = parent / "disk"
    with small_disk(disk, 150):
        server = OnSmallDisk(disk)
        with Kernel(server.environment) as kernel:
            outcome = kernel.run("%manage migrate -v 0\n%manage populate -v 0")
            assert outcome.error == [], outcome
            yield server, kernel, disk
        embedded.stop(server.home)
        until(lambda: not supervisors(server.home), "the supervisor's end")
    shutil.rmtree(parent)


@fault("disk", "full when the server has to start", share=0.2)
def full(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says so; once there is room, it starts with every committed row."""
    with on_small_disk() as (server, kernel, disk):
        add(kernel)
        rows = server.count("catalog_author")
        # What it repairs when it starts, it has to write.
        for process in supervisors(server.home):
            process.kill()
        server.signal(KILL)
        fill(disk / "filling")
        outcome = kernel.run("Author.objects.create(name='No room')")
        if outcome.error:
            assert "full" in sentence(outcome)
        (disk / "filling").unlink()
        began = time.monotonic()
        recovery = works(kernel, began)
        return Seen(recovery, max(rows - server.count("catalog_author"), 0))


@fault("disk", "read-only when the server has to start", share=0.2)
def read_only(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says so; once it is writable, it starts with every committed row."""
    with on_small_disk() as (server, kernel, disk):
        add(kernel)
        rows = server.count("catalog_author")
        end(server)
        # The lock files are open for writing: what is lazy waits for nobody.
        subprocess.run(["mount", "--bind", disk, disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
        try:
            said = sentence(kernel.run("Author.objects.count()"))
            assert "ead-only file system" in said, said
            status(server)
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)
        recovery = works(kernel)
        return Seen(recovery, rows - server.count("catalog_author"))
