"""``frame``: any query, as Django and psycopg2 would have its rows, and with the eyes of the cell."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from django.db import (
    OperationalError,
    connection,
    connections,
    models,
    transaction,
)
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    Func,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.fields.json import KT
from django.db.models.functions import (
    Cast,
    Concat,
    ExtractYear,
    JSONObject,
    Length,
    Rank,
    TruncDate,
    TruncMonth,
    TruncTime,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.frames.conftest import Alias, session
from tests.frames.models import Everything, Grade, Item, Pair, ProxyItem, Shelf, ShoutField, Special
from tests.frames.reference import column, exactly, rows
from workbench.frames import FrameError, frame


@pytest.fixture
def library() -> None:
    """Two shelves, one of them full; each item has another set of NULLs."""
    full = Shelf.objects.create(name="full")
    Shelf.objects.create(name="empty")
    for number in range(6):
        Item.objects.create(
            shelf=full,
            title=f"No. {number}%",
            grade=None if number == 3 else Grade(number % 3),
            state="new" if number % 2 else "gone",
            count=number,
            price=None if number == 1 else Decimal(number) / 4,
            weight=None if number == 2 else number / 3,
            shout=None if number == 4 else f"hey {number}",
            data={"a": {"b": [number, None]}, "t": "x"} if number % 2 else None,
        )
    Special.objects.create(shelf=full, title="special", state="old", extra="more", data=[1.5, "é"])
    for left, right in ((1, "a"), (1, "b"), (2, "a")):
        Pair.objects.create(left=left, right=right, note=f"{left}{right}")


class Parsed(models.JSONField):
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return ("parsed", super().from_db_value(value, expression, connection))


class Loud(models.Func):
    """An expression with a custom field."""

    function = "lower"
    output_field = ShoutField()


class Untyped(models.Func):
    """An expression of whose type Django knows nothing."""

    function = "pg_catalog.jsonb_build_object"


Make = Callable[[], Any]
items = Item.objects.order_by("pk")

QUERYSETS: dict[str, Make] = {
    "all": lambda: items,
    "filter": lambda: items.filter(count__gt=2, shelf__name="full"),
    "a percent sign": lambda: items.filter(title__contains="%"),
    "join": lambda: items.filter(Q(shelf__name__startswith="f") | Q(shelf__item__count=3)).distinct(),
    "select_related": lambda: items.select_related("shelf"),
    "select_related backwards": lambda: items.select_related("special"),
    "only": lambda: items.only("title", "price"),
    "only through a join": lambda: items.select_related("shelf").only("title", "shelf__name"),
    "defer": lambda: items.defer("data", "shout"),
    "annotate": lambda: items.annotate(
        n=F("count") + 1, long=Length("title"), both=Concat("title", Value("!"))
    ),
    "annotate a custom field": lambda: items.annotate(loud=Loud("state"), none=Loud(Value(None))),
    "aggregate": lambda: Shelf.objects.order_by("pk").annotate(
        n=Count("item"),
        whole=Sum("item__count"),
        mean=Avg("item__count"),
        price=Sum("item__price"),
        mean_price=Avg("item__price"),
        weight=Sum("item__weight"),
        last=Max("item__title"),
    ),
    "group by": lambda: items.order_by("state").values("state").annotate(n=Count("pk"), mean=Avg("weight")),
    "subquery": lambda: Shelf.objects.order_by("pk").annotate(
        first=Subquery(Item.objects.filter(shelf=OuterRef("pk")).order_by("pk").values("title")[:1]),
        any=Exists(Item.objects.filter(shelf=OuterRef("pk"))),
    ),
    "window": lambda: items.annotate(rank=Window(Rank(), order_by=F("count").desc())),
    "case": lambda: items.annotate(kind=Case(When(count__gt=3, then=Value("many")), default=None)),
    "values": lambda: items.values("title", "shelf__name", "shelf_id", n=F("count") * 2),
    "values of everything": lambda: items.values(),
    "values_list": lambda: items.values_list("shout", "title", F("count") / 2.0),
    "values_list flat": lambda: items.values_list("price", flat=True),
    "values_list named": lambda: items.values_list("title", "count", named=True),
    "values after annotate": lambda: items.annotate(n=F("count")).values("n", "title"),
    "distinct": lambda: Item.objects.values("state").distinct().order_by("state"),
    "distinct on": lambda: (
        Item.objects.distinct("state").order_by("state", "-count").values("state", "count")
    ),
    "order by another column": lambda: Item.objects.values("title").distinct().order_by("-count"),
    "order by nothing": lambda: Item.objects.order_by().filter(count=2),
    "slice": lambda: items[2:4],
    "a slice beyond": lambda: items[100:],
    "reverse": lambda: items.reverse(),
    "union": lambda: (
        items.values_list("title", "count")
        .union(Special.objects.values_list("extra", "pk"))
        .order_by("title")
    ),
    "union of models": lambda: (
        Item.objects.filter(count=1).union(Item.objects.filter(count=2)).order_by("count")
    ),
    "union with nothing": lambda: items.filter(count=1).union(Item.objects.none()),
    "difference": lambda: (
        items.values("title").difference(items.filter(count=2).values("title")).order_by("title")
    ),
    "extra": lambda: items.extra(
        select={"twice": "count * 2", "plus": "count + %s"},
        select_params=[5],
        where=["count < %s"],
        params=[4],
    ),
    "extra values": lambda: items.extra(select={"twice": "count * 2"}).values("twice", "title"),
    "extra with a percent sign": lambda: items.extra(where=["state LIKE 'n%%'"]),
    "RawSQL": lambda: items.annotate(raw=RawSQL("count + %s", [1])),
    "proxy": lambda: ProxyItem.objects.order_by("pk"),
    "several tables": lambda: Special.objects.all(),
    "several tables, filtered": lambda: Special.objects.filter(title="special").values(
        "extra", "title", "shelf__name"
    ),
    "composite key": lambda: Pair.objects.order_by("left", "right"),
    "composite key, filtered": lambda: Pair.objects.filter(pk__in=[(1, "b"), (2, "a")]).order_by("pk"),
    "dates": lambda: Item.objects.dates("added", "month"),
    "datetimes": lambda: Item.objects.datetimes("added", "hour"),
    "a key of JSON": lambda: items.values("data__a", "data__a__b", "data__a__b__0", text=KT("data__t")),
    "JSON that is made": lambda: items.annotate(made=JSONObject(a="count", b="title")),
    "parts of a time": lambda: items.annotate(
        month=TruncMonth("added"),
        year=ExtractYear("added"),
        day=TruncDate("added"),
        time=TruncTime("added"),
        as_date=TruncMonth("added", output_field=models.DateField()),
    ),
    "parts of a time elsewhere": lambda: items.annotate(
        month=TruncMonth("added", tzinfo=ZoneInfo("Asia/Kolkata")),
        day=TruncDate("added", tzinfo=ZoneInfo("Asia/Kolkata")),
    ),
    "casts": lambda: items.annotate(
        text=Cast("price", models.TextField()),
        whole=Cast("weight", models.IntegerField()),
        real=Cast("price", models.FloatField()),
        decimal=Cast("weight", models.DecimalField(max_digits=9, decimal_places=4)),
    ),
    "a duration": lambda: items.annotate(since=F("changed") - F("added")),
    "a sum of nothing": lambda: items.filter(count=1).annotate(
        none=Sum("price", filter=Q(pk=None)), zero=Count("pk", filter=Q(pk=None))
    ),
    "a manager": lambda: Shelf.objects.get(name="full").item_set.order_by("pk"),
    "none": lambda: items.none(),
    "an empty list": lambda: items.filter(pk__in=[]),
    "for update": lambda: items.select_for_update(),
}


def django(queryset: Any, names: list[str]) -> list[Any]:
    """Return the rows as Django has them."""
    if issubclass(queryset._iterable_class, models.query.ModelIterable) and not queryset.query.combinator:
        if queryset.query.extra_select or queryset.query.annotations:
            return [[getattr(row, name) for name in names] for row in queryset]
        return list(queryset.values_list(*names))
    return [
        list(row.values())
        if isinstance(row, dict)
        else [getattr(row, name) for name in names]
        if isinstance(row, models.Model)
        else list(row)
        if isinstance(row, tuple)
        else [row]
        for row in queryset
    ]


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("make", QUERYSETS.values(), ids=QUERYSETS)
def test_any_queryset_is_as_django_has_it(make: Make) -> None:
    queryset = make()
    read = frame(queryset)
    assert rows(read) == exactly(django(make(), list(read.columns)))
    chunks = list(frame.chunks(queryset, rows=2))
    assert [row for chunk in chunks for row in rows(chunk)] == rows(read)


ANNOTATIONS: dict[str, Any] = {
    "n": F("count") + 1,
    "half": F("weight") / 2,
    "long": Length("title"),
    "loud": Loud("state"),
    "month": TruncMonth("added"),
    "year": ExtractYear("changed"),
    "siblings": Count("shelf__item"),
    "mean": Avg("shelf__item__price"),
    "text": Cast("price", models.TextField()),
}
COLUMNS = [field.attname for field in Item._meta.concrete_fields] + ["pk", "shelf__name", "special__extra"]
FILTERS = [
    Q(count__gt=1),
    Q(title__contains="%"),
    Q(shelf__name="full") | Q(price=None),
    Q(added__year__gt=2000),
    ~Q(state__in=["new", "gone"]),
    Q(pk__in=[]),
]
LIMITS = st.none() | st.integers(0, 5)


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True),
    made=st.lists(st.sampled_from(sorted(ANNOTATIONS)), unique=True),
    filters=st.lists(st.sampled_from(FILTERS), max_size=2),
    start=LIMITS,
    length=LIMITS,
)
def test_a_queryset_put_together_at_random_is_as_django_has_it(
    columns: list[str], made: list[str], filters: list[Q], start: int | None, length: int | None
) -> None:
    queryset = items.annotate(**{name: ANNOTATIONS[name] for name in made}).filter(*filters)
    queryset = queryset.values_list(*columns, *made)
    queryset = queryset[start : None if length is None else (start or 0) + length]
    read = frame(queryset)
    assert list(read.columns) == [*columns, *made]
    assert rows(read) == exactly(queryset.all())


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("make", QUERYSETS.values(), ids=QUERYSETS)
def test_an_empty_result_has_the_same_dtypes(make: Make) -> None:
    full = frame(make())
    (first, *_) = frame.chunks(make(), rows=1)
    empty = frame(make()[:0])
    assert dict(first.dtypes) == dict(empty.dtypes) == dict(full.dtypes)
    assert len(empty) == 0


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_columns_are_named_as_django_names_them() -> None:
    own = [field.attname for field in Item._meta.concrete_fields]
    assert list(frame(Item).columns) == own
    annotated = frame(items.select_related("shelf").annotate(n=Value(1)))
    assert list(annotated.columns) == [*own, "n", "shelf__id", "shelf__name"]
    assert list(frame(Special).columns) == [*own, "item_ptr_id", "extra"]
    assert list(frame(Pair.objects.values("pk", "note")).columns) == ["left", "right", "note"]
    assert list(frame(Item.objects.values_list("title", Length("title"))).columns) == ["title", "length1"]


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_an_expression_whose_type_django_does_not_know_has_postgres_type() -> None:
    read = frame(
        items.values(
            made=Untyped(Value("n"), "count"), mixed=F("count") + Value(0.5), now=Func(function="now")
        )
    )
    assert column(read["made"])[1] == {"n": 1}
    assert column(read["mixed"])[1] == 1.5
    assert read["now"].dtype == "datetime64[us, UTC]"


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_a_models_own_dtypes() -> None:
    decimal = pd.ArrowDtype(pa.decimal128(7, 2))
    dtypes = dict(frame(Item).dtypes)
    assert [
        dtypes[name] for name in ("id", "grade", "title", "price", "weight", "added", "token", "data")
    ] == [
        "int64[pyarrow]",
        "int16[pyarrow]",
        "str",
        decimal,
        "double[pyarrow]",
        "datetime64[us, UTC]",
        object,
        object,
    ]


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_a_custom_field_is_asked_also_about_null() -> None:
    assert column(frame(items.filter(count__in=[3, 4]).values("shout"))["shout"]) == ["HEY 3", "NOTHING"]
    assert column(frame(items.filter(count=4))["shout"]) == ["NOTHING"]


@pytest.mark.django_db
def test_json_is_decoded_by_the_fields_own_decoder() -> None:
    class Exact(json.JSONDecoder):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, parse_float=Decimal)

    Everything.objects.create(json={"a": [1.10, None]})
    made = Cast("json", models.JSONField(decoder=Exact))
    assert column(frame(Everything.objects.values(d=made))["d"]) == [{"a": [Decimal("1.1"), None]}]
    mine = Cast("json", Parsed())
    assert column(frame(Everything.objects.values(d=mine))["d"]) == [("parsed", {"a": [1.1, None]})]


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_a_query_that_was_read_is_read_anew() -> None:
    shelves = Shelf.objects.order_by("pk")
    assert len(shelves) == 2
    Shelf.objects.create(name="new")
    assert column(frame(shelves)["name"]) == ["full", "empty", "new"]
    assert len(shelves) == 2


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_a_sum_beyond_64_bits_is_refused() -> None:
    Everything.objects.bulk_create([Everything(big=2**63 - 1), Everything(big=2**63 - 1)])
    query = Everything.objects.values("text").annotate(total=Sum("big"))
    assert query.get()["total"] == 2**64 - 2
    with pytest.raises(FrameError), transaction.atomic():
        frame(query)


SQL: dict[str, tuple[str, Any, list[Any]]] = {
    "no parameters": ("SELECT 1 AS n, 'a%' AS t", None, [(1, "a%")]),
    "a percent sign without parameters": ("SELECT 17 % 5 AS rest, 'a' LIKE '%'", None, [(2, True)]),
    "parameters": ("SELECT %s + 1 AS n, 'a' LIKE 'a%%'", [1], [(2, True)]),
    "named parameters": ("SELECT %(a)s || %(b)s || %(a)s", {"a": "%s", "b": "'"}, [("%s'%s",)]),
    "a list": ("SELECT n FROM generate_series(1, 9) AS n WHERE n = ANY(%s)", [[2, 3]], [(2,), (3,)]),
    "a semicolon": ("SELECT 1 ;\n", None, [(1,)]),
    "a comment in the end": ("SELECT 1 -- one", None, [(1,)]),
    "comments before": ("-- not yet\n/* nor\nyet; */ (SELECT 1) UNION ALL (SELECT 2)", None, [(1,), (2,)]),
    "with": (
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION SELECT n + 1 FROM t WHERE n < 3) TABLE t",
        None,
        [(1,), (2,), (3,)],
    ),
    "values": ("VALUES (1, 'a'), (NULL, 'b')", None, [(1, "a"), (None, "b")]),
    "order": (
        "SELECT n, n::text::varchar AS t FROM generate_series(1, 3) AS n ORDER BY -n",
        None,
        [(3, "3"), (2, "2"), (1, "1")],
    ),
    "quotes and colons": ("""SELECT ';' AS "a;--b", E'\\'\\\\'""", None, [(";", "'\\")]),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("sql", "params", "wanted"), SQL.values(), ids=SQL)
