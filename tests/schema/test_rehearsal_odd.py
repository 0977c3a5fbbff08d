"""What is rare is rehearsed as well: tables, migrations and moments that most projects never see."""

from __future__ import annotations

import _thread
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.core.management import call_command
from django.db import DataError, connection, connections, migrations, transaction
from django.db.migrations import Migration
from django.db.migrations.state import ProjectState

from tests.schema.places import app, migrate, run, write_migration
from tests.schema.test_rehearsal import (
    ID,
    MODELS,
    ROWS,
    A,
    B,
    library,
    rehearsed,
    second,
    untouched,
)
from workbench import evolved
from workbench.branches import branches
from workbench.connection import ConnectionFailed
from workbench.schema import evolve
from workbench.schema.confine import confined
from workbench.schema.errors import SchemaError
from workbench.schema.evolve import keep
from workbench.schema.observe import Observer
from workbench.schema.rehearsal import rehearse
from workbench.schema.report import Rehearsal, Step

pytestmark = pytest.mark.django_db(transaction=True)

NOOP = "migrations.RunSQL.noop"
SLOW = f'migrations.RunSQL("SELECT pg_sleep(0.15)", {NOOP})'


def python(*lines: str, imports: str = "") -> str:
    """Return a function for RunPython."""
    body = "\n".join(f"    {line}" for line in (*imports.split(";"), *lines) if line)
    return f"def f(apps, editor):\n    Author = apps.get_model('library', 'Author')\n{body}\n"


def ran(folder: Path, *lines: str, head: str = "", imports: str = "", **_: Any) -> Step:
    """Rehearse a function, and return what it did."""
    seen = rehearsed(
        folder,
        "migrations.RunPython(f, migrations.RunPython.noop)",
        head=head,
        python=python(*lines, imports=imports),
    )
    assert seen.failure is None, seen.failure
    (step,) = seen
    return step


def locks(step: Step) -> dict[str, str]:
    return {lock.table: lock.mode for lock in step.forwards.locks}


def failed(folder: Path, operations: str, **options: str) -> str:
    return str(rehearsed(folder, operations, **options).failure)


def sessions_on_copies() -> int:
    ((count,),) = run(
        "SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, current_database() || '@')"
    )
    return int(count)


def stranger() -> Any:
    """Return a session that knows nothing of Django's, in a database beside."""
    params = connection.get_connection_params()
    params.pop("cursor_factory", None)
    session = psycopg2.connect(**params | {"dbname": "postgres"})
    session.autocommit = True
    return session


@contextmanager
def nothing_left() -> Iterator[None]:
    """See that a thread, a session, a copy, a wrapper or a patch does not outlive what runs inside."""
    wrapper, wrappers = connections["default"], list(connections["default"].execute_wrappers)
    threads, start = {*threading.enumerate()}, threading.Thread.start
    yield
    assert connections["default"] is wrapper
    assert wrapper.execute_wrappers == wrappers
    assert threading.Thread.start is start
    # The one that listens for interrupts stays, once it is there.
    assert {thread.name for thread in {*threading.enumerate()} - threads} <= {"workbench-interrupt"}
    assert sessions_on_copies() == 0
    assert [each.name for each in branches()] == ["main"]


