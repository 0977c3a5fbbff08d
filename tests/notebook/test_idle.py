"""A kernel that is idle lets go of its session, and no cell notices, in real kernels."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import scratch
from tests.kernel import Kernel
from tests.throwaway import HOME
from workbench.connection import embedded

SOON = 0.05
SOONER = f"from workbench.notebook import idle\nidle.NEAR_SECONDS = {SOON}\n"
LONGER = 3 * SOON
AT_0001 = "Author and Book are now as of 0001_initial: Author has no country."
ASK = "cursor = connection.cursor(); cursor.execute({!r}); print(*cursor.fetchall()); del cursor"


class Place:
    """A kernel, and who is connected to its database."""

    def __init__(self, url: str, kernel: Kernel) -> None:
        self.run = kernel.run
        self.url = url
        self._database = urlsplit(url).path[1:]

    def sessions(self) -> int:
        with closing(embedded.Cluster(HOME).connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [self._database])
            return int(cursor.fetchone()[0])

    def is_let_go(self) -> bool:
        deadline = time.monotonic() + 5
        while self.sessions():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def begin(self) -> None:
        """Begin with a new session, as the next cell finds it."""
        self.run("connection.close()\nAuthor.objects.count()")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with scratch() as url, Kernel({"DATABASE_URL": url, "WORKBENCH_YES": "1"}) as kernel:
        made = kernel.run(
            f"{SOONER}%manage migrate -v 0\n"
            "Author.objects.bulk_create(Author(name=f'{number}') for number in range(5))\nNone"
        )
        assert (made.error, made.stdout, made.stderr) == ([], "", "")
        yield Place(url, kernel)


# What a cell leaves in its session, and a later one that finds it there.
LEFT = {
    "a transaction": (
        "block = transaction.atomic(); block.__enter__(); Author.objects.all().delete()",
        "print(Author.objects.count()); transaction.set_rollback(True); block.__exit__(None, None, None)",
        "0",
    ),
    "a transaction in SQL": (
        "connection.cursor().execute('BEGIN; DELETE FROM catalog_author')",
        "print(Author.objects.count()); connection.cursor().execute('ROLLBACK')",
        "0",
    ),
    "autocommit off": (
        "connection.set_autocommit(False)",
        "print(connection.get_autocommit()); connection.set_autocommit(True)",
        "False",
    ),
    "a cursor": (
        "cursor = connection.cursor()",
        "cursor.execute('SELECT 1'); print(*cursor.fetchone()); del cursor",
        "1",
    ),
    "rows not fetched": (
        "cursor = connection.cursor(); cursor.execute('SELECT generate_series(1, 3)'); cursor.fetchone()",
        "print(*cursor.fetchall()); del cursor",
        "(2,) (3,)",
    ),
    "psycopg2's cursor": (
        "def made():\n    return connection.cursor().cursor\ncursor = made()",
        "cursor.execute('SELECT 1'); print(*cursor.fetchone()); del cursor",
        "1",
    ),
    "psycopg2's connection": (
        "raw = getattr(connection, 'connection')",
        "print(raw.closed); del raw",
        "0",
    ),
    "an iterator": (
        "rows = Author.objects.order_by('id').iterator(chunk_size=1); next(rows)",
        "print(len([*rows])); del rows",
        "4",
    ),
    "chunks": (
        "chunks = frame.chunks(Author.objects.order_by('id'), rows=2); next(chunks)",
        "print(*map(len, chunks)); del chunks",
        "2 1",
    ),
    "a temporary table": (
        "connection.cursor().execute('CREATE TEMP TABLE t AS SELECT 1 AS x')",
        ASK.format("SELECT x FROM t"),
        "(1,)",
    ),
    "a temporary function": (
        "connection.cursor().execute('CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE SQL RETURN 1')",
        ASK.format("SELECT pg_temp.f()"),
        "(1,)",
    ),
    "a setting": (
        "connection.cursor().execute('SET work_mem = 4321')",
        ASK.format("SHOW work_mem"),
        "('4321kB',)",
    ),
    "a setting of the person's": (
        "connection.cursor().execute('SELECT 1; SET app.tenant = 7')",
        ASK.format("SHOW app.tenant"),
        "('7',)",
    ),
    "the same by a function": (
        "connection.cursor().execute('SELECT set_config(%s, %s, false)', ['app.tenant', '7'])",
        ASK.format("SHOW app.tenant"),
        "('7',)",
    ),
    "a role": (
        "connection.cursor().execute('SET ROLE pg_monitor')",
        "cursor = connection.cursor(); cursor.execute('SELECT current_user'); print(*cursor.fetchone()); "
        "cursor.execute('RESET ROLE'); del cursor",
        "pg_monitor",
    ),
    "a time zone": (
        "connection.cursor().execute(\"SET TIME ZONE 'Asia/Tokyo'\")",
        ASK.format("SHOW TimeZone"),
        "('Asia/Tokyo',)",
    ),
    "an advisory lock": (
        "connection.cursor().execute('SELECT pg_advisory_lock(7)')",
        ASK.format("SELECT pg_advisory_unlock(7)"),
        "(True,)",
    ),
    "a prepared statement": (
        "connection.cursor().execute('PREPARE p AS SELECT 1')",
        ASK.format("EXECUTE p"),
        "(1,)",
    ),
    "a cursor of the server's": (
        "connection.cursor().execute('DECLARE c CURSOR WITH HOLD FOR SELECT 1')",
        ASK.format("FETCH c"),
        "(1,)",
    ),
    "what it listens to": (
        "connection.cursor().execute('LISTEN news')",
        ASK.format("SELECT pg_listening_channels()"),
        "('news',)",
    ),
    "a number of a sequence": (
        "connection.cursor().execute(\"SELECT nextval('catalog_author_id_seq')\")",
        ASK.format("SELECT currval('catalog_author_id_seq') > 5"),
        "(True,)",
    ),
    "a connection that threads share": (
        "connection.inc_thread_sharing()",
        "print(connection.allow_thread_sharing); connection.dec_thread_sharing()",
        "True",
    ),
}


def test_a_session_that_holds_anything_of_the_person_s_stays(place: Place) -> None:
    for what, (leaves, finds, found) in LEFT.items():
        place.begin()
        left = place.run(leaves)
        assert left.error == [], (what, left.error)
        time.sleep(LONGER)
        assert place.sessions() == 1, what
        outcome = place.run(finds)
        assert (outcome.error, outcome.stdout.strip()) == ([], found), what
    place.begin()
    assert place.is_let_go()


# What was there and is over, or was the tools' own.
OVER = (
    "Author.objects.count()",
    "with connection.cursor() as cursor:\n    cursor.execute('SELECT 1')",
    "[*Author.objects.iterator()]; frame(Author); [*frame.chunks(Author, rows=2)]; snapshot(); where()",
    "with transaction.atomic(): Author.objects.create(name='x')\nload(Author, frame(Author), key='id')",
    "connection.cursor().execute('CREATE TEMP TABLE t (); DROP TABLE t; SET work_mem = 99; RESET work_mem')",
    "connection.cursor().execute('SELECT pg_advisory_lock(7), pg_advisory_unlock(7)')",
    "Author.objects.filter(nam='x')",
    "frame('SELECT * FROM catalog_boook')",
    # An error keeps what it was about until the next one.
    "connection.cursor().execute('SELEC')",
    "with branch('scratch'): Author.objects.all().delete()",
    "%manage showmigrations catalog",
    "rehearse()",
)


def test_any_other_is_let_go_and_the_next_cell_tells_no_difference(place: Place) -> None:
    for cell in OVER:
        place.begin()
        place.run(cell)
        if "SELEC'" in cell:
            place.run("1 / 0")
        assert place.is_let_go(), cell
        after = place.run("len(connection.queries), Author.objects.exists(), where().branch")
        assert (after.error, after.stdout, after.stderr, after.result) == ([], "", "", "(0, True, '')"), cell


def test_names_and_the_branch_stay_and_nothing_is_said_again(place: Place) -> None:
    place.run("%branch create try-out --end\n%branch use try-out")
    assert AT_0001 in place.run("%manage migrate catalog 0001 -v 0").stdout
    time.sleep(LONGER)
    after = place.run("Author.objects.exists(), where().branch")
    assert (after.error, after.stdout, after.stderr) == ([], "", "")
    assert after.result == "On branch try-out(True, 'try-out')"
    assert place.run("Author").result == "On branch try-out<class 'catalog.Author' as of 0001_initial>"
    place.run("%branch use main\n%branch drop try-out")


def test_another_notebook_s_branch_needs_no_word_about_it(place: Place) -> None:
    place.begin()
    assert place.is_let_go()
    with Kernel({"DATABASE_URL": place.url}) as other:
        made = other.run("with branch('scratch'):\n    Author.objects.all().delete()\n    print('done')")
    assert (made.error, made.stdout) == ([], "done\n")
    assert place.run("Author.objects.exists()").result == "True"


def test_it_lasts_as_long_as_a_cell_that_waits(place: Place) -> None:
    place.run("Author.objects.count()")
    outcome = place.run(
        "import asyncio\n"
        "def pid():\n"
        "    with connection.cursor() as cursor:\n"
        "        cursor.execute('SELECT pg_backend_pid()')\n"
        "        return cursor.fetchone()\n"
        f"before = pid(); await asyncio.sleep({LONGER}); before == pid()"
    )
    assert (outcome.error, outcome.result) == ([], "True")


def test_who_works_with_psycopg2_s_connection_finds_it_from_then_on(place: Place) -> None:
    place.begin()
    assert place.is_let_go()
    work = "connection.connection.cursor().execute('SELECT 1')"
    for _ in range(2):
        assert place.run(work).error == []
        time.sleep(LONGER)
    assert place.sessions() == 1


def test_the_embedded_server_outlasts_its_last_session_and_one_that_was_stopped_comes_back() -> None:
    home = Path(tempfile.mkdtemp(prefix="idle-"))
    home.chmod(0o755)
    with Kernel({"WORKBENCH_HOME": str(home), "DATABASE_URL": None}) as kernel:
        assert kernel.run(f"{SOONER}where().is_embedded").result == "True"
        deadline = time.monotonic() + 5
        while embedded.status(home).sessions and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        first = embedded.status(home)
        assert (first.running, first.sessions) == (True, 0)
        assert kernel.run("where().is_embedded").result == "True"
        assert embedded.status(home).pid == first.pid
        time.sleep(LONGER)
        embedded.stop(home)
        again = kernel.run("where().is_embedded")
        assert (again.error, again.stderr, again.result) == ([], "", "True")
    embedded.stop(home)
    shutil.rmtree(home, ignore_errors=True)
