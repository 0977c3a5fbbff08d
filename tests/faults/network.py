"""The network between a kernel and a server elsewhere is cut, silent, slow, or not there yet."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.connection.pooler import DIRECT, HOSTS, Neon
from tests.faults.calls import BUSY, CALLS, Call, Data, begin, settle
from tests.faults.expect import interrupted, sentence, text, works
from tests.faults.fault import Seen, fault
from tests.faults.proxy import Proxy
from tests.faults.stage import PATIENCE, Remote, Server, Stage, until
from tests.kernel import Kernel, Outcome
from workbench.connection import silence
from workbench.connection.failures import ATTEMPTS
from workbench.words import whole

SERVER = re.compile(rf"^{re.escape(DIRECT)}:\d+ ")
# A unit of silence, in seconds.
UNIT = 1.0
# The documented times, in units, with what a busy machine may add.
IN_A_STATEMENT = (
    silence.UNITS_BEFORE_LOOK + silence.UNITS_BEFORE_SECOND_LOOK + 2 * silence.UNITS_TO_CONNECT + 5
)
# Cells after which nothing ends a silence, or an attempt to connect, but what a fault is about.
LOOK_AFTER = """
from workbench.connection import silence
silence.UNITS_BEFORE_LOOK = {units}
"""
TRY_FOR_EVER = """
from workbench.connection import failures
failures.ATTEMPTS, failures.PATIENCE_SECONDS = 10_000, 10_000.0
connection.settings_dict["OPTIONS"]["connect_timeout"] = 10_000
"""
# The last attempt to connect begins within 10 seconds or so, and takes 15 at most.
TO_CONNECT = 25
WAKING_SECONDS = 3.0

# What Neon's proxy says while it wakes a compute.
WAKING = (
    "Couldn't connect to compute node",
    "Failed to acquire permit to connect to the database. Too many database connection attempts",
    "the database system is starting up",
)
# What it says for good.
REFUSALS = (
    "Control plane request failed: endpoint is disabled",
    "Your project has exceeded the compute time quota.",
    "password authentication failed for user 'neondb_owner'",
    "You have exceeded the limit of concurrently active endpoints.",
)


class Line(Remote):
    """The server elsewhere, through a proxy."""

    def __init__(self, neon: Neon, proxy: Proxy) -> None:
        super().__init__(neon)
        self.proxy = proxy

    @property
    def environment(self) -> dict[str, str]:
        url = self.neon.url(DIRECT, port=self.proxy.port)
        return {**super().environment, "DATABASE_URL": url, "WORKBENCH_SILENCE": str(UNIT)}


def line(stage: Stage) -> Line:
    if "line" not in stage.kept:
        neon = stage.remote.neon
        leave(stage.remote, stage.kernel(stage.remote))
        proxy = Proxy(HOSTS[DIRECT], (HOSTS[DIRECT], neon.port), neon.certificate)
        stage.kept["line"] = Line(neon, stage.enter(proxy))
    found: Line = stage.kept["line"]
    found.proxy.heal()
    until(lambda: len(found.sessions()) <= 1, "the end of the sessions that were lost")
    return found


def leave(server: Server, kernel: Kernel) -> None:
    """Close the kernel's connection, as nobody else may be connected to what is copied."""
    session = "connection.ensure_connection(); session = connection.connection.info.backend_pid"
    pid = int(kernel.run(f"{session}; connection.close(); session").result)
    until(lambda: pid not in server.sessions(), "the end of its session")


def stubborn(stage: Stage, server: Server) -> Kernel:
    """Return another kernel, which tries to connect for as long as it takes, and is to leave in the end."""
    kernel = stage.kernel(server, number=1)
    assert kernel.run(TRY_FOR_EVER).error == []
    return kernel


def told(outcome: Outcome) -> None:
    """Check that a cell's error is a sentence, which may begin with the server's name."""
    first, *rest = outcome.error or [""]
    sentence(Outcome(error=[SERVER.sub("The server ", first), *rest]))


