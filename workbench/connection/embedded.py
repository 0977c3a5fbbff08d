"""The embedded Postgres of a project: start, stop, status.

It lives as long as somebody uses it. Every process that does holds a shared lock on ``users.lock`` until it
ends, however it ends; the supervisor (``supervisor.py``) waits for that lock to be free and then stops the
server. Two lock files are all the state there is: that the server runs is known by connecting to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psycopg2
from portalocker import LockFlags

from workbench.connection import obstacles
from workbench.connection.cluster import DATABASE, MAJOR, ROLE, Cluster, EmbeddedError, locked

__all__ = [
    "DATABASE",
    "MAJOR",
    "ROLE",
    "Cluster",
    "EmbeddedError",
    "Status",
    "lease",
    "start",
    "status",
    "stop",
]

_leases: dict[Path, IO[str]] = {}


@dataclass(frozen=True)
class Status:
    """What the embedded server does now. ``since`` is in local time; ``sessions`` counts its clients."""

    home: Path
    running: bool
    version: str = ""
    pid: int = 0
    since: datetime | None = None
    sessions: int = 0
    bytes: int = 0


def lease(home: Path) -> Cluster:
    """Count this process among the server's users until it ends, and return the cluster.

    Waits while a server that lost its last user is being stopped. Raises EmbeddedError if ``home`` cannot
    be written, or was moved away since this process first asked.
    """
    cluster = Cluster(home)
    held = _leases.get(home)
    if held is not None and not home.exists():
        raise EmbeddedError(f"{home} is no longer there: if the project was moved, start this program anew.")
    if held is None or not _is_open(held, cluster.users_lock):
        # Another home may be in its place by now, with a server of its own.
        _leases[home] = locked(cluster.users_lock, LockFlags.SHARED)
    return cluster


def _is_open(file: IO[str], path: Path) -> bool:
    """Tell whether the file is the one that is at ``path`` now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def start(home: Path) -> None:
    """Start the server unless it runs with a supervisor, and return once it answers. Raises EmbeddedError.

    Any number of processes may call this at once: the supervisors agree among themselves which one serves.
    """
    cluster = lease(home)
    if cluster.is_supervised() and cluster.answers():
        return
    obstacles.check(cluster)
    # What interrupts a cell, or closes the terminal, must not reach it.
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    project = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "workbench.connection.supervisor", str(home)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        **detached,
    )
    assert supervisor.stdout is not None
    with supervisor.stdout as output:
        said = output.readline().strip()
    # It may end before we do, and would stay a zombie if nobody waited for it.
    threading.Thread(target=supervisor.wait, daemon=True).start()
    if said != "ready":
        raise EmbeddedError(said or f"The embedded Postgres did not start: see {cluster.log}.")


def stop(home: Path) -> bool:
    """Stop the server, whoever uses it, and return whether it ran. Raises EmbeddedError."""
    from workbench.connection.supervisor import shut_down

    cluster = Cluster(home)
    if cluster.postmaster() is None:
        obstacles.refuse_others(cluster)
        return False
    shut_down(cluster)
    return True


def status(home: Path) -> Status:
    """Return what the server does now, without starting it.

    Raises EmbeddedError for what lets nobody in, or would let it not start.
    """
    cluster = Cluster(home)
    try:
        connection = cluster.connect(DATABASE)
    except (psycopg2.OperationalError, OSError) as error:
        obstacles.check(cluster)
        if server := cluster.postmaster():
            raise obstacles.explain(cluster, str(error)) or EmbeddedError(
                f"It runs as process {server.pid} and lets nobody in ({obstacles.last_line(str(error))}): "
                f"wait, or run 'python manage.py embedded stop'."
            ) from None
        obstacles.refuse_others(cluster)
        return Status(home, running=False)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), pg_postmaster_start_time(), "
            "pg_database_size(current_database()), (SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())"
        )
        version, since, size, sessions = cursor.fetchone()
    connection.close()
    return Status(
        home,
        running=True,
        version=version.split()[0],
        pid=int(cluster.postmaster_line(1) or 0),
        since=since.astimezone(),
        sessions=sessions,
        bytes=size,
    )
