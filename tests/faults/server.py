"""The server is restarted, killed, full, closed, or not there yet."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg2
import pytest

from tests.faults.calls import CALLS, Call, Data, begin, settle
from tests.faults.expect import sentence, text, works
from tests.faults.fault import Seen, fault
from tests.faults.stage import FAST, IMMEDIATE, KILL, SMART, Embedded, Server, Stage, until
from tests.kernel import Outcome


def either(stage: Stage, chance: random.Random) -> Server:
    """Return the embedded server, or one elsewhere, if there is one."""
    if chance.random() < 0.5:
        return stage.embedded
    try:
        return stage.remote
    except pytest.skip.Exception:
        return stage.embedded


def disturb(
    stage: Stage, server: Server, call: Call, chance: random.Random, cause: Callable[[], None]
) -> Seen:
    """Do ``cause`` at a random moment of the call, and check that nothing is lost or half done."""
    kernel = stage.kernel(server)
    request, data = begin(stage, server, kernel, call, chance)
    cause()
    since = time.monotonic()
    outcome = kernel.finish(request)
    if outcome.error:
        sentence(outcome)
    recovery = works(kernel, since)
    lost = data.lost(call, is_complete=not outcome.error)
    settle(kernel)
    return Seen(recovery, lost)


@fault("server", "restarted between two cells")
def restarted_between(stage: Stage, chance: random.Random) -> Seen:
    """Nothing is seen of it."""
    server = either(stage, chance)
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    server.signal(chance.choice([FAST, IMMEDIATE]))
    server.start()
    return Seen(works(kernel), data.lost())


def restarted_in(call: Call) -> None:
    @fault("server", f"restarted in the middle of {call.name}")
    def restarted(stage: Stage, chance: random.Random) -> Seen:
        """A sentence says that the session ended; the next cell connects anew."""
        server = either(stage, chance)
        return disturb(stage, server, call, chance, server.restart)


for name in ("a query", "frame", "frame.chunks", "load", "populate", "migrate"):
    restarted_in(CALLS[name])


@fault("server", "killed with -9 in the middle of a call")
def killed(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says so; the embedded server is started again by the next cell."""
    server = either(stage, chance)
    call = CALLS[chance.choice(["a query", "frame", "load", "populate", "migrate", "%branch create"])]

    def cause() -> None:
        server.kill()
        if not isinstance(server, Embedded):
            server.start()

    seen = disturb(stage, server, call, chance, cause)
    server.start()
    return seen


@fault("server", "one of its sessions killed with -9", share=2)
def session_killed(stage: Stage, chance: random.Random) -> Seen:
    """Postgres ends all sessions and recovers; a sentence says so, the next cell waits for it."""
    server = either(stage, chance)
    call = CALLS[chance.choice(["a query", "frame", "frame.chunks", "load", "populate"])]

    def cause() -> None:
        for pid in server.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, KILL)

    return disturb(stage, server, call, chance, cause)


