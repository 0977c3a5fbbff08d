"""What is in the way of the embedded server, and what to do about it. Nothing here changes a file.

``check`` finds what Postgres would say too late, or not at all; ``explain`` tells what Postgres says, in the
words of https://github.com/postgres/postgres/tree/REL_18_STABLE/src/backend.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

import psutil

from workbench.connection.cluster import DATABASE, MAJOR, ROLE, Cluster, EmbeddedError, name_of, unwritable

# The first that matches decides. {data}, {log} and {owner} are filled in, and what the pattern names.
REMEDIES = (
    (
        r"shared memory segment.*No space left on device",
        "/dev/shm is full: give it more room (docker run --shm-size=256m), then run it again.",
    ),
    (
        r'(?:"(?P<file>/[^"]+)"[^\n]*)?(?:No space left on device|Disk quota exceeded)',
        "The disk is full that holds {file}: make room there ('df -h' tells how much there is), then run it "
        "again; every committed row is kept.",
    ),
    (
        r'(?:"(?P<file>/[^"]+)"[^\n]*)?Read-only file system',
        "The file system that holds {file} is read-only: mount it writable, or set WORKBENCH_HOME to a "
        "folder that is.",
    ),
    (
        r"LOG:\s+(?P<why>[^\n]*)\n(?:[^\n]*(?:HINT|DETAIL|CONTEXT):[^\n]*\n)*"
        r'[^\n]*FATAL:\s+configuration file "(?P<file>[^"]*)" contains errors',
        "Postgres cannot use {file}: {why}. Mend that line, or empty the file: each setting has a default.",
    ),
    (
        r'could not access the server configuration file "(?P<file>[^"]*)": No such file',
        "{file} is missing: make it anew, an empty file will do, for each setting has a default.",
    ),
    (
        r"could not load (?P<file>[^\n]*pg_hba\.conf)",
        "Postgres cannot use {file}: write the one line '{access}' into it.",
    ),
    (
        r"could not map anonymous shared memory|could not create (?:shared memory segment|semaphores)",
        "The machine has not the memory that Postgres is told to take: lower shared_buffers and "
        "max_connections in {data}/postgresql.auto.conf, or in postgresql.conf beside it.",
    ),
    (
        r'"(?P<file>[^"]*)": Permission denied',
        "Postgres, which runs as {owner}, may not read {file}: run 'sudo chown -R {owner} {data}', and let "
        "{owner} enter the folders above it.",
    ),
    (
        r"(?P<why>could not locate a valid checkpoint record[^\n]*|invalid checkpoint record[^\n]*"
        r'|required WAL directory "[^"]*" does not exist)',
        "The data in {data} are damaged ({why}): put a copy of that folder back, try Postgres' pg_resetwal "
        "on a copy of it, or rename it to begin with an empty database; the log is {log}.",
    ),
    (
        r"(?P<why>could not (?:open|read|access|find|stat)[^\n]*: (?:No such file[^\n]*|read \d+ of \d+)"
        r"|The database subdirectory [^\n]* is missing|database files are incompatible with server"
        r"|is not a valid data directory|(?:incorrect|invalid) checksum[^\n]*|invalid page in block[^\n]*"
        r"|could not read file[^\n]*|could not open directory[^\n]*"
        r"|could not access status of transaction[^\n]*)",
        "The data in {data} are damaged ({why}): put a copy of that folder back, or rename it to begin with "
        "an empty database; the log is {log}.",
    ),
)
# What it says to whom it lets wait.
WAITS = re.compile(r"the database system is (?:starting up|not yet accepting connections|in recovery mode)")


def check(cluster: Cluster) -> None:
    """Raise EmbeddedError for data that are no server's of ours, or not those that somebody left here."""
    data, home = cluster.data, cluster.home
    if (home.exists() or home.is_symlink()) and not home.is_dir():
        raise unwritable(cluster.users_lock, NotADirectoryError())
    if data.is_symlink() and not data.exists():
        raise EmbeddedError(
            f"{data} leads to {os.readlink(data)}, which is not there: bring that back, or remove the link "
            f"to begin with an empty database."
        )
    if not data.exists():
        _check_others(cluster)
        return
    found = data.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedError(
            f"{data} is a file, not Postgres' data: move it away, and the next start makes it anew."
        )
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except PermissionError:
        version = str(MAJOR)  # That it may not be read is said below.
    except (FileNotFoundError, UnicodeDecodeError):
        version = ""
    if version.isdecimal() and version != str(MAJOR):
        raise EmbeddedError(_other_version(data, version))
    if not version and any((data / part).exists() for part in ("global", "base", "pg_wal")):
        raise EmbeddedError(
            f"The data in {data} have lost their file PG_VERSION: write the line {MAJOR} into it if nothing "
            f"else is missing, put a copy of that folder back, or rename it to begin with an empty database."
        )
    if not version:
        raise EmbeddedError(f"{data} holds no Postgres data: move it away, and the next start makes it anew.")
    if os.name != "nt":
        _check_access(cluster, found)
    if data.is_symlink():
        _check_link(cluster)


