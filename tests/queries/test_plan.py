"""The plan that Postgres had for a statement: what asking changes, how it reads, what it is blamed for."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import DatabaseError, ProgrammingError, connection, transaction
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS

from catalog.models import Author
from tests.queries.shelves.models import Novel, Publisher, Writer
from workbench.frames import frame
from workbench.queries import Asked, queries
from workbench.queries.plan import Plan
from workbench.queries.tree import as_text


def status() -> int:
    found: int = connection.connection.get_transaction_status()
    return found


def plan_of(do: Callable[[], Any], *, analyze: bool = False) -> Plan:
    """Return the plan of the last statement."""
    with queries(plan=True, analyze=analyze) as asked:
        do()
    plan = asked[-1].plan
    assert plan is not None
    return plan


def execute(sql: str, params: Any = None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


@pytest.fixture
def many(db: None) -> None:
    """Twenty thousand novels by two hundred writers."""
    publisher = Publisher.objects.create(name="one")
    Writer.objects.bulk_create(Writer(name=f"writer {n}", publisher=publisher) for n in range(200))
    first = Writer.objects.order_by("pk")[0].pk
    execute(
        "INSERT INTO shelves_novel (title, price, writer_id) "
        "SELECT 'novel ' || n, n %% 7, %s + n %% 200 FROM generate_series(0, 19999) AS n",
        [first],
    )
    execute("ANALYZE shelves_novel, shelves_writer, shelves_publisher")


@pytest.mark.parametrize("analyze", [False, True])
def test_a_statement_that_fails_in_a_transaction_is_just_as_without_a_plan(db: None, analyze: bool) -> None:
    with queries(plan=True, analyze=analyze) as asked:
        with pytest.raises(ProgrammingError), transaction.atomic():
            execute("SELECT nothing FROM nowhere")
        with transaction.atomic():
            with suppress(DatabaseError):
                execute("SELECT 1/0")
            transaction.set_rollback(True)
        Author.objects.create(name="still here")
    assert Author.objects.get().name == "still here"
    assert [each.plan for each in asked if each.failures] == [None, None]


@pytest.mark.parametrize("analyze", [False, True])
@pytest.mark.django_db(transaction=True)
def test_the_transaction_is_left_as_it_was(analyze: bool) -> None:
    Author.objects.create(name="before")
    with queries(plan=True, analyze=analyze) as asked:
        list(Author.objects.all())
        assert status() == TRANSACTION_STATUS_IDLE
        Author.objects.filter(name="before").update(name="after")
        with transaction.atomic():
            execute("SET LOCAL work_mem = '5MB'")
            Author.objects.create(name="within")
            assert Author.objects.count() == 2
            assert status() == TRANSACTION_STATUS_INTRANS
            execute("CREATE TEMP TABLE ours ON COMMIT DROP AS SELECT 1 AS n")
            assert execute("SELECT n FROM ours") == [(1,)]
            assert execute("SHOW work_mem") == [("5MB",)]
            assert execute("SHOW transaction_read_only") == [("off",)]
            with connection.chunked_cursor() as cursor:
                cursor.execute("SELECT generate_series(1, 3)")
                assert cursor.fetchmany(1) == [(1,)]
                list(Author.objects.order_by("name"))
                assert cursor.fetchall() == [(2,), (3,)]
        assert status() == TRANSACTION_STATUS_IDLE
        assert execute("SELECT name FROM catalog_author ORDER BY id") == [("after",), ("within",)]
    assert {each.plan.reason for each in asked if each.plan and not each.plan.is_actual} <= {
        "",
        "Not run again, because it writes or locks rows: this is only what was planned.",
    }
    assert not any("EXPLAIN" in each.sql or "workbench" in each.sql for each in asked)


ONCE = {
    "a sequence": ("SELECT nextval('catalog_author_id_seq')", "nextval()"),
    "a lock": ("SELECT pg_advisory_lock(7)", "pg_advisory_lock()"),
    "a function that writes": ("SELECT add_author()", "add_author()"),
    "a function in a view": ("SELECT * FROM adding", "add_author()"),
    "a function in a condition": ("SELECT 1 FROM one WHERE add_author() > 0", "add_author()"),
    "a function in FROM": ("SELECT * FROM add_author()", "add_author()"),
    "a function for an order": ("SELECT n FROM one ORDER BY add_author()", "add_author()"),
    "rows that are locked": ("SELECT * FROM catalog_author FOR UPDATE", "writes or locks"),
    "WITH that writes": (
        *("WITH new AS (INSERT INTO one VALUES (2) RETURNING n) SELECT * FROM new", "writes or locks"),
    ),
    "INSERT": ("INSERT INTO one VALUES (3)", "writes or locks"),
    "MERGE": (
        "MERGE INTO one USING (VALUES (1)) AS v (n) ON one.n = v.n WHEN MATCHED THEN DELETE",
        "writes or locks",
    ),
}


@pytest.fixture
def once(db: None) -> None:
    execute(
        "CREATE FUNCTION add_author() RETURNS int LANGUAGE sql AS $$ "
        "INSERT INTO catalog_author (name, bio, country, created_at) VALUES ('', '', '', now()) "
        "RETURNING 1 $$"
    )
    execute("CREATE TABLE one (n int); INSERT INTO one VALUES (1)")
    execute("CREATE VIEW adding AS SELECT add_author()")


@pytest.mark.parametrize(("sql", "why"), ONCE.values(), ids=ONCE)
def test_what_may_change_something_runs_once_only(once: None, sql: str, why: str) -> None:
    plan = plan_of(lambda: execute(sql), analyze=True)
    assert not plan.is_actual
    assert plan.top is not None
    assert plan.reason.startswith("Not run again, because ")
    assert why in plan.reason
    assert Author.objects.count() == (1 if "add_author" in why else 0)
    if "lock(7)" in sql:
        assert execute("SELECT pg_advisory_unlock(7), pg_advisory_unlock(7)") == [(True, False)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; DELETE FROM catalog_author",
        "SELECT $$ ' $$; DELETE FROM catalog_author; SELECT $$ ' $$",
        "SELECT 1 -- ';\n; DELETE FROM catalog_author --'",
        "SELECT E'\\''; DELETE FROM catalog_author; SELECT ''",
    ],
)
@pytest.mark.parametrize("analyze", [False, True])
def test_what_stands_behind_a_semicolon_is_not_run_again(db: None, sql: str, analyze: bool) -> None:
    def do() -> None:
        execute(sql)
        Author.objects.create(name="later")

    with queries(plan=True, analyze=analyze) as asked:
        do()
    plan = asked[0].plan
    assert plan == Plan(reason="No plan: there may be more than one statement in it.")
    assert Author.objects.count() == 1


@pytest.mark.parametrize(
    "sql",
    ["SELECT 'a;b'", "SELECT 1;", "SELECT %s", 'SELECT 1 AS "a;b"', "VALUES (1)", "TABLE catalog_author"],
)
def test_a_semicolon_in_a_text_is_none(db: None, sql: str) -> None:
    params = ["x; DELETE FROM catalog_author"] if "%s" in sql else None
    assert plan_of(lambda: execute(sql, params), analyze=True).is_actual


@pytest.mark.parametrize("sql", ["SET work_mem = '5MB'", "CREATE TEMP TABLE t (n int)", "SHOW work_mem"])
def test_what_has_no_plan_has_none(db: None, sql: str) -> None:
    with queries(plan=True) as asked:
        execute(sql)
    assert asked[0].plan is None


@pytest.mark.parametrize("analyze", [False, True])
def test_frames_and_server_side_cursors_have_a_plan(db: None, analyze: bool) -> None:
    with queries(plan=True, analyze=analyze) as asked:
        frame(Author.objects.filter(name="x"))
        list(frame.chunks(Author))
        list(Author.objects.iterator())
    plans = [each.plan for each in asked if not each.shape.startswith(("SAVEPOINT", "RELEASE"))]
    assert [plan.top.kind for plan in plans if plan and plan.top] == ["Seq Scan"] * 3
    assert all(plan and plan.is_actual is analyze for plan in plans)


def test_each_statement_is_explained_once(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database")
    with queries(plan=True) as asked:
        for number in range(3):
            Author.objects.filter(pk=number).first()
    assert repr(asked).count("Plan of ") == 1


def figures(plan: Plan) -> list[str]:
    assert plan.top is not None
    return [re.sub(r" +\d+%$", "  %", line) for line in as_text(plan.top).splitlines()]


def test_a_plan_is_a_tree_in_plain_words_with_what_was_expected_and_what_came(many: None) -> None:
    rows = Novel.objects.filter(writer__name="writer 7").order_by("title")
    plan = plan_of(lambda: list(rows.all()), analyze=True)
    assert plan.is_actual
    head, *lines = figures(plan)
    assert head.split() == ["expected", "rows", "rows", "time"]
    assert re.match(r"Sort: sorts the rows +1\d\d +100 +%$", lines[0])
    assert lines[1] == "│    by shelves_novel.title"
    text = "\n".join(lines)
    assert re.search(r"Seq Scan on shelves_writer: reads the whole table +1 +1 +%\n", text)
    assert re.search(r"keeps rows with shelves_writer\.name = 'writer 7'\n.*left out 199 rows", text)
    planned = figures(plan_of(lambda: list(rows.all())))
    assert planned[0].split() == ["expected", "rows"]
    assert "left out" not in "\n".join(planned)


def test_a_step_that_runs_again_and_again_says_so(many: None) -> None:
    each = "SELECT title FROM shelves_novel AS n WHERE n.writer_id = w.id LIMIT 1"
    plan = plan_of(lambda: execute(f"SELECT * FROM shelves_writer w, LATERAL ({each})"), analyze=True)
    text = "\n".join(figures(plan))
    assert "Nested Loop: for each row of the first, looks into the second" in text
    assert "ran 200 times" in text


def test_a_scan_that_keeps_few_rows_of_many_wants_an_index(many: None) -> None:
    for do in (
        lambda: list(Novel.objects.filter(title="novel 5")),
        lambda: Novel.objects.filter(title="novel 5").delete(),
        lambda: Novel.objects.get(title="novel 6"),
    ):
        plan = plan_of(do) if "delete" not in do.__code__.co_names else None
        if plan is None:
            with queries(plan=True) as asked:
                do()
            plan = next(each.plan for each in asked if each.plan and each.plan.hints)
        (hint,) = plan.hints
        assert hint.text == "An index on shelves_novel (title) would spare reading 19,999 of 20,000 rows:"
        assert hint.code == 'models.Index(fields=["title"])  # in the indexes of Novel.Meta'
    plan = plan_of(lambda: list(Novel.objects.filter(title="novel 7")), analyze=True)
    assert plan.hints[0].text.endswith("would spare reading 19,998 of 19,999 rows:")
    execute("CREATE TABLE loose AS SELECT n, n % 10 AS m FROM generate_series(1, 20000) AS n; ANALYZE loose")
    (hint,) = plan_of(lambda: execute("SELECT * FROM loose WHERE n = 5 AND m > 2")).hints
    assert hint.code == 'CREATE INDEX CONCURRENTLY ON loose ("n", "m");'


def test_the_index_that_it_wants_is_used(many: None) -> None:
    assert plan_of(lambda: list(Novel.objects.filter(title="novel 5"))).hints
    execute("SET CONSTRAINTS ALL IMMEDIATE; CREATE INDEX ON shelves_novel (title)")
    plan = plan_of(lambda: list(Novel.objects.filter(title="novel 5")), analyze=True)
    assert plan.hints == ()
    assert plan.top is not None
    assert any("Index" in node.kind for node in plan.top.walk())


SILENT = {
    "most rows are kept": lambda: list(Novel.objects.filter(price__gt=1)),
    "a part of a text": lambda: list(Novel.objects.filter(title__icontains="5")),
    "a function of it": lambda: list(Novel.objects.filter(title__iexact="novel 5")),
    "either": lambda: list(Novel.objects.filter(title="novel 5") | Novel.objects.filter(price=100)),
    "not": lambda: list(Novel.objects.exclude(title="novel 5")),
    "a small table": lambda: list(Writer.objects.filter(name="writer 5")),
    "there is one": lambda: list(Novel.objects.filter(pk=5)),
    "it may stop early": lambda: execute("SELECT * FROM shelves_novel WHERE price = 3 LIMIT 1"),
    "a number as a text": lambda: execute("SELECT * FROM shelves_novel WHERE price::text = '99'"),
    "another type": lambda: execute("SELECT * FROM shelves_novel WHERE price = 5.5::numeric"),
}


@pytest.mark.parametrize("do", SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("analyze", [False, True])
def test_no_index_is_wanted_where_it_would_not_help_or_may_not(
    many: None, do: Callable[[], Any], analyze: bool
) -> None:
    assert plan_of(do, analyze=analyze).hints == ()


@pytest.mark.django_db(transaction=True)
def test_rows_that_postgres_knows_nothing_of_are_blamed_on_that() -> None:
    execute("CREATE TABLE grown (n int) WITH (autovacuum_enabled = off)")
    try:
        execute("INSERT INTO grown SELECT 1 FROM generate_series(1, 1000)")
        execute("ANALYZE grown")
        execute("INSERT INTO grown SELECT 2 FROM generate_series(1, 5000); SELECT pg_stat_force_next_flush()")
        execute("SELECT 1")
        (hint,) = plan_of(lambda: execute("SELECT * FROM grown WHERE n = 2"), analyze=True).hints
        assert hint.text.startswith(
            "Postgres knows too little about the rows of grown, and expected another "
        )
        assert hint.code == "ANALYZE grown;"
        assert plan_of(lambda: execute("SELECT * FROM grown WHERE n = 2")).hints == ()
        execute("ANALYZE grown")
        assert plan_of(lambda: execute("SELECT * FROM grown WHERE n = 2"), analyze=True).hints == ()
        # That is nothing that ANALYZE would mend.
        assert plan_of(lambda: execute("SELECT * FROM grown WHERE n + 0 = 2"), analyze=True).hints == ()
    finally:
        execute("DROP TABLE grown")


def test_a_sort_that_went_to_disk_is_said(many: None) -> None:
    execute("SET LOCAL work_mem = '64kB'")
    plan = plan_of(lambda: list(Novel.objects.order_by("title")), analyze=True)
    assert re.match(
        r"The sort did not fit into memory \(work_mem\) and went to disk, [\d,]+ kB", plan.hints[0].text
    )
    assert "kB on disk" in "\n".join(figures(plan))


def test_it_is_shown_below_its_statement(many: None) -> None:
    with queries(analyze=True) as asked:
        list(Novel.objects.filter(title="novel 5"))
        Novel.objects.filter(title="novel 5").update(price=3)
    said = repr(asked)
    assert "\n\nPlan of 1, as it went when run again\n" in said
    assert "\n\n! 1. An index on shelves_novel (title) would spare" in said
    assert "\n\n2. Not run again, because it writes" in said
    assert "Update on shelves_novel: updates the rows" in said
    assert "Plan" not in repr(asked.facts)
    assert isinstance(asked, Asked)


def test_a_plan_shows_no_password_and_no_end_of_values(db: None) -> None:
    with queries(analyze=True) as asked:
        list(User.objects.filter(password="h2o-s3cr3t"))
        list(Session.objects.filter(session_data="h2o-s3cr3t"))
        list(Author.objects.filter(name__in=[f"author {n}" for n in range(1000)]))
    said = repr(asked)
    assert "h2o-s3cr3t" not in said
    assert "keeps rows with password = '***'" in said
    assert all(len(line) < 300 for line in said.splitlines())


def test_a_scan_that_stops_early_does_not_read_the_whole_table(many: None) -> None:
    (_, _, scan) = figures(plan_of(lambda: list(Novel.objects.all()[:5])))
    assert scan.startswith("└─ Seq Scan on shelves_novel: reads the table as far as is needed ")