@contextmanager
def later(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, do)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def disturbed(
    stage: Stage,
    call: Call,
    chance: random.Random,
    cause: Callable[[Proxy], None],
    check: Callable[[Outcome], object],
    within: float = PATIENCE,
    *,
    interrupts: bool = False,
) -> Seen:
    """Do ``cause`` at a random moment of the call, which must end within some seconds as ``check`` says."""
    server = line(stage)
    kernel = stage.kernel(server)
    # Else an interrupt that did nothing would not be noticed, a little later.
    kernel.run(LOOK_AFTER.format(units=10_000 if interrupts else silence.UNITS_BEFORE_LOOK))
    request, data = begin(stage, server, kernel, call, chance)
    cause(server.proxy)
    if interrupts:
        kernel.interrupt()
    outcome = kernel.finish(request, timeout=within)
    if outcome.error:
        check(outcome)
    server.proxy.heal()
    since = time.monotonic()
    recovery = works(kernel, since)
    until(lambda: server.ask(BUSY) == 0, "no session that works or holds a transaction")
    lost = data.lost(call, is_complete=not outcome.error)
    settle(kernel)
    return Seen(recovery, lost)


LONG = (
    "a query",
    "frame",
    "frame.chunks",
    "load",
    "populate",
    "migrate",
    "%branch create",
    "rehearse",
    "snapshot",
)


def cut_in(call: Call) -> None:
    @fault("network", f"cut in the middle of {call.name}")
    def cut(stage: Stage, chance: random.Random) -> Seen:
        """A sentence says that the connection was lost; the next cell connects anew."""
        return disturbed(stage, call, chance, Proxy.cut, told)


def half_open_in(call: Call) -> None:
    @fault("network", f"half-open in the middle of {call.name}", share=0.2)
    def half_open(stage: Stage, chance: random.Random) -> Seen:
        """Within the documented time a sentence says that the server is silent; the next cell works."""
        is_reachable = chance.random() < 0.5

        def freeze(proxy: Proxy) -> None:
            proxy.freeze(new_ones=not is_reachable)

        # Whoever is reached may say that it still works on it; whoever is not may be tried twice.
        return disturbed(stage, call, chance, freeze, told, UNIT * IN_A_STATEMENT + 2 * TO_CONNECT)


def interrupted_in(call: Call) -> None:
    @fault("network", f"half-open and interrupted in {call.name}", share=0.6)
    def half_open(stage: Stage, chance: random.Random) -> Seen:
        """The cell ends within a unit of silence; the next one connects anew."""
        return disturbed(stage, call, chance, Proxy.freeze, interrupted, interrupts=True)

    @fault("network", f"slow, and interrupted in {call.name}", share=0.5)
    def slow(stage: Stage, chance: random.Random) -> Seen:
        """The query ends on the server; the next cell works."""

        def slow_down(proxy: Proxy) -> None:
            proxy.latency = chance.uniform(0.05, 0.3)

        return disturbed(stage, call, chance, slow_down, interrupted, interrupts=True)


for name in LONG:
    cut_in(CALLS[name])
for name in LONG:
    half_open_in(CALLS[name])
for name in LONG:
    interrupted_in(CALLS[name])


def reset_in(call: Call) -> None:
    @fault("network", f"reset in the middle of a COPY of {call.name}")
    def reset(stage: Stage, chance: random.Random) -> Seen:
        """A sentence says that the connection was lost; nothing of the call is kept, the next cell works."""
        server = line(stage)
        kernel = stage.kernel(server)
        data = Data(server, kernel, chance)
        # So many bytes at least, of which the first are the questions before.
        server.proxy.reset_after(chance.randint(20_000, 400_000))
        outcome = kernel.run(call.cell)
        told(outcome)
        return Seen(works(kernel, time.monotonic()), data.lost(call))


for name in ("frame", "load"):
    reset_in(CALLS[name])


@fault("network", "cut between two cells")
def cut_between(stage: Stage, chance: random.Random) -> Seen:
    """Nothing is seen of it."""
    server = line(stage)
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    chance.choice([server.proxy.cut, server.proxy.reset])()
    return Seen(works(kernel), data.lost())


