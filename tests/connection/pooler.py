"""A stand-in for Neon on the wire, out of Debian's packages.

Postgres with TLS is the direct address, PgBouncer in transaction mode the pooled one, on the same port of two
loopback addresses. Only processes started with ``Neon.environment`` resolve the host names, which are spelled
as Neon spells them: nothing on the machine changes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import psycopg2
import pytest

from tests.throwaway import ADDRESSES, EVERYTHING

POOLED = "ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech"
DIRECT = "ep-cool-darkness-123456.us-east-2.aws.neon.tech"
ALIAS = "postgres.example.org"
HOSTS = {POOLED: "127.0.0.1", DIRECT: "127.0.0.2", ALIAS: "127.0.0.3"}

ROLE = "neondb_owner"
DATABASE = "neondb"
# What has to be percent-encoded in an address, and doubled in PgBouncer's list.
PASSWORD = 'npg_@/:#%? "é'
ADMINISTRATOR = "cloud_admin"


class Process:
    """A server that can be stopped and started again."""

    def __init__(self, command: list[Any], log: Path, user: dict[str, Any]) -> None:
        self._command, self._log, self._user = command, log, user
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("a") as output:
            self._running = subprocess.Popen(
                self._command, cwd="/", stdout=output, stderr=output, **self._user
            )

    def stop(self, number: int) -> None:
        """Send the signal, and wait for the end."""
        if self._running is not None:
            self._running.send_signal(number)
            self._running.wait(timeout=30)

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid


@dataclass(frozen=True)
class Neon:
    folder: Path
    port: int
    library: Path
    postgres: Process

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    def url(
        self,
        host: str = POOLED,
        *,
        password: str = PASSWORD,
        name: str = DATABASE,
        port: int | None = None,
        query: str = "sslmode=require",
    ) -> str:
        return f"postgresql://{ROLE}:{quote(password, safe='')}@{host}:{port or self.port}/{name}?{query}"

    def environment(self, url: str | None = None, **variables: str) -> dict[str, str]:
        """Return what the environment of a process needs, to have ``url`` as its DATABASE_URL."""
        return {
            **dict.fromkeys(ADDRESSES, ""),
            "LD_PRELOAD": str(self.library),
            "NSS_WRAPPER_HOSTS": str(self.folder / "hosts"),
            "WORKBENCH_ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "workbench.settings",
            "DATABASE_URL": url or self.url(),
            **variables,
        }

    def logins(self) -> list[str]:
        """Return PgBouncer's line about each connection of the role so far."""
        lines = (self.folder / "pgbouncer.log").read_text().splitlines()
        return [line for line in lines if "login attempt" in line and f"user={ROLE} " in line]

    def connect(self) -> Any:
        """Return a connection of the administrator's at the direct address, or raise OperationalError."""
        return _connect_now(self.port, HOSTS[DIRECT], DATABASE)

    def ask(self, query: str) -> Any:
        """Return the first row of what the administrator sees on the direct address."""
        connection = _connect(self.port, HOSTS[DIRECT], DATABASE)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()


@contextmanager
def neon() -> Iterator[Neon]:
    """Start both servers, and stop them in the end. Skips the test where one of them is not installed."""
    library = _newest("libnss_wrapper.so", "/usr/lib", "/usr/lib64", "/usr/lib/*-linux-gnu*")
    postgres = _newest("bin/postgres", "/usr/lib/postgresql/*", "/usr/pgsql-*", "/usr")
    with ExitStack() as stack:
        # Short, as a socket's path must be, and open to the user who runs the servers.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workbench-neon-", dir="/tmp")))
        port = _free_port()
        _write_files(folder, port)
        user = _unprivileged(folder)
        options = f"--username={ADMINISTRATOR} --pwfile={folder}/password --locale=C.UTF-8 --no-sync"
        _run([postgres.with_name("initdb"), "-D", folder / "data", *options.split()], user)
        server = [postgres, "-D", folder / "data", "-c", f"config_file={folder}/postgresql.conf"]
        running = Process(server, folder / "postgres.log", user)
        running.start()
        # At once, whoever is connected.
        stack.callback(running.stop, signal.SIGINT)
        stand_in = Neon(folder, port, library, running)
        _prepare(stand_in)
        path = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        pgbouncer = Process([path, folder / "pgbouncer.ini"], folder / "pgbouncer.out", user)
        pgbouncer.start()
        stack.callback(pgbouncer.stop, signal.SIGTERM)
        _connect(stand_in.port, HOSTS[POOLED], "pgbouncer").close()
        yield stand_in


