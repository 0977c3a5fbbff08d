from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from psycopg2 import sql

from tests.kernel import Kernel
from tests.throwaway import HOME, PROJECT, environment
from workbench.connection import embedded

Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage() -> Manage:
    """Run ``manage.py`` as from a terminal; keywords are environment variables, None takes one out."""

    def run(*arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROJECT / "manage.py"), *arguments],
            cwd=PROJECT,
            env=environment(changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )

    return run


@contextmanager
def scratch() -> Iterator[str]:
    """Yield the address of an empty database, which the workbench has no reason to take for its own."""
    embedded.start(HOME)
    cluster = embedded.Cluster(HOME)
    name = f"scratch_{uuid.uuid4().hex[:12]}"
    administrator = cluster.connect()
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        address = cluster.address()
        password = f":{address['password']}" if "password" in address else ""
        yield (
            f"postgresql://{embedded.ROLE}{password}@/{name}?host={address['host']}&port={address['port']}"
        )
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    administrator.close()


@pytest.fixture
def scratch_url() -> Iterator[str]:
    with scratch() as url:
        yield url


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        yield running
