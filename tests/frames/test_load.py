"""``load``: everything or nothing, as ``save`` would have written it, and one sentence where it cannot."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from django.db import connection, models, transaction
from django.db.models import Count
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2.extras import NumericRange

from tests.frames.conftest import session
from tests.frames.models import Everything, Grade, Item, Pair, Shelf, Special
from tests.frames.reference import column, rows
from tests.frames.test_types import decimal, integers, jsons, moments, numerics, texts
from workbench.frames import FrameError, frame, load
from workbench.frames.load import ROWS_IN_A_BATCH

MANY = ROWS_IN_A_BATCH + 5


@pytest.fixture
def shelf() -> Shelf:
    shelf: Shelf = Shelf.objects.create(name="a shelf")
    return shelf


def item(shelf: Shelf, **others: Any) -> dict[str, Any]:
    return {"shelf_id": shelf.pk, "title": "t", "state": "new", **others}


def numbered(shelf: Shelf, count: int, **others: Any) -> Iterator[dict[str, Any]]:
    return (item(shelf, title=str(number), count=number, **others) for number in range(count))


# Refusals


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown column": ({"titel": "t"}, "Item has no column 'titel': did you mean 'title'?"),
    "a column like no other": ({"xyzzy": 1}, "Item has no column 'xyzzy': it has id, shelf_id, title"),
    "no value": ({"title": None}, "Row 1, column 'title': it has no value"),
    "no shelf": ({"shelf_id": None}, "Row 1, column 'shelf_id': it has no value"),
    "too long": (
        {"title": "é" * 11},
        "Row 1, column 'title': a text of 11 characters, where 10 are the most",
    ),
    "a NUL character": ({"title": "a\0b"}, "Row 1, column 'title': a text with a NUL character"),
    "half of a character": ({"title": "\ud800"}, "Row 1, column 'title': "),
    "a text for a number": ({"count": "many"}, "Row 1, column 'count': "),
    "a fraction": ({"count": 1.5}, "Row 1, column 'count': 1.5 is not a whole number"),
    "a fraction as Decimal": ({"count": Decimal("1.5")}, "Row 1, column 'count': 1.5 is not a whole number"),
    "infinity for a number": ({"count": float("inf")}, "Row 1, column 'count': "),
    "not a number": ({"count": float("nan")}, "Row 1, column 'count': "),
    "too large a number": ({"count": 2**31}, "Row 1, column 'count': "),
    "too large a small number": ({"grade": 40_000}, "Row 1, column 'grade': "),
    "too large a decimal": ({"price": Decimal("100000")}, "Row 1, column 'price': "),
    "a text for a date": ({"added": "yesterday"}, "Row 1, column 'added': "),
    "a day that is not": ({"added": "2023-02-29 10:00Z"}, "Row 1, column 'added': "),
    "a text for a UUID": ({"token": "12"}, "Row 1, column 'token': "),
    "what JSON has not": ({"data": {1, 2}}, "Row 1, column 'data': "),
    "a NUL character in JSON": ({"data": ["a\0"]}, "Row 1, column 'data': "),
    "NaN in JSON": ({"data": [float("nan")]}, "Row 1, column 'data': "),
    "an expression": ({"count": models.F("grade")}, "Row 1, column 'count': "),
    "a unique value": (
        {"title": "taken"},
        r"Key \(shelf_id, .*\)=\(\d+, taken\) already exists.*on_conflict",
    ),
    "a key": ({"id": 1}, r"Key \(id\)=\(\d+\) already exists"),
    "a foreign key": ({"shelf_id": 99}, r"Key \(shelf_id\)=\(99\) is not present"),
    "a check": ({"count": -1}, "frames_not_negative"),
}


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("is_atomic", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_row_is_one_sentence_and_nothing_is_written(
    shelf: Shelf, wrong: dict[str, Any], said: str, is_atomic: bool
) -> None:
    taken = Item.objects.create(shelf=shelf, title="taken", state="new")
    given = [item(shelf, title="two\nlines"), item(shelf) | wrong]
    if "id" in wrong:
        given[0]["id"], given[1]["id"] = taken.pk + 1, taken.pk
    if "titel" in wrong:
        del given[0]["title"]

    def refused() -> None:
        with pytest.raises(FrameError, match=rf"(?s)^.*{said}.*$") as error:
            load(Item, given)
        assert "\n" not in str(error.value)
        assert "Nothing was written." in str(error.value)
        assert Item.objects.count() == 1

    if is_atomic:
        with transaction.atomic():
            Shelf.objects.create(name="outer")
            refused()
            Shelf.objects.create(name="inner")
        assert Shelf.objects.count() == 3
    else:
        refused()
    assert load(Item, [item(shelf, title="next")]) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pd.Series([1, 1.5]), "Row 1, column 'count': 1.5 is not a whole number"),
        (pd.Series([1, np.nan]), "Row 1, column 'count': it has no value"),
        (pd.Series([1, 2**40]), "Row 1, column 'count': "),
        (pd.Series([1, "x"]), "Row 1, column 'count': "),
        (pd.Series([1, None], dtype="Int64"), "Row 1, column 'count': it has no value"),
        (pd.to_datetime(pd.Series(["2020-01-01", "2020-01-02"])), "Row 0, column 'count': "),
    ],
)
def test_a_wrong_value_in_a_frame_is_named_by_its_position(
    shelf: Shelf, values: pd.Series[Any], said: str
) -> None:
    given = pd.DataFrame({"title": ["a", "b"], "count": values}).assign(shelf_id=shelf.pk, state="new")
    with pytest.raises(FrameError, match=said):
        load(Item, given.set_axis([7, 7]))
    assert not Item.objects.exists()


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"count": None}, rf"Row {MANY}, column 'count': it has no value"),
        ({"count": 2**40}, rf"Row {MANY}, column 'count': "),
        ({"titel": "x"}, "no column 'titel'"),
        ({"id": 3}, rf"From row {ROWS_IN_A_BATCH} on the rows have a id"),
        ({"title": "0"}, "already exists"),
    ],
)
def test_a_problem_far_behind_leaves_nothing_written_and_the_table_as_it_was(
    shelf: Shelf, last: dict[str, Any], said: str
) -> None:
    before = definitions()
    with pytest.raises(FrameError, match=said):
        load(Item, itertools.chain(numbered(shelf, MANY), [item(shelf) | last]))
    assert not Item.objects.exists()
    assert definitions() == before


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "one instance": (lambda: load(Shelf, Shelf(name="a")), "not Shelf"),  # type: ignore[arg-type]
    "one dict": (lambda: load(Shelf, {"name": "a"}), "not dict"),  # type: ignore[arg-type]
    "a text": (lambda: load(Shelf, "a"), "not str"),  # type: ignore[arg-type]
    "nothing": (lambda: load(Shelf, None), "not NoneType"),  # type: ignore[arg-type]
    "texts": (lambda: load(Shelf, ["a"]), "A row is 'a', which is no dict"),  # type: ignore[arg-type]
    "others' instances": (lambda: load(Shelf, [Shelf(name="a"), Pair()]), "which is no Shelf"),
    "instances of another model": (lambda: load(Shelf, [Pair()]), "which is no "),
    "rows of nothing": (lambda: load(Shelf, [{}, {}]), "."),
    "a frame of nothing": (lambda: load(Shelf, pd.DataFrame(index=range(3))), "."),
    "several tables": (lambda: load(Special, [{"extra": "a"}]), "several tables"),
    "a column twice": (
        lambda: load(Item, pd.DataFrame([[1, 2]], columns=["shelf", "shelf_id"])),
        "Two columns hold",
    ),
    "a field twice in dicts": (lambda: load(Item, [{"shelf": 1, "shelf_id": 2}]), "Two columns hold|twice"),
    "some with a key": (lambda: load(Shelf, [Shelf(pk=5, name="a"), Shelf(name="b")]), "Row 1, column 'id'"),
    "some without one": (
        lambda: load(Shelf, [{"name": "a"}, {"pk": "5", "name": "b"}]),
        "Row 0, column 'id'",
    ),
    "an unsaved shelf": (
        lambda: load(Item, [{"shelf": Shelf(name="a"), "title": "t", "state": "new"}]),
        "Row 0, column 'shelf_id'",
    ),
    "a conflict of another kind": (
        lambda: load(Shelf, [{"name": "a"}], on_conflict="skip"),  # type: ignore[arg-type]
        "'ignore' or 'update', not 'skip'",
    ),
    "no such unique field": (
        lambda: load(Shelf, [{"name": "a"}], on_conflict="update", unique_fields=["nam"]),
        "no column 'nam'",
    ),
    "a field that is not unique": (
        lambda: load(
            Pair, [{"left": 1, "right": "a", "note": ""}], on_conflict="update", unique_fields=["note"]
        ),
        "No unique constraint is on note alone",
    ),
    "an update by a key that is not there": (
        lambda: load(Shelf, [{"name": "a"}], on_conflict="update"),
        "no id",
    ),
    "twins": (
        lambda: load(Shelf, [{"name": "a"}] * 2, on_conflict="update", unique_fields=["name"]),
        "Two of the rows have the same name",
    ),
    "no database": (lambda: load(Shelf, [{"name": "a"}], using="attic"), "alias 'attic'"),
}


@pytest.mark.django_db
@pytest.mark.parametrize(("make", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_loaded_is_one_sentence(make: Callable[[], object], said: str) -> None:
    with pytest.raises(FrameError, match=said) as refused:
        make()
    assert "\n" not in str(refused.value)
    assert not Shelf.objects.exists()


@pytest.mark.django_db
def test_rows_that_fail_themselves_fail_with_what_they_say(shelf: Shelf) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield from numbered(shelf, MANY)
        raise LookupError("the file is gone")

    with pytest.raises(LookupError, match="the file is gone"):
        load(Item, failing())
    assert not Item.objects.exists()


# What becomes of values


EVERYTHING: dict[str, st.SearchStrategy[Any]] = {
    "big": integers(64),
    "small": integers(16),
    "whole": st.integers(0, 2**31 - 1),
    "real": st.floats(),
    "decimal": numerics(38, 10),
    "flag": st.booleans(),
    "char": texts,
    "text": texts
    | st.sampled_from(["", " ", '"', "\\N", "\\.", "a\n\\.\nb", "\r\n", ",", "NULL", "\\", "a\rb"]),
    "raw": st.binary(max_size=10),
    "date": st.dates(),
    "time": st.times(),
    "moment": moments,
    "duration": st.timedeltas(dt.timedelta(days=-40_000_000), dt.timedelta(days=40_000_000)),
    "uuid": st.uuids(),
    "json": jsons.map(lambda json: json.adapted).filter(lambda value: value is not None),
    "encoded": st.builds(dict, a=st.decimals(allow_nan=False, allow_infinity=False), b=st.dates()),
    "address": st.ip_addresses().map(str),
    "numbers": st.lists(st.none() | integers(32), max_size=3),
    "words": st.lists(st.none() | texts | st.sampled_from(["NULL", "", "{}", '"']), max_size=3),
    "moments": st.lists(moments, max_size=2),
    "span": st.builds(
        lambda lower, size, bounds: NumericRange(lower, lower + size, bounds),
        integers(40),
        st.integers(1, 100),
        st.sampled_from(["[]", "[)", "(]"]),
    ),
    "shout": texts.map(lambda text: text.upper().lower().upper()).filter(
        lambda text: text.lower().upper() == text
    ),
}


def everything(rows: list[dict[str, Any]]) -> list[Everything]:
    return [Everything(pk=number, **row) for number, row in enumerate(rows, 1)]


contents = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in EVERYTHING.items()}),
    min_size=1,
    max_size=5,
)


@pytest.mark.django_db
@settings(max_examples=60, deadline=None)
@given(contents)
def test_every_field_is_written_as_save_writes_it_and_a_frame_makes_the_way_back(
    given: list[dict[str, Any]],
) -> None:
    with transaction.atomic():
        Everything.objects.bulk_create(everything(given))
        saved = frame(Everything.objects.order_by("pk"))
        for source in (everything(given), [{"id": n, **row} for n, row in enumerate(given, 1)], saved):
            Everything.objects.all().delete()
            assert load(Everything, source) == len(given)
            assert rows(frame(Everything.objects.order_by("pk"))) == rows(saved)
        transaction.set_rollback(True)


@pytest.mark.django_db
def test_nan_is_not_null_on_the_way_back_either() -> None:
    Everything.objects.bulk_create(
        Everything(pk=n, real=x) for n, x in enumerate([float("nan"), None, 1.5], 1)
    )
    saved = frame(Everything.objects.order_by("pk"))
    Everything.objects.all().delete()
    load(Everything, saved)
    assert rows(frame(Everything.objects.order_by("pk"))) == rows(saved)


@pytest.mark.django_db
def test_what_pandas_reads_from_a_file_is_written_as_it_is_meant() -> None:
    given = pd.DataFrame(
        {
            "big": pd.Series([1.0, np.nan]),
            "real": pd.Series([1, 2]),
            "decimal": pd.Series([1, 2]),
            "char": pd.Categorical(["a", None]),
            "text": pd.Series(["x", np.nan], dtype=object),
            "flag": pd.Series([True, None], dtype="boolean"),
            "date": pd.to_datetime(pd.Series(["2020-01-02", None])),
            "moment": pd.to_datetime(pd.Series(["2020-01-02 03:04", None])),
            "duration": pd.to_timedelta(pd.Series(["1h", None])),
            "json": pd.Series([{"a": 1}, None]),
            "whole": pd.Series([pd.NA, 5], dtype=object),
        }
    )
    assert load(Everything, given) == 2
    first, second = Everything.objects.order_by("pk").values_list(*given.columns)
    moment = dt.datetime(2020, 1, 2, 3, 4, tzinfo=dt.UTC)
    assert first == (
        1,
        1.0,
        Decimal(1),
        "a",
        "x",
        True,
        dt.date(2020, 1, 2),
        moment,
        dt.timedelta(hours=1),
        {"a": 1},
        None,
    )
    assert second == (None, 2.0, Decimal(2), None, None, None, None, None, None, None, 5)


@pytest.mark.django_db
def test_a_text_is_not_changed_and_an_empty_one_is_not_null() -> None:
    told = [
        "",
        " lead",
        "trail ",
        '"',
        '""',
        "a,b",
        "a\nb",
        "a\r\nb",
        "\\",
        "\\.",
        "\\N",
        "\n\\.\n",
        "NULL",
        "é\u2028",
    ]
    for source in (pd.DataFrame({"text": told}), [{"text": text} for text in told]):
        Everything.objects.all().delete()
        load(Everything, source)
        assert list(Everything.objects.order_by("pk").values_list("text", flat=True)) == told


@pytest.mark.django_db
def test_a_custom_field_prepares_its_values() -> None:
    load(Everything, pd.DataFrame({"shout": ["LOUD", "NOTHING", None]}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT shout FROM frames_everything ORDER BY id")
        assert cursor.fetchall() == [("loud",), (None,), (None,)]


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["dicts", "frame", "instances"])
def test_what_is_left_out_is_what_save_would_have_made_of_it(shelf: Shelf, kind: str) -> None:
    given: Any = [item(shelf, title=str(number)) for number in range(3)]
    before = timezone.now()
    load(
        Item,
        {"dicts": given, "frame": pd.DataFrame(given), "instances": [Item(**row) for row in given]}[kind],
    )
    written = list(Item.objects.order_by("pk"))
    assert [row.title for row in written] == ["0", "1", "2"]
    assert {(row.count, row.grade, row.colour, row.double, row.price) for row in written} == {
        (7, Grade.LOW, "red", 14, None)
    }
    assert len({row.token for row in written}) == 3
    assert all(before <= moment <= timezone.now() for row in written for moment in (row.added, row.changed))


@pytest.mark.django_db
def test_dicts_need_not_have_the_same_keys(shelf: Shelf) -> None:
    token = uuid.uuid4()
    load(
        Item,
        [
            item(shelf, title="a"),
            item(shelf, title="b", count=1, token=token),
            item(shelf, title="c", price=2),
        ],
    )
    a, b, c = Item.objects.order_by("title")
    assert [row.count for row in (a, b, c)] == [7, 1, 7]
    assert b.token == token
    assert len({a.token, b.token, c.token}) == 3
    assert [row.price for row in (a, b, c)] == [None, None, 2]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["shelf", "shelf_id"])
def test_a_foreign_key_is_an_id_or_an_instance(shelf: Shelf, name: str) -> None:
    others = {"title": ["a", "b"], "state": ["new", "new"]}
    load(Item, pd.DataFrame({name: [shelf.pk, shelf.pk], **others}))
    Item.objects.all().delete()
    load(Item, pd.DataFrame({name: [shelf, shelf], **others}))
    load(Item, [{name: shelf.pk, "title": "c", "state": "new"}])
    load(Item, [Item(shelf=shelf, title="d", state="new")])
    assert Item.objects.filter(shelf=shelf).count() == 4


@pytest.mark.django_db
def test_an_index_that_is_named_as_a_field_is_one() -> None:
    load(Pair, pd.DataFrame({"left": [1, 2], "right": ["a", "b"], "note": "n"}).set_index(["left", "right"]))
    load(Pair, pd.DataFrame({"right": ["c"], "note": ["m"]}, index=pd.Index([3], name="left")))
    load(Pair, pd.DataFrame({"left": [4], "right": ["d"], "note": ["o"]}, index=[17]))
    assert list(Pair.objects.order_by("left").values_list("left", "right")) == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
        (4, "d"),
    ]
    with pytest.raises(FrameError, match="no column 'position'"):
        load(Pair, pd.DataFrame({"left": [5]}, index=pd.Index([0], name="position")))


@pytest.mark.django_db
def test_nothing_is_nothing() -> None:
    nothings: list[Any] = [[], iter(()), pd.DataFrame({"name": []}), frame(Shelf)]
    for nothing in nothings:
        assert load(Shelf, nothing) == 0


@pytest.mark.django_db
def test_rows_may_be_read_from_the_same_connection_while_they_are_written(shelf: Shelf) -> None:
    load(Item, numbered(shelf, 2 * MANY))
    query = 'SELECT "Title, of it" AS title, count FROM frames_item ORDER BY id'
    chunks = (row for chunk in frame.chunks(query, rows=MANY) for row in chunk.to_dict("records"))
    copied = ({"left": row["count"], "right": row["title"], "note": ""} for row in chunks)
    assert load(Pair, copied) == 2 * MANY
    assert Pair.objects.count() == 2 * MANY


# Numbers


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("how", [{}, {"on_conflict": "update"}, {"on_conflict": "ignore"}], ids=str)
@pytest.mark.parametrize("numbers", [[1], [1, 2], [7, 3]], ids=str)
def test_the_next_number_follows_those_that_were_given(numbers: list[int], how: dict[str, Any]) -> None:
    load(Shelf, [{"id": number, "name": str(number)} for number in numbers], **how)
    made = [Shelf.objects.create(name=f"new {number}").pk for number in range(8)]
    assert made == list(range(max(numbers) + 1, max(numbers) + 9))


@pytest.mark.usefixtures("committed")
def test_numbers_below_do_not_turn_back_the_next_one() -> None:
    Shelf.objects.bulk_create(Shelf(name=str(number)) for number in range(5))
    Shelf.objects.all().delete()
    load(Shelf, [{"id": 2, "name": "back"}])
    assert Shelf.objects.create(name="new").pk == 6


# Conflicts


@pytest.fixture
def pairs() -> None:
    for left, right in ((1, "a"), (2, "b")):
        Pair.objects.create(left=left, right=right, note="old")


def notes() -> dict[tuple[int, str], str]:
    return {(pair.left, pair.right): pair.note for pair in Pair.objects.all()}


NEW = pd.DataFrame({"left": [2, 3], "right": ["b", "c"], "note": ["new", "new"]})


@pytest.mark.django_db
@pytest.mark.usefixtures("pairs")
def test_without_more_a_row_that_is_there_refuses_all() -> None:
    with pytest.raises(FrameError, match=r"Key \(\"left\", \"right\"\)=\(2, b\) already exists"):
        load(Pair, NEW)
    assert notes() == {(1, "a"): "old", (2, "b"): "old"}


@pytest.mark.django_db
@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("unique", [None, ["left", "right"], ["pk"]], ids=str)
def test_a_row_that_is_there_is_left_alone_or_overwritten(unique: list[str] | None) -> None:
    assert load(Pair, NEW, on_conflict="ignore", unique_fields=unique) == 1
    assert notes() == {(1, "a"): "old", (2, "b"): "old", (3, "c"): "new"}
    assert load(Pair, NEW, on_conflict="update", unique_fields=unique) == 2
    assert notes() == {(1, "a"): "old", (2, "b"): "new", (3, "c"): "new"}


@pytest.mark.django_db
def test_twins_among_the_rows_are_one_where_conflicts_are_ignored() -> None:
    assert load(Shelf, [{"name": "a"}, {"name": "b"}, {"name": "a"}], on_conflict="ignore") == 2
    assert load(Shelf, [{"name": "a"}, {"name": "c"}], on_conflict="ignore", unique_fields=["name"]) == 1


@pytest.mark.django_db
def test_an_update_changes_the_columns_given_and_no_others(shelf: Shelf) -> None:
    load(Item, [item(shelf, title="a", count=1, price=5, colour="blue")])
    (before,) = Item.objects.all()
    assert (
        load(Item, [item(shelf, title="a", price=6)], on_conflict="update", unique_fields=["shelf", "title"])
        == 1
    )
    (after,) = Item.objects.all()
    assert (after.pk, after.price, after.count, after.colour, after.token, after.added) == (
        before.pk,
        6,
        1,
        "blue",
        before.token,
        before.added,
    )
    changed = frame(Item).assign(count=lambda items: items["count"] + 1)
    assert load(Item, changed[["id", "count", "shelf_id", "title", "state"]], on_conflict="update") == 1
    assert Item.objects.get().count == 2


# The table


def definitions() -> list[Any]:
    """Return everything that the catalogues know of the table's indexes, constraints and triggers."""
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT pg_get_indexdef(indexrelid), indisunique, indisvalid, indisclustered,
                   indisreplident, obj_description(indexrelid, 'pg_class')
            FROM pg_index WHERE indrelid = 'frames_item'::regclass
            UNION ALL
            SELECT conname || pg_get_constraintdef(oid), condeferrable, convalidated, condeferred,
                   connoinherit, obj_description(oid, 'pg_constraint')
            FROM pg_constraint WHERE 'frames_item'::regclass IN (conrelid, confrelid)
            ORDER BY 1
        """)
        return list(cursor.fetchall())


@pytest.mark.usefixtures("committed")
def test_an_empty_table_has_its_indexes_and_foreign_keys_back_after_many_rows(shelf: Shelf) -> None:
    before = definitions()
    assert len(before) > 8
    assert load(Item, numbered(shelf, MANY)) == MANY
    assert definitions() == before
    assert Item.objects.filter(title="17", double=34).count() == 1
    assert load(Item, numbered(Shelf.objects.create(name="another"), MANY)) == MANY
    assert Item.objects.values("shelf").annotate(n=Count("pk")).filter(n=MANY).count() == 2


@pytest.mark.usefixtures("committed")
def test_a_foreign_key_is_checked_also_when_it_was_set_aside(shelf: Shelf) -> None:
    before = definitions()
    with pytest.raises(FrameError, match=r"Key \(shelf_id\)=\(99\) is not present"):
        load(Item, itertools.chain(numbered(shelf, MANY), [item(shelf) | {"shelf_id": 99}]))
    assert not Item.objects.exists()
    assert definitions() == before


@pytest.fixture
def commented() -> Iterator[None]:
    """What load leaves in place: a foreign key and an index with a comment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'frames_item'::regclass AND contype = 'f'"
        )
        (name,) = cursor.fetchone()
        cursor.execute(
            f"COMMENT ON CONSTRAINT {name} ON frames_item IS 'ours'; COMMENT ON INDEX frames_count IS 'ours'"
        )
        yield
        cursor.execute(
            f"COMMENT ON CONSTRAINT {name} ON frames_item IS NULL; COMMENT ON INDEX frames_count IS NULL"
        )