@fault("network", "half-open between two cells")
def half_open_between(stage: Stage, chance: random.Random) -> Seen:
    """The next cell waits for a unit of silence, and connects anew."""
    server = line(stage)
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    assert kernel.run("from workbench.connection import silence; lost = connection.connection").error == []
    server.proxy.freeze(new_ones=False)
    recovery = works(kernel)
    why = kernel.run("silence.why_given_up(lost)").result
    assert f"did not answer within {whole(UNIT)}." in why, why
    return Seen(recovery, data.lost())


@fault("network", "2 s late", share=0.2)
def late(stage: Stage, chance: random.Random) -> Seen:
    """All cells work, slowly."""
    server = line(stage)
    kernel = stage.kernel(server, WORKBENCH_SILENCE="")
    data = Data(server, kernel, chance)
    call = CALLS[chance.choice(["frame", "load", "migrate"])]
    if call.before:
        assert kernel.run(call.before).error == []
    if chance.random() < 0.3:
        server.proxy.cut()
    server.proxy.latency = 2.0
    outcome = kernel.run(call.cell, timeout=240)
    assert outcome.error == [], text(outcome)
    server.proxy.latency = 0.0
    recovery = works(kernel)
    lost = data.lost(call, is_complete=True)
    leave(server, kernel)
    return Seen(recovery, lost)


@fault("network", "waking as Neon does: refused for 3 s")
def waking_refused(stage: Stage, chance: random.Random) -> Seen:
    """The cell waits for it, and works."""

    def refuse(proxy: Proxy) -> None:
        proxy.is_refusing = True

    return waking(stage, chance, refuse)


@fault("network", "waking as Neon does: its error text for 3 s")
def waking_said(stage: Stage, chance: random.Random) -> Seen:
    """The cell waits for it, and works."""

    def say(proxy: Proxy) -> None:
        proxy.says = chance.choice(WAKING)

    return waking(stage, chance, say)


def waking(stage: Stage, chance: random.Random, cause: Callable[[Proxy], None]) -> Seen:
    server = line(stage)
    kernel = stubborn(stage, server)
    data = Data(server, kernel, chance)
    healed: list[float] = []

    def heal() -> None:
        healed.append(time.monotonic())
        server.proxy.heal()

    cause(server.proxy)
    server.proxy.cut()
    with later(WAKING_SECONDS, heal):
        works(kernel)
        assert healed
        recovery = time.monotonic() - healed[0]
    leave(server, kernel)
    return Seen(recovery, data.lost())


@fault("network", "refused for good, in Neon's words")
def refused(stage: Stage, chance: random.Random) -> Seen:
    """At once, a sentence says what to do; once it is done, the next cell works."""
    server = line(stage)
    kernel = stage.kernel(server)
    data = Data(server, kernel, chance)
    server.proxy.says = chance.choice(REFUSALS)
    server.proxy.cut()
    visits = server.proxy.visits
    told(kernel.run("Author.objects.count()"))
    assert server.proxy.visits - visits < ATTEMPTS
    server.proxy.heal()
    return Seen(works(kernel), data.lost())


@fault("network", "nobody answers, and the cell is interrupted while it connects", share=0.5)
def interrupted_connecting(stage: Stage, chance: random.Random) -> Seen:
    """The cell ends at once; the next one works."""
    server = line(stage)
    kernel = stubborn(stage, server)
    data = Data(server, kernel, chance)
    if chance.random() < 0.5:
        server.proxy.is_hole = True
    else:
        server.proxy.is_refusing = True
    server.proxy.cut()
    request = kernel.begin(
        chance.choice(["Author.objects.count()", "connection.cursor()", "frame('SELECT 1')"])
    )
    kernel.await_start(request)
    time.sleep(chance.uniform(0.3, 2.0))
    kernel.interrupt()
    outcome = kernel.finish(request)
    assert text(outcome).startswith("KeyboardInterrupt: "), text(outcome)
    server.proxy.heal()
    recovery = works(kernel)
    leave(server, kernel)
    return Seen(recovery, data.lost())
