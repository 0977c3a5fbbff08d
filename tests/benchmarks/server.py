"""A Postgres for benchmarks, at a TCP port and a Unix socket, with books and a table of every type."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from tests.throwaway import PROJECT, environment
from workbench.connection.embedded import Cluster
from workbench.connection.supervisor import Owner, binary

DATABASE = "bench"
BOOKS = 1_000_000
AUTHORS = 100_000
EVERY = 200_000

# One column of each type that workbench.frames.types names, a tenth of the values NULL.
EVERY_TYPE = """
CREATE TABLE benchmark_every AS SELECT
    i AS id,
    nullif(i %% 10, 1)::int2 AS small,
    CASE WHEN i %% 10 <> 2 THEN i * 7 END::int4 AS whole,
    CASE WHEN i %% 10 <> 3 THEN 9007199254740993 + i END::int8 AS big,
    CASE WHEN i %% 10 <> 4 THEN i / 3.0 END::float4 AS single,
    CASE WHEN i %% 10 <> 5 THEN i / 7.0 END::float8 AS double,
    CASE WHEN i %% 10 <> 6 THEN i %% 3 = 0 END AS flag,
    CASE WHEN i %% 10 <> 7 THEN i / 100.0 END::numeric(12, 2) AS price,
    CASE WHEN i %% 10 <> 8 THEN i / 8.0 END::numeric AS amount,
    CASE WHEN i %% 10 <> 9 THEN repeat('é', i %% 20) END AS note,
    CASE WHEN i %% 10 <> 0 THEN 'code ' || i END::varchar(40) AS code,
    CASE WHEN i %% 10 <> 1 THEN decode(md5(i::text), 'hex') END AS raw,
    CASE WHEN i %% 10 <> 2 THEN date '1900-01-01' + i %% 60000 END AS day,
    CASE WHEN i %% 10 <> 3 THEN time '00:00' + i * interval '1 s' END AS clock,
    CASE WHEN i %% 10 <> 4 THEN timestamp '1960-01-01' + i * interval '1 h 1 us' END AS moment,
    CASE WHEN i %% 10 <> 5 THEN timestamptz '1960-01-01 UTC' + i * interval '1 h 1 us' END AS instant,
    CASE WHEN i %% 10 <> 6 THEN i * interval '1 h 1 us' END AS lasting,
    CASE WHEN i %% 10 <> 7 THEN md5(i::text)::uuid END AS key,
    CASE WHEN i %% 10 <> 8 THEN jsonb_build_object('n', i, 'tags', jsonb_build_array('a', 'b')) END AS doc,
    CASE WHEN i %% 10 <> 9 THEN ARRAY[i, i + 1, i + 2] END AS numbers,
    CASE WHEN i %% 10 <> 0 THEN int8range(i, i + 10) END AS span
FROM generate_series(1, %s) AS i
"""


@dataclass(frozen=True)
class Server:
    folder: Path
    port: int

    def url(self, transport: str) -> str:
        if transport == "socket":
            return f"postgresql://postgres@/{DATABASE}?host={self.folder}&port={self.port}"
        return f"postgresql://postgres@127.0.0.1:{self.port}/{DATABASE}"

    def psql(self, *commands: str) -> list[str]:
        """Return the command that runs these with the psql that came with the server, by TCP."""
        return [
            str(binary("psql", Owner.of(Cluster(self.folder)))),
            *f"-q -X -h 127.0.0.1 -p {self.port} -U postgres -d {DATABASE}".split(),
            *(word for command in commands for word in ("-c", command)),
        ]


@contextmanager
def server(authors: int = AUTHORS, books: int = BOOKS, every: int = EVERY) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="workbench-bench-", dir="/tmp"))
    owner = Owner.of(Cluster(folder))
    owner.take(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = Server(folder, port)
    pg_ctl = [binary("pg_ctl", owner), "-D", folder / "data", "-w", "-t", "60"]
    try:
        _run(owner, binary("initdb", owner), "-D", folder / "data", *"-U postgres -A trust --no-sync".split())
        settings = f"-p {port} -k '{folder}' -c shared_buffers=512MB -c max_wal_size=4GB"
        _run(owner, *pg_ctl, "-o", settings, "-l", folder / "log", "start")
        _fill(found, authors, books, every)
        yield found
    finally:
        owner.run(*pg_ctl, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _run(owner: Owner, *command: object) -> None:
    done = owner.run(*command)
    assert done.returncode == 0, done.stdout


def _fill(found: Server, authors: int, books: int, every: int) -> None:
    _execute(found.url("tcp").removesuffix(DATABASE) + "postgres", f"CREATE DATABASE {DATABASE}")
    variables = environment({"DATABASE_URL": found.url("tcp"), "WORKBENCH_ENV_FILE": os.devnull})
    for command in (["migrate", "-v", "0"], ["populate", "--authors", str(authors), "--books", str(books)]):
        subprocess.run([sys.executable, "manage.py", *command], cwd=PROJECT, env=variables, check=True)
    _execute(found.url("tcp"), EVERY_TYPE, every)
    _execute(found.url("tcp"), "VACUUM ANALYZE")


def _execute(url: str, statement: str, *params: int) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute(statement, params or None)
    connection.close()