def _check_others(cluster: Cluster) -> None:
    versions = [
        (version.parent, number[1])
        for version in cluster.home.glob("postgres-*/PG_VERSION")
        if (number := re.fullmatch(r"postgres-([\d.]+)", version.parent.name))
    ]
    if versions:
        raise EmbeddedError(_other_version(*max(versions, key=lambda found: found[0].stat().st_mtime)))


def _other_version(data: Path, version: str) -> str:
    there = shlex.quote(str(data))
    return (
        f"{data} holds data of Postgres {version}, which Postgres {MAJOR} cannot read: to carry them over, "
        f"run Postgres {version}'s own 'pg_ctl -D {there} -o \"-k /tmp\" -w start' and 'pg_dump -h /tmp -U "
        f"{ROLE} {DATABASE} > {DATABASE}.sql', stop it, rename the folder, and run 'python manage.py dbshell "
        f"-- -f {DATABASE}.sql'; to begin with an empty database, rename it now."
    )


def _check_access(cluster: Cluster, found: os.stat_result) -> None:
    data = cluster.data.resolve()
    if found.st_uid != cluster.server_uid():
        owner = name_of(cluster.server_uid())
        raise EmbeddedError(
            f"The data in {data} belong to {name_of(found.st_uid)}, and Postgres would run as {owner}: once "
            f"nobody works there, run 'sudo chown -R {owner} {shlex.quote(str(data))}'."
        )
    # https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/init/miscinit.c, checkDataDir
    if stat.S_IMODE(found.st_mode) & 0o027:
        raise EmbeddedError(
            f"Others may enter {data}, and Postgres refuses such data: run 'chmod 700 "
            f"{shlex.quote(str(data))}'."
        )


def _check_link(cluster: Cluster) -> None:
    """Raise EmbeddedError where the home was copied with its link: two would write to the same data."""
    try:
        other = Path(made_for(cluster).read_text().strip())
        is_copy = not other.samefile(cluster.home) and (other / cluster.data.name).samefile(cluster.data)
    except OSError:
        return  # It was moved, or nobody has written it down.
    if is_copy:
        raise EmbeddedError(
            f"{cluster.home} is a copy of {other}, and both lead to the same data in "
            f"{cluster.data.resolve()}: remove the link {cluster.data} to begin here with an empty database, "
            f"or put a copy of the data in its place."
        )


def made_for(cluster: Cluster) -> Path:
    """Return the file, beside data that a link leads to, that names the home which they were started for."""
    return cluster.data.resolve().with_suffix(".home")


def explain(cluster: Cluster, said: str) -> EmbeddedError | None:
    """Return what to tell the person of what Postgres or the system ``said``; None where that is new."""
    text = "\n".join(line for line in said.splitlines() if not WAITS.search(line))
    data = cluster.data.resolve()
    for pattern, remedy in REMEDIES:
        if found := re.search(pattern, text, re.IGNORECASE):
            parts = {"file": data, **{name: part for name, part in found.groupdict().items() if part}}
            return EmbeddedError(
                remedy.format(
                    data=data, log=cluster.log, owner=_owner(cluster), access=_access(cluster), **parts
                )
            )
    return None


def _owner(cluster: Cluster) -> str:
    return "you" if os.name == "nt" else name_of(cluster.server_uid())


def _access(cluster: Cluster) -> str:
    return "host all all 127.0.0.1/32 scram-sha-256" if cluster.tcp else "local all all trust"


def last_line(text: str) -> str:
    """Return the last line of Postgres' output that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not WAITS.search(line)]
    telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line.lower()]
    return re.sub(r"^.*(?:FATAL|PANIC|ERROR):\s*", "", (telling or lines or ["it said nothing"])[-1])


def refuse_others(cluster: Cluster) -> None:
    """Raise EmbeddedError where a server that was not started for this home works on its data."""
    named = cluster.postmaster_line(1)
    for process in psutil.process_iter():
        # Its sessions are titled "postgres: ...", and may be left of a server that was killed.
        if is_server(process) and not cluster.is_ours(process) and _may_work_on(process, cluster, named):
            raise EmbeddedError(
                f"Another Postgres, process {process.pid}, works on {cluster.data.resolve()}: stop it first, "
                f"as it was started."
            )


def is_server(process: psutil.Process) -> bool:
    """Tell whether the process is a Postgres by itself, not a session or another helper of one."""
    try:
        words = process.cmdline()
        return process.name().startswith("postgres") and bool(words) and not words[0].startswith("postgres: ")
    except psutil.Error:
        return False


def _may_work_on(process: psutil.Process, cluster: Cluster, named: str | None) -> bool:
    try:
        process.cwd()
    except psutil.AccessDenied:
        return str(process.pid) == named
    except psutil.Error:
        return False
    return cluster.is_worked_on_by(process)