@fault("server", "a session ended by its administrator", share=3)
def session_ended(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says so; the next cell connects anew."""
    server = either(stage, chance)
    call = CALLS[chance.choice(["a query", "frame", "frame.chunks", "load", "populate", "rehearse"])]
    return disturb(stage, server, call, chance, server.end_sessions)


@contextmanager
def small_disk(server: Server) -> Iterator[None]:
    """Move the authors to a disk of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("must be root, to mount a small disk")
    folder = tempfile.mkdtemp(prefix="workbench-full-")
    with ExitStack() as stack:
        stack.callback(os.rmdir, folder)
        owner = os.stat(f"/proc/{server.pid}")
        options = f"size=4m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
        server.ask(f"CREATE TABLESPACE small LOCATION '{folder}'")
        stack.callback(server.ask, "DROP TABLESPACE small")
        server.ask("VACUUM FULL catalog_author")
        server.ask("ALTER TABLE catalog_author SET TABLESPACE small")
        stack.callback(server.ask, "ALTER TABLE catalog_author SET TABLESPACE pg_default")
        yield


@fault("server", "its disk full in the middle of load or populate")
def disk_full(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says that the disk is full; nothing of the call is kept, the next cell works."""
    server = stage.embedded
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    faults = 3
    with small_disk(server):
        for _ in range(faults):
            cell = chance.choice(
                [
                    "load(Author, pd.concat([many.assign(bio='long ' * 20)] * 2))",
                    "%manage populate --authors 60000 -v 0",
                    "Author.objects.bulk_create([Author(name='x', bio='long ' * 20)] * 50_000, 1000)",
                ]
            )
            outcome = kernel.run(cell)
            assert "disk" in sentence(outcome), text(outcome)
            since = time.monotonic()
            lost = data.lost()
            recovery = works(kernel, since)
    return Seen(recovery, lost, faults)


@fault("server", "no connection free")
def no_connection_free(stage: Stage, chance: random.Random) -> Seen:
    """A sentence says so and what frees one; with one free again, the next cell works."""
    server = either(stage, chance)
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    kernel.run("connection.close()")
    with ExitStack() as stack:
        with suppress(psycopg2.OperationalError):
            while True:
                stack.enter_context(closing(server.connect()))

        def refusal() -> Outcome | None:
            outcome = kernel.run("Author.objects.count()")
            if outcome.error:
                return outcome
            # It has the place of a session that was just ending.
            kernel.run("connection.close()")
            stack.enter_context(closing(until(server.connected, "a free connection")))
            return None

        outcome = until(refusal, "a refusal")
        assert "connection" in sentence(outcome), text(outcome)
    since = time.monotonic()
    return Seen(works(kernel, since), data.lost())


WRITES = (
    "Author.objects.create(name='x')",
    "Book.objects.all().delete()",
    "load(Author, many)",
    "%manage populate --authors 100 -v 0",
    "%manage migrate catalog 0001 -v 0",
)


@fault("server", "read-only")
def read_only(stage: Stage, chance: random.Random) -> Seen:
    """A write fails with a sentence that says so, reading goes on; once it may, writing works."""
    server = either(stage, chance)
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    kernel.run("connection.close()")
    server.ask("ALTER SYSTEM SET default_transaction_read_only = on")
    server.ask("SELECT pg_reload_conf()")
    until(lambda: server.ask("SHOW default_transaction_read_only") == "on", "read-only")
    writes = chance.sample(WRITES, 3)
    try:
        for cell in writes:
            outcome = kernel.run(cell)
            assert "read-only" in sentence(outcome), text(outcome)
            works(kernel)
    finally:
        with closing(server.connect()) as administrator, administrator.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute("ALTER SYSTEM RESET default_transaction_read_only")
            cursor.execute("SELECT pg_reload_conf()")
    until(lambda: server.ask("SHOW default_transaction_read_only") == "off", "read-only no more")
    since = time.monotonic()
    recovery = works(kernel, since, "Author.objects.create(name='x').name", "'x'")
    assert server.count("catalog_author", "name = 'x'") == 1
    server.ask("DELETE FROM catalog_author WHERE name = 'x'")
    return Seen(recovery, data.lost(), len(writes))


@fault("server", "a standby", share=0.5)
def standby(stage: Stage, chance: random.Random) -> Seen:
    """A write fails with a sentence that says so, reading goes on; once promoted, writing works."""
    server = stage.embedded
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    server.stop()
    (server.cluster.data / "standby.signal").touch()
    server.start()
    outcome = kernel.run(chance.choice(WRITES))
    sentence(outcome)
    works(kernel)
    server.ask("SELECT pg_promote()")
    since = time.monotonic()
    recovery = works(kernel, since, "Author.objects.create(name='x').name", "'x'")
    server.ask("DELETE FROM catalog_author WHERE name = 'x'")
    return Seen(recovery, data.lost())


@fault("server", "still starting", share=0.5)
def still_starting(stage: Stage, chance: random.Random) -> Seen:
    """The cell waits for it, and works."""
    server = stage.embedded
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    server.stop()
    # It looks for more to recover from, several times, before it answers.
    (server.cluster.data / "recovery.signal").touch()
    with (server.cluster.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(
            f"restore_command = 'sleep {chance.uniform(0.1, 0.5):.2f}; false'\nhot_standby = off\n"
        )
    began = time.monotonic()
    starting = threading.Thread(target=server.start)
    starting.start()
    time.sleep(chance.uniform(0, 0.5))
    works(kernel)
    starting.join()
    server.ask("ALTER SYSTEM RESET restore_command")
    server.ask("ALTER SYSTEM RESET hot_standby")
    return Seen(time.monotonic() - began, data.lost())


@fault("server", "shutting down, waiting for another session", share=0.5)
def shutting_down(stage: Stage, chance: random.Random) -> Seen:
    """The cell waits until it may begin anew."""
    server = stage.embedded
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    kernel.run("connection.close()")
    other = server.connect()
    os.kill(server.pid, SMART)
    request = kernel.begin("Author.objects.count() >= 0")
    time.sleep(chance.uniform(0, 2))
    other.close()
    since = time.monotonic()
    outcome = kernel.finish(request)
    assert (outcome.error, outcome.result) == ([], "True"), text(outcome)
    return Seen(time.monotonic() - since, data.lost())