def absent(reason: str) -> NoReturn:
    """Skip the test, unless nothing may be skipped."""
    if os.environ.get(EVERYTHING):
        pytest.fail(f"{reason}, and {EVERYTHING} is set", pytrace=False)
    pytest.skip(reason)


def _newest(name: str, *folders: str) -> Path:
    found = [path for folder in folders for path in Path("/").glob(f"{folder[1:]}/{name}")]
    if not found:
        absent(f"{name} not installed")
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))])


def _free_port() -> int:
    """Return a port that is free on each of the addresses."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            try:
                for address in set(HOSTS.values()) - {"127.0.0.1"}:
                    stack.enter_context(socket.create_server((address, port)))
            except OSError:
                continue
            return port


def _write_files(folder: Path, port: int) -> None:
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    # fmt: off
    _run([
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=neon",
        "-addext", f"subjectAltName={names}",
        "-keyout", folder / "server.key", "-out", folder / "server.crt",
    ])
    # fmt: on
    quoted = PASSWORD.replace('"', '""')
    texts = {
        "hosts": "".join(f"{address} {host}\n" for host, address in HOSTS.items()),
        "password": PASSWORD,
        # Without TLS nobody gets in from the network.
        "pg_hba.conf": "local all all scram-sha-256\nhostssl all all 127.0.0.0/8 scram-sha-256\n",
        "postgresql.conf": f"""
            listen_addresses = '{HOSTS[DIRECT]},{HOSTS[ALIAS]}'
            port = {port}
            unix_socket_directories = '{folder}'
            hba_file = '{folder}/pg_hba.conf'
            ssl = on
            ssl_cert_file = '{folder}/server.crt'
            ssl_key_file = '{folder}/server.key'
            fsync = off
        """,
        "users.txt": f'"{ROLE}" "{quoted}"\n"{ADMINISTRATOR}" "{quoted}"\n',
        # A server connection serves one transaction and no more (server_lifetime), so whatever relies on
        # the session fails always, not only under load.
        "pgbouncer.ini": f"""
            [databases]
            * = host={folder} port={port}
            [pgbouncer]
            listen_addr = {HOSTS[POOLED]}
            listen_port = {port}
            unix_socket_dir =
            pool_mode = transaction
            server_lifetime = 0
            auth_type = scram-sha-256
            auth_file = {folder}/users.txt
            admin_users = {ADMINISTRATOR}
            client_tls_sslmode = require
            client_tls_cert_file = {folder}/server.crt
            client_tls_key_file = {folder}/server.key
            logfile = {folder}/pgbouncer.log
        """,
    }
    for name, text in texts.items():
        (folder / name).write_text(re.sub(r"(?m)^ +", "", text), encoding="utf-8")


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return subprocess' options for a user that Postgres runs as, who now owns ``folder``."""
    if os.geteuid() != 0:
        return {}
    import pwd

    account = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(command: list[Any], user: dict[str, Any] | None = None) -> None:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, **user or {})
    assert done.returncode == 0, done.stderr


def _prepare(stand_in: Neon) -> None:
    """Make the role, with the rights of Neon's: it may create databases, but is no superuser."""
    connection = _connect(stand_in.port, HOSTS[DIRECT], "postgres")
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE PASSWORD %s", [PASSWORD])
        cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")


def _connect(port: int, address: str, name: str) -> Any:
    """Return the administrator's connection, once the server answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return _connect_now(port, address, name)
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _connect_now(port: int, address: str, name: str) -> Any:
    connection = psycopg2.connect(
        host=address, port=port, dbname=name, user=ADMINISTRATOR, password=PASSWORD, sslmode="require"
    )
    connection.autocommit = True
    return connection