def during(do: Callable[[Any, Any], None], *, sessions: int = 4) -> threading.Thread:
    """Do something, in a session of its own, once that many are connected to a copy."""

    def wait() -> None:
        with closing(stranger()) as session, session.cursor() as cursor:
            for _ in range(1000):
                cursor.execute(
                    "SELECT pid, query FROM pg_stat_activity WHERE datname LIKE '%@tmp-%' "
                    "AND backend_type = 'client backend'"
                )
                if len(found := cursor.fetchall()) >= sessions and any("pg_sleep" in q for _, q in found):
                    do(cursor, found)
                    return
                time.sleep(0.002)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("operations", "head", "said"),
    [
        (
            f'migrations.AddField("author", "age", models.IntegerField(null=True)), migrations.RunSQL('
            f"\"INSERT INTO library_book (title, author_id) VALUES ('x', 0)\", {NOOP})",
            "",
            'library.0002_second fails: insert or update on table "library_book" violates foreign',
        ),
        (
            'migrations.AlterField("book", "year", models.ForeignKey("library.Author", models.CASCADE))',
            "",
            "fails, at 'Alter field year on book': ",
        ),
        (
            'migrations.AddField("nobody", "age", models.IntegerField())',
            "",
            "library.0002_second fails: KeyError: ('library', 'nobody').",
        ),
        (
            f'migrations.RunSQL("BEGIN; DELETE FROM library_book", {NOOP})',
            "atomic = False",
            "library.0002_second fails: It leaves a transaction open, and what is done in that",
        ),
        (
            f'migrations.RunSQL("LOCK TABLE library_book", {NOOP})',
            "atomic = False",
            "LOCK TABLE can only be used in transaction blocks.",
        ),
        (
            f'migrations.RunSQL("CREATE UNIQUE INDEX CONCURRENTLY u ON library_author (born)", {NOOP})',
            "atomic = False",
            'could not create unique index "u". Key (born)=(1) is duplicated.',
        ),
        (
            'migrations.RunSQL("DROP SCHEMA public CASCADE")',
            "",
            'library.0002_second fails: relation "django_migrations" does not exist.',
        ),
    ],
)
def test_what_fails_is_a_sentence_that_says_where(
    tmp_path: Path, operations: str, head: str, said: str
) -> None:
    assert said in failed(tmp_path, operations, head=head)


def test_python_may_fail_in_any_way_after_an_editor_of_its_own(tmp_path: Path) -> None:
    code = python(
        "with editor.connection.schema_editor() as another:",
        "    another.execute('ALTER TABLE library_author ADD age int')",
        "raise SystemExit(3)",
    )
    said = failed(tmp_path, "migrations.RunPython(f)", python=code)
    assert said == "library.0002_second fails, at 'Run f()': SystemExit: 3."


def test_a_view_that_needs_the_column_refuses_its_new_type_in_a_sentence(tmp_path: Path) -> None:
    retype = 'migrations.AlterField("book", "year", models.BigIntegerField(null=True))'
    with library(tmp_path, **{"0002_second": second(retype)}):
        run("CREATE VIEW years AS SELECT year FROM library_book")
        with untouched():
            assert str(rehearse("library").failure) == (
                "library.0002_second fails, at 'Alter field year on book': cannot alter type of a "
                'column used by a view or rule. rule _RETURN on view years depends on column "year".'
            )


def test_what_all_databases_of_the_server_share_is_left_alone(tmp_path: Path) -> None:
    roles = run("SELECT rolname FROM pg_roles")
    seen = rehearsed(tmp_path, f"""migrations.RunSQL("CREATE ROLE stray PASSWORD 'geheim'", {NOOP})""")
    assert str(seen.failure).endswith(
        "at 'Run CREATE ROLE stray PASSWORD ***': CREATE ROLE changes what all databases of the server "
        "share: a rehearsal would do it for real."
    )
    assert run("SELECT rolname FROM pg_roles") == roles
    for shown in (repr(seen), seen._repr_html_(), seen.as_markdown(), json.dumps(seen.as_dict())):
        assert "geheim" not in shown


@pytest.mark.parametrize(
    ("statement", "is_shared"),
    [
        ("-- well\ncreate user stray", True),
        ("SELECT 1; /* and */ ALTER DATABASE workbench SET work_mem = '1MB'", True),
        ("DO $$ BEGIN IF true THEN DROP ROLE IF EXISTS stray; END IF; END $$", True),
        ("DO $$ BEGIN EXECUTE format('CREATE ROLE %I', 'stray'); END $$", True),
        ("GRANT pg_monitor TO CURRENT_USER", True),
        ("GRANT CONNECT ON DATABASE workbench TO public", True),
        ("REASSIGN OWNED BY CURRENT_USER TO pg_monitor", True),
        ("ALTER SYSTEM SET work_mem = '1MB'", True),
        (
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 999', current_database()); END $$",
            False,
        ),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO pg_monitor; SET LOCAL ROLE pg_monitor", False),
        ("SELECT 'Create user', 'grant one to another'", False),
        ("CREATE TABLE role (id int); ALTER TABLE role ADD role int", False),
    ],
)
def test_what_is_shared_is_told_from_what_is_not(statement: str, is_shared: bool) -> None:
    refused = pytest.raises(SchemaError, match="share") if is_shared else nullcontext()
    with transaction.atomic(), confined(connection, is_same_server=True):
        with refused:
            run(statement)
        transaction.set_rollback(True)


