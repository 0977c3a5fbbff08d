"""Lines before real locks, of sessions that a server of these tests' own holds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.db import DatabaseError, connections, transaction
from pytest_django import DjangoDbBlocker

from workbench.connection import Queue, Session, database, embedded, interrupt, who_blocks
from workbench.connection.queue import blockers_of
from workbench.connection.sessions import ours

HERE = "queue"
SECRET = "§§§§§§"
CONFIGURATION = """
max_prepared_transactions = 5
autovacuum_naptime = 1
deadlock_timeout = 1h
fsync = off
"""


class Server:
    """An embedded server and the sessions on it."""

    def __init__(self, home: Path) -> None:
        self.cluster = embedded.Cluster(home)
        self.administrator = self.connect("administrator")
        self.sessions: dict[int, Any] = {}
        self.threads: list[threading.Thread] = []

    def connect(self, application: str, dbname: str = embedded.DATABASE) -> Any:
        session = psycopg2.connect(
            dbname=dbname, user=embedded.ROLE, application_name=application, **self.cluster.address()
        )
        session.autocommit = True
        return session

    def run(self, statements: str) -> Any:
        with self.administrator.cursor() as cursor:
            cursor.execute(statements)
            return cursor.fetchall() if cursor.description else None

    def holds(self, statements: str, application: str = "psql", dbname: str = embedded.DATABASE) -> int:
        """Run the statements in a session that stays as they leave it, and return its process id."""
        session = self.connect(application, dbname=dbname)
        pid: int = session.info.backend_pid
        self.sessions[pid] = session
        with session.cursor() as cursor:
            for statement in statements.split("; "):
                cursor.execute(statement)
        return pid

    def waits(
        self, statement: str, application: str = "web", dbname: str = embedded.DATABASE, by: int | None = None
    ) -> int:
        """Run a statement that has to wait, and return its session's process id once it does."""
        pid = by or self.holds("SELECT", application, dbname)
        self.threads.append(threading.Thread(target=_execute, args=[self.sessions[pid], statement]))
        self.threads[-1].start()
        self.until(f"SELECT 1 FROM pg_locks WHERE pid = {pid} AND NOT granted AND waitstart IS NOT NULL")
        return pid

    def until(self, query: str) -> Any:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if rows := self.run(query):
                return rows[0][0]
            time.sleep(0.005)
        raise TimeoutError(query)

    def clear(self) -> None:
        # The last first, or somebody's turn may come.
        for pid in reversed(self.sessions):
            self.run(f"SELECT pg_terminate_backend({pid})")
        for thread in self.threads:
            thread.join()
        for session in self.sessions.values():
            session.close()
        self.sessions, self.threads = {}, []


def _execute(session: Any, statement: str) -> None:
    with suppress(psycopg2.Error):
        session.cursor().execute(statement)


@pytest.fixture(scope="module")
def own_server(django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="queue-"))
    home.chmod(0o755)
    embedded.start(home)
    embedded.stop(home)
    with (embedded.Cluster(home).data / "postgresql.auto.conf").open("a") as file:
        file.write(CONFIGURATION)
    embedded.start(home)
    server = Server(home)
    server.run("CREATE DATABASE elsewhere")
    connections.databases[HERE] = {**connections.databases["default"], **database({}, home=home)}
    with django_db_blocker.unblock():
        yield server
        connections[HERE].close()
    del connections[HERE]
    del connections.databases[HERE]
    server.administrator.close()
    embedded.stop(home)
    shutil.rmtree(home)


@pytest.fixture
def server(own_server: Server) -> Iterator[Server]:
    """The server, with tables ``author`` and ``book`` of ten rows each."""
    for table in ("author", "book"):
        own_server.run(f"CREATE TABLE {table} (id int PRIMARY KEY, name text)")
        own_server.run(f"INSERT INTO {table} SELECT number, 'x' FROM generate_series(1, 10) number")
    yield own_server
    own_server.clear()
    own_server.run("DROP TABLE IF EXISTS author, book")


def told(queue: Queue) -> list[tuple[int | str, str, set[int | str]]]:
    """Return who waits, for what, and behind whom."""
    return [(wait.session.key, wait.wanted, pids(wait.behind)) for wait in queue.waits]


def timeless(queue: Queue) -> list[str]:
    """Return the lines that a person reads, however long it took to get there, without their columns."""
    text = re.sub(r"< 1 s|\d+ (s|min)\b", "a while", repr(queue))
    return [" ".join(line.split()) for line in text.splitlines()]


def pids(sessions: Any) -> set[int | str]:
    return {session.key for session in sessions}


