"""Where faults happen: real servers with real kernels on them, made when first asked for and kept."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg2

from tests.connection import pooler
from tests.connection.pooler import DIRECT, Neon
from tests.kernel import Kernel
from workbench.connection import embedded

# How long anything may take that must happen at all, in seconds.
PATIENCE = 60.0

Entered = TypeVar("Entered")

FAST, IMMEDIATE, SMART, KILL = signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL


class Server(ABC):
    """A Postgres with the catalog's tables, and how to hurt it."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What the environment of a kernel on it holds."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The postmaster's."""

    @abstractmethod
    def start(self) -> None:
        """Start it if it does not run, and return once it answers."""

    @abstractmethod
    def connect(self) -> Any:
        """Return a new connection of the administrator's, in autocommit, or raise OperationalError."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send the postmaster a signal, and wait until it and all its sessions have ended."""

    def stop(self) -> None:
        self.signal(FAST)

    def kill(self) -> None:
        self.signal(KILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def connected(self) -> Any:
        """Return a new connection, or None where none is to be had now."""
        with suppress(psycopg2.OperationalError):
            return self.connect()
        return None

    def ask(self, query: str, *params: Any) -> Any:
        """Return the first value of what the administrator sees, once there is an answer."""
        connection = until(self.connected, "an answer of the server")
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(query, params or None)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def count(self, table: str, condition: str = "true") -> int:
        counted: int = self.ask(f"SELECT count(*) FROM {table} WHERE {condition}")
        return counted

    def running(self, like: str) -> int:
        """Return how many sessions are working on a statement of which ``like`` is a part."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
            "AND strpos(query, %s) > 0"
        )
        counted: int = self.ask(query, like)
        return counted

    def sessions(self) -> list[int]:
        """Return the processes of the sessions of others on the catalog's database."""
        found: list[int] = self.ask(
            "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return found

    def end_sessions(self) -> None:
        """Terminate the sessions of others, as an administrator does."""
        for pid in self.sessions():
            self.ask("SELECT pg_terminate_backend(%s)", pid)
        until(lambda: not self.sessions(), "the end of all sessions")

    def _await_end(self, family: list[psutil.Process]) -> None:
        _, left = psutil.wait_procs(family, timeout=PATIENCE)
        left = [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"{left} did not end"


def family(pid: int) -> list[psutil.Process]:
    """Return a process and those that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


class Embedded(Server):
    """The embedded server of a home of its own: whoever connects next starts it again."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="workbench-faults-"))
        self.home.chmod(0o755)
        self.cluster = embedded.Cluster(self.home)

    @property
    def environment(self) -> dict[str, str]:
        return {"WORKBENCH_HOME": str(self.home), "DATABASE_URL": ""}

    @property
    def pid(self) -> int:
        # Not 0 where there is none, which to a signal is ourselves.
        return int(self.cluster.postmaster_line(1) or "")

    def start(self) -> None:
        embedded.start(self.home)

    def connect(self) -> Any:
        connection = self.cluster.connect(embedded.DATABASE)
        connection.autocommit = True
        return connection

    def signal(self, number: int) -> None:
        ending = family(self.pid)
        ending[0].send_signal(number)
        self._await_end(ending)

    def close(self) -> None:
        embedded.stop(self.home)
        shutil.rmtree(self.home, ignore_errors=True)


class Remote(Server):
    """A server with TLS elsewhere, as it looks to the workbench: nobody but the test starts it again."""

    def __init__(self, neon: Neon) -> None:
        self.neon = neon

    @property
    def environment(self) -> dict[str, str]:
        return {**self.neon.environment(self.neon.url(DIRECT)), "WORKBENCH_YES": "1"}

    @property
    def pid(self) -> int:
        return self.neon.postgres.pid

    def start(self) -> None:
        if not psutil.pid_exists(self.pid) or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
            self.neon.postgres.start()
        until(self.connected, "an answer of the server").close()

    def connect(self) -> Any:
        return self.neon.connect()

    def signal(self, number: int) -> None:
        ending = family(self.pid)
        self.neon.postgres.stop(number)
        self._await_end(ending)


class Stage:
    """What faults share: two servers, and kernels on them.

    All of it is made when first asked for, and kept until ``close``. A kernel that was killed is replaced
    by a fresh one.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._kernels: dict[Any, Kernel] = {}
        # What a fault keeps from one try to the next, under a name of its own.
        self.kept: dict[str, Any] = {}

    def close(self) -> None:
        for kernel in self._kernels.values():
            with suppress(Exception):
                kernel.kill()
        self._stack.close()

    def enter(self, made: AbstractContextManager[Entered]) -> Entered:
        """Keep what ``made`` gives until ``close``."""
        return self._stack.enter_context(made)

    @cached_property
    def embedded(self) -> Embedded:
        server = Embedded()
        self._stack.callback(server.close)
        server.start()
        self._fill(server)
        return server

    @cached_property
    def remote(self) -> Remote:
        """Raises pytest.skip.Exception where Debian's Postgres is not installed."""
        server = Remote(self.enter(pooler.neon()))
        self._fill(server)
        return server

    def _fill(self, server: Server) -> None:
        outcome = self.kernel(server).run("%manage migrate -v 0\n%manage populate -v 0")
        assert outcome.error == [], outcome

    def kernel(self, server: Server | None = None, number: int = 0, **variables: str) -> Kernel:
        """Return a running kernel on a server (the embedded one), with further variables in its environment.

        The same each time, as long as it lives; with another number, another one.
        """
        server = server or self.embedded
        key = (server, number, *sorted(variables.items()))
        kernel = self._kernels.get(key)
        if kernel is None or not kernel.is_alive:
            kernel = self._kernels[key] = Kernel({**server.environment, **variables})
        return kernel


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Return what holds, once it does, which must be soon."""
    deadline = time.monotonic() + seconds
    while True:
        if it := holds():
            return it
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)