def test_a_history_with_a_gap_or_two_ends_is_not_rehearsed(tmp_path: Path) -> None:
    third = 'dependencies = [("library", "0002_second")]\noperations = []'
    with library(tmp_path, **{"0002_second": second(""), "0003_third": third}):
        migrate("library", "0003_third")
        run("DELETE FROM django_migrations WHERE name = '0002_second'")
        with pytest.raises(SchemaError, match="0003_third is applied before its dependency"):
            rehearse("library")
    with (
        library(tmp_path / "two", **{"0002_second": second(""), "0002_other": second("")}),
        pytest.raises(SchemaError, match="library has two ends, 0002_other and 0002_second"),
    ):
        rehearse()


def test_interrupts_at_any_moment_leave_nothing(tmp_path: Path) -> None:
    choose = random.Random(7)
    operations = (
        'migrations.AlterField("book", "year", models.BigIntegerField(null=True)),'
        'migrations.AddIndex("author", models.Index(fields=["born"], name="by_born")),'
        f'migrations.RunSQL("UPDATE library_author SET born = 1", {NOOP}),'
    )
    with library(tmp_path, **{"0002_second": second(operations)}), untouched():
        for _ in range(6):
            with nothing_left():
                timer = threading.Timer(choose.uniform(0, 0.25), _thread.interrupt_main)
                timer.start()
                # It may be done before.
                with suppress(KeyboardInterrupt):
                    rehearse("library")
                    timer.join()
                    time.sleep(1)
                    pytest.fail("It was not interrupted")
                # Who listens for interrupts may come late, and cancel what runs by then.
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("is_migrating", "told"),
    [
        (False, "Somebody ended the sessions that looked on: rehearse it again."),
        (
            True,
            "at 'Run SELECT pg_sleep(0.15)': The connection to Postgres was lost: the server ended the "
            "session or went away, or the network did.",
        ),
    ],
)
def test_that_somebody_ended_its_sessions_is_said_and_nothing_is_left(
    tmp_path: Path, is_migrating: bool, told: str
) -> None:
    def end(cursor: Any, sessions: list[tuple[int, str]]) -> None:
        for pid, query in sessions:
            if ("pg_sleep" in query) == is_migrating:
                cursor.execute("SELECT pg_terminate_backend(%s)", [pid])

    with library(tmp_path, **{"0002_second": second(SLOW)}), untouched(), nothing_left():
        thread = during(end)
        try:
            said = str(rehearse("library").failure)
        except SchemaError as error:
            said = str(error)
        thread.join()
    assert said.endswith(told)


def test_where_no_session_is_to_be_had_that_is_a_sentence(tmp_path: Path) -> None:
    with library(tmp_path, **{"0002_second": second(SLOW)}):
        connection.close()
        held = []
        try:
            with suppress(psycopg2.OperationalError):
                while True:
                    held.append(stranger())
            # It takes five.
            for is_enough in (False, True):
                for _ in range(3):
                    held.pop().close()
                time.sleep(0.05)
                if is_enough:
                    assert rehearse("library").failure is None
                else:
                    with pytest.raises(ConnectionFailed, match="has no free connection"):
                        rehearse("library")
        finally:
            for session in held:
                session.close()