def test_who_waits_for_nobody_and_holds_up_nobody_is_not_shown(server: Server) -> None:
    server.holds("BEGIN; ALTER TABLE author ADD country text")
    queue = who_blocks(HERE)
    assert not queue
    assert repr(queue) == "Nobody waits."
    assert blockers_of(server.administrator.info.backend_pid, connections[HERE]) == []


def test_an_idle_reader_is_the_root_of_what_waits_behind_a_waiting_alter(server: Server) -> None:
    reader = server.holds("BEGIN; SELECT name, 'in a transaction' FROM author; SELECT 1")
    alter = server.waits("ALTER TABLE author ADD country text", "workbench: migrate")
    select = server.waits("SELECT name\n  FROM author")
    later = server.waits("DROP TABLE author")
    last = server.waits("SELECT count(*) FROM author")

    queue = who_blocks(HERE)
    assert told(queue) == [
        (alter, "ACCESS EXCLUSIVE on author", {reader}),
        (select, "ACCESS SHARE on author", {alter}),
        (later, "ACCESS EXCLUSIVE on author", {reader, alter, select}),
        (last, "ACCESS SHARE on author", {alter, later}),
    ]
    (root,) = queue.roots
    assert (root.pid, root.state, root.query) == (reader, "idle in transaction", "SELECT 1")
    assert queue.waits[0].seconds == max(wait.seconds for wait in queue.waits)

    lines = timeless(queue)
    assert lines[0] == (
        f"! process {reader} (psql, workbench, idle in transaction for a while) holds up 4 sessions. "
        f"Commit or roll back there, or end it: SELECT pg_terminate_backend({reader})."
    )
    assert lines[3:6] == [
        f"! {reader} psql, workbench idle in transaction for a while SELECT 1",
        f"{alter} migrate, workbench waits a while for ACCESS EXCLUSIVE on author {reader} "
        "ALTER TABLE author ADD country text",
        f"{select} web, workbench waits a while for ACCESS SHARE on author {alter} SELECT name FROM author",
    ]
    assert [str(each).partition(" (")[0] for each in blockers_of(select, connections[HERE])] == ["migrate"]


def test_a_table_that_somebody_has_to_himself_is_named_without_waiting_for_it(server: Server) -> None:
    holder = server.holds("BEGIN; ALTER TABLE author RENAME TO writer")
    waiting = server.waits("SELECT FROM author")
    assert told(who_blocks(HERE)) == [(waiting, "ACCESS SHARE on author", {holder})]


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals on Windows")
def test_where_even_this_has_to_wait_it_can_be_interrupted(server: Server) -> None:
    server.holds("BEGIN; LOCK TABLE pg_statistic")
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        who_blocks(HERE)
    assert time.monotonic() - began < 20
    timer.join()


def test_a_long_line_is_told_in_its_order(server: Server) -> None:
    holder = server.holds("BEGIN; UPDATE author SET name = 'y' WHERE id = 1")
    line = [server.waits("UPDATE author SET name = 'z' WHERE id = 1") for _ in range(50)]
    queue = who_blocks(HERE)
    assert [wait.session.pid for wait in queue.waits] == line
    assert {wait.wanted for wait in queue.waits} == {"a row of author"}
    assert pids(queue.roots) == {holder}
    assert pids(queue.waits[-1].behind) == set(line[:-1])
    assert max(map(len, repr(queue).splitlines())) < 200


def test_several_roots_are_each_told_and_separate_lines_stay_apart(server: Server) -> None:
    first, second = (server.holds("BEGIN; SELECT FROM author") for _ in range(2))
    other = server.holds("BEGIN; SELECT FROM book")
    alter = server.waits("ALTER TABLE author ADD x int")
    lock = server.waits("BEGIN; LOCK TABLE book")
    readers = [server.waits(f"SELECT FROM {table}") for table in ("author", "book", "author")]

    queue = who_blocks(HERE)
    assert [wait.session.pid for wait in queue.waits] == [alter, readers[0], readers[2], lock, readers[1]]
    assert pids(queue.waits[0].behind) == {first, second}
    assert pids(queue.waits[1].roots) == {first, second}
    assert pids(queue.waits[4].roots) == {other}
    assert repr(queue).count("holds up 3 sessions.") == 2
    assert f"SELECT pg_terminate_backend({other})" in repr(queue)


def test_a_row_s_table_is_named_where_it_can_be_known(server: Server) -> None:
    holder = server.holds("BEGIN; INSERT INTO author VALUES (11); UPDATE book SET name = 'y' WHERE id = 1")
    inserts = server.waits("INSERT INTO author VALUES (11)")
    updates = server.waits("UPDATE book SET name = 'z' WHERE id = 1")
    both = server.waits("WITH _ AS (DELETE FROM book WHERE id = 2) INSERT INTO author VALUES (11)")
    # It waits until every transaction that could have written to the table is over.
    builds = server.waits("CREATE INDEX CONCURRENTLY ON author (name)")
    queue = {wait.session.pid: wait for wait in who_blocks(HERE).waits}
    assert queue[inserts].wanted == "a row of author"
    assert queue[updates].wanted == "a row of book"
    assert queue[both].wanted == queue[builds].wanted == "the end of a transaction"
    assert pids(queue[updates].behind) == {holder}
    assert holder in pids(queue[builds].roots)