def test_sql_text_with_and_without_parameters(sql: str, params: Any, wanted: list[Any]) -> None:
    assert rows(frame(sql, params)) == exactly(wanted)
    assert [row for chunk in frame.chunks(sql, params, rows=2) for row in rows(chunk)] == exactly(wanted)


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_raw_querysets_have_the_models_fields() -> None:
    raw = Item.objects.raw('SELECT id, "Title, of it", shout, %s AS more FROM frames_item ORDER BY id', [1])
    read = frame(raw)
    assert list(read.columns) == ["id", "title", "shout", "more"]
    assert rows(read) == exactly([row.pk, row.title, row.shout, row.more] for row in raw)
    translated = Shelf.objects.raw(
        "SELECT id, 'a%' AS label FROM frames_shelf", translations={"label": "name"}
    )
    assert column(frame(translated)["name"]) == ["a%", "a%"]


class Refusal(NamedTuple):
    make: Callable[[], object]
    said: str


REFUSALS = {
    "a list": Refusal(lambda: frame([{"a": 1}]), "not list"),  # type: ignore[arg-type]
    "an instance": Refusal(lambda: frame(Shelf(name="a")), "not Shelf"),  # type: ignore[arg-type]
    "nothing": Refusal(lambda: frame(None), "not NoneType"),  # type: ignore[arg-type]
    "parameters of a queryset": Refusal(lambda: frame(Shelf, [1]), "Parameters go with SQL text"),
    "an unknown alias": Refusal(lambda: frame("SELECT 1", using="attic"), "no database alias 'attic'"),
    "an unknown alias of a queryset": Refusal(
        lambda: frame(Shelf, using="attic"), "no database alias 'attic'"
    ),
    "twins": Refusal(lambda: frame("SELECT 1 AS a, 2 AS b, 3 AS a"), "Two columns are named 'a'"),
    "twins without a name": Refusal(lambda: frame("SELECT 1, 2"), r"Two columns are named '\?column\?'"),
    "an unknown index": Refusal(
        lambda: frame(Shelf, index="nam"), "no column 'nam' for the index: there are id, name"
    ),
    "an unknown index of several": Refusal(lambda: frame(Shelf, index=["id", "nam"]), "no column 'nam'"),
    "no rows in a chunk": Refusal(lambda: frame.chunks(Shelf, rows=0), "at least one row, not 0"),
    "an empty text": Refusal(lambda: frame(""), "SELECT, WITH, VALUES or TABLE"),
    "update": Refusal(lambda: frame("UPDATE frames_shelf SET name = ''"), "SELECT, WITH, VALUES or TABLE"),
    "explain": Refusal(lambda: frame("EXPLAIN SELECT 1"), "SELECT, WITH, VALUES or TABLE"),
    "many comments": Refusal(
        lambda: frame("/* a */ " * 40 + "EXPLAIN SELECT 1"), "SELECT, WITH, VALUES or TABLE"
    ),
    "a stranger among choices": Refusal(lambda: frame(Item, categories=True), "'state' holds 'lost'"),
}