def test_each_pass_is_a_process_of_its_own(tmp_path: Path) -> None:
    seen = rehearsed(
        tmp_path,
        "migrations.RunSQL(\"SELECT set_config('search_path', '', false), pg_advisory_lock(1);"
        " CREATE TEMP TABLE mine (id int); SELECT set_config('search_path', 'public', false)\","
        " \"SELECT 1 / (to_regclass('pg_temp.mine') IS NULL)::int FROM library_author\")",
    )
    assert seen.failure is None
    assert (seen[0].lost, seen[0].forwards.gone) == ((), ())


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ('"shelf"."book"', "shelf.book"),
        ('"public"."book"', "book"),
        ("My Book", '"My Book"'),
        ("lib.book", '"lib.book"'),
    ],
)
def test_a_table_may_be_called_anything(tmp_path: Path, given: str, written: str) -> None:
    first = f"""
initial = True
operations = [
    migrations.RunSQL("CREATE SCHEMA IF NOT EXISTS shelf", migrations.RunSQL.noop),
    migrations.CreateModel("Book", [
        ("id", {ID}),
        ("title", models.TextField(null=True)),
        ("year", models.IntegerField(null=True)),
    ], options={{"db_table": {given!r}}}),
]
"""
    operations = (
        'migrations.AlterField("book", "year", models.BigIntegerField(null=True)),'
        'migrations.RunSQL("SET LOCAL search_path TO pg_catalog", migrations.RunSQL.noop),'
        'migrations.RunSQL("SET LOCAL search_path TO public", migrations.RunSQL.noop),'
        'migrations.RemoveField("book", "title")'
    )
    with app(tmp_path, "library", "", {"0001_first": first, "0002_second": second(operations)}):
        migrate("library", "0001_first")
        try:
            run(f"INSERT INTO {written} (title, year) SELECT i, i FROM generate_series(1, 100) i")
            with untouched():
                seen = rehearse("library")
        finally:
            run(
                f"DROP TABLE {written}",
                "DROP SCHEMA shelf",
                "DELETE FROM django_migrations WHERE app = 'library'",
            )
    retyped, *_, removed = seen
    assert seen.failure is None
    assert locks(retyped) == {written: "ACCESS EXCLUSIVE"}
    assert written in retyped.forwards.rewritten
    # Once for the table, once for its index.
    assert retyped.forwards.scanned == {written: 200}
    assert removed.forwards.gone == (f"{written}.title",)
    assert [verdict.rule for verdict in removed.verdicts] == ["gone"]
    assert removed.lost == (f"the values of {written}.title (100 before)",)


def test_partitions_views_and_triggers_are_seen(tmp_path: Path) -> None:
    tables = """
CREATE TABLE event (at int PRIMARY KEY, n int) PARTITION BY RANGE (at);
CREATE TABLE event_old PARTITION OF event FOR VALUES FROM (0) TO (1000);
CREATE TABLE event_new PARTITION OF event FOR VALUES FROM (1000) TO (9999);
INSERT INTO event SELECT i, i FROM generate_series(1, 1999) i;
CREATE VIEW library_seen AS SELECT * FROM event;
CREATE MATERIALIZED VIEW library_kept AS SELECT * FROM event;
CREATE TABLE audit (n int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN INSERT INTO audit VALUES (1); RETURN NEW; END';
CREATE TRIGGER note AFTER UPDATE ON library_author FOR EACH ROW EXECUTE FUNCTION note()
"""
    gone = "DROP TABLE event CASCADE; DROP TABLE audit; DROP FUNCTION note CASCADE"
    options = '[("at", models.IntegerField(primary_key=True))], options={"managed": False, "db_table": '
    operations = (
        f'migrations.RunSQL("CREATE INDEX by_n ON event (n)", "DROP INDEX by_n"),'
        f'migrations.RunSQL("REFRESH MATERIALIZED VIEW library_kept", {NOOP}),'
        f'migrations.RunSQL("DROP VIEW library_seen", "CREATE VIEW library_seen AS SELECT * FROM event"),'
        f'migrations.RunSQL("ALTER TABLE event ADD m int", "ALTER TABLE event DROP m"),'
        f'migrations.RunSQL("UPDATE event SET n = -n WHERE at < 9", "UPDATE event SET n = -n WHERE at < 9"),'
        f'migrations.RunSQL("UPDATE library_author SET born = born WHERE id <= 20", {NOOP}),'
    )
    known = (
        f'dependencies = [("library", "0001_first")]\n'
        f'operations = [migrations.CreateModel("Event", {options}"event"}}),'
        f'migrations.CreateModel("Seen", {options}"library_seen"}})]'
    )
    third = f'dependencies = [("library", "0002_known")]\noperations = [{operations}]'
    with library(tmp_path, **{"0002_known": known, "0003_third": third}):
        run(tables)
        migrate("library", "0002_known")
        try:
            with untouched():
                seen = rehearse("library")
        finally:
            run(gone)
    assert seen.failure is None
    index, refreshed, dropped, added, changed, noted = seen
    assert locks(index) == dict.fromkeys(["event", "event_old", "event_new"], "SHARE")
    assert index.forwards.scanned == {"event_old": 999, "event_new": 1000}
    assert (set(refreshed.forwards.rewritten), refreshed.forwards.written) == ({"library_kept"}, {})
    assert (dropped.forwards.gone, locks(dropped)) == (
        ("library_seen",),
        {"library_seen": "ACCESS EXCLUSIVE"},
    )
    assert [verdict.rule for verdict in dropped.verdicts] == ["gone"]
    # They were locked before, and are more so now.
    assert locks(added) == dict.fromkeys(["event", "event_old", "event_new"], "ACCESS EXCLUSIVE")
    assert (changed.forwards.written, changed.lost) == ({"event_old": 8}, ())
    assert noted.forwards.written == {A: 20, "audit": 20}
    assert noted.lost == ("perhaps audit",)


