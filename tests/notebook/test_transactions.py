"""Transactions that cells leave open, and sessions that end around them, in a real kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from tests.conftest import scratch
from tests.kernel import Kernel, Outcome

SET_UP = """
%manage migrate -v 0
Author.objects.bulk_create(Author(name=f"{number}") for number in range(5))
def end_session(beside=__import__("psycopg2")):
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('workbench.url'), pg_backend_pid()")
        url, pid = cursor.fetchone()
    other = beside.connect(url)
    other.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()
def changed():
    return Author.objects.filter(bio="changed").count()
"""
CHANGE = "_ = Author.objects.update(bio='changed')"
STATE = "changed(), connection.in_atomic_block, connection.get_autocommit()"
AS_BEFORE = "(0, False, True)"
KEPT = "(5, False, True)"
IN_A_BLOCK = "block = transaction.atomic(); block.__enter__()"
IN_TWO_BLOCKS = f"{IN_A_BLOCK}; transaction.atomic().__enter__()"
WITHOUT_AUTOCOMMIT = "transaction.set_autocommit(False)"
IN_SQL = "connection.cursor().execute('BEGIN')"
BEGINNINGS = (IN_A_BLOCK, IN_TWO_BLOCKS, WITHOUT_AUTOCOMMIT, IN_SQL)


class Notebook:
    """A kernel whose cells are numbered."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.number = 0

    def run(self, cell: str) -> Outcome:
        self.number += 1
        return self.kernel.run(cell, attended=True)

    def clear(self) -> None:
        """Leave nothing of a test behind."""
        self.run("connection.close()")
        self.run("transaction.set_autocommit(True)")
        assert self.run("_ = Author.objects.update(bio='')").error == []


@pytest.fixture(scope="module")
def running() -> Iterator[Notebook]:
    with scratch() as url:
        with closing(psycopg2.connect(url)) as session, session, session.cursor() as cursor:
            database = session.info.dbname
            cursor.execute(f'ALTER DATABASE "{database}" SET workbench.url = %s', [url])
        changes = {"DATABASE_URL": url, "WORKBENCH_YES": "1", "WORKBENCH_TRANSACTION_TIMEOUT": "2h"}
        with Kernel(changes) as kernel:
            made = Notebook(kernel)
            assert made.run(SET_UP).error == []
            yield made


@pytest.fixture
def notebook(running: Notebook) -> Iterator[Notebook]:
    yield running
    running.clear()


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_the_next_cell_says_once_that_a_transaction_is_open_and_what_it_says_ends_it(
    notebook: Notebook, begin: str, is_kept: bool
) -> None:
    first = notebook.run(f"{begin}; {CHANGE}")
    assert (first.error, first.stderr) == ([], "")
    number = notebook.number
    said = notebook.run("1 + 1")
    found = re.fullmatch(
        rf"A transaction is open since cell \[{number}\] \([^)]+ ago\): (.+) keeps what it did, "
        r"(.+) takes it back, as Postgres does once it is idle for 2h\.\n",
        said.stderr,
    )
    assert found, said
    assert said.result == "2"
    assert notebook.run("changed()").stderr == ""
    ended = notebook.run(found[1 if is_kept else 2])
    assert (ended.error, ended.stderr) == ([], "")
    if begin == WITHOUT_AUTOCOMMIT:
        assert notebook.run("connection.get_autocommit()").result == "False"
        notebook.run("transaction.set_autocommit(True)")
    after = notebook.run(STATE)
    assert (after.stderr, after.result) == ("", KEPT if is_kept else AS_BEFORE)


def test_a_cell_that_ends_it_is_told_nothing(notebook: Notebook) -> None:
    notebook.run(f"{IN_A_BLOCK}; {CHANGE}")
    ended = notebook.run("block.__exit__(None, None, None)")
    assert (ended.error, ended.stderr) == ([], "")
    assert notebook.run(STATE).result == KEPT


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_failed_statement_takes_an_open_transaction_back_and_the_next_cell_works(
    notebook: Notebook, begin: str
) -> None:
    notebook.run(f"{begin}; {CHANGE}")
    number = notebook.number
    failed = notebook.run("connection.cursor().execute('SELECT 1 / 0')")
    assert "division by zero" in failed.error[-1]
    assert re.search(
        rf"The transaction that was open since cell \[{number}\] \(.+ ago\) was rolled back, "
        r"because a statement in it failed: nothing of it was kept\.\n$",
        failed.stderr,
    )
    after = notebook.run("changed(), connection.in_atomic_block")
    assert (after.error, after.stderr, after.result) == ([], "", "(0, False)")


