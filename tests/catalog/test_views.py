from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from catalog.models import Author, Book

pytestmark = pytest.mark.django_db

AUTHORS = "/catalog/authors/"


@pytest.fixture
def author() -> Author:
    return Author.objects.create(name="Ursula K. Le Guin", bio="«Ω»", country="United States")


def pages(client: Client, address: str | None) -> list[list[dict[str, Any]]]:
    """Follow the links to the next page until there is none."""
    found = []
    while address:
        response = client.get(address)
        assert response.status_code == 200
        found.append(response.json())
        link = re.fullmatch(r'<([^>]+)>; rel="next"', response.headers.get("Link", ""))
        address = link[1] if link else None
    return found


def test_authors_are_an_array_of_objects(client: Client, author: Author) -> None:
    response = client.get(AUTHORS)
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == [
        {
            "id": author.id,
            "name": "Ursula K. Le Guin",
            "bio": "«Ω»",
            "country": "United States",
            "created_at": author.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
    ]


def test_books_are_those_of_the_author(client: Client, author: Author) -> None:
    other = Author.objects.create(name="Other")
    Book.objects.create(title="Theirs", author=other)
    book = Book.objects.create(title="The Dispossessed", author=author)
    (found,) = client.get(f"/catalog/books/{author.id}/").json()
    assert (found["id"], found["title"], found["author_id"]) == (book.id, book.title, author.id)


def test_an_author_without_books_has_an_empty_list(client: Client, author: Author) -> None:
    response = client.get(f"/catalog/books/{author.id}/")
    assert (response.status_code, response.json()) == (200, [])


@pytest.mark.parametrize("unknown", ["0", "4711", "9" * 30])
def test_an_unknown_author_is_a_404_that_says_so_in_json(client: Client, unknown: str) -> None:
    response = client.get(f"/catalog/books/{unknown}/")
    assert response.status_code == 404
    assert response.json() == {"error": f"There is no author {unknown}"}


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_other_methods_are_refused(author: Author, method: str) -> None:
    client = Client(enforce_csrf_checks=True)
    for address in (AUTHORS, f"/catalog/books/{author.id}/"):
        response = getattr(client, method)(address)
        assert response.status_code == 405
        assert response.headers["Allow"] == "GET, HEAD"
        assert "error" in response.json()
        assert client.head(address).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=ten", "limit=", "after=x", "after=-1", "after=" + "9" * 30, "limit=²"],
)
def test_a_page_that_is_no_number_is_a_400_that_says_so(client: Client, query: str) -> None:
    response = client.get(f"{AUTHORS}?{query}")
    assert response.status_code == 400
    assert "must be a whole number from" in response.json()["error"]


def test_the_pages_hold_every_row_once_in_order(client: Client) -> None:
    Author.objects.bulk_create(Author(name=f"Author {number}") for number in range(25))
    found = pages(client, f"{AUTHORS}?limit=10")
    assert [len(page) for page in found] == [10, 10, 5]
    ids = [row["id"] for page in found for row in page]
    assert ids == list(Author.objects.order_by("pk").values_list("pk", flat=True))


def test_the_books_are_paged_too_and_a_page_past_the_end_is_empty(client: Client, author: Author) -> None:
    books = [Book(pk=pk, title=f"Book {pk}", author=author) for pk in (4004, 4001, 4003, 4005, 4002)]
    Book.objects.bulk_create(books)
    found = pages(client, f"/catalog/books/{author.id}/?limit=2")
    assert [[row["id"] for row in page] for page in found] == [[4001, 4002], [4003, 4004], [4005]]
    assert client.get(f"/catalog/books/{author.id}/?after=4005").json() == []


def test_a_page_is_bounded_and_takes_one_query_whatever_is_asked(
    client: Client, author: Author, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    Author.objects.bulk_create(Author(name="n") for _ in range(1100))
    Book.objects.bulk_create(Book(title="t", author=author) for _ in range(1100))
    for address in (AUTHORS, f"/catalog/books/{author.id}/"):
        with django_assert_num_queries(1):
            assert len(client.get(address).json()) == 100
        with django_assert_num_queries(1):
            assert len(client.get(f"{address}?limit=1000000").json()) == 1000
