"""Statements that fail because of the server, its settings or its other users, on a real one."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any

import django.db
import psycopg2
import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from django.db.utils import ConnectionHandler
from psycopg2 import errors
from pytest_django import DjangoDbBlocker

from tests.conftest import Manage, scratch
from tests.throwaway import HOME
from workbench import errors as sentences
from workbench.connection import ConnectionLost, StatementFailed, database, embedded
from workbench.errors import OneSentence

LOST = "The connection to Postgres was lost: "
STATEMENT_UNKNOWN = "It is not known whether this statement was kept: look before you run it again."
COMMIT_UNKNOWN = "It is not known whether the commit was kept: look before you run it again."
GONE = "What was not committed is gone. Run it again."
AGAIN = "Run it again."


class Place:
    """Django's connection to a database of the test's own, and somebody else at work there."""

    def __init__(self, url: str, connection: BaseDatabaseWrapper) -> None:
        self.url = url
        self.django = connection
        self.other = psycopg2.connect(url)
        self.other.autocommit = True
        self.run(
            "DROP TABLE IF EXISTS shelf; CREATE TABLE shelf (id int PRIMARY KEY, name text); "
            "INSERT INTO shelf VALUES (1, 'a'), (2, 'b')"
        )

    def run(self, sql: str) -> Any:
        with self.other.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def ask(self, sql: str) -> None:
        with self.django.cursor() as cursor:
            cursor.execute(sql)

    def copy(self, sql: str, file: Any) -> None:
        with self.django.wrap_database_errors, self.django.cursor() as cursor:
            cursor.cursor.copy_expert(sql, file)

    def end(self) -> None:
        self.django.ensure_connection()
        self.run(f"SELECT pg_terminate_backend({self.django.connection.info.backend_pid}, 5000)")

    @contextmanager
    def ended_while_it_works(self) -> Iterator[None]:
        self.django.ensure_connection()
        pid = self.django.connection.info.backend_pid

        def end() -> None:
            for _ in range(1000):
                if self.run(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"):
                    break
                time.sleep(0.005)
            self.run(f"SELECT pg_terminate_backend({pid})")

        thread = threading.Thread(target=end)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scratch() as made:
        yield made


@pytest.fixture
def place(url: str, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker) -> Iterator[Place]:
    with django_db_blocker.unblock():
        handler = ConnectionHandler({"default": database({"DATABASE_URL": url}, home=HOME)})
        monkeypatch.setattr(django.db, "connections", handler)
        monkeypatch.setattr(transaction, "connections", handler)
        made = Place(url, handler["default"])
        yield made
        made.other.close()
        handler.close_all()


@contextmanager
def fails(kind: type[Exception], cause: type[Exception] | type[None]) -> Iterator[Any]:
    """Check that it fails as Django and its driver have it, and in one sentence; yield what caught that."""
    with pytest.raises(StatementFailed) as caught:
        yield caught
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, OneSentence)
    assert type(caught.value.__cause__) is cause
    said = str(caught.value)
    assert said.startswith(caught.value.what)
    assert said != caught.value.what
    assert "\n" not in said
    assert said.endswith(".")


WORKS = "SELECT pg_sleep(20) FROM shelf"
WRITES = "UPDATE shelf SET name = 'c' WHERE pg_sleep(20) IS NOT NULL"


@pytest.mark.parametrize(
    ("work", "rest"),
    [
        (lambda place: place.ask(WORKS), AGAIN),
        (lambda place: place.ask(WRITES), STATEMENT_UNKNOWN),
        (lambda place: place.copy(f"COPY ({WORKS}) TO STDOUT", io.BytesIO()), AGAIN),
        (transaction.atomic()(lambda place: place.ask(WRITES)), GONE),
        (transaction.atomic()(lambda place: place.ask(WORKS)), GONE),
        (lambda place: place.ask("COMMIT; SELECT pg_sleep(20)"), COMMIT_UNKNOWN),
    ],
    ids=["read", "write", "copied out", "write in a block", "read in a block", "commit in SQL"],
)
def test_what_holds_of_the_data_is_said_when_a_session_ends(
    place: Place, work: Callable[[Place], None], rest: str
) -> None:
    with fails(OperationalError, psycopg2.OperationalError) as caught, place.ended_while_it_works():
        work(place)
    assert isinstance(caught.value, ConnectionLost)
    assert str(caught.value).startswith(LOST)
    assert str(caught.value).endswith(f". {rest}")
    assert place.run("SELECT name FROM shelf ORDER BY id") == [("a",), ("b",)]


def test_a_copy_into_a_session_that_ends_is_told_as_other_writes_are(place: Place) -> None:
    class Rows:
        def read(self, size: int) -> bytes:
            place.run(ends)
            return b"3\tc\n" * 100_000

    place.django.ensure_connection()
    pid = place.django.connection.info.backend_pid
    ends = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = {pid}"
    with fails(OperationalError, psycopg2.OperationalError) as caught:
        place.copy("COPY shelf FROM STDIN", Rows())
    assert str(caught.value).endswith(STATEMENT_UNKNOWN)


def test_a_commit_without_an_answer_is_not_known_to_be_kept(place: Place) -> None:
    with fails(OperationalError, psycopg2.OperationalError) as caught, transaction.atomic():
        place.ask("UPDATE shelf SET name = 'c'")
        place.end()
    assert str(caught.value).endswith(COMMIT_UNKNOWN)
    place.ask("SELECT 1 FROM shelf")


def test_statements_after_the_end_of_a_session_say_that_and_none_is_run_again(place: Place) -> None:
    place.ask("SELECT 1")
    place.end()
    with fails(InterfaceError, psycopg2.InterfaceError) as caught, transaction.atomic():
        with suppress(ConnectionLost):
            place.ask("UPDATE shelf SET name = 'c'")
        place.ask("UPDATE shelf SET name = 'd'")
    assert str(caught.value) == f"The session of this connection has ended. {GONE}"
    assert place.run("SELECT DISTINCT name FROM shelf ORDER BY name") == [("a",), ("b",)]


def test_a_kernel_is_told_that_the_next_cell_connects(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "is_in_kernel", True)
    place.ask("SELECT 1")
    place.end()
    with pytest.raises(ConnectionLost, match=r"Run it again: the next cell connects anew\.$"):
        place.ask("SELECT 1 FROM shelf")


@contextmanager
def held(place: Place, sql: str) -> Iterator[None]:
    """Let somebody else hold what the statement locks."""
    with psycopg2.connect(place.url) as holder, holder.cursor() as cursor:
        cursor.execute(sql)
        yield
    holder.close()


def test_a_time_limit_says_how_long_it_is(place: Place) -> None:
    place.django.settings_dict["SESSION"] = {"statement_timeout": "50ms"}
    with fails(OperationalError, errors.QueryCanceled) as caught:
        place.ask("SELECT pg_sleep(20)")
    assert caught.value.what == (
        "Postgres cancelled this, because it took longer than statement_timeout allows (50ms, "
        "WORKBENCH_STATEMENT_TIMEOUT)."
    )


def test_what_somebody_else_cancelled_is_not_taken_for_a_time_limit(place: Place) -> None:
    place.ask("SELECT 1")
    pid = place.django.connection.info.backend_pid
    timer = threading.Timer(0.2, lambda: place.run(f"SELECT pg_cancel_backend({pid})"))
    timer.start()
    with fails(OperationalError, errors.QueryCanceled) as caught:
        place.ask("SELECT pg_sleep(20)")
    timer.join()
    assert caught.value.what == (
        "This was cancelled before it was done (canceling statement due to user request)."
    )


@pytest.mark.parametrize("sql", ["SET lock_timeout = 50; LOCK shelf", "LOCK shelf NOWAIT"])
def test_a_lock_that_somebody_holds_leads_to_who_it_is(place: Place, sql: str) -> None:
    is_missed = fails(OperationalError, errors.LockNotAvailable)
    with held(place, "LOCK shelf"), is_missed as caught, transaction.atomic():
        place.ask(sql)
    assert "Another session holds a lock that this needs" in str(caught.value)
    assert "python manage.py who_blocks tells who it is" in str(caught.value)


def test_of_two_in_a_deadlock_the_one_that_was_given_up_is_told(place: Place) -> None:
    place.ask("SET deadlock_timeout = '50ms'")
    with fails(OperationalError, errors.DeadlockDetected) as caught, transaction.atomic():
        place.ask("UPDATE shelf SET name = 'mine' WHERE id = 1")
        other = psycopg2.connect(place.url)
        thread = threading.Thread(target=update_backwards, args=[other])
        thread.start()
        for _ in range(1000):
            if place.run("SELECT 1 FROM pg_locks WHERE NOT granted"):
                break
            time.sleep(0.005)
        place.ask("UPDATE shelf SET name = 'mine' WHERE id = 2")
    thread.join()
    other.close()
    assert str(caught.value).endswith("Run it again, with all that belongs to the transaction.")


def update_backwards(session: Any) -> None:
    with session, session.cursor() as cursor:
        # It leaves it to the other one to notice.
        cursor.execute("SET deadlock_timeout = '1h'; UPDATE shelf SET name = 'other' WHERE id = 2")
        cursor.execute("UPDATE shelf SET name = 'other' WHERE id = 1")


def test_what_others_changed_meanwhile_is_told(place: Place) -> None:
    with fails(OperationalError, errors.SerializationFailure) as caught, transaction.atomic():
        place.ask("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        place.ask("SELECT * FROM shelf")
        place.run("UPDATE shelf SET name = 'other'")
        place.ask("UPDATE shelf SET name = 'mine'")
    assert str(caught.value).startswith(
        "Another session got in between, so Postgres gave this up (could not "
    )


def test_a_missing_right_names_the_role(place: Place) -> None:
    place.run("DROP ROLE IF EXISTS nosy_failures; CREATE ROLE nosy_failures")
    place.ask("SET ROLE nosy_failures")
    with fails(ProgrammingError, errors.InsufficientPrivilege) as caught:
        place.ask("DELETE FROM shelf")
    assert "may not do this (permission denied for table shelf). Ask the owner for a GRANT" in str(
        caught.value
    )
    place.django.close()
    place.run("DROP ROLE nosy_failures")


READ_ONLY = "cannot execute DELETE in a read-only transaction"


def test_why_nothing_can_be_written_is_said(place: Place) -> None:
    with fails(InternalError, errors.ReadOnlySqlTransaction) as caught, transaction.atomic():
        place.ask("SET TRANSACTION READ ONLY")
        place.ask("DELETE FROM shelf")
    assert str(caught.value) == f"This transaction only reads ({READ_ONLY}). Write in another one."
    place.ask("SET default_transaction_read_only = on")
    with fails(InternalError, errors.ReadOnlySqlTransaction) as caught:
        place.ask("DELETE FROM shelf")
    assert caught.value.what == f"Sessions of this role and database only read ({READ_ONLY})."
    place.django.settings_dict["READ_ONLY"] = True
    with fails(InternalError, errors.ReadOnlySqlTransaction) as caught:
        place.ask("DELETE FROM shelf")
    assert caught.value.what == (
        f"This connection only reads, because WORKBENCH_READ_ONLY is set ({READ_ONLY})."
    )
    assert place.run("SELECT count(*) FROM shelf") == [(2,)]


def test_limits_of_the_server_are_told_with_a_way_around_them(place: Place) -> None:
    place.ask("SET temp_file_limit = '64kB'; SET work_mem = '64kB'")
    with fails(OperationalError, errors.ConfigurationLimitExceeded) as caught:
        place.ask("SELECT n FROM generate_series(1, 100000) AS n ORDER BY -n")
    assert "A limit of the server is too low for this (temporary file size exceeds" in str(caught.value)
    place.ask("RESET temp_file_limit; RESET work_mem")
    with fails(OperationalError, errors.OutOfMemory) as caught:
        place.ask("SELECT count(pg_advisory_xact_lock(n)) FROM generate_series(1, 1000000) AS n")
    assert str(caught.value).startswith(
        "The server has no room for as many locks as this takes. Do less in one"
    )


def test_a_failed_transaction_takes_nothing_more_and_its_end_is_no_success(place: Place) -> None:
    with fails(InternalError, errors.InFailedSqlTransaction), transaction.atomic():
        with suppress(DataError):
            place.ask("SELECT 1 / 0")
        place.ask("SELECT 1")
    # Postgres' own answer to this COMMIT is that all is well, and rolled back.
    with fails(TransactionManagementError, NoneType) as caught, transaction.atomic():
        place.ask("DELETE FROM shelf")
        with suppress(DataError):
            place.ask("SELECT 1 / 0")
    assert caught.value.what == "A statement of this transaction failed, so nothing of it is kept."
    with fails(TransactionManagementError, NoneType) as caught, transaction.atomic():
        with suppress(DataError), transaction.atomic(savepoint=False):
            place.ask("SELECT 1 / 0")
        place.ask("SELECT 1")
    assert caught.value.what == "A statement in this atomic block failed, so it takes no other one."
    with transaction.atomic():
        with suppress(DataError), transaction.atomic():
            place.ask("SELECT 1 / 0")
        place.ask("UPDATE shelf SET name = 'kept'")
    assert place.run("SELECT DISTINCT name FROM shelf") == [("kept",)]


def test_where_a_transaction_is_open_none_is_begun_and_what_ends_it_is_said(place: Place) -> None:
    place.ask("BEGIN; UPDATE shelf SET name = 'mine'")
    with fails(ProgrammingError, NoneType) as caught, transaction.atomic():
        place.ask("SELECT 1")
    assert "connection.cursor().execute('COMMIT') keeps what it did" in str(caught.value)
    place.ask("ROLLBACK")
    place.django.set_autocommit(False)
    place.ask("UPDATE shelf SET name = 'mine'")
    with fails(ProgrammingError, NoneType) as caught:
        place.django.set_autocommit(True)
    assert "transaction.commit() keeps what it did, transaction.rollback() takes it back" in str(caught.value)
    place.django.rollback()
    place.django.set_autocommit(True)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1 / 0", DataError),
        ("INSERT INTO shelf VALUES (1, '')", IntegrityError),
        ("SELEC 1", ProgrammingError),
        ("DELETE FROM nowhere", ProgrammingError),
    ],
)
def test_what_a_statement_itself_does_wrong_stays_django_s_error(
    place: Place, sql: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        place.ask(sql)
    assert type(caught.value) is kind


def test_a_command_ends_with_the_sentence_and_no_traceback(manage: Manage, scratch_url: str) -> None:
    manage("migrate", DATABASE_URL=scratch_url)
    done = manage("populate", DATABASE_URL=scratch_url, PGOPTIONS="-c default_transaction_read_only=on")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Sessions of this role and database only read (cannot execute INSERT in a read-only transaction). "
        "Connect as a role that may write, or SET default_transaction_read_only = off if that is yours.\n"
    )


@pytest.mark.as_root
def test_a_full_disk_is_told_and_nothing_is_kept(place: Place) -> None:
    folder = Path(tempfile.mkdtemp(prefix="full-"))
    folder.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        (home := folder / "space").mkdir()
        data = embedded.Cluster(HOME).data.stat()
        os.chown(home, data.st_uid, data.st_gid)
        place.run(f"CREATE TABLESPACE full_failures LOCATION '{home}'")
        place.run("CREATE TABLE heap (t text) TABLESPACE full_failures; INSERT INTO heap VALUES ('first')")
        with fails(OperationalError, errors.DiskFull) as caught:
            place.ask("INSERT INTO heap SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        assert str(caught.value) == (
            "The disk of the server is full, so this was not done. Free space there, then run it again."
        )
        assert place.run("SELECT t FROM heap") == [("first",)]
        place.run("DROP TABLE heap")
        place.run("DROP TABLESPACE full_failures")
    finally:
        subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder)
