"""``snapshot``: what Postgres has, what differs between two looks, and from what Django makes of models."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.apps import apps as installed
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, IntegerRangeField, RangeOperators
from django.db import ProgrammingError, connection, connections, models, transaction
from django.db.models import F, Q
from django.test.utils import CaptureQueriesContext, isolate_apps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker

from tests.schema.places import BARE, app, as_models, make, run, settings_for
from workbench.schema import SchemaError, diagram, models_at, snapshot, states, timeline
from workbench.schema import scratch as scratch_tables
from workbench.schema.snapshot import Snapshot

room = importlib.import_module("workbench.schema.snapshot")


@pytest.fixture
def here(db: None) -> Callable[..., Snapshot]:
    """A schema of the test's own, searched first; call it for a snapshot of it, after some SQL."""
    run("CREATE SCHEMA here", "SET LOCAL search_path = here, public")

    def look(*statements: str) -> Snapshot:
        run(*statements)
        return snapshot(schemas=["here"])

    return look


@pytest.fixture
def elsewhere(scratch_url: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """The alias of an empty database."""
    connections.databases["elsewhere"] = settings_for(scratch_url)
    with django_db_blocker.unblock():
        yield "elsewhere"
        connections["elsewhere"].close()
    del connections["elsewhere"]
    del connections.databases["elsewhere"]


def lines(difference: Any) -> list[str]:
    return [str(change) for change in difference]


# What cannot be looked at.


@pytest.mark.parametrize(
    ("app_label", "said"),
    [
        ("nothing", "No app 'nothing' is installed."),
        ("cataloq", "No app 'cataloq' is installed: did you mean catalog?"),
        ("", "No app '' is installed."),
        ("django.contrib.auth", "No app 'django.contrib.auth' is installed"),
    ],
)
def test_an_unknown_app_is_said_in_a_sentence(db: None, app_label: str, said: str) -> None:
    with pytest.raises(SchemaError) as raised:
        snapshot("auth", app_label)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("name", ["nowhere", "pg_catalog", "information_schema", "PUBLIC", ""])
def test_an_unknown_schema_is_said_with_those_there_are(here: Any, name: str) -> None:
    with pytest.raises(SchemaError, match=rf"^There is no schema '{name}' that this role sees: .*here"):
        snapshot(schemas=["here", name])


def test_an_unknown_table_is_said_with_those_there_are(here: Any) -> None:
    with pytest.raises(SchemaError, match=r"^There is no table 'b': there are a\.$"):
        here("CREATE TABLE a ()")["b"]


def test_without_tables_a_snapshot_is_empty_and_says_so(elsewhere: str) -> None:
    run("CREATE SCHEMA here", using=elsewhere)
    for schemas in (None, [], ["here"]):
        found = snapshot(schemas=schemas, using=elsewhere)
        assert (len(found), repr(found), list(found)) == (0, "No tables.", [])
        assert not found - found


def test_only_a_snapshot_or_models_can_be_subtracted(here: Any) -> None:
    with pytest.raises(TypeError):
        here() - "catalog"


# Who may see what.


def test_rows_that_the_role_may_not_read_are_unknown_and_the_rest_is_seen(here: Any) -> None:
    run("CREATE TABLE closed (id int PRIMARY KEY)", "INSERT INTO closed VALUES (1)")
    run("CREATE TABLE partly (id int, secret int)", "INSERT INTO partly VALUES (1)")
    run("CREATE TABLE open (id int)", "INSERT INTO open VALUES (1)")
    run("CREATE ROLE snapshot_reader", "GRANT snapshot_reader TO CURRENT_USER")
    run("GRANT USAGE ON SCHEMA here TO snapshot_reader")
    run("GRANT SELECT ON open TO snapshot_reader", "GRANT SELECT (id) ON partly TO snapshot_reader")
    ours = snapshot(schemas=["here"])
    theirs = here("SET LOCAL ROLE snapshot_reader")
    assert {table.name: table.said_rows for table in theirs} == {
        "closed": "rows unknown",
        "open": "1 row",
        "partly": "rows unknown",
    }
    assert theirs == ours


def test_a_schema_that_the_role_may_not_use_is_not_seen_and_does_no_harm(here: Any) -> None:
    run("CREATE TABLE a (id int)", "CREATE ROLE snapshot_reader", "GRANT snapshot_reader TO CURRENT_USER")
    run("SET LOCAL ROLE snapshot_reader")
    assert not any("here" in name or name == "a" for name in snapshot().tables)
    with pytest.raises(SchemaError, match="no schema 'here'"):
        snapshot(schemas=["here"])


def test_a_snapshot_sees_what_its_own_transaction_did_and_leaves_it_usable(here: Any) -> None:
    found = here("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1), (2)")
    assert found["a"].rows == 2
    assert run("SELECT count(*) FROM a") == [(2,)]


def test_in_a_failed_transaction_postgres_own_error_comes_through(db: None) -> None:
    with pytest.raises(ProgrammingError), transaction.atomic():
        run("SELECT nonsense")
    assert len(snapshot("catalog")) == 2


# Tables of every kind.


def test_every_kind_of_table_is_seen_and_nothing_else(here: Any) -> None:
    found = here(
        "CREATE TABLE plain (id int)",
        "CREATE UNLOGGED TABLE unlogged (id int)",
        "CREATE TABLE parts (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)",
        "CREATE FOREIGN DATA WRAPPER idle",
        "CREATE SERVER idle FOREIGN DATA WRAPPER idle",
        "CREATE FOREIGN TABLE abroad (id int NOT NULL) SERVER idle",
        "CREATE VIEW a_view AS SELECT 1",
        "CREATE MATERIALIZED VIEW a_stored_view AS SELECT 1 AS id",
        "CREATE INDEX ON a_stored_view (id)",
        "CREATE SEQUENCE a_sequence",
        "CREATE TYPE a_type AS (id int)",
        "CREATE TEMPORARY TABLE passing (id int)",
    )
    assert list(found.tables) == ["abroad", "part", "parts", "plain", "unlogged"]


def test_a_foreign_table_is_never_read(here: Any) -> None:
    run("CREATE FOREIGN DATA WRAPPER idle", "CREATE SERVER idle FOREIGN DATA WRAPPER idle")
    assert here("CREATE FOREIGN TABLE abroad (id int) SERVER idle")["abroad"].is_estimate
    run("CREATE TABLE parts (id int) PARTITION BY RANGE (id)")
    run("CREATE FOREIGN TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9) SERVER idle")
    assert list(here().tables) == ["abroad", "part", "parts"]


def test_rows_of_an_inheriting_table_are_counted_with_it_alone(here: Any) -> None:
    found = here("CREATE TABLE a (id int)", "CREATE TABLE b () INHERITS (a)", "INSERT INTO b VALUES (1)")
    assert [table.rows for table in found] == [0, 1]
    assert [table.rows for table in here("INSERT INTO a VALUES (1)")] == [1, 1]


def test_a_key_into_a_partitioned_table_is_one_key_however_many_partitions(here: Any) -> None:
    before = here(
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE other (part_id int REFERENCES parts)",
    )
    assert [str(each) for each in before["other"].constraints] == ["(part_id) REFERENCES parts(id)"]
    after = here("CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)")
    assert after["other"] == before["other"]


# Names.


def test_a_name_has_its_schema_where_that_is_not_searched(here: Any) -> None:
    run("CREATE SCHEMA there", "CREATE TABLE there.a (id int)", "CREATE TABLE here.a (id int)")
    run("CREATE TABLE public.a (id int)", "CREATE TABLE there.b (id int)")
    named = ["here", "there", "public"]
    assert {name for name in snapshot(schemas=named).tables if name[-2:] in ("a", ".a", ".b", "b")} >= {
        "a",
        "public.a",
        "there.a",
        "there.b",
    }
    run("SET LOCAL search_path = there")
    assert {"a", "b", "here.a", "public.a"} <= snapshot(schemas=named).tables.keys()


def test_two_tables_are_two_even_if_a_name_holds_a_dot(here: Any) -> None:
    run('CREATE TABLE "there.a" (id int)', "CREATE SCHEMA there", "CREATE TABLE there.a (id int)")
    assert len(snapshot(schemas=["here", "there"])) == 2


ODD = [
    "a b",
    'say "hi"',
    "Größe ✓",
    "100%",
    "per%sent",
    "a.b",
    "a(b)",
    "it's",
    "\\",
    "x USING btree",
    "SELECT",
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_is_taken_as_it_is(here: Any, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    found = here(
        f'CREATE TABLE {quoted} ({quoted} int CONSTRAINT {quoted[:-1]} key" PRIMARY KEY)',
        f'CREATE INDEX {quoted[:-1]} index" ON {quoted} ({quoted} DESC)',
        f"INSERT INTO {quoted} VALUES (1)",
    )
    (table,) = found
    assert (table.name, list(table.columns), table.rows) == (name, [name], 1)
    assert [each.name for each in table.rules] == [f"{name} key", f"{name} index"]
    assert str(table.indexes[0]).startswith("btree (")
    assert not found - here()


@pytest.mark.parametrize(
    ("table", "index"), [("t", "x t USING y"), ("a b", '"a b" USING '), ("x USING y", "x USING y USING ")]
)
def test_an_index_is_told_from_its_name_whatever_that_says(here: Any, table: str, index: str) -> None:
    run(f'CREATE TABLE "{table}" (id int)')
    found = here('CREATE INDEX "{}" ON "{}" (id)'.format(index.replace('"', '""'), table))
    assert [(each.name, str(each)) for each in found[table].indexes] == [(index, "btree (id)")]


# Columns, constraints and indexes.


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("varchar(10) NOT NULL", "varchar(10) NOT NULL"),
        ("character varying[]", "varchar[]"),
        ("numeric(10, 2) DEFAULT 1.5", "numeric(10,2) DEFAULT 1.5"),
        ("text DEFAULT 'it''s 50%'", "text DEFAULT 'it''s 50%'::text"),
        ("int DEFAULT NULL", "integer"),
        ("serial", "integer NOT NULL DEFAULT nextval('a_c_seq'::regclass)"),
        ("int GENERATED ALWAYS AS IDENTITY", "integer NOT NULL GENERATED ALWAYS AS IDENTITY"),
        ("int GENERATED BY DEFAULT AS IDENTITY", "integer NOT NULL GENERATED BY DEFAULT AS IDENTITY"),
        ('text COLLATE "C"', 'text COLLATE "C"'),
        ("timestamptz(3)", "timestamp(3) with time zone"),
        ('"char"', '"char"'),
        ('"odd, type"', '"odd, type"'),
        ("positive", "positive"),
    ],
)
def test_a_column_says_what_postgres_would(here: Any, column: str, said: str) -> None:
    run("CREATE DOMAIN positive AS int CHECK (value > 0)", "CREATE TYPE \"odd, type\" AS ENUM ('a')")
    assert str(here(f"CREATE TABLE a (c {column})")["a"].columns["c"]) == said


@pytest.mark.parametrize(
    "column",
    [
        "int GENERATED ALWAYS AS (n * 2) STORED",
        "int GENERATED ALWAYS AS (n * 2) VIRTUAL",
        "int GENERATED BY DEFAULT AS IDENTITY",
        "text COLLATE \"C\" DEFAULT 'x' NOT NULL",
        'text COLLATE "Of Ours"',
        'text COLLATE here."of ours"',
    ],
)
def test_what_a_column_says_makes_the_same_column_again(here: Any, column: str) -> None:
    run('CREATE COLLATION "Of Ours" FROM "C"', 'CREATE COLLATION here."of ours" FROM "C"')
    made = here(f"CREATE TABLE a (n int, c {column})")["a"].columns["c"]
    assert here(f"CREATE TABLE b (n int, c {made})")["b"].columns["c"] == made


def test_a_difference_sees_how_a_column_is_generated(here: Any) -> None:
    seen = [here("CREATE TABLE a (n int, c int GENERATED ALWAYS AS (n) STORED)")]
    assert (seen[0]["a"].columns["c"].default, seen[0]["a"].columns["c"].generated) == (None, "n")
    seen.append(here("ALTER TABLE a ALTER c SET EXPRESSION AS (n + 1)"))
    seen.append(here("ALTER TABLE a DROP c", "ALTER TABLE a ADD c int GENERATED ALWAYS AS (n + 1) VIRTUAL"))
    seen.append(here("ALTER TABLE a DROP c", "ALTER TABLE a ADD c int DEFAULT 1"))
    for before, after in itertools.combinations(seen, 2):
        assert [(change.sign, change.what, change.name) for change in after - before] == [
            ("~", "column", "c")
        ]


CONSTRAINTS = [
    ("PRIMARY KEY (a, b)", "primary key (a, b)"),
    ("UNIQUE (a) INCLUDE (b)", "unique (a) INCLUDE (b)"),
    ("UNIQUE NULLS NOT DISTINCT (a)", "unique NULLS NOT DISTINCT (a)"),
    ("UNIQUE (a) DEFERRABLE INITIALLY DEFERRED", "unique (a) DEFERRABLE INITIALLY DEFERRED"),
    ("CHECK (a > 0)", "check ((a > 0))"),
    ("CHECK (a > 0) NOT VALID", "check ((a > 0)) NOT VALID"),
    ("CHECK (a > 0) NO INHERIT", "check ((a > 0)) NO INHERIT"),
    ("FOREIGN KEY (b) REFERENCES it", "foreign key (b) REFERENCES it(id)"),
    (
        "FOREIGN KEY (b) REFERENCES it ON DELETE CASCADE DEFERRABLE NOT VALID",
        "foreign key (b) REFERENCES it(id) ON DELETE CASCADE DEFERRABLE NOT VALID",
    ),
    ("EXCLUDE USING gist (r WITH &&)", "exclusion EXCLUDE USING gist (r WITH &&)"),
    (
        "EXCLUDE USING gist (r WITH &&) WHERE (a > 0)",
        "exclusion EXCLUDE USING gist (r WITH &&) WHERE ((a > 0))",
    ),
]


@pytest.mark.parametrize(("sql", "said"), CONSTRAINTS)
def test_a_constraint_says_all_that_it_holds_once_and_its_index_is_no_other(
    here: Any, sql: str, said: str
) -> None:
    run("CREATE TABLE it (id int PRIMARY KEY)", "CREATE TABLE t (a int, b int, r int4range)")
    table = here(f"ALTER TABLE t ADD CONSTRAINT named {sql}")["t"]
    assert [f"{each.kind} {each}" for each in table.rules] == [said]
    assert [each.name for each in table.rules] == ["named"]


INDEXES = [
    ("INDEX i ON t (a)", "btree (a)"),
    ("UNIQUE INDEX i ON t (a)", "UNIQUE btree (a)"),
    ("INDEX i ON t USING hash (a)", "hash (a)"),
    ("INDEX i ON t USING gist (r)", "gist (r)"),
    ("INDEX i ON t (a DESC NULLS LAST, lower(c) text_pattern_ops)", None),
    ("INDEX i ON t (c COLLATE \"C\") WHERE c <> ' USING '", None),
    ("INDEX i ON t (a) INCLUDE (b) WITH (fillfactor = 70)", "btree (a) INCLUDE (b) WITH (fillfactor='70')"),
    ("UNIQUE INDEX i ON t (a) NULLS NOT DISTINCT", "UNIQUE btree (a) NULLS NOT DISTINCT"),
]


@pytest.mark.parametrize(("sql", "said"), INDEXES)
def test_an_index_says_all_that_it_holds(here: Any, sql: str, said: str | None) -> None:
    (index,) = here("CREATE TABLE t (a int, b int, c text, r int4range)", f"CREATE {sql}")["t"].indexes
    (written,) = run("SELECT pg_get_indexdef('i'::regclass)")[0]
    assert index.definition == written.partition(" ON here.t USING ")[2]
    assert said is None or str(index) == said


def test_an_index_that_is_not_valid_says_so(here: Any) -> None:
    run("CREATE TABLE parts (id int) PARTITION BY RANGE (id)")
    run("CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)")
    before = here("CREATE INDEX i ON ONLY parts (id)")
    assert [str(each) for each in before["parts"].indexes] == ["btree (id) INVALID"]
    after = here("CREATE INDEX j ON part (id)", "ALTER INDEX i ATTACH PARTITION j")
    assert "~ parts index i: btree (id) INVALID → btree (id)" in lines(after - before)


# Rows.


def test_rows_are_exact_up_to_a_size_and_estimated_beyond(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("CREATE TABLE t (id int)", "INSERT INTO t SELECT generate_series(1, 5000)", "ANALYZE t")
    run("DELETE FROM t WHERE id = 1")
    assert here()["t"].said_rows == "4,999 rows"
    monkeypatch.setattr(room, "COUNTED_BYTES", 8192)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert here()["t"].said_rows == "about 5,000 rows"
    assert not any("count(*)" in query["sql"] for query in queries)


def test_a_large_table_that_was_never_analyzed_is_not_said_to_be_empty(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COUNTED_BYTES", 8192)
    table = here("CREATE TABLE t (id int)", "INSERT INTO t SELECT generate_series(1, 5000)")["t"]
    assert table.said_rows != "about 0 rows"


def test_a_large_partitioned_table_is_not_read_either(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COUNTED_BYTES", 8192)
    run("CREATE TABLE parts (id int) PARTITION BY RANGE (id)")
    run("CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (10000)")
    run("INSERT INTO parts SELECT generate_series(1, 5000)", "ANALYZE parts")
    assert [table.said_rows for table in here()] == ["about 5,000 rows", "about 5,000 rows"]


def test_more_tables_are_no_more_queries(here: Any) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            here()
        return len(captured)

    run("CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1)")
    one = queries()
    for number in range(60):
        run(
            f"CREATE TABLE t{number} (id int PRIMARY KEY, n int REFERENCES t)",
            f"CREATE INDEX ON t{number} (n)",
        )
        run(f"INSERT INTO t{number} VALUES (1)")
    assert queries() == one <= 6


# Which tables are an app's.


def test_the_tables_of_an_app_are_its_models_and_what_is_named_like_it(db: None) -> None:
    run("CREATE TABLE catalog_left_over (id int)", "CREATE TABLE catalogue (id int)")
    assert list(snapshot("catalog").tables) == ["catalog_author", "catalog_book", "catalog_left_over"]
    assert list(snapshot("contenttypes", "admin").tables) == ["django_admin_log", "django_content_type"]
    assert "auth_user_groups" in snapshot("auth").tables
    assert not len(snapshot(BARE))


def test_a_table_stays_with_its_app_when_others_have_proxies_of_it_or_read_it(
    db: None, tmp_path: Path
) -> None:
    classes = """
from django.contrib.auth.models import User

class Reader(User):
    class Meta:
        proxy = True

class Written(models.Model):
    class Meta:
        managed = False
        db_table = "catalog_book"
"""
    with app(tmp_path, "ledger", classes, {}):
        assert "auth_user" in snapshot("auth").tables
        assert list(snapshot("catalog").tables) == ["catalog_author", "catalog_book"]


# What is equal, and what is not.

TWINS = (
    "CREATE TABLE a (id int PRIMARY KEY, n int NOT NULL DEFAULT 3, t text, CONSTRAINT c CHECK (n > 0))",
    "CREATE TABLE b (a_id int CONSTRAINT fk REFERENCES a, r int4range)",
    "CREATE INDEX one ON b (a_id)",
    "CREATE INDEX two ON b (r)",
)
OTHERWISE = (
    "CREATE TABLE gone (id int)",
    "DROP TABLE gone",
    "CREATE TABLE b (gone int, r int4range, a_id int)",
    "ALTER TABLE b DROP gone",
    "CREATE INDEX two ON b (r)",
    "CREATE INDEX one ON b (a_id)",
    "CREATE TABLE a (t text, n int NOT NULL, id int)",
    "ALTER TABLE a ADD CONSTRAINT c CHECK (n > 0)",
    "ALTER TABLE a ALTER n SET DEFAULT 3, ADD PRIMARY KEY (id)",
    "INSERT INTO a VALUES ('x', 1, 1)",
    "ALTER TABLE b ADD CONSTRAINT fk FOREIGN KEY (a_id) REFERENCES a",
)


def test_the_same_tables_made_in_another_order_elsewhere_are_equal(here: Any, elsewhere: str) -> None:
    ours = here(*TWINS)
    run(*OTHERWISE, using=elsewhere)
    theirs = snapshot(using=elsewhere)
    assert ours == theirs
    assert lines(theirs - ours) == ["~ a rows: 0 rows → 1 row"]


CHANGES: list[tuple[str, list[str]]] = [
    ("ALTER TABLE a ADD extra int DEFAULT 3", ["+ a column extra: integer DEFAULT 3"]),
    ("ALTER TABLE a DROP t", ["- a column t: text"]),
    ("ALTER TABLE a RENAME t TO u", ["- a column t: text", "+ a column u: text"]),
    ("ALTER TABLE a ALTER t TYPE varchar(9)", ["~ a column t: text → varchar(9)"]),
    ('ALTER TABLE a ALTER t TYPE text COLLATE "C"', ['~ a column t: text → text COLLATE "C"']),
    ("ALTER TABLE a ALTER t SET NOT NULL", ["~ a column t: text → text NOT NULL"]),
    ("ALTER TABLE a ALTER t SET DEFAULT ''", ["~ a column t: text → text DEFAULT ''::text"]),
    (
        "ALTER TABLE a ALTER n DROP DEFAULT",
        ["~ a column n: integer NOT NULL DEFAULT 3 → integer NOT NULL"],
    ),
    (
        "ALTER TABLE a ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        ["~ a column id: integer NOT NULL → integer NOT NULL GENERATED ALWAYS AS IDENTITY"],
    ),
    ("ALTER TABLE a DROP CONSTRAINT c", ["- a check c: ((n > 0))"]),
    ("ALTER TABLE a RENAME CONSTRAINT c TO d", ["~ a check: c → d"]),
    (
        "ALTER TABLE a DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (n > 1)",
        ["~ a check c: ((n > 0)) → ((n > 1))"],
    ),
    ("ALTER TABLE a ADD CONSTRAINT u UNIQUE (t)", ["+ a unique u: (t)"]),
    (
        "ALTER TABLE b ALTER CONSTRAINT fk DEFERRABLE",
        ["~ b foreign key fk: (a_id) REFERENCES a(id) → (a_id) REFERENCES a(id) DEFERRABLE"],
    ),
    ("ALTER TABLE b DROP CONSTRAINT fk", ["- b foreign key fk: (a_id) REFERENCES a(id)"]),
    (
        "ALTER TABLE b ADD EXCLUDE USING gist (r WITH &&)",
        ["+ b exclusion b_r_excl: EXCLUDE USING gist (r WITH &&)"],
    ),
    ("DROP INDEX one", ["- b index one: btree (a_id)"]),
    ("ALTER INDEX one RENAME TO won", ["~ b index: one → won"]),
    (
        "DROP INDEX one; CREATE UNIQUE INDEX one ON b (a_id)",
        ["~ b index one: btree (a_id) → UNIQUE btree (a_id)"],
    ),
    ("CREATE INDEX three ON b (a_id)", ["+ b index three: btree (a_id)"]),
    ("CREATE TABLE c (id int)", ["+ c table: 0 rows", "+ c column id: integer"]),
    (
        "DROP TABLE b",
        [
            "- b table: 0 rows",
            "- b column a_id: integer",
            "- b column r: int4range",
            "- b foreign key fk: (a_id) REFERENCES a(id)",
            "- b index one: btree (a_id)",
            "- b index two: btree (r)",
        ],
    ),
    ("INSERT INTO b DEFAULT VALUES", ["~ b rows: 0 rows → 1 row"]),
]


@pytest.mark.parametrize(("sql", "expected"), CHANGES, ids=[sql for sql, _ in CHANGES])
def test_a_difference_names_what_one_statement_changed_and_nothing_else(
    here: Any, sql: str, expected: list[str]
) -> None:
    before = here(*TWINS)
    after = here(sql)
    assert lines(after - before) == expected
    assert bool(after - before)
    assert (after == before) == sql.startswith("INSERT")
    backwards = {
        f"{'+-~'['-+~'.index(change.sign)]} {change.what} {change.name}" for change in after - before
    }
    assert {f"{change.sign} {change.what} {change.name}" for change in before - after} == backwards


# Each with its inverse and its line; none needs another.
STEPS: tuple[tuple[str, str, str], ...] = (
    ("ALTER TABLE a ADD x int", "ALTER TABLE a DROP x", "+ a column x: integer"),
    ("ALTER TABLE a DROP t", "ALTER TABLE a ADD t text", "- a column t: text"),
    (
        "ALTER TABLE a ALTER n DROP NOT NULL",
        "ALTER TABLE a ALTER n SET NOT NULL",
        "~ a column n: integer NOT NULL DEFAULT 3 → integer DEFAULT 3",
    ),
    (
        "ALTER TABLE b ALTER r TYPE int8range USING NULL",
        "ALTER TABLE b ALTER r TYPE int4range USING NULL",
        "~ b column r: int4range → int8range",
    ),
    ("ALTER TABLE a RENAME CONSTRAINT c TO d", "ALTER TABLE a RENAME CONSTRAINT d TO c", "~ a check: c → d"),
    (
        "ALTER TABLE b DROP CONSTRAINT fk",
        "ALTER TABLE b ADD CONSTRAINT fk FOREIGN KEY (a_id) REFERENCES a",
        "- b foreign key fk: (a_id) REFERENCES a(id)",
    ),
    ("ALTER INDEX one RENAME TO won", "ALTER INDEX won RENAME TO one", "~ b index: one → won"),
    ("CREATE INDEX three ON a (id)", "DROP INDEX three", "+ a index three: btree (id)"),
    ("CREATE TABLE c ()", "DROP TABLE c", "+ c table: 0 rows"),
    ("INSERT INTO b DEFAULT VALUES", "DELETE FROM b", "~ b rows: 0 rows → 1 row"),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(there=st.permutations(range(len(STEPS))), back=st.permutations(range(len(STEPS))), some=st.data())
def test_steps_add_up_to_their_lines_in_any_order_and_undone_leave_no_difference(
    db: None, there: list[int], back: list[int], some: st.DataObject
) -> None:
    taken = set(there[: some.draw(st.integers(0, len(STEPS)))])
    with transaction.atomic():
        run("CREATE SCHEMA here", "SET LOCAL search_path = here", *TWINS)
        before = snapshot(schemas=["here"])
        run(*(STEPS[number][0] for number in there if number in taken))
        after = snapshot(schemas=["here"])
        assert sorted(lines(after - before)) == sorted(STEPS[number][2] for number in taken)
        run(*(STEPS[number][1] for number in back if number in taken))
        again = snapshot(schemas=["here"])
        assert again == before
        assert not again - before
        transaction.set_rollback(True)


# Drift: what the database has otherwise than Django would have made it.


def test_a_migrated_database_does_not_drift_in_any_app(db: None) -> None:
    for config in installed.get_app_configs():
        if any(config.get_models()):
            assert repr(snapshot() - models_at(config.label)) == "No difference.", config.label


def test_a_database_drifts_from_any_other_point_of_its_history(db: None) -> None:
    assert lines(snapshot() - models_at("catalog", "0001")) == [
        "+ catalog_author column country: varchar(100) NOT NULL"
    ]
    assert lines(snapshot() - models_at("catalog", "zero")) == [
        "+ catalog_author table",
        "+ catalog_book table",
    ]


with isolate_apps("tests.schema"):

    class Model(models.Model):
        objects: ClassVar[models.Manager[Any]] = models.Manager()

        class Meta:
            abstract = True
            app_label = BARE

    class Person(Model):
        name = models.CharField(max_length=20, unique=True)
        friends = models.ManyToManyField("self")

    class Stage(Person):
        """Multi-table inheritance."""

        name_on_stage = models.CharField(max_length=9, db_index=True)

        class Meta:
            app_label = BARE

    class Known(Person):
        class Meta:
            app_label = BARE
            proxy = True

    class Legacy(Model):
        class Meta(Model.Meta):
            managed = False
            db_table = "legacy"

    class Fan(Model):
        of = models.ForeignKey(Known, models.CASCADE)

    class Reader(Model):
        reads = models.ForeignKey(Legacy, models.CASCADE)

    class Much(Model):
        """Whatever a model may have."""

        person = models.ForeignKey(Person, models.CASCADE, db_column="Person, of it")
        one = models.OneToOneField(Person, models.CASCADE, null=True, related_name="+")
        loose = models.ForeignKey(Person, models.CASCADE, db_constraint=False, related_name="+")
        by_name = models.ForeignKey(Person, models.CASCADE, to_field="name", related_name="+")
        number = models.IntegerField(db_default=3, db_comment="Three at first")
        double = models.GeneratedField(
            expression=F("number") * 2, output_field=models.IntegerField(), db_persist=True
        )
        numbers = ArrayField(models.IntegerField(), default=list, size=3)
        span = IntegerRangeField()
        sorted = models.CharField(max_length=5, db_collation="C")
        small = models.PositiveSmallIntegerField(null=True)
        data = models.JSONField(default=dict)

        class Meta(Model.Meta):
            db_table_comment = "Much"
            indexes = [
                models.Index(fields=["number"]),
                models.Index("small", name="much_small", condition=Q(small__gt=3)),
            ]
            constraints = [
                models.CheckConstraint(name="much_positive", condition=Q(number__gt=0)),
                models.UniqueConstraint(name="much_once", fields=["number", "small"]),
                models.UniqueConstraint(name="much_some", fields=["small"], condition=Q(number=3)),
                models.UniqueConstraint(
                    name="much_late", fields=["small"], deferrable=models.Deferrable.DEFERRED
                ),
                models.UniqueConstraint(name="much_nulls", fields=["small"], nulls_distinct=False),
                ExclusionConstraint(name="much_apart", expressions=[("span", RangeOperators.OVERLAPS)]),
            ]

    class OddField(models.Field):  # type: ignore[type-arg]
        def db_type(self, connection: Any) -> str:
            return "no_such_type"

    class Unmakeable(Model):
        odd = OddField()

    class Book(Model):
        title = models.CharField(max_length=9, db_index=True)
        readers = models.ManyToManyField(Person)

        class Meta(Model.Meta):
            db_table = 'library"."book'

    class Loan(Model):
        book = models.ForeignKey(Book, models.CASCADE)

        class Meta(Model.Meta):
            db_table = 'library"."loan'

    class Desk(Model):
        book = models.ForeignKey(Book, models.CASCADE)

    class Hall(Model):
        class Meta(Model.Meta):
            db_table = 'Great Library"."hall'

    class Seat(Model):
        hall = models.ForeignKey(Hall, models.CASCADE)


@pytest.mark.parametrize("search_path", ["public", "public, library", "library, public"])
@pytest.mark.parametrize(
    "classes",
    [
        (Person, Stage, Known),
        (Person, Much),
        (Person, Fan),
        (Reader,),
        (Person, Book, Loan, Desk),
        (Hall, Seat),
    ],
    ids=lambda classes: classes[-1].__name__,
)
def test_what_django_made_of_models_does_not_drift_from_them(
    db: None, classes: tuple[type[models.Model], ...], search_path: str
) -> None:
    run('CREATE SCHEMA library; CREATE SCHEMA "Great Library"', f"SET LOCAL search_path = {search_path}")
    run("CREATE TABLE legacy (id bigint PRIMARY KEY)")
    make(model for model in classes if model._meta.can_migrate("default"))
    assert repr(snapshot() - as_models(*classes)) == "No difference."


def test_models_that_refer_to_a_proxy_of_another_app_do_not_drift(db: None) -> None:
    make([Person, Fan])
    assert [change for change in snapshot() - as_models(Fan) if change.table == "messages_fan"] == []


M = "messages_much"
ROGUE: list[tuple[str, list[str]]] = [
    (f"ALTER TABLE {M} ADD extra int", [f"+ {M} column extra: integer"]),
    (f"ALTER TABLE {M} DROP data", [f"- {M} column data: jsonb NOT NULL"]),
    (f"ALTER TABLE {M} ALTER data TYPE json", [f"~ {M} column data: jsonb NOT NULL → json NOT NULL"]),
    (f"ALTER TABLE {M} ALTER data DROP NOT NULL", [f"~ {M} column data: jsonb NOT NULL → jsonb"]),
    (
        f"ALTER TABLE {M} ALTER number SET DEFAULT 4",
        [f"~ {M} column number: integer NOT NULL DEFAULT 3 → integer NOT NULL DEFAULT 4"],
    ),
    (f"ALTER TABLE {M} DROP CONSTRAINT much_positive", [f"- {M} check much_positive: ((number > 0))"]),
    (f"ALTER TABLE {M} ADD CONSTRAINT odd CHECK (id > 0)", [f"+ {M} check odd: ((id > 0))"]),
    (f"ALTER TABLE {M} RENAME CONSTRAINT much_once TO twice", [f"~ {M} unique: much_once → twice"]),
    ("ALTER INDEX much_small RENAME TO big", [f"~ {M} index: much_small → big"]),
    ("DROP INDEX much_some", [f"- {M} index much_some: UNIQUE btree (small) WHERE (number = 3)"]),
    ("CREATE INDEX odd ON messages_much (id)", [f"+ {M} index odd: btree (id)"]),
    (
        f"ALTER TABLE {M} DROP CONSTRAINT much_apart",
        [f"- {M} exclusion much_apart: EXCLUDE USING gist (span WITH &&)"],
    ),
    ("CREATE TABLE messages_odd (id int)", ["+ messages_odd table"]),
    ("DROP TABLE messages_person_friends", ["- messages_person_friends table"]),
]


@pytest.mark.parametrize(("sql", "expected"), ROGUE, ids=[sql for sql, _ in ROGUE])
def test_drift_names_what_somebody_did_to_the_tables(db: None, sql: str, expected: list[str]) -> None:
    make([Person, Much])
    run(sql)
    assert lines(snapshot() - as_models(Person, Much)) == expected


@pytest.mark.parametrize("kind", ["f", "u", "i"])
def test_drift_does_not_mind_names_that_django_makes_up(db: None, kind: str) -> None:
    make([Person, Much])
    of = {
        "f": "SELECT conname FROM pg_constraint WHERE conrelid = 'messages_much'::regclass AND contype = 'f'",
        "u": "SELECT conname FROM pg_constraint WHERE conrelid = 'messages_person'::regclass "
        "AND contype = 'u'",
        "i": "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'messages_person'::regclass "
        "AND NOT indisunique",
    }
    for (name,) in run(of[kind]):
        table = "messages_much" if kind == "f" else "messages_person"
        run(
            f"ALTER INDEX {name} RENAME TO a_name_of_old"
            if kind == "i"
            else f'ALTER TABLE {table} RENAME CONSTRAINT "{name}" TO "old_{name[-40:]}"'
        )
    assert repr(snapshot() - as_models(Person, Much)) == "No difference."


def test_drift_sees_a_foreign_key_that_leads_elsewhere(db: None) -> None:
    make([Person, Fan])
    ((name,),) = run(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'messages_fan'::regclass AND contype = 'f'"
    )
    run(f'ALTER TABLE messages_fan DROP CONSTRAINT "{name}"')
    run(
        f'ALTER TABLE messages_fan ADD CONSTRAINT "{name}" FOREIGN KEY (of_id) REFERENCES auth_user '
        "DEFERRABLE INITIALLY DEFERRED"
    )
    late = "DEFERRABLE INITIALLY DEFERRED"
    assert lines(snapshot() - as_models(Person, Known, Fan)) == [
        f"~ messages_fan foreign key {name}: (of_id) REFERENCES messages_person(id) {late} → "
        f"(of_id) REFERENCES auth_user(id) {late}"
    ]


def test_tables_in_another_schema_drift_by_their_names_there(db: None) -> None:
    run("CREATE SCHEMA library")
    make([Person, Book, Loan])
    run("ALTER TABLE library.book ADD extra int", "DROP TABLE library.loan")
    assert lines(snapshot() - as_models(Person, Book, Loan)) == [
        "+ library.book column extra: integer",
        "- library.loan table",
    ]
    assert Book._meta.db_table == 'library"."book'


# Tables that are made for a moment.


class Broken(Exception):
    pass


def left(alias: str) -> list[Any]:
    """Return the other sessions and the temporary tables, once the server had the time to end them."""
    found: list[Any] = []
    for _ in range(100):
        found = run(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid() "
            "UNION ALL SELECT relname FROM pg_class WHERE relpersistence = 't'",
            using=alias,
        )
        if not found:
            break
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("in_transaction", [True, False])
def test_tables_made_for_a_moment_leave_nothing_however_that_ends(
    elsewhere: str, in_transaction: bool
) -> None:
    person = connections[elsewhere]
    with transaction.atomic(elsewhere) if in_transaction else nullcontext():
        run("CREATE TABLE mine (id int)", using=elsewhere)
        with scratch_tables.tables(person, [Person, Much]) as made:
            assert {"messages_person", "messages_much"} <= made.wanted
            assert made.session is not person
            assert list(snapshot(using=elsewhere).tables) == ["mine"]
        with pytest.raises(Broken), scratch_tables.tables(person, [Person]):
            raise Broken
        with pytest.raises(SchemaError, match=r"for a moment: .*no_such_type"):
            scratch_tables.tables(person, [Person, Unmakeable]).__enter__()
        assert run("SELECT * FROM mine", using=elsewhere) == []
    assert left(elsewhere) == []
    assert list(snapshot(using=elsewhere).tables) == ["mine"]


@pytest.mark.parametrize("look", [snapshot, states, timeline, diagram])
def test_an_unknown_database_is_said_in_a_sentence(look: Any) -> None:
    arguments = [] if look in (snapshot, diagram) else ["catalog"]
    with pytest.raises(SchemaError, match="There is no database alias 'nope': there are default"):
        look(*arguments, using="nope")
