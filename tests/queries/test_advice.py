"""What is said of queries that run row by row, or a second time, and what is not said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import Sum

from catalog.models import Author, Book
from tests.queries.shelves.models import Cover, Novel, Publisher, Shelf, Tag, Writer
from workbench.frames import frame
from workbench.queries import Asked, queries
from workbench.schema import models_at

pytestmark = pytest.mark.django_db


def only(asked: Asked) -> tuple[str, str]:
    """Return what the only advice is about, and its code."""
    (advice,) = asked.advice
    return advice.remedy.what, advice.remedy.code


def recorded(do: Callable[[], Any]) -> Asked:
    with queries() as asked:
        do()
    return asked


@pytest.mark.parametrize(
    "do",
    [
        lambda: [Novel.objects.count(), Novel.objects.create(title="", writer_id=1), Novel.objects.count()],
        lambda: [connection.cursor().execute("SELECT random()") for _ in range(3)],
        lambda: [list(Novel.objects.order_by("?")) for _ in range(3)],
        lambda: [Novel.objects.count(), Writer.objects.count()],
        lambda: list(Novel.objects.prefetch_related("shelves", "tags").select_related("writer")),
        lambda: [Novel.objects.filter(title=title).first() for title in "ab"],
        lambda: Novel.objects.bulk_create([Novel(title=f"{n}", writer_id=1) for n in range(9)], batch_size=2),
        lambda: connection.cursor().executemany("SELECT %s", [[1], [2], [3]]),
    ],
    ids=[
        *("written in between", "random()", "in a random order", "two statements", "fetched before"),
        *("twice only", "in batches", "by executemany"),
    ],
)
def test_nothing_is_said_where_nothing_is_wasted(do: Callable[[], Any]) -> None:
    Writer.objects.create(pk=1, name="", publisher=Publisher.objects.create())
    assert recorded(do).advice == []


def test_the_same_query_again_says_what_that_costs(novels: list[Novel]) -> None:
    with queries() as asked:
        for _ in range(3):
            Novel.objects.count()
        Novel.objects.count()
    (advice,) = asked.advice
    assert (advice.kind, advice.times, advice.spared) == ("duplicate", 4, 3)
    assert 0 < advice.seconds < asked.seconds
    line = min(asked[0].lines)
    said = repr(asked)
    assert (
        f"! Lines {line} and {line + 1}: the same query ran 4 times, with the same values (query 1)." in said
    )
    assert "A variable that keeps its result spares 3 of these queries, " in said


# What is done with each row, and what is said of it. The rows are those of the model.
RELATIONS: dict[str, tuple[type[models.Model], Callable[[Any], Any], str, str]] = {
    "forward": (Novel, lambda row: row.writer.name, "Novel.writer", 'Novel.objects.select_related("writer")'),
    "one to one": (
        Cover,
        lambda row: row.novel.title,
        "Cover.novel",
        'Cover.objects.select_related("novel")',
    ),
    "one to one, from behind": (
        *(Novel, lambda row: row.jacket.pk, "Novel.jacket", 'Novel.objects.select_related("jacket")'),
    ),
    "generic": (Tag, lambda row: row.target.title, "Tag.target", 'Tag.objects.prefetch_related("target")'),
    "from behind": (
        *(Writer, lambda row: list(row.novel_set.all()), "Writer.novel_set"),
        'Writer.objects.prefetch_related("novel_set")',
    ),
    "from behind, with a name": (
        *(Publisher, lambda row: list(row.writers.all()), "Publisher.writers"),
        'Publisher.objects.prefetch_related("writers")',
    ),
    "many to many": (
        *(Novel, lambda row: list(row.shelves.all()), "Novel.shelves"),
        'Novel.objects.prefetch_related("shelves")',
    ),
    "many to many, from behind": (
        *(Shelf, lambda row: list(row.books.all()), "Shelf.books"),
        'Shelf.objects.prefetch_related("books")',
    ),
    "generic, from behind": (
        *(Novel, lambda row: list(row.tags.all()), "Novel.tags"),
        'Novel.objects.prefetch_related("tags")',
    ),
    "filtered": (
        *(Writer, lambda row: list(row.novel_set.filter(price=1)), "Writer.novel_set"),
        'Writer.objects.prefetch_related(\n    Prefetch("novel_set", queryset=Novel.objects.filter(...), '
        'to_attr="chosen")\n)',
    ),
    "counted": (
        *(Publisher, lambda row: row.writers.count(), "Publisher.writers.count()"),
        'Publisher.objects.annotate(writer_count=Count("writer"))',
    ),
    "counted, filtered": (
        *(Novel, lambda row: row.shelves.filter(name="x").count(), "Novel.shelves.count()"),
        'Novel.objects.annotate(shelves_count=Count("shelves", filter=Q(...)))',
    ),
    "counted, many to many": (
        *(Shelf, lambda row: row.books.count(), "Shelf.books.count()"),
        'Shelf.objects.annotate(books_count=Count("books"))',
    ),
    "looked for": (
        *(Writer, lambda row: row.novel_set.exists(), "Writer.novel_set.exists()"),
        'Writer.objects.annotate(has_novel=Exists(Novel.objects.filter(writer=OuterRef("pk"))))',
    ),
    "looked for, many to many": (
        *(Shelf, lambda row: row.books.exists(), "Shelf.books.exists()"),
        'Shelf.objects.annotate(has_books=Exists(Novel.objects.filter(shelves=OuterRef("pk"))))',
    ),
    "looked for, generic": (Novel, lambda row: row.tags.exists(), "Novel.tags.exists()", ""),
    "summed up": (
        *(Writer, lambda row: row.novel_set.aggregate(Sum("price")), "Writer.novel_set.aggregate()", ""),
    ),
    "the first of them": (Writer, lambda row: row.novel_set.first(), "Writer.novel_set.first()", ""),
    "some of their columns": (
        *(Writer, lambda row: list(row.novel_set.values_list("title")), "Writer.novel_set", ""),
    ),
}


@pytest.mark.parametrize(("model", "do", "what", "code"), RELATIONS.values(), ids=RELATIONS)
def test_a_relation_that_is_read_row_by_row_has_its_name_and_its_remedy(
    novels: list[Novel], model: type[models.Model], do: Callable[[Any], Any], what: str, code: str
) -> None:
    with queries() as asked:
        for row in model._default_manager.all():
            do(row)
    said, instead = only(asked)
    assert (said.removesuffix(" was read").removesuffix(" was asked for"), instead) == (what, code)
    assert asked.advice[0].times == 5
    assert len(asked.advice[0].numbers) == 1


@pytest.mark.parametrize(("model", "do", "what", "code"), RELATIONS.values(), ids=RELATIONS)
def test_what_it_says_is_python_that_spares_the_queries(
    novels: list[Novel], model: type[models.Model], do: Callable[[Any], Any], what: str, code: str
) -> None:
    if not code or "..." in code:
        pytest.skip("there is no code, or a part of it is to be filled in")
    from django.db.models import Count, Exists, OuterRef

    names = {each.__name__: each for each in (Novel, Cover, Tag, Writer, Publisher, Shelf)}
    rows = eval(code, {**names, "Count": Count, "Exists": Exists, "OuterRef": OuterRef})
    with queries() as asked:
        for row in rows:
            if "annotate" not in code:
                do(row)
    assert asked.times <= 2


def test_it_goes_from_the_rows_that_were_asked_for_through_all_relations(novels: list[Novel]) -> None:
    with queries() as asked:
        for cover in Cover.objects.all():
            cover.novel.writer.publisher.name  # noqa: B018
    assert {advice.remedy.code for advice in asked.advice} == {
        'Cover.objects.select_related("novel")',
        'Cover.objects.select_related("novel__writer")',
        'Cover.objects.select_related("novel__writer__publisher")',
    }
    with queries() as asked:
        [cover.novel.writer.house for cover in Cover.objects.select_related("novel__writer")]
    assert only(asked)[1] == 'Cover.objects.select_related("novel__writer__publisher")'
    assert repr(asked).count("in tests/queries/shelves/models.py:") == 1
    with queries() as asked:
        for novel in Novel.objects.select_related("writer"):
            novel.writer.novel_set.count()
    assert only(asked)[1] == 'Novel.objects.annotate(novel_count=Count("writer__novel"))'
    with queries() as asked:
        for tag in Tag.objects.prefetch_related("target"):
            tag.target.writer.name  # noqa: B018
    assert only(asked)[1] == 'Tag.objects.prefetch_related("target__writer")'


def test_where_the_rows_come_from_is_not_guessed() -> None:
    """A writer that a prefetched novel knows is no way for select_related."""
    publisher = Publisher.objects.create(name="")
    for number in range(3):
        writer = Writer.objects.create(name=f"{number}", publisher=publisher)
        Novel.objects.create(title="", writer=writer)
    with queries() as asked:
        for writer in Writer.objects.all():
            for _novel in writer.novel_set.all():
                writer.publisher.name  # noqa: B018
    codes = {advice.remedy.code for advice in asked.advice}
    assert 'Writer.objects.select_related("publisher")' in codes


def test_rows_that_share_what_they_read_are_no_duplicates_but_read_one_by_one(novels: list[Novel]) -> None:
    Novel.objects.update(writer=novels[0].writer)
    with queries() as asked:
        for novel in Novel.objects.all():
            novel.writer.name  # noqa: B018
    assert only(asked)[1] == 'Novel.objects.select_related("writer")'


def test_a_field_that_was_left_out_is_named(novels: list[Novel]) -> None:
    with queries() as asked:
        [writer.bio for writer in Writer.objects.only("name")]
    (advice,) = asked.advice
    assert advice.remedy.what == "Writer.bio was read"
    assert advice.remedy.instead == "only() or defer() left it out: let the query read bio, too."


def test_models_of_another_migration_are_known_as_well_as_the_real_ones() -> None:
    for number in range(3):
        Book.objects.create(title="", author=Author.objects.create(name=f"{number}"))
    then: Any = models_at("catalog", "0002")
    with queries() as asked:
        for book in then.Book.objects.all():
            list(book.author.book_set.all())
    assert {advice.remedy.code for advice in asked.advice} == {
        'Book.objects.select_related("author")',
        'Book.objects.prefetch_related("author__book_set")',
    }


WRITES = {
    "created": (lambda row: Shelf.objects.create(name=row.title), "Shelf was inserted", "bulk_create(rows)"),
    "saved": (lambda row: row.save(), "Novel was updated", "bulk_update(rows, [...])"),
    "updated": (
        lambda row: Novel.objects.filter(pk=row.pk).update(price=2),
        "Novel was updated",
        "bulk_update",
    ),
    "deleted": (lambda row: row.delete(), "Novel was deleted", "Novel.objects.filter(...).delete()"),
    "looked for, then created": (
        *(lambda row: Shelf.objects.get_or_create(name=row.title), "Shelf.objects.get_or_create() ran"),
        "Shelf.objects.bulk_create(rows, ignore_conflicts=True)",
    ),
}


@pytest.mark.parametrize(("do", "what", "code"), WRITES.values(), ids=WRITES)
def test_a_loop_that_writes_says_how_to_write_all_at_once(
    novels: list[Novel], do: Callable[[Novel], Any], what: str, code: str
) -> None:
    with queries() as asked:
        for novel in novels:
            do(novel)
    said, instead = only(asked)
    assert said == what
    assert code in instead
    assert asked.advice[0].times == 5


def test_a_query_with_other_values_each_time_could_ask_for_all_of_them(novels: list[Novel]) -> None:
    by_key = recorded(lambda: [Novel.objects.get(pk=novel.pk) for novel in novels])
    assert only(by_key) == ("Novel.objects.get() ran", "Novel.objects.in_bulk(keys)")
    by_title = recorded(lambda: [Novel.objects.filter(title=title).exists() for title in "abc"])
    assert only(by_title)[0] == "Novel.objects.exists() ran"
    with connection.cursor() as cursor:
        by_hand = recorded(
            lambda: [cursor.execute("SELECT title FROM shelves_novel WHERE id = %s", [n]) for n in range(3)]
        )
        written_in = recorded(
            lambda: [cursor.execute(f"SELECT title FROM shelves_novel WHERE id = {n}") for n in range(3)]
        )
    assert only(by_hand)[0] == only(written_in)[0] == "the same SELECT ran"
    assert len(written_in) == 1
    framed = recorded(lambda: [frame(Novel.objects.filter(pk=novel.pk)) for novel in novels])
    assert only(framed)[0] == "the same COPY ran"
