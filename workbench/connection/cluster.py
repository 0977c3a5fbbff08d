"""The embedded server seen from outside: its files, its processes, its address, and whether it answers."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import stat
from dataclasses import dataclass
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
        # after the identity of ``home``, not its path: a project that is moved keeps its running server. The
        # number of a deleted folder is soon another's, so the time when the lock was made is a part of it.
        found = self.home.stat()
        made = self.users_lock.stat().st_mtime_ns if self.users_lock.exists() else 0
        identity = f"{found.st_dev}:{found.st_ino}:{made}".encode()
        return Path("/tmp") / f"workbench-{hashlib.sha256(identity).hexdigest()[:12]}"

    def server_uid(self) -> int:
        """Return the user that the server runs as: for root the owner of the data, or ``nobody``.

        Postgres refuses to run as root. Not on Windows.
        """
        import pwd

        if os.geteuid() != 0:
            return os.geteuid()
        owner = self.data.stat().st_uid if self.data.exists() else 0
        return owner or pwd.getpwnam("nobody").pw_uid

    def check_socket_folder(self) -> None:
        """Raise EmbeddedError if the socket's folder is there, and not the server's user's alone.

        Everybody can make folders in /tmp: whoever made this one could answer in the server's place.
        """
        try:
            found = self.socket_folder.lstat()
        except FileNotFoundError:
            return
        # Somebody who may not enter it has to see whose it is.
        owners = {os.geteuid(), self.server_uid(), self.data.stat().st_uid if self.data.exists() else -1}
        if found.st_mode != stat.S_IFDIR | 0o700 or found.st_uid not in owners:
            raise EmbeddedError(
                f"{self.socket_folder} belongs to somebody else or is open to others: remove it ('sudo rm -r "
                f"{self.socket_folder}'), and it is made anew."
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
        """Return the server's process, if it lives: also one whose data were moved or deleted under it.

        A process id by itself proves nothing: after a crash another process may carry it, and the data may be
        worked on by a server that somebody else started.
        """
        try:
            process = psutil.Process(int(self.postmaster_line(1) or ""))
        except (ValueError, psutil.Error):
            pass
        else:
            if self.is_worked_on_by(process) and self.is_ours(process):
                return process
        if self.tcp or not self.home.is_dir() or not self.socket_folder.exists():
            return None
        return next(filter(self.is_ours, psutil.process_iter()), None)

    def is_ours(self, process: psutil.Process) -> bool:
        """Tell whether the process is a living server that was started for this home, by its command line."""
        try:
            setting = (
                "listen_addresses=127.0.0.1" if self.tcp else f"unix_socket_directories={self.socket_folder}"
            )
            return (
                process.name().startswith("postgres")
                and process.status() != psutil.STATUS_ZOMBIE
                and any(setting in word for word in process.cmdline())
            )
        except (OSError, psutil.Error):
            return False

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

    def refusal(self, database: str = DATABASE) -> str:
        """Return why nobody is let in, in libpq's words; "" where only others are too many, or nothing is."""
        try:
            self.connect(database).close()
        except psycopg2.OperationalError as error:
            return "" if "too many clients" in str(error) else str(error)
        return ""

    def answers(self, database: str = DATABASE) -> bool:
        return not self.refusal(database)


def locked(path: Path, flags: LockFlags) -> IO[str]:
    """Open ``path``, creating it if need be, and return it locked. The lock ends when it is closed.

    Raises EmbeddedError if it cannot be written, and portalocker.LockException if it would have to wait and
    may not.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        portalocker.lock(file, flags)
    except BaseException:
        file.close()
        raise
    return file


def unwritable(path: Path, error: OSError) -> EmbeddedError:
    """Return what to tell the person who cannot write the file at ``path`` in a home."""
    home = path.parent
    if home.is_symlink() and not home.exists():
        return EmbeddedError(
            f"{home} leads to {os.readlink(home)}, which is not there: bring that back, or remove the link."
        )
    if home.exists() and not home.is_dir():
        return EmbeddedError(
            f"{home} is a file, and should be the folder of the embedded Postgres: move it away, or set "
            f"WORKBENCH_HOME to another folder."
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EmbeddedError(f"The disk is full that holds {home}: make room there ('df -h' tells how much).")
    if error.errno == errno.EACCES and os.access(home, os.W_OK):
        me = name_of(os.geteuid())
        return EmbeddedError(
            f"{path} belongs to somebody else, as after a start by root: run 'sudo chown -R {me} "
            f"{shlex.quote(str(home))}' once nobody works there."
        )
    return EmbeddedError(
        f"The embedded Postgres needs to write to {home}: {error.strerror}. Make it writable for you, or set "
        f"WORKBENCH_HOME to a folder that is, or DATABASE_URL to another Postgres."
    )


def name_of(uid: int) -> str:
    """Return the name of a user of this system, or the number where it has none. Not on Windows."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