def test_advisory_locks_are_called_by_their_keys(server: Server) -> None:
    holder = server.holds("SELECT pg_advisory_lock(-5), pg_advisory_lock(-1, 2)")
    one = server.waits("SELECT pg_advisory_lock_shared(-5)")
    two = server.waits("SELECT pg_advisory_lock(-1, 2)")
    queue = who_blocks(HERE)
    assert told(queue) == [
        (one, "SHARE on advisory lock -5", {holder}),
        (two, "EXCLUSIVE on advisory lock (-1, 2)", {holder}),
    ]
    assert f"End it: SELECT pg_terminate_backend({holder})." in repr(queue)


def test_those_who_wait_for_each_other_are_said_to(server: Server) -> None:
    first, second = (server.holds(f"SELECT pg_advisory_lock({key})") for key in (1, 2))
    server.waits("SELECT pg_advisory_lock(2)", by=first)
    server.waits("SELECT pg_advisory_lock(1)", by=second)
    behind = server.waits("SELECT pg_advisory_lock(1)")
    queue = who_blocks(HERE)
    assert queue.roots == ()
    assert pids(wait.session for wait in queue.waits) == {first, second, behind}
    assert "wait in a circle, or behind one: Postgres breaks it after deadlock_timeout." in repr(queue)


def test_a_prepared_transaction_is_named_with_what_ends_it_and_no_other_one_is(server: Server) -> None:
    # The second has the table too, but not in a way that is in anybody's way.
    server.holds("BEGIN; UPDATE author SET name = 'y' WHERE id = 1; PREPARE TRANSACTION 'the agent''s'")
    server.holds("BEGIN; SELECT FROM author; PREPARE TRANSACTION 'innocent'")
    row = server.waits("UPDATE author SET name = 'z' WHERE id = 1")
    table = server.waits("BEGIN; LOCK TABLE author IN SHARE MODE")
    queue = who_blocks(HERE)
    server.run("ROLLBACK PREPARED 'the agent''s'")
    server.run("ROLLBACK PREPARED 'innocent'")
    assert told(queue) == [
        (row, "a row of author", {"the agent's"}),
        (table, "SHARE on author", {row, "the agent's"}),
    ]
    assert timeless(queue)[0] == (
        "! prepared transaction the agent's (workbench, prepared for a while) holds up 2 sessions. "
        "COMMIT PREPARED 'the agent''s' or ROLLBACK PREPARED 'the agent''s' in database workbench ends it."
    )


def test_autovacuum_lets_go_by_itself_unless_it_has_to_go_on(server: Server) -> None:
    slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
    rows = "SELECT number, repeat('x', 500) FROM generate_series(1, 5000) number"
    tables = {
        "worn": ("autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0", "DELETE FROM worn"),
        # Each turn of the loop takes a transaction id.
        "old": (
            "autovacuum_freeze_max_age = 100000, autovacuum_vacuum_insert_threshold = -1",
            "CREATE TEMP TABLE used (x int); DO $$ BEGIN FOR _ IN 1..100001 LOOP "
            "BEGIN INSERT INTO used VALUES (1); EXCEPTION WHEN OTHERS THEN END; END LOOP; END $$",
        ),
    }
    for table, (options, wear) in tables.items():
        server.run(f"CREATE TABLE {table} (id int, name text) WITH ({options}, {slow})")
        server.run(f"INSERT INTO {table} {rows}")
        server.run(wear)
        server.run("SELECT pg_stat_force_next_flush()")
    said = {}
    for table in tables:
        server.until(
            f"SELECT pid FROM pg_locks WHERE relation = '{table}'::regclass AND granted "
            f"AND mode = 'ShareUpdateExclusiveLock'"
        )
        server.waits(f"ALTER TABLE {table} ADD x int")
        said[table] = [root.remedy for root in who_blocks(HERE).roots]
        server.clear()
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'autovacuum%'")
        server.run(f"DROP TABLE {table}")
    assert said == {
        "worn": ["It is autovacuum, which lets go by itself."],
        "old": ["Let this autovacuum finish: it keeps transaction ids from running out."],
    }