def test_values_are_missed_where_a_proxy_or_a_child_lost_them(tmp_path: Path) -> None:
    first = f"""
initial = True
operations = [
    migrations.CreateModel("Book", [("id", {ID}), ("year", models.IntegerField(null=True))]),
    migrations.CreateModel("Novel", [
        ("book", models.OneToOneField("library.Book", models.CASCADE, parent_link=True, primary_key=True)),
        ("plot", models.TextField()),
    ], bases=("library.book",)),
    migrations.CreateModel("Old", [], options={{"proxy": True}}, bases=("library.book",)),
]
"""
    code = (
        "def f(apps, editor):\n    apps.get_model('library', 'Old').objects.filter(id=1).update(year=0)\n"
        "def g(apps, editor):\n    apps.get_model('library', 'Novel').objects.filter(year=2).update(year=0)\n"
    )
    noop = "migrations.RunPython.noop"
    operations = f"migrations.RunPython(f, {noop}), migrations.RunPython(g, {noop})"
    files = {"0001_first": first, "0002_second": second(operations, python=code)}
    with app(tmp_path, "library", "", files):
        migrate("library", "0001_first")
        run(
            "INSERT INTO library_book (year) SELECT i FROM generate_series(1, 100) i",
            "INSERT INTO library_novel SELECT id, 'plot' FROM library_book",
        )
        try:
            seen = rehearse("library")
        finally:
            run("DROP TABLE library_novel, library_book")
            run("DELETE FROM django_migrations WHERE app = 'library'")
    assert [step.forwards.written for step in seen] == [{B: 1}, {B: 1}]
    assert {*seen[0].lost, *seen[1].lost} == {f"the values of {B}.year (100 before)"}


