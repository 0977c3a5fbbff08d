"""The embedded Postgres of a project: start, stop, status.

It lives as long as somebody uses it. Every process that does holds a shared lock on ``users.lock`` until it
ends, however it ends; the supervisor (``supervisor.py``) waits for that lock to be free and then stops the
server. Two lock files are all the state there is: that the server runs is known by connecting to it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import portalocker
import psutil
import psycopg2
from portalocker import LockFlags

MAJOR = 18
ROLE = DATABASE = "workbench"
PORT = "5432"

# Said outright, because variables such as PGSSLMODE may be set for another Postgres, as Neon's console
# offers them.
LIBPQ_OPTIONS = {
    "sslmode": "disable",
    "channel_binding": "disable",
    "gssencmode": "disable",
    "hostaddr": "",
    "target_session_attrs": "any",
}

_leases: dict[Path, IO[str]] = {}


class EmbeddedError(Exception):
    """The embedded server cannot run: one sentence that says why and what to do."""


@dataclass(frozen=True)
class Cluster:
    """The files of the embedded server kept in the folder ``home``.

    With ``tcp`` it listens on 127.0.0.1 and asks for a password, as it must on Windows; otherwise only on
    a Unix socket in a folder that nobody else can enter.
    """

    home: Path
    tcp: bool = os.name == "nt"

    @property
    def data(self) -> Path:
        return self.home / f"postgres-{MAJOR}"

    @property
    def log(self) -> Path:
        return self.home / f"postgres-{MAJOR}.log"

    @property
    def password_file(self) -> Path:
        return self.home / "password"

    @property
    def users_lock(self) -> Path:
        return self.home / "users.lock"

    @property
    def supervisor_lock(self) -> Path:
        return self.home / "supervisor.lock"

    @property
    def socket_folder(self) -> Path:
        # A socket's path may hold about a hundred bytes, so it cannot be in the project. The folder is named
        # after the identity of ``home``, not its path: a project that is moved keeps its running server.
        found = self.home.stat()
        identity = f"{found.st_dev}:{found.st_ino}".encode()
        return Path("/tmp") / f"workbench-{hashlib.sha256(identity).hexdigest()[:12]}"

    def check_socket_folder(self) -> None:
        """Raise EmbeddedError if the socket's folder is there, and not the server's user's alone.

        Everybody can make folders in /tmp: whoever made this one could answer in the server's place.
        """
        try:
            found = self.socket_folder.lstat()
        except FileNotFoundError:
            return
        # For root it is the owner of the data.
        owners = {os.geteuid(), self.data.stat().st_uid if self.data.exists() else os.geteuid()}
        if found.st_mode != stat.S_IFDIR | 0o700 or found.st_uid not in owners:
            raise EmbeddedError(
                f"{self.socket_folder} belongs to somebody else or is open to others: remove it, and it is "
                f"made anew."
            )

    def address(self) -> dict[str, Any]:
        """Return psycopg2's ``host``, ``port`` and what else leads to the server. Raises EmbeddedError."""
        if not self.tcp:
            self.check_socket_folder()
            return {"host": str(self.socket_folder), "port": PORT, **LIBPQ_OPTIONS}
        address = {"host": "127.0.0.1", "port": self.postmaster_line(4) or PORT, **LIBPQ_OPTIONS}
        if self.password_file.exists():
            # Another server may have the port by now, and must not get to ask for the password itself.
            address["require_auth"] = "scram-sha-256"
            address["password"] = self.password_file.read_text().strip()
        return address

    def postmaster_line(self, number: int) -> str | None:
        """Return a line, counted from 1, of the server's own ``postmaster.pid``."""
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()[number - 1].strip()
        except (OSError, IndexError):
            return None

    def postmaster(self) -> psutil.Process | None:
        """Return the server's process, if ``postmaster.pid`` names one that lives and works on our data.

        A process id by itself proves nothing: after a crash another process may carry it.
        """
        try:
            process = psutil.Process(int(self.postmaster_line(1) or ""))
        except (ValueError, psutil.Error):
            return None
        return process if self.is_worked_on_by(process) else None

    def is_worked_on_by(self, process: psutil.Process) -> bool:
        """Tell whether the process is a living Postgres, server or session, whose data are ours."""
        try:
            return (
                process.name().startswith("postgres")
                and process.status() != psutil.STATUS_ZOMBIE
                and os.path.samefile(process.cwd(), self.data)
            )
        except (OSError, psutil.Error):
            return False

    def is_supervised(self) -> bool:
        """Tell whether somebody will stop the server when nobody uses it any more."""
        try:
            locked(self.supervisor_lock, LockFlags.SHARED | LockFlags.NON_BLOCKING).close()
        except portalocker.LockException:
            return True
        return False

    def connect(self, database: str = "postgres") -> Any:
        """Return a new psycopg2 connection, or raise psycopg2.OperationalError."""
        return psycopg2.connect(
            dbname=database,
            user=ROLE,
            application_name="workbench supervisor",
            connect_timeout=5,
            **self.address(),
        )

    def answers(self, database: str = DATABASE) -> bool:
        try:
            self.connect(database).close()
        except psycopg2.OperationalError as error:
            return "too many clients" in str(error)
        return True


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
    if home not in _leases:
        _leases[home] = locked(cluster.users_lock, LockFlags.SHARED)
    elif not home.exists():
        raise EmbeddedError(f"{home} is no longer there: if the project was moved, start this program anew.")
    return cluster


def locked(path: Path, flags: LockFlags) -> IO[str]:
    """Open ``path``, creating it if need be, and return it locked. The lock ends when it is closed.

    Raises EmbeddedError if it cannot be written, and portalocker.LockException if it would have to wait and
    may not.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise EmbeddedError(
            f"The embedded Postgres needs to write to {path.parent}: {error.strerror}. Make it writable for "
            f"you, or set WORKBENCH_HOME to a folder that is, or DATABASE_URL to another Postgres."
        ) from None
    try:
        portalocker.lock(file, flags)
    except BaseException:
        file.close()
        raise
    return file


def start(home: Path) -> None:
    """Start the server unless it runs with a supervisor, and return once it answers. Raises EmbeddedError.

    Any number of processes may call this at once: the supervisors agree among themselves which one serves.
    """
    cluster = lease(home)
    if cluster.is_supervised() and cluster.answers():
        return
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
        return False
    shut_down(cluster)
    return True


def status(home: Path) -> Status:
    """Return what the server does now, without starting it. Raises EmbeddedError."""
    cluster = Cluster(home)
    try:
        connection = cluster.connect(DATABASE)
    except (psycopg2.OperationalError, OSError):
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