@pytest.mark.usefixtures("committed", "commented")
def test_a_comment_on_an_index_or_a_foreign_key_is_not_lost(shelf: Shelf) -> None:
    before = definitions()
    assert load(Item, numbered(shelf, MANY)) == MANY
    assert definitions() == before


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("table", ["frames_item", "frames_shelf"])
def test_a_table_in_use_is_loaded_without_waiting(shelf: Shelf, table: str) -> None:
    before = definitions()
    with session() as other, connection.cursor() as cursor:
        other.cursor().execute(f"SELECT FROM {table}")
        cursor.execute("SET lock_timeout = '1s'")
        try:
            assert load(Item, numbered(shelf, MANY)) == MANY
        finally:
            cursor.execute("RESET lock_timeout")
    assert definitions() == before


@pytest.mark.usefixtures("committed")
def test_within_a_transaction_the_rows_are_there_until_it_is_rolled_back(shelf: Shelf) -> None:
    before = definitions()
    with transaction.atomic():
        assert load(Item, numbered(shelf, MANY)) == MANY
        assert len(frame(Item)) == MANY
        transaction.set_rollback(True)
    assert not Item.objects.exists()
    assert definitions() == before


@pytest.mark.usefixtures("committed")
def test_a_loop_over_chunks_may_load_them(shelf: Shelf) -> None:
    load(Item, numbered(shelf, 10))
    for chunk in frame.chunks(Item.objects.values("count", "title").order_by("pk"), rows=3):
        load(Pair, chunk.rename(columns={"count": "left", "title": "right"}).assign(note=""))
    assert column(frame(Pair.objects.order_by("left"))["left"]) == list(range(10))


@pytest.mark.django_db
def test_a_frame_of_a_decimal_column_keeps_its_digits() -> None:
    load(Everything, [{"decimal": "1234567890123456789012345678.0123456789"}])
    read = frame(Everything)["decimal"]
    assert (read.dtype, column(read)) == (
        decimal(38, 10),
        [Decimal("1234567890123456789012345678.0123456789")],
    )