def test_statements_may_come_in_any_shape_and_the_report_holds_them(tmp_path: Path) -> None:
    step = ran(
        tmp_path,
        "with editor.connection.cursor() as cursor:",
        "    name = sql.Identifier('library_author')",
        "    cursor.execute(sql.SQL('UPDATE {} SET born = 1 WHERE id = %s').format(name), [1])",
        "    cursor.execute(b'UPDATE library_author SET born = 2 WHERE id = 2')",
        "    bio = {'b': 'a|b`c\\n```\\n<!--'}",
        "    cursor.execute('UPDATE library_author SET bio = %(b)s WHERE id = 3', bio)",
        "    cursor.execute('SELECT %s, %s, %s', [date(2020, 1, 2), Decimal('1.50'), b'\\xff\\x00'])",
        "    cursor.executemany('UPDATE library_author SET bio = %s WHERE id = %s', [('x', 5), ('y', 6)])",
        "    cursor.execute('SELECT %s', ['x' * 100_000])",
        imports="from psycopg2 import sql;from datetime import date;from decimal import Decimal",
    )
    assert step.forwards.written == {A: 5}
    composed, plain, named, typed, many, long = step.forwards.sql
    assert composed == 'UPDATE "library_author" SET born = 1 WHERE id = 1'
    assert plain == "UPDATE library_author SET born = 2 WHERE id = 2"
    assert (many, "1.50" in typed) == ("UPDATE library_author SET bio = %s WHERE id = %s", True)
    assert (len(long) < 11_000, long.endswith("x' ...")) == (True, True)
    seen = Rehearsal("a place", ("library.0002",), (step, *[step] * 10))
    assert json.loads(json.dumps(seen.as_dict()))["steps"][0]["forwards"]["sql"][2] == named
    told = seen.as_markdown()
    rows = [line for line in told.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    assert "````postgres\n" in told
    assert len(told) < 65_536


def test_the_report_shows_text_as_it_is(tmp_path: Path) -> None:
    text = "SELECT '|', '`', '<!-- ', '$x$', '*a*', '_b_'"
    seen = rehearsed(tmp_path, f'migrations.RunSQL("{text}", {NOOP})')
    (row,) = [line for line in seen.as_markdown().splitlines() if line.startswith("| Run")]
    assert row.startswith(r"| Run SELECT '\|', '\`', '\<!-- ', '\$x\$', '\*a\*', '\_b\_' | ")


@pytest.mark.parametrize("head", ["", "atomic = False"])
def test_what_passes_by_djangos_cursors_is_counted(tmp_path: Path, head: str) -> None:
    step = ran(
        tmp_path,
        "with editor.connection.cursor() as cursor:",
        "    rows = io.StringIO('a\\tb\\nc\\td\\n')",
        "    cursor.copy_expert('COPY library_author (name, bio) FROM STDIN', rows)",
        "editor.connection.connection.cursor().execute('DELETE FROM library_book WHERE id <= 3')",
        head=head,
        imports="import io",
    )
    assert step.forwards.written == {A: 2, B: 3}
    assert step.lost == (
        f"the rows of {A} (2,000 before, 2,002 after)",
        f"the rows of {B} (2,000 before, 1,997 after)",
    )


def test_a_savepoint_that_is_rolled_back_lets_go_of_its_locks(tmp_path: Path) -> None:
    step = ran(
        tmp_path,
        "try:",
        "    with transaction.atomic():",
        "        editor.execute('ALTER TABLE library_book ADD age int')",
        "        editor.execute('SELECT 1 / 0')",
        "except DatabaseError:",
        "    Author.objects.filter(id=1).update(born=1)",
        "editor.execute('SELECT pg_sleep(0.2)')",
        imports="from django.db import DatabaseError, transaction",
    )
    held = {lock.table: (lock.mode, lock.seconds > 0.2) for lock in step.forwards.locks}
    assert held == {A: ("ROW EXCLUSIVE", True), B: ("ACCESS EXCLUSIVE", False)}


def test_python_may_begin_and_end_transactions_and_close_its_connection(tmp_path: Path) -> None:
    step = ran(
        tmp_path,
        "raw = editor.connection",
        "with raw.cursor() as cursor:",
        "    cursor.execute('BEGIN')",
        "    cursor.execute('UPDATE library_author SET born = 1 WHERE id <= 10')",
        "    cursor.execute('COMMIT')",
        "raw.set_autocommit(False)",
        "Author.objects.filter(id__lte=20).update(born=2)",
        "raw.commit()",
        "raw.set_autocommit(True)",
        "raw.close()",
        "for number in range(30):",
        "    Author.objects.filter(id=number + 1).update(born=3)",
        "assert len([*Author.objects.order_by('id').iterator(chunk_size=100)]) == 2000",
        "with transaction.atomic():",
        "    editor.execute('ALTER TABLE library_book ADD age int')",
        "    editor.execute('SELECT pg_sleep(0.15)')",
        "editor.execute('ALTER TABLE library_book DROP age')",
        head="atomic = False",
        imports="from django.db import transaction",
    )
    assert step.forwards.written == {A: 60}
    assert locks(step) == {A: "ROW EXCLUSIVE", B: "ACCESS EXCLUSIVE"}
    assert step.forwards.reader > 0.1


def test_what_refuses_a_transaction_is_run_without_one(tmp_path: Path) -> None:
    commits = "DO $$ BEGIN UPDATE library_book SET year = 1 WHERE id < 5; COMMIT; END $$"
    seen = rehearsed(
        tmp_path,
        f'migrations.RunSQL("-- all of it\\nVACUUM FULL library_author", {NOOP}),'
        f'migrations.RunSQL("REINDEX TABLE CONCURRENTLY library_book", {NOOP}),'
        f'migrations.RunSQL("REINDEX SCHEMA public", {NOOP}),'
        f'migrations.RunSQL("""{commits}""", {NOOP}),'
        f'migrations.RunSQL("CREATE TYPE mood AS ENUM (\'a\')", "DROP TYPE mood"),'
        f"migrations.RunSQL(\"ALTER TYPE mood ADD VALUE 'b'\", {NOOP}),"
        f"migrations.RunSQL(\"SELECT 'b'::mood\", {NOOP}),",
        head="atomic = False",
    )
    assert seen.failure is None
    vacuum, concurrently, every, commit, *_ = (step.forwards for step in seen)
    assert {"library_author", "library_author_pkey"} <= {*vacuum.rewritten}
    assert ("library_book_pkey" in concurrently.rewritten, B in concurrently.rewritten) == (True, False)
    assert {"library_author_pkey", "library_book_pkey"} <= {*every.rewritten}
    assert commit.written == {B: 4}


def test_rows_are_counted_whole_where_workers_share_the_reading(tmp_path: Path) -> None:
    parallel = "SET min_parallel_table_scan_size = 0; SET max_parallel_maintenance_workers = 2"
    build = "CREATE INDEX one ON library_author (born); CREATE INDEX two ON library_author (name)"
    seen = rehearsed(
        tmp_path,
        f'migrations.RunSQL("{parallel}", {NOOP}),'
        f'migrations.RunSQL("{build}", "DROP INDEX one, two"),'
        'migrations.RunSQL("CREATE INDEX CONCURRENTLY three ON library_author (bio)", "DROP INDEX three")',
        head="atomic = False",
    )
    _, both, concurrently = (step.forwards for step in seen)
    assert (both.scanned, both.built) == ({A: 2 * ROWS}, ("one", "two"))
    assert (concurrently.scanned, concurrently.read_under) == ({A: 2 * ROWS}, {A: "SHARE UPDATE EXCLUSIVE"})


def test_threads_of_an_operation_work_on_the_copy(tmp_path: Path) -> None:
    step = ran(
        tmp_path,
        "from django.db import connection",
        "def delete(number):",
        "    with connection.cursor() as cursor:",
        "        cursor.execute('DELETE FROM library_book WHERE id = %s', [number])",
        "def nested():",
        "    thread = threading.Thread(target=delete, args=[3])",
        "    thread.start()",
        "    thread.join()",
        "with ThreadPoolExecutor() as pool:",
        "    assert [*pool.map(delete, [1, 2])] == [None, None]",
        "    pool.submit(nested).result()",
        head="atomic = False",
        imports="import threading;from concurrent.futures import ThreadPoolExecutor",
    )
    assert step.lost == (f"the rows of {B} (2,000 before, 1,997 after)",)


def test_threads_of_an_operation_are_confined_too(tmp_path: Path) -> None:
    said = failed(
        tmp_path,
        "migrations.RunPython(f)",
        python=python(
            "from django.db import connection",
            "def stray():",
            "    connection.cursor().execute('CREATE ROLE stray')",
            "with ThreadPoolExecutor() as pool:",
            "    pool.submit(stray).result()",
            imports="from concurrent.futures import ThreadPoolExecutor",
        ),
    )
    assert "CREATE ROLE changes what all databases of the server share" in said


def test_another_database_is_read_and_nothing_more(tmp_path: Path) -> None:
    other = connections["default"].copy()
    connections.databases["other"] = {**connections.databases["default"]}
    connections["other"] = other
    try:
        reads = python(
            "with transaction.atomic('other'), transaction.atomic('other'):",
            "    assert Author.objects.using('other').count() == 2000",
            "Author.objects.using('other').filter(id=1).delete()",
            imports="from django.db import transaction",
        )
        said = failed(tmp_path, "migrations.RunPython(f)", python=reads)
    finally:
        other.close()
        del connections["other"], connections.databases["other"]
    assert said.endswith(
        "It does more than SELECT in the database 'default', of which a rehearsal makes no copy."
    )


def test_migrate_may_run_within_it(tmp_path: Path) -> None:
    step = ran(
        tmp_path,
        "call_command('migrate', 'catalog', 'zero', verbosity=0)",
        "call_command('migrate', 'catalog', verbosity=0)",
        head="atomic = False",
        imports="from django.core.management import call_command",
    )
    assert any("django_migrations" in text for text in step.forwards.sql)


SQUASHED = f"""
replaces = [("library", "0001_first"), ("library", "0002_second")]
initial = True
operations = [migrations.CreateModel("Author", [("id", {ID}), ("age", models.IntegerField(null=True))])]
"""


def test_half_a_squashed_migration_goes_there_and_back(tmp_path: Path) -> None:
    age = 'migrations.AddField("author", "age", models.IntegerField(null=True))'
    with library(tmp_path, **{"0002_second": second(age)}):
        write_migration(tmp_path / "library", "0001_squashed", SQUASHED)
        with untouched():
            seen = rehearse("library")
        assert (seen.migrations, seen.failure) == (("library.0002_second",), None)
        assert seen[0].backwards is not None


def test_what_a_cell_made_and_applied_is_undone_and_done_again(tmp_path: Path) -> None:
    retyped = MODELS.replace("born = models.IntegerField", "born = models.BigIntegerField")
    with library(tmp_path):
        evolution = evolve("library", retyped)
        (name,) = (step.name for step in evolution.steps)
        with evolved.offered(keep(evolution)):
            call_command("migrate", "library", name, verbosity=0)
        try:
            with untouched():
                assert rehearse(evolution).migrations == ()
                seen = rehearse("library", "0001")
                further = rehearse(
                    evolve("library", retyped.replace("    bio = models.TextField(blank=True)\n", ""))
                )
        finally:
            evolved.remove(connection.settings_dict)
    assert (seen.migrations, seen.failure) == ((f"library.{name}",), None)
    assert seen[0].forwards.rewritten[0] == A
    assert seen[0].backwards is not None
    assert further.migrations == ("library.0003_remove_author_bio",)


def test_apps_that_need_each_other_are_rehearsed_in_their_order(tmp_path: Path) -> None:
    shop = {
        "0001_first": f"""
dependencies = [("library", "0001_first")]
run_before = [("library", "0002_second")]
operations = [migrations.CreateModel("Shop", [
    ("id", {ID}), ("owner", models.ForeignKey("library.Author", models.CASCADE)),
    ("books", models.ManyToManyField("library.Book")),
])]
""",
        "0002_more": """
dependencies = [("shop", "0001_first"), ("library", "0002_second")]
operations = [migrations.RemoveField("shop", "books")]
""",
    }
    age = 'migrations.AddField("author", "age", models.IntegerField(null=True))'
    with (
        app(tmp_path / "shop", "shop", "", shop),
        library(tmp_path, **{"0002_second": second(age)}),
        untouched(),
    ):
        seen = rehearse("shop")
        assert rehearse("library", "0001").migrations == ()
    assert seen.failure is None
    assert seen.migrations == ("shop.0001_first", "library.0002_second", "shop.0002_more")
    assert locks(seen[0]) == {A: "SHARE ROW EXCLUSIVE", B: "SHARE ROW EXCLUSIVE"}
    assert all(step.backwards for step in seen)


def test_locks_are_held_as_long_as_a_stranger_sees_them(tmp_path: Path) -> None:
    seen: dict[tuple[int, str], list[float]] = {}
    is_over = threading.Event()

    def look() -> None:
        with closing(stranger()) as session, session.cursor() as cursor:
            while not is_over.wait(0.001):
                cursor.execute(
                    "SELECT l.pid, l.mode FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                    "WHERE d.datname LIKE '%%@tmp-%%' AND l.relation = %s AND l.granted",
                    [oid],
                )
                for found in cursor.fetchall():
                    seen.setdefault(found, []).append(time.monotonic())

    operations = (
        f'migrations.AddField("author", "age", models.IntegerField(null=True)), {SLOW},'
        f'migrations.AddIndex("book", models.Index(fields=["year"], name="by_year")), {SLOW}'
    )
    with library(tmp_path, **{"0002_second": second(operations)}):
        ((oid,),) = run(f"SELECT '{A}'::regclass::oid")
        thread = threading.Thread(target=look)
        thread.start()
        told = rehearse("library")
        is_over.set()
        thread.join()
    held = max(times[-1] - times[0] for (_, mode), times in seen.items() if mode == "AccessExclusiveLock")
    (lock,) = told[0].forwards.locks
    assert lock.seconds == pytest.approx(held, abs=0.03)
    assert lock.seconds > 0.3
    assert told[2].forwards.locks[0].seconds == pytest.approx(held / 2, abs=0.05)
    assert max(step.forwards.reader for step in told) == pytest.approx(held, abs=0.05)


def test_operations_are_as_they_were_once_they_were_watched() -> None:
    migration = Migration("0001_it", "library")
    mine = [migrations.RunSQL("SELECT 1"), migrations.RunSQL("SELECT 1 / 0")]
    migration.operations = mine  # type: ignore[misc]
    before = [vars(operation).copy() for operation in mine]
    with Observer(connection) as observer:
        observer.begin(is_felt=False)
        with pytest.raises(DataError), observer.migration(migration), connection.schema_editor() as editor:
            migration.apply(ProjectState(), editor)
    assert migration.operations is mine
    assert [vars(operation) for operation in mine] == before
    assert [run.operation for run in observer.runs] == mine
