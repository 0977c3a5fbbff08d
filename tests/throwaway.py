"""A pytest plugin: every test and every notebook's kernel works on a database made for this run.

Without a DATABASE_URL in the environment it is an embedded server of its own, in a temporary folder; with
one, a database of its own on that server. A ``.env`` file is not read.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import psycopg2
import pytest
from nbval.plugin import IPyNbCell
from psycopg2 import sql

PROJECT = Path(__file__).parents[1]
EXECUTED = PROJECT / ".workbench" / "executed"
EVERYTHING = "WORKBENCH_TEST_EVERYTHING"
# The files of few tests that take long.
LONGEST = ("test_walk.py", "test_faults.py", "test_kills.py")

ADDRESSES = ("DATABASE_URL", "DATABASE_URL_UNPOOLED", "DATABASE_URL_DIRECT", "POSTGRES_URL_NON_POOLING")
NAME = f"workbench_test_{os.getpid()}"
GIVEN = {name: os.environ[name].strip() for name in ADDRESSES if os.environ.get(name, "").strip()}
if "DATABASE_URL" not in GIVEN:
    GIVEN = {}
HOME = Path(tempfile.mkdtemp(prefix="workbench-"))

# A shell has what it runs in the background ignore SIGINT, and so have its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Django's settings are read early, and by kernels: the environment must be ready before that.
HOME.chmod(0o755)
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "workbench.settings",
    "WORKBENCH_HOME": str(HOME),
    "WORKBENCH_ENV_FILE": os.devnull,
    "WORKBENCH_PROGRESS": "0",
    "WORKBENCH_SMALL": "1",
}
os.environ |= {name: urlsplit(url)._replace(path=f"/{NAME}").geturl() for name, url in GIVEN.items()}
if GIVEN:
    os.environ["WORKBENCH_YES"] = "1"
for variable in (
    *("WORKBENCH_WEB", "WORKBENCH_BRANCH", "NEON_API_KEY", "NEON_PROJECT_ID", "NEON_API_URL"),
    *(
        "WORKBENCH_READ_ONLY",
        "WORKBENCH_STATEMENT_TIMEOUT",
        "WORKBENCH_ROLE",
        "WORKBENCH_TRANSACTION_TIMEOUT",
    ),
    *("DJANGO_DEBUG", "DJANGO_SECRET_KEY", "DJANGO_ALLOWED_HOSTS", "DJANGO_HTTPS", "DJANGO_ADMIN"),
):
    os.environ.pop(variable, None)


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment for a process of its own; None takes a variable out.

    Where ``changes`` names a database, nothing of the run's own database is left.
    """
    changes = changes or {}
    base = dict(os.environ)
    if "DATABASE_URL" in changes:
        base |= dict.fromkeys((*ADDRESSES, "WORKBENCH_YES"), "")
    merged = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not None}


_failed: dict[Path, nbformat.NotebookNode] = {}


def pytest_sessionstart() -> None:
    if GIVEN:
        _on_given_server("CREATE DATABASE {}")


def pytest_sessionfinish() -> None:
    from django.db import connections

    from workbench.connection import embedded

    for path, notebook in _failed.items():
        EXECUTED.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, EXECUTED / path.name)
    connections.close_all()
    if GIVEN:
        _on_given_server("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    embedded.stop(HOME)
    shutil.rmtree(HOME, ignore_errors=True)


def _on_given_server(statement: str, database: str = "") -> None:
    """Run a statement about our database, from the one that was given or from another."""
    from django.db import connection

    params = connection.get_connection_params()
    dbname = database or urlsplit(GIVEN["DATABASE_URL"]).path.removeprefix("/")
    administrator = psycopg2.connect(
        **{key: value for key, value in params.items() if key != "cursor_factory"} | {"dbname": dbname}
    )
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(sql.Identifier(NAME)))
    administrator.close()


@cache
def _hurry() -> None:
    """Let the run's own server not wait for the disk: its data outlive its own end, not the machine's."""
    from workbench.connection import embedded

    if GIVEN:
        return
    embedded.start(HOME)
    administrator = embedded.Cluster(HOME).connect()
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        for setting in ("fsync", "full_page_writes"):
            cursor.execute(f"ALTER SYSTEM SET {setting} = off")
        cursor.execute("SELECT pg_reload_conf()")
    administrator.close()


def _empty() -> None:
    """Leave nothing in the run's own database."""
    from workbench.connection import embedded

    statement = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    if GIVEN:
        _on_given_server(statement, NAME)
        return
    embedded.start(HOME)
    administrator = embedded.Cluster(HOME).connect(embedded.DATABASE)
    administrator.autocommit = True
    administrator.cursor().execute(statement)
    administrator.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among many processes begin with the files of the longest tests, and then with those of the most.

    A file is one process' work: none is to be alone at it when the others have nothing left.
    """
    if hasattr(config, "workerinput"):
        counts = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path.name not in LONGEST, -counts[item.path], item.path))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a notebook an empty database; skip a test whose programs are missing, unless nothing may be."""
    _hurry()
    if isinstance(item, IPyNbCell) and item.cell_num == 0:
        _empty()  # What ran before may be anything: tests are distributed over processes.
    missing = [
        program
        for mark in item.iter_markers("needs")
        for program in mark.args
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") is None
    ]
    reason = f"{', '.join(missing)} not installed" if missing else ""
    if item.get_closest_marker("as_root") and (os.name == "nt" or os.geteuid() != 0):
        reason = "must be root, to become other users"
    if reason and os.environ.get(EVERYTHING):
        pytest.fail(f"{reason}, and {EVERYTHING} is set", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a notebook's cells really put out, once one of them fails."""
    report = yield
    if isinstance(item, IPyNbCell) and report.when == "call":
        if item.test_outputs is not None:
            item.cell.outputs = [nbformat.from_dict(dict(output)) for output in item.test_outputs]
        if report.failed:
            _failed[item.path] = item.parent.nb  # type: ignore[union-attr]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Those that ran here, or in a process of pytest-xdist's.
    failed = [report.nodeid.partition("::")[0] for report in terminalreporter.getreports("failed")]
    for name in dict.fromkeys(Path(file).name for file in failed if file.endswith(".ipynb")):
        terminalreporter.write_line(f"{name} as it ran is kept in {EXECUTED / name}")