def test_other_databases_are_left_out_but_for_who_holds_up_this_one(server: Server) -> None:
    server.holds("SELECT pg_advisory_lock(7)", dbname="elsewhere")
    server.waits("SELECT pg_advisory_lock(7)", dbname="elsewhere")
    assert not who_blocks(HERE)
    holder = server.holds("BEGIN; COMMENT ON ROLE workbench IS 'a'", dbname="elsewhere")
    waiting = server.waits("COMMENT ON ROLE workbench IS 'b'")
    queue = who_blocks(HERE)
    assert told(queue) == [(waiting, "SHARE UPDATE EXCLUSIVE on role workbench", {holder})]
    assert "psql, workbench, database elsewhere" in repr(queue)


def test_a_role_that_may_not_see_what_others_run_is_told_what_would_let_it(server: Server) -> None:
    server.run('CREATE ROLE "a ""guest""" LOGIN')
    connections.databases["guest"] = {**connections.databases[HERE], "USER": 'a "guest"'}
    reader = server.holds("BEGIN; SELECT FROM author")
    alter = server.waits("ALTER TABLE author ADD x int")
    queue = who_blocks("guest")
    grant = 'GRANT pg_read_all_stats TO "a ""guest"""'
    server.run(grant)
    seeing = who_blocks("guest")
    del connections.databases["guest"], connections["guest"]
    server.run('DROP ROLE "a ""guest"""')
    assert told(queue) == told(seeing) == [(alter, "ACCESS EXCLUSIVE on author", {reader})]
    assert f"process {reader} (psql, workbench) holds up 1 session. End it:" in repr(queue)
    assert f'What others run is hidden from "a ""guest""": {grant} shows it.' in repr(queue)
    assert "hidden" not in repr(seeing)


def test_it_sees_what_is_so_now_from_within_a_transaction_that_holds_up_others(server: Server) -> None:
    with transaction.atomic(HERE), connections[HERE].cursor() as cursor:
        cursor.execute("LOCK TABLE author")
        # From here on this transaction would see the same sessions again and again.
        cursor.execute("SELECT count(*) FROM pg_stat_activity")
        waiting = server.waits("SELECT FROM author")
        queue = who_blocks(HERE)
        own = connections[HERE].connection.info.backend_pid
    assert told(queue) == [(waiting, "ACCESS SHARE on author", {own})]
    assert "It is this program's own: commit, roll back or close the connection here." in repr(queue)


def test_it_works_in_a_transaction_that_failed(server: Server) -> None:
    holder = server.holds("BEGIN; LOCK TABLE author")
    waiting = server.waits("SELECT FROM author")
    with transaction.atomic(HERE):
        with pytest.raises(DatabaseError):
            connections[HERE].cursor().execute("SELECT nothing")
        assert told(who_blocks(HERE)) == [(waiting, "ACCESS SHARE on author", {holder})]
        transaction.set_rollback(True, HERE)


def test_a_password_in_a_query_reaches_nothing_that_is_shown(server: Server) -> None:
    server.run("CREATE ROLE alice")
    server.holds(f"BEGIN; ALTER ROLE alice PASSWORD '{SECRET}'")
    server.waits(f"ALTER ROLE alice PASSWORD '{SECRET}'")
    queue = who_blocks(HERE)
    server.clear()
    server.run("DROP ROLE alice")
    assert "ALTER ROLE alice PASSWORD ***" in repr(queue)
    assert "§" not in repr(queue) + queue._repr_html_() + repr(queue.waits)


def test_sessions_are_found_while_other_threads_connect(server: Server) -> None:
    is_over = threading.Event()
    made: list[Any] = []

    def connect() -> None:
        while not is_over.is_set():
            made.append(connections[HERE].copy())
            interrupt.watched.add(made[-1])

    thread = threading.Thread(target=connect)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            ours()
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert made


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "< 1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (190, "3 min"),
        (2e5, "2 d"),
    ],
)
def test_a_session_is_one_phrase(seconds: float, said: str) -> None:
    session = Session(123, "alice", "psql", state="idle in transaction", seconds=seconds)
    assert str(session) == f"process 123 (psql, alice, idle in transaction for {said})"
    assert str(Session(5, "bob", client="10.0.0.7")) == "process 5 (bob at 10.0.0.7)"


def test_what_others_call_themselves_is_spelled_out_where_a_terminal_would_obey_it(server: Server) -> None:
    holder = server.holds("BEGIN; SET application_name = E'workbench: \\x1b[2J'; LOCK author")
    server.waits("SELECT 1 FROM author -- \x1b]0;title\x07")
    queue = who_blocks(HERE)
    assert holder in {root.pid for root in queue.roots}
    shown = [repr(queue), str(queue.roots[0]), queue._repr_html_()]
    assert not any("\x1b" in text or "\x07" in text for text in shown)
    assert "\\x1b[2J" in shown[0]