@pytest.mark.django_db
@pytest.mark.timeout(5)
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("make", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_read_is_one_sentence(make: Callable[[], object], said: str) -> None:
    Item.objects.create(shelf=Shelf.objects.first(), title="t", state="lost")
    with pytest.raises(FrameError, match=said) as refused, transaction.atomic():
        make()
    assert "\n" not in str(refused.value)
    assert Shelf.objects.count() == 2


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_an_index_is_one_column_or_several() -> None:
    assert frame(Shelf, index="name").index.tolist() == ["full", "empty"]
    several = frame(Pair.objects.order_by("pk"), index=["left", "right"])
    assert several.index.tolist() == [(1, "a"), (1, "b"), (2, "a")]
    assert several.index.names == ["left", "right"]
    assert [chunk.index.tolist() for chunk in frame.chunks(items, rows=5, index="count")] == [
        [0, 1, 2, 3, 4],
        [5, 7],
    ]


@pytest.mark.django_db
@pytest.mark.usefixtures("library")
def test_choices_become_ordered_categories_in_their_own_order() -> None:
    for read in (frame(items, categories=True), frame(items.none(), categories=True)):
        assert read["grade"].cat.categories.tolist() == [2, 1, 0]
        assert read["state"].cat.categories.tolist() == ["new", "old", "gone"]
        assert read["grade"].cat.ordered
        assert read["state"].cat.ordered
        assert not isinstance(read["title"].dtype, pd.CategoricalDtype)
    read = frame(items, categories=True)
    plain = frame(items)
    assert read["grade"].isna().tolist() == plain["grade"].isna().tolist()
    assert read["grade"].dropna().tolist() == plain["grade"].dropna().tolist()
    assert read["grade"].max() == Grade.NONE
    (chunk, *_) = frame.chunks(Special.objects.values("item_ptr__state"), categories=True)
    assert chunk["item_ptr__state"].tolist() == ["old"]


# The same eyes as the cell


@pytest.mark.django_db
def test_it_sees_what_the_transaction_has_not_committed() -> None:
    with session() as other:
        other.cursor().execute("INSERT INTO frames_shelf (name) VALUES ('theirs')")
        Shelf.objects.create(name="mine")
        assert column(frame(Shelf)["name"]) == ["mine"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE mine AS SELECT 7 AS n")
    assert column(frame("TABLE mine")["n"]) == [7]


@pytest.mark.django_db
def test_it_has_the_connections_role_search_path_timeout_and_time_zone() -> None:
    Shelf.objects.create(name="public")
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA elsewhere CREATE TABLE frames_shelf (id bigint, name varchar(20))")
        cursor.execute("INSERT INTO elsewhere.frames_shelf VALUES (1, 'elsewhere')")
        cursor.execute("SET LOCAL search_path = elsewhere, public")
        assert column(frame(Shelf)["name"]) == ["elsewhere"]
        cursor.execute("SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL DateStyle = 'German'")
        cursor.execute("SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = -15")
        (row,) = rows(
            frame("SELECT '2020-01-01 00:00+00'::timestamptz, '\\x00ff'::bytea AS b, 0.1::float8 AS f")
        )
        assert row == exactly([[dt.datetime(2020, 1, 1, tzinfo=dt.UTC), b"\0\xff", 0.1]])[0]
        cursor.execute("SET LOCAL statement_timeout = '200ms'")
        with pytest.raises(OperationalError, match="longer than statement_timeout"), transaction.atomic():
            frame("SELECT pg_sleep(20)")
        cursor.execute("CREATE ROLE frames_stranger; SET LOCAL ROLE frames_stranger")
        with pytest.raises(FrameError, match="permission denied"), transaction.atomic():
            frame('SELECT * FROM "public"."frames_shelf"')
        cursor.execute("RESET ROLE")


@pytest.mark.django_db
def test_a_clients_other_encoding_is_refused() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL client_encoding = 'LATIN1'")
    with pytest.raises(FrameError, match="client_encoding is LATIN1"):
        frame("SELECT 'a' AS a")


def test_another_alias_and_a_branch_are_read_as_what_they_are(alias: Alias) -> None:
    Shelf.objects.create(name="here")
    there = alias()
    with connections[there].schema_editor() as editor:
        editor.create_model(Shelf)
    Shelf.objects.using(there).create(name="there")
    connections[there].close()
    branch = alias(there)
    Shelf.objects.using(branch).update(name="branched")
    for name, wanted in (("default", "here"), (there, "there"), (branch, "branched")):
        for source in (
            Shelf.objects.using(name),
            "TABLE frames_shelf",
            Shelf,
            Shelf.objects.raw("TABLE frames_shelf"),
        ):
            assert column(frame(source, using=name)["name"]) == [wanted]
        assert column(frame(Shelf.objects.using(name))["name"]) == [wanted]
        (chunk,) = frame.chunks(Shelf, using=name)
        assert column(chunk["name"]) == [wanted]


# Chunks


NUMBERS = "SELECT n FROM generate_series(1, 1000) AS n"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [False, True], ids=["alone", "in a transaction"])
def test_between_two_chunks_the_connection_is_free(is_atomic: bool) -> None:
    with transaction.atomic() if is_atomic else nullcontext():
        seen = []
        for chunk in frame.chunks(NUMBERS, rows=300):
            seen.append(len(chunk))
            assert len(frame(NUMBERS)) == 1000
            assert sum(len(inner) for inner in frame.chunks(NUMBERS, rows=999)) == 1000
    assert seen == [300, 300, 300, 100]


@pytest.mark.usefixtures("committed")
def test_all_chunks_show_the_same_moment() -> None:
    Shelf.objects.bulk_create(Shelf(name=str(number)) for number in range(10))
    seen: list[str] = []
    for chunk in frame.chunks(Shelf.objects.order_by("pk"), rows=3):
        seen += column(chunk["name"])
        Shelf.objects.update(name=models.functions.Concat(F("name"), Value("!")))
        Shelf.objects.filter(name__startswith="9").delete()
        Shelf.objects.create(name=f"new {len(seen)}")
    assert seen == [str(number) for number in range(10)]


@pytest.mark.usefixtures("committed")
def test_chunks_that_are_left_leave_nothing_open() -> None:
    for _ in frame.chunks(NUMBERS, rows=10):
        break
    read = frame.chunks(NUMBERS, rows=10)
    next(read)
    read.close()  # type: ignore[attr-defined]
    assert column(frame("SELECT count(*) AS n FROM pg_cursors")["n"]) == [0]
    assert frame(NUMBERS)["n"].sum() == 500500


@pytest.fixture
def without_cursors() -> Iterator[None]:
    connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
    yield
    connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = False


@pytest.mark.django_db
@pytest.mark.usefixtures("without_cursors")
def test_chunks_come_without_server_side_cursors_too() -> None:
    lengths = []
    for chunk in frame.chunks(NUMBERS, rows=400):
        lengths.append(len(chunk))
        assert column(frame("SELECT count(*) AS n FROM pg_cursors")["n"]) == [0]
    assert lengths == [400, 400, 200]


@pytest.mark.django_db
def test_a_uuid_is_as_good_as_one_that_uuid_made() -> None:
    (read,) = frame("SELECT '00000000-0000-0000-8000-00000000000f'::uuid AS u")["u"]
    made = UUID(int=0x8000_0000_0000_000F)
    assert (read, hash(read), str(read), read.is_safe) == (made, hash(made), str(made), made.is_safe)
    assert pickle.loads(pickle.dumps(read)) == copy.deepcopy(read) == made


MIXED = """
SELECT i AS id, 'n' || i % 3 AS name, nullif(i % 4, 0) AS x, i / 3.0::float8 AS y,
    (i / 4.0)::numeric(8, 2) AS p, date '2024-01-01' + i AS d,
    timestamptz '2024-01-01 UTC' + i * interval '1 h' AS t,
    jsonb_build_object('a', i) AS j, md5(i::text)::uuid AS u
FROM generate_series(1, 20) AS i
"""
CSV = pd.DataFrame({"id": [1, 2], "name": ["n1", "n2"], "z": [5, 6]})

# What comes after frame: each on the types that it gives.
NEXT: dict[str, tuple[Callable[[pd.DataFrame], Any], Any]] = {
    "merge by number": (lambda f: f.merge(CSV[["id", "z"]], on="id")["z"].tolist(), [5, 6]),
    "merge by text": (lambda f: len(f.merge(CSV[["name", "z"]], on="name")), 14),
    "merge by uuid": (lambda f: len(f.merge(f, on="u")), 20),
    "filter": (lambda f: f[(f["x"] > 2) & (f["name"] == "n1")]["id"].tolist(), [7, 19]),
    "query": (lambda f: f.query("x > 2 and name == 'n1'")["id"].tolist(), [7, 19]),
    "group": (lambda f: f.groupby("name")["p"].sum()["n0"], Decimal("15.75")),
    "count missing ones": (lambda f: int(f["x"].isna().sum()), 5),
    "resample": (lambda f: f.set_index("t").resample("1D")["id"].count().tolist(), [20]),
    "part of a date": (lambda f: f["d"].dt.day.tolist()[:2], [2, 3]),
    "part of a JSON": (lambda f: f["j"].str.get("a").tolist()[:2], [1, 2]),
    "pivot": (lambda f: f.pivot_table(index="name", values="y", aggfunc="count")["y"].tolist(), [6, 7, 7]),
    "cut": (lambda f: pd.cut(f["id"], 2).value_counts().tolist(), [10, 10]),
    "concat": (lambda f: len(pd.concat([f, f])), 40),
    "numpy": (lambda f: f["id"].to_numpy().sum(), 210),
    "describe": (lambda f: f.describe().loc["max", "id"], 20),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("work", "result"), NEXT.values(), ids=NEXT)
def test_an_analyst_goes_on_with_a_frame(work: Callable[[pd.DataFrame], Any], result: Any) -> None:
    assert work(frame(MIXED)) == result
