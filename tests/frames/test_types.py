"""Every type of ``workbench.frames.types``: what psycopg2 makes of the rows is what is in the frame."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from django.db import connection, transaction
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg2.extras import Json

from tests.frames.reference import column, exactly, rows
from workbench.frames import FrameError, frame


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Kind:
    """A Postgres type: its dtype, what to write, and what psycopg2's value is in the frame."""

    sql: str
    dtype: Any
    written: st.SearchStrategy[Any]
    seen: Callable[[Any], Any] = _same

    def __repr__(self) -> str:
        return self.sql


def arrow(name: str) -> pd.ArrowDtype:
    return pd.ArrowDtype(pa.type_for_alias(name))


def decimal(precision: int, scale: int) -> pd.ArrowDtype:
    return pd.ArrowDtype(pa.decimal128(precision, scale))


def numerics(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    # From a text, for arithmetic would round to 28 digits.
    limit = 10**precision - 1
    digits = st.integers(-limit, limit) | st.sampled_from([limit, -limit, 0])
    return digits.map(lambda number: Decimal(f"{number}e-{scale}"))


def integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    first, last = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(first, last) | st.sampled_from([first, last])


def or_infinite(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.sampled_from(["infinity", "-infinity"])


def floats(width: int) -> st.SearchStrategy[float]:
    return st.floats(width=width)  # type: ignore[arg-type]


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
zones = st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-11)), dt.timezone(dt.timedelta(hours=5.5))])
moments = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=zones)
jsons = st.recursive(
    st.none() | st.booleans() | integers(70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).map(Json)
intervals = st.builds(
    "{} months {} days {} microseconds".format,
    st.integers(-100_000, 100_000),
    st.integers(-1_000_000, 1_000_000),
    st.integers(-(10**15), 10**15),
)
ranges = st.tuples(integers(63), integers(63), st.sampled_from(["[]", "[)", "()", "(]"])).map(
    lambda bounds: f"{bounds[2][0]}{min(bounds[:2])},{max(bounds[:2])}{bounds[2][1]}"
)


def _jsonb(text: str) -> Any:
    # Django's connection leaves jsonb to the fields.
    return json.loads(text)


KINDS = [
    Kind("smallint", arrow("int16"), integers(16)),
    Kind("integer", arrow("int32"), integers(32)),
    Kind("bigint", arrow("int64"), integers(64)),
    Kind("oid", arrow("uint32"), integers(32, signed=False)),
    Kind("real", arrow("float32"), floats(32), lambda value: float(np.float32(value))),
    Kind("double precision", arrow("float64"), floats(64)),
    Kind("boolean", arrow("bool"), st.booleans()),
    Kind("numeric(38, 0)", decimal(38, 0), numerics(38, 0)),
    Kind("numeric(38, 38)", decimal(38, 38), numerics(38, 38)),
    Kind("numeric(7, 2)", decimal(7, 2), numerics(7, 2)),
    Kind("numeric(50, 5)", object, numerics(50, 5)),
    Kind(
        "numeric",
        object,
        st.decimals() | st.sampled_from([Decimal("1e400"), Decimal("-1.50"), Decimal("1e-400")]),
    ),
    Kind("text", "str", texts),
    Kind("varchar", "str", texts),
    Kind("character(5)", "str", texts.map(lambda text: text[:5])),
    Kind("name", "str", st.text("abc é", max_size=30)),
    Kind("bytea", arrow("large_binary"), st.binary(max_size=20), bytes),
    Kind("date", arrow("date32"), or_infinite(st.dates())),
    Kind("time", arrow("time64[us]"), st.times()),
    Kind("timestamptz", "datetime64[us, UTC]", or_infinite(moments)),
    Kind("timestamp", "datetime64[us]", or_infinite(st.datetimes())),
    Kind("interval", "timedelta64[us]", intervals),
    Kind("uuid", object, st.uuids()),
    Kind("json", object, jsons),
    Kind("jsonb", object, jsons, _jsonb),
    Kind("integer[]", object, st.lists(st.none() | integers(32), max_size=3)),
    Kind("text[]", object, st.lists(st.none() | texts, max_size=3)),
    Kind("timestamptz[]", object, st.lists(moments, max_size=3)),
    Kind("int8range", object, ranges),
    Kind("inet", "str", st.ip_addresses().map(str)),
]
BY_SQL = {kind.sql: kind for kind in KINDS}

NUMBERED = [pytest.param(kind, id=kind.sql) for kind in KINDS]


@st.composite
def contents(draw: st.DrawFn) -> tuple[list[Kind], list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    row = st.tuples(*(st.none() | kind.written for kind in kinds))
    return kinds, draw(st.lists(row, max_size=8))


@contextmanager
def written(kinds: list[Kind], content: list[tuple[Any, ...]]) -> Iterator[None]:
    """Have a table ``seen`` of these columns, with the rows as psycopg2 writes them."""
    with transaction.atomic(), connection.cursor() as cursor:
        columns = ", ".join(f"c{number} {kind.sql}" for number, kind in enumerate(kinds))
        cursor.execute(f"CREATE TEMP TABLE seen (n serial, {columns})")
        values = ", ".join(f"CAST(%s AS {kind.sql})" for kind in kinds)
        for row in content:
            cursor.execute(f"INSERT INTO seen VALUES (DEFAULT, {values})", row)
        yield
        transaction.set_rollback(True)


def expected(kinds: list[Kind], sql: str) -> list[list[tuple[type, str]]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return exactly(
            [None if value is None else kind.seen(value) for kind, value in zip(kinds, row, strict=True)]
            for row in cursor.fetchall()
        )


@pytest.mark.django_db
@settings(max_examples=100, deadline=None)
@given(contents=contents(), copies=st.sampled_from([1, 1, 9, 70]), size=st.integers(1, 200))
@example(contents=([BY_SQL["text"], BY_SQL["bigint"]], [("", None), (None, 1)]), copies=65, size=64)
@example(
    contents=([BY_SQL["jsonb"], BY_SQL["json"]], [(Json("a"), None), (None, Json("b"))]), copies=1, size=1
)
def test_types_and_values_are_psycopg2s_also_in_chunks(
    contents: tuple[list[Kind], list[tuple[Any, ...]]], copies: int, size: int
) -> None:
    kinds, content = contents
    columns = ", ".join(f"c{number}" for number in range(len(kinds)))
    sql = f"SELECT {columns} FROM seen, generate_series(1, {copies}) AS copy ORDER BY copy, n"
    with written(kinds, content):
        reference = expected(kinds, sql)
        at_once = frame(sql)
        chunks = list(frame.chunks(sql, rows=size))
    assert rows(at_once) == reference
    assert [row for chunk in chunks for row in rows(chunk)] == reference
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= size or not reference
    for read in (at_once, *chunks):
        assert list(read.dtypes) == [kind.dtype for kind in kinds]


@pytest.mark.django_db
@pytest.mark.parametrize("kind", NUMBERED)
def test_a_dtype_depends_on_the_type_alone(kind: Kind) -> None:
    nulls = f"SELECT NULL::{kind.sql} AS c FROM generate_series(1, 3)"
    for sql in (nulls, f"{nulls} LIMIT 0"):
        for read in (frame(sql), next(frame.chunks(sql))):
            assert read["c"].dtype == kind.dtype
            assert set(column(read["c"])) <= {None}


@pytest.mark.django_db
def test_any_other_type_is_its_text_as_postgres_prints_it() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
        cursor.execute("CREATE DOMAIN gladness AS mood")
        cursor.execute("CREATE TYPE pair AS (first mood, second integer)")
        sql = """
            SELECT 'sad'::mood, 'glad'::gladness, ROW('sad', 1)::pair, '(1,2)'::point, '12.5'::money,
                   'pg_class'::regclass, '101'::bit(3), 'a & b'::tsquery, '08:00:2b:01:02:03'::macaddr,
                   'x'::"char", pg_sleep(0), ROW(1, 'a b'), 'a', NULL::pair, NULL::point,
                   ROW(NULL, NULL)::pair
        """
        cursor.execute(f"SELECT * FROM ({sql}) AS q")
        (row,) = cursor.fetchall()
        named = f"SELECT * FROM ({sql}) AS q ({', '.join(f'c{number}' for number in range(len(row)))})"
        read, (chunk,) = frame(named), frame.chunks(named)
        transaction.set_rollback(True)
    assert rows(read) == rows(chunk) == exactly([row])
    assert {str(dtype) for dtype in read.dtypes} == {"str"}


@pytest.mark.django_db
def test_what_psycopg2_has_a_value_of_its_own_for_is_that_value() -> None:
    sql = """
        SELECT '10:00+02'::timetz AS a, '[2020-01-01,2020-02-01)'::daterange AS b, 'empty'::numrange AS c,
               '{{1,2},{3,NULL}}'::integer[] AS d, ARRAY['1 day'::interval] AS e,
               ARRAY['{"a": 1}'::json] AS f,
               ARRAY['\\x00'::bytea] AS g, ARRAY[]::uuid[] AS h, ARRAY[1e400, 'NaN'] AS i
    """
    with connection.cursor() as cursor:
        cursor.execute(sql)
        reference = cursor.fetchone()
    assert rows(frame(sql.replace("ARRAY['\\x00'::bytea] AS g, ", ""))) == exactly(
        [reference[:6] + reference[7:]]
    )
    (read,) = frame(sql)["g"].tolist()
    assert [bytes(item) for item in read] == [b"\0"]


@pytest.mark.django_db
def test_a_numeric_whose_scale_no_decimal_column_has_is_exact_too() -> None:
    with connection.cursor() as cursor:
        if connection.cursor().connection.server_version < 150000:
            pytest.skip("Before Postgres 15 a scale is not negative, and not above the precision")
        sql = "SELECT 12345::numeric(3, -2) AS a, 0.00012::numeric(2, 5) AS b"
        cursor.execute(sql)
        assert rows(frame(sql)) == exactly(cursor.fetchall())


REFUSED = {
    "'24:00'::time": "24:00",
    "'10000-01-01'::date": "year",
    "'0044-03-15 BC'::date": "year",
    "'294276-12-31 23:59:59.999999+00'::timestamptz": "year",
    "'4713-01-01 BC'::timestamp": "year",
    "'150000 years'::interval": "interval",
    "'infinity'::interval": "interval",
    "'-infinity'::interval": "interval",
    "'NaN'::numeric(5, 2)": "NaN",
}


@pytest.mark.django_db
@pytest.mark.parametrize("position", ["first", "last"])
@pytest.mark.parametrize(("value", "said"), REFUSED.items(), ids=REFUSED)
def test_what_pandas_cannot_hold_is_refused_by_the_columns_name(value: str, said: str, position: str) -> None:
    if "infinity'::interval" in value and connection.cursor().connection.server_version < 170000:
        pytest.skip("Before Postgres 17 no interval is infinite")
    last = 20_000
    at = 1 if position == "first" else last
    sql = f"""
        SELECT n, odd FROM generate_series(1, {last}) AS n
        LEFT JOIN (SELECT {at} AS n, {value} AS odd) AS one USING (n) ORDER BY n
    """
    for read in (lambda: frame(sql), lambda: list(frame.chunks(sql, rows=3_000))):
        with (
            pytest.raises(FrameError, match=rf"^The column 'odd' holds .*{said}") as refused,
            transaction.atomic(),
        ):
            read()
        assert "\n" not in str(refused.value)
        assert frame("SELECT 1 AS one")["one"].tolist() == [1]


@pytest.mark.django_db
def test_a_refusal_does_not_spoil_the_transaction_that_it_happens_in() -> None:
    odd = "SELECT n, '24:00'::time AS odd FROM generate_series(1, 20000) AS n"
    for read in (lambda: list(frame.chunks(odd)), lambda: frame(odd)):
        with pytest.raises(FrameError):
            read()
        assert frame("SELECT 1 AS one")["one"].tolist() == [1]


@pytest.mark.django_db
def test_what_is_refused_as_it_is_can_be_read_as_text() -> None:
    assert column(frame("SELECT '24:00'::time::text AS t")["t"]) == ["24:00:00"]


ROWS = """
SELECT n, repeat('é', mod(n, 7)) AS text, NULLIF(mod(n, 3), 0) AS rest, n / 2.0::float8 AS half
FROM generate_series(1, %s) AS n
"""


def counted(last: int) -> list[tuple[Any, ...]]:
    return [(n, "é" * (n % 7), n % 3 or None, n / 2.0) for n in range(1, last + 1)]


@pytest.mark.django_db
@pytest.mark.parametrize("last", [0, 1, 63, 64, 65, 66, 127, 128, 129, 130, 191, 192, 193])
def test_no_number_of_rows_is_special(last: int) -> None:
    assert rows(frame(ROWS, [last])) == exactly(counted(last))
    for size in (1, 63, 64, 65, last or 1):
        chunks = list(frame.chunks(ROWS, [last], rows=size))
        assert [row for chunk in chunks for row in rows(chunk)] == exactly(counted(last))
        assert len(chunks) == max(1, -(-last // size))


@pytest.mark.django_db
def test_many_rows_are_all_there_in_order() -> None:
    last = 300_000
    read = frame(ROWS, [last])
    assert list(read.itertuples(index=False, name=None))[:3] == [
        (n, text, pd.NA if rest is None else rest, half) for n, text, rest, half in counted(3)
    ]
    assert all(
        column(read[name]) == list(values)
        for name, values in zip(read.columns, zip(*counted(last), strict=True), strict=True)
    )


@pytest.mark.django_db
def test_long_values_lie_beside_short_ones() -> None:
    sql = """
        SELECT n, CASE WHEN n % 40 = 0 THEN repeat('é', 500000)
                       WHEN n % 3 > 0 THEN repeat('x', n % 3) END AS text
        FROM generate_series(1, 250) AS n
    """
    wanted = [(n, "é" * 500_000 if n % 40 == 0 else "x" * (n % 3) or None) for n in range(1, 251)]
    assert rows(frame(sql)) == exactly(wanted)
    assert [row for chunk in frame.chunks(sql, rows=39) for row in rows(chunk)] == exactly(wanted)


@pytest.mark.django_db
def test_a_row_may_have_as_many_columns_as_postgres_allows() -> None:
    sql = f"SELECT {', '.join(f'{n} AS c{n}' for n in range(1600))}"
    assert rows(frame(sql)) == exactly([range(1600)])


@pytest.mark.django_db
def test_a_null_does_not_make_integers_floats() -> None:
    read = frame("SELECT * FROM (VALUES (9007199254740993), (NULL)) AS v (n)")
    assert read["n"].tolist() == [9007199254740993, pd.NA]


@pytest.mark.django_db
@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | st.floats(), max_size=5))
def test_nan_is_not_null(values: list[float | None]) -> None:
    read = frame("SELECT * FROM unnest(%s::float8[]) AS v", [values])
    assert read.iloc[:, 0].isna().tolist() == [value is None for value in values]
