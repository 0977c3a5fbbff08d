from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from catalog.models import Author, Book
from tests.conftest import Manage


def populate(**options: int) -> str:
    out = StringIO()
    call_command("populate", stdout=out, **options)
    return out.getvalue().strip()


@pytest.mark.django_db
def test_the_second_run_adds_nothing_and_says_so() -> None:
    assert populate() == "Added 3 authors and 7 books."
    assert populate() == "Nothing to add: the 3 authors and 7 books are already there."
    assert (Author.objects.count(), Book.objects.count()) == (3, 7)


@pytest.mark.django_db
def test_what_somebody_wrote_is_left_alone_and_what_is_missing_is_added() -> None:
    Author.objects.create(name="J.K. Rowling", bio="mine", country="Scotland")
    Author.objects.create(name="J.R.R. Tolkien", bio="")
    assert populate() == "Added 1 author and 7 books and filled in the country of 1 author."
    rowling = Author.objects.get(name="J.K. Rowling")
    assert (rowling.bio, rowling.country) == ("mine", "Scotland")
    assert Author.objects.get(name="J.R.R. Tolkien").country == "United Kingdom"


@pytest.mark.django_db
def test_an_unknown_alias_is_one_sentence() -> None:
    with pytest.raises(CommandError, match="There is no database alias 'nope'"):
        call_command("populate", database="nope")


def test_it_works_on_the_schema_that_the_database_has(manage: Manage, scratch_url: str) -> None:
    none = manage("populate", DATABASE_URL=scratch_url)
    assert none.returncode == 1
    assert none.stderr.strip() == (
        "CommandError: The catalog has no tables in this database yet: python manage.py migrate makes them."
    )
    manage("migrate", "catalog", "0001", DATABASE_URL=scratch_url)
    assert manage("populate", DATABASE_URL=scratch_url).stdout.strip() == "Added 3 authors and 7 books."
    manage("migrate", "catalog", DATABASE_URL=scratch_url)
    filled = manage("populate", DATABASE_URL=scratch_url)
    assert filled.stdout.strip() == "Filled in the country of 3 authors."


def test_two_runs_at_once_add_each_row_once(manage: Manage, scratch_url: str) -> None:
    manage("migrate", DATABASE_URL=scratch_url)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: manage("populate", DATABASE_URL=scratch_url).stdout, range(4)))
    assert sum(run.startswith("Added 3 authors and 7 books.") for run in runs) == 1
    assert sum(run.startswith("Nothing to add") for run in runs) == 3


def books_and_authors() -> list[tuple[str, str, str]]:
    rows = Book.objects.order_by("pk").values_list("title", "author__name", "author__country")
    return [(title, name, country) for title, name, country in rows]


@pytest.mark.django_db
def test_made_up_rows_bring_the_tables_to_a_size_and_a_second_run_adds_nothing() -> None:
    assert populate(authors=200, books=1000) == "Added 200 authors and 1,000 books."
    assert populate(authors=200, books=1000) == (
        "Nothing to add: the 200 authors and 1,000 books are already there."
    )
    assert (Author.objects.count(), Book.objects.count()) == (200, 1000)
    assert Author.objects.filter(country="").exists()


@pytest.mark.django_db
def test_the_same_seed_makes_up_the_same_rows_in_one_run_or_in_two() -> None:
    populate(authors=300, books=500, seed=7)
    at_once = books_and_authors()
    Author.objects.all().delete()
    populate(authors=300, books=200, seed=7)
    populate(authors=300, books=500, seed=7)
    assert books_and_authors() == at_once
    Author.objects.all().delete()
    populate(authors=300, books=500, seed=8)
    assert books_and_authors() != at_once


@pytest.mark.django_db
@pytest.mark.parametrize("option", ["authors", "books", "seed"])
def test_a_negative_number_is_one_sentence(option: str) -> None:
    with pytest.raises(CommandError, match="are 0 or more"):
        populate(**{option: -1})


def test_rows_are_made_up_for_a_schema_without_countries(manage: Manage, scratch_url: str) -> None:
    manage("migrate", "catalog", "0001", DATABASE_URL=scratch_url)
    done = manage("populate", "--authors", "50", "--books", "100", DATABASE_URL=scratch_url)
    assert done.stdout.strip() == "Added 50 authors and 100 books."
