"""What is recorded of a block of code, and that recording it changes nothing."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pandas as pd
import psycopg2
import pytest
from django.contrib.auth.models import User
from django.db import DataError, ProgrammingError, connection, connections, transaction
from django.db.transaction import TransactionManagementError
from psycopg2 import extensions, sql
from psycopg2.extras import DictCursor
from pytest_django import DjangoDbBlocker

from catalog.models import Author, Book
from tests.queries.shelves.models import Cover, Novel
from workbench.connection import where, who_blocks
from workbench.connection.sessions import aside
from workbench.frames import frame, load
from workbench.queries import Asked, queries
from workbench.schema import snapshot

ROWS = "SELECT * FROM generate_series(1, 5) AS n"


@pytest.fixture
def cursor(db: None) -> Iterator[Any]:
    with connection.cursor() as made:
        yield made


def shown(asked: Asked) -> list[tuple[str, int, int | None]]:
    return [(each.sql, each.times, each.rows) for each in asked]


def test_a_statement_that_fails_is_there_with_what_it_said_and_its_error_goes_on(cursor: Any) -> None:
    with queries() as asked, pytest.raises(ProgrammingError), transaction.atomic():
        cursor.execute("SELECT nothing FROM nowhere WHERE a = %s", [1])
    statement = next(each for each in asked if "nowhere" in each.sql)
    assert statement.sql == "SELECT nothing FROM nowhere WHERE a = 1"
    assert statement.rows is None
    assert re.search(r'ms, failed: relation "nowhere" does not exist\n', repr(asked))
    assert "; 1 failed.\n" in repr(asked)


def test_what_was_never_sent_is_not_there(cursor: Any) -> None:
    with queries() as asked:
        with pytest.raises(IndexError):
            cursor.execute("SELECT %s, %s", [1])
        with suppress(DataError), transaction.atomic():
            with suppress(DataError):
                cursor.execute("SELECT 1/0")
            transaction.set_rollback(True)
            with pytest.raises(TransactionManagementError):
                cursor.execute("SELECT 2")
    assert [each.sql for each in asked if each.sql.startswith("SELECT")] == ["SELECT 1/0"]


def test_nothing_asked_is_one_sentence() -> None:
    with queries() as asked:
        Author.objects.all()
    assert repr(asked) == (
        "This asked the database nothing: a queryset is only asked when its rows are needed."
    )
    assert (len(asked), asked.times, asked.rows, bool(asked), len(asked.table)) == (0, 0, 0, False, 0)


def test_each_statement_is_there_once_with_how_often_it_ran_its_rows_and_its_lines(db: None) -> None:
    author = Author.objects.create(name="Ursula")
    with queries() as asked:
        for _ in range(3):
            list(Author.objects.filter(pk=author.pk))
        list(Author.objects.filter(pk=author.pk + 1))
        Author.objects.count()
    first, second = asked
    assert (first.times, first.rows, len(first.lines)) == (4, 3, 2)
    assert (second.times, second.rows) == (1, 1)
    assert (len(asked), asked.times, asked.rows) == (2, 5, 4)
    assert 0 < first.seconds < asked.seconds
    assert re.match(r"5 queries \(2 distinct\), 4 rows, [\d.]+ ms in Postgres and on the way", repr(asked))
    line = min(second.lines)
    head = f"1. lines {line - 2} and {line - 1}, 4 times, 3 rows, "
    assert f"{head}{first.seconds * 1000:.1f} ms\nSELECT" in repr(asked)
    table = asked.table
    assert list(table.columns) == ["sql", "times", "ms", "rows", "line", "place"]
    assert table["rows"].tolist() == [3, 1]
    assert table["ms"].sum() == pytest.approx(asked.seconds * 1000)


def test_facts_are_the_same_each_time_and_hold_no_time_and_no_values(db: None) -> None:
    said = set()
    for number in range(2):
        author = Author.objects.create(name=f"{number}")
        with queries() as asked:
            Author.objects.get(pk=author.pk)
            connection.cursor().execute(f"SELECT {number} AS n, 'x{number}' AS \"a1\"")
        said.add(repr(asked.facts))
    (facts,) = said
    assert facts.startswith("2 queries, 2 rows.\n")
    assert 'WHERE "catalog_author"."id" = %s\nLIMIT 21' in facts
    assert 'SELECT %s AS n, %s AS "a1"' in facts
    assert " ms" not in facts


def test_a_function_of_the_project_is_named_where_it_asked(novels: list[Novel]) -> None:
    with queries() as asked:
        str(Novel.objects.first().writer.house)  # type: ignore[union-attr]
    places = [list(each.places) for each in asked]
    assert places[-1][0].startswith("tests/queries/shelves/models.py:")
    assert "/" not in places[-1][0].removeprefix("tests/queries/shelves/")


def test_values_are_shown_as_postgres_gets_them_and_long_ones_are_cut(cursor: Any) -> None:
    with queries() as asked:
        cursor.execute("SELECT %s, %s, %s::text", [None, "it's", "x" * 100_000])
        cursor.execute("SELECT %s", [b"secret bytes" * 1000])
        cursor.execute("SELECT %s = ANY(%s)", [1, list(range(1000))])
        list(Author.objects.filter(pk__in=range(1000)))
        Author.objects.bulk_create([Author(name=f"{n}") for n in range(1000)])
    texts = [each.sql for each in asked]
    assert texts[0].startswith("SELECT NULL, 'it''s', 'xxx")
    assert texts[0].endswith("... 100,000 letters'::text")
    assert texts[1] == "SELECT '12,000 bytes'::bytea"
    assert texts[2] == "SELECT 1 = ANY(ARRAY[0,1,2,3,4,5,6,7, ... 992 more])".replace(",1", ", 1").replace(
        "0, 1,2,3,4,5,6,7", "0, 1, 2, 3, 4, 5, 6, 7"
    )
    assert texts[3].endswith("IN (0, 1, 2, 3, 4, 5, 6, 7, ... 992 more)")
    assert all(len(text) < 1000 for text in texts)
    assert texts[4].count("... 992 more") == 4
    assert all(len(line) < 400 for line in repr(asked).splitlines())


@pytest.mark.parametrize(
    ("statement", "params"),
    [
        ("SELECT 1 FROM auth_user WHERE password = %s", ["h2o-s3cr3t"]),
        ("SELECT 'postgresql://user:h2o-s3cr3t@host/db'", None),
        ("CREATE ROLE nobody PASSWORD 'h2o-s3cr3t'", None),
        ("UPDATE django_session SET session_data = %s, session_key = %s", ["h2o-s3cr3t", "h2o-s3cr3t"]),
        ("INSERT INTO django_session VALUES (%s, %s, now())", ["key", "data"]),
        ("SELECT 1 FROM auth_user WHERE UPPER(password) = UPPER(%s) OR password IN (%s)", ["h2o-s3cr3t"] * 2),
        ("SELECT 1 FROM auth_user WHERE password = $$h2o-s3cr3t$$", None),
        ("UPDATE auth_user SET password = CASE WHEN id = 1 THEN 'h2o-s3cr3t' END WHERE id < 0", None),
    ],
)
def test_no_password_is_shown(cursor: Any, statement: str, params: list[str] | None) -> None:
    with queries() as asked:
        cursor.execute(statement, params)
        User.objects.create_user(username="ann", password="h2o-s3cr3t")
    said = repr(asked) + asked._repr_html_() + asked.table.to_csv() + repr(asked.facts)
    assert "h2o-s3cr3t" not in said
    assert "pbkdf2" not in said
    assert "md5" not in said


def test_what_goes_past_djangos_wrappers_is_there_too(cursor: Any) -> None:
    cursor.execute("CREATE TEMP TABLE numbers (n int)")
    with queries() as asked, connection.cursor() as new, connection.connection.cursor() as raw:
        new.copy_expert("COPY numbers FROM STDIN", io.StringIO("1\n2\n"))
        new.copy_expert("COPY numbers TO STDOUT", io.StringIO())
        new.copy_to(io.StringIO(), "numbers")
        new.copy_from(io.StringIO("3\n"), "numbers")
        new.callproc("abs", [-1])
        raw.execute("SELECT 1 FROM numbers")
        new.executemany("INSERT INTO numbers VALUES (%s)", [[4], [5]])
        new.execute(sql.SQL("SELECT {} FROM {}").format(sql.Literal("a;b"), sql.Identifier("numbers")))
    with connection.connection.cursor() as raw:
        raw.execute("SELECT 'afterwards'")
    assert shown(asked) == [
        ("COPY numbers FROM STDIN", 1, 2),
        ("COPY numbers TO STDOUT", 1, 2),
        ("COPY \"numbers\" TO stdout WITH DELIMITER AS '\t' NULL AS '\\N'", 1, 2),
        ("COPY \"numbers\" FROM stdin WITH DELIMITER AS '\t' NULL AS '\\N'", 1, 1),
        ("SELECT * FROM abs( -1)", 1, 1),
        ("SELECT 1 FROM numbers", 1, 3),
        ("INSERT INTO numbers VALUES (%s)", 1, 2),
        ("SELECT 'a;b' FROM \"numbers\"", 1, 5),
    ]


def test_a_cursor_from_before_is_heard(cursor: Any) -> None:
    with queries() as asked:
        cursor.execute(ROWS)
    assert shown(asked) == [(ROWS, 1, 5)]


@pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall", "__iter__"])
def test_rows_of_a_server_side_cursor_count_as_they_are_fetched(db: None, fetch: str) -> None:
    with queries() as asked, connection.chunked_cursor() as cursor:
        cursor.execute(ROWS)
        assert asked.rows == 0
        if fetch == "fetchone":
            while cursor.fetchone():
                pass
        elif fetch == "fetchmany":
            assert len(cursor.fetchmany(3)) == 3
            assert asked.rows == 3
            cursor.fetchmany()
        else:
            assert len(list(getattr(cursor, fetch)())) == 5
    assert shown(asked) == [(ROWS, 1, 5)]
    assert ", by a server-side cursor, 5 rows, " in repr(asked)


@pytest.mark.django_db(transaction=True)
def test_frame_chunks_and_load_are_there_with_their_rows_and_not_with_their_lookups() -> None:
    with queries() as asked:
        load(Author, pd.DataFrame({"name": ["Ursula", "Octavia"]}))
        frame(Author)
        list(frame.chunks(Author, rows=1))
        list(Author.objects.iterator())
    copied, read, chunks, iterated = asked
    assert copied.sql.startswith('COPY "catalog_author" ("name"')
    assert read.sql.startswith("COPY (SELECT")
    assert chunks.sql.startswith("SELECT pg_catalog.record_send(q) FROM (SELECT")
    assert [each.how for each in asked] == ["COPY", "COPY", "cursor", "cursor"]
    assert [each.rows for each in (copied, read, chunks, iterated)] == [2, 2, 2, 2]
    with queries() as asked:
        load(Author, [{"id": 1, "name": "Ursula"}], on_conflict="update")
    verbs = [each.sql.split()[0] for each in asked]
    assert verbs == ["CREATE", "COPY", "INSERT", "DROP", "SELECT"]
    assert [each.rows for each in asked if each.sql.startswith("INSERT")] == [1]


@pytest.mark.django_db(transaction=True)
def test_what_the_workbench_asks_for_itself_is_not_there() -> None:
    connection.close()
    connection.health_check_enabled = True  # type: ignore[attr-defined]
    with queries() as asked:
        Author.objects.count()
        connection.health_check_done = False  # type: ignore[attr-defined]
        where()
        snapshot("catalog")
        who_blocks()
        beside = aside(connection.settings_dict, "default")
        with beside.cursor() as cursor:
            cursor.execute("SELECT 'beside'")
        beside.close()
        copy = connection.copy()
        with copy.cursor() as cursor:
            cursor.execute("SELECT 'a copy'")
        copy.close()
    assert [each.sql for each in asked] == ['SELECT COUNT(*) AS "__count" FROM "catalog_author"']


def test_other_aliases_and_threads_are_heard_connected_before_or_not(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> None:
    # Django's test cases know but the aliases from before.
    connections.databases["second"] = {**connection.settings_dict}

    def ask() -> None:
        Author.objects.count()
        connection.close()

    try:
        with django_db_blocker.unblock(), queries() as asked:
            Author.objects.using("second").count()
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        assert [each.alias for each in asked] == ["second", "default"]
        assert ", on second, 1 row, " in repr(asked)
        assert connections["second"].execute_wrappers == []
    finally:
        connections["second"].close()
        del connections["second"]
        connections.databases.pop("second")


def test_nothing_is_left_behind_not_even_after_an_error(cursor: Any) -> None:
    def pass_on(execute: Any, *arguments: Any) -> Any:
        return execute(*arguments)

    made_by = connection.connection.cursor_factory
    with suppress(ZeroDivisionError), queries() as asked, connection.execute_wrapper(pass_on):
        cursor.execute("SELECT 1")
        with queries() as inner:
            cursor.execute("SELECT 2")
        raise ZeroDivisionError
    assert (asked.times, inner.times) == (2, 1)
    assert connection.execute_wrappers == []
    assert connection.connection.cursor_factory is made_by

    with ExitStack() as stack:  # One that begins within another, and ends after it.
        theirs = connection.execute_wrapper(pass_on)
        theirs.__enter__()
        asked = stack.enter_context(queries())
        cursor.execute("SELECT 3")
        theirs.__exit__(None, None, None)
        cursor.execute("SELECT 4")
    assert asked.times == 2
    assert connection.execute_wrappers == []


def test_a_refusal_of_somebody_elses_is_no_query(cursor: Any) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("not now")

    refused = pytest.raises(RuntimeError)
    with refused, queries() as asked, connection.cursor() as new, connection.execute_wrapper(refuse):
        new.execute("SELECT 1")
    assert asked.times == 0


def test_time_is_that_of_the_statement_and_not_of_other_wrappers(db: None) -> None:
    def dawdle(execute: Any, *arguments: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.connection.cursor().execute("SELECT pg_sleep(0.2)")
        return execute(*arguments)

    with connection.execute_wrapper(dawdle), queries() as asked, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    statement = next(each for each in asked if each.sql == "SELECT 1")
    assert statement.seconds < 0.1


def test_a_projects_own_kind_of_cursor_is_kept(db: None) -> None:
    raw = connection.connection
    raw.cursor_factory = DictCursor
    try:
        with queries() as asked, raw.cursor() as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetchone()["one"] == 1
        assert asked.times == 1
        assert raw.cursor_factory is DictCursor
    finally:
        raw.cursor_factory = extensions.cursor


def test_a_thousand_statements_stay_readable(cursor: Any) -> None:
    with queries() as asked:
        for number in range(1000):
            cursor.execute(f"SELECT 1 AS a{number}")
        cursor.execute("SELECT pg_sleep(0.05)")
    said = repr(asked)
    assert said.startswith("1,001 queries, 1,001 rows, ")
    assert said.count("\nSELECT") == 20
    assert "\nSELECT pg_sleep(0.05)" in said
    assert re.search(r"\n981 other statements ran 981 times and took [\d.]+ m?s: its table has them\.$", said)
    assert len(asked.table) == 1001


def test_savepoints_are_one_statement(db: None) -> None:
    with queries() as asked:
        for _ in range(3):
            with transaction.atomic():
                pass
    assert [(each.shape, each.times) for each in asked] == [
        ("SAVEPOINT ...", 3),
        ("RELEASE SAVEPOINT ...", 3),
    ]
    assert asked.advice == []


def test_statements_that_differ_in_values_only_are_one(db: None, cursor: Any) -> None:
    with queries() as asked:
        for number in range(1, 4):
            list(Author.objects.filter(pk__in=range(number)))
            cursor.execute(f"select '{number}', {number}.5 from catalog_book where id in ({number}, 0)")
    assert [each.times for each in asked] == [1, 3, 2]


def test_sql_is_formatted(db: None) -> None:
    with queries() as asked:
        connection.cursor().execute("select 1 as one")
        list(Book.objects.filter(title="x", author__name="y").select_related("author"))
    said = repr(asked)
    assert "\nSELECT 1 AS one" in said
    assert (
        '\nINNER JOIN "catalog_author" ON ("catalog_book"."author_id" = "catalog_author"."id")\nWHERE ('
        in said
    )
    html = asked._repr_html_()
    assert "<pre>" in html
    assert "<script" not in html


def test_a_huge_statement_costs_no_more_than_a_moment(db: None) -> None:
    cover = Cover(novel_id=1, picture=b"x" * 20_000_000)
    with queries() as asked, suppress(psycopg2.Error, DataError), transaction.atomic():
        cover.save()
        transaction.set_rollback(True)
    assert "'20,000,000 bytes'::bytea" in repr(asked)
    assert len(repr(asked)) < 2000