def test_an_error_in_a_block_leaves_nothing_to_say(notebook: Notebook) -> None:
    failed = notebook.run(f"with transaction.atomic():\n    {CHANGE}\n    1 / 0")
    assert failed.stderr == ""
    assert notebook.run(STATE).result == AS_BEFORE
    failed = notebook.run(
        f"with transaction.atomic():\n    {CHANGE}\n    connection.cursor().execute('SELEC')"
    )
    assert failed.stderr == ""
    assert notebook.run(STATE).result == AS_BEFORE


def test_a_block_in_a_cell_within_a_cell_is_left_alone(notebook: Notebook) -> None:
    notebook.run(
        f"with transaction.atomic():\n    {CHANGE}\n    get_ipython().run_cell('changed()')\n"
        "    get_ipython().run_cell('connection.needs_rollback')"
    )
    assert notebook.run(STATE).result == KEPT


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_session_that_ends_between_cells_takes_its_transaction_with_it(
    notebook: Notebook, begin: str
) -> None:
    notebook.run(f"{begin}; {CHANGE}; end_session()")
    number = notebook.number
    after = notebook.run(STATE)
    autocommit = " Autocommit is on again." if begin == WITHOUT_AUTOCOMMIT else ""
    assert re.fullmatch(
        r"Postgres ended this session, because it shuts down or somebody asked it to\. A transaction was "
        rf"open there since cell \[{number}\] \(.+ ago\): what was not committed is gone\.{autocommit}\n",
        after.stderr,
    )
    assert (after.error, after.result) == ([], AS_BEFORE)
    assert notebook.run(STATE).stderr == ""


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_session_that_ends_within_a_cell_is_one_sentence_and_the_next_cell_works(
    notebook: Notebook, begin: str
) -> None:
    failed = notebook.run(f"{begin}; {CHANGE}; end_session(); {CHANGE}")
    (sentence,) = failed.error
    assert sentence.startswith("The connection to Postgres was lost: ")
    assert sentence.endswith("the next cell connects anew.") or begin == IN_SQL
    after = notebook.run(STATE)
    assert (after.error, after.stderr, after.result) == ([], "", AS_BEFORE)


def test_a_migrate_without_autocommit_is_part_of_the_transaction(notebook: Notebook) -> None:
    assert notebook.run("%manage migrate catalog 0001 -v 0").error == []
    notebook.run(WITHOUT_AUTOCOMMIT)
    assert notebook.run("%manage migrate -v 0").error == []
    notebook.run("transaction.rollback(); transaction.set_autocommit(True)")
    assert "country" not in notebook.run("snapshot('catalog')").result
    assert notebook.run("%manage migrate -v 0").error == []


def test_the_sentence_stands_above_the_person_s_own_lines(notebook: Notebook) -> None:
    notebook.run("def ask(sql):\n    connection.cursor().execute(sql)")
    number = notebook.number
    failed = notebook.run(
        "ask('SET statement_timeout = 50')\nask('SELECT pg_sleep(20)')\nask('SET statement_timeout = 0')"
    )
    assert failed.error == [
        "Postgres cancelled this, because it took longer than statement_timeout allows. Ask for less at "
        "once, or allow more: SET statement_timeout.",
        f"Cell In[{number + 1}], line 2: ask('SELECT pg_sleep(20)')",
        f"Cell In[{number}], line 2: connection.cursor().execute(sql)",
    ]


def test_postgres_ends_what_is_idle_for_too_long_and_the_next_cell_says_so(notebook: Notebook) -> None:
    limit = "cursor = connection.cursor(); cursor.execute('SHOW idle_in_transaction_session_timeout'); "
    assert notebook.run(f"{limit}print(cursor.fetchone()[0]); del cursor").stdout == "2h\n"
    notebook.run(
        f"{IN_A_BLOCK}; {CHANGE}\nconnection.cursor().execute('SET idle_in_transaction_session_timeout = 50')"
    )
    time.sleep(0.5)
    after = notebook.run(STATE)
    assert after.stderr.startswith(
        "Postgres ended this session, because its transaction was idle for longer than "
        "idle_in_transaction_session_timeout allows (2h, WORKBENCH_TRANSACTION_TIMEOUT). A transaction was"
    )
    assert (after.error, after.result) == ([], AS_BEFORE)
