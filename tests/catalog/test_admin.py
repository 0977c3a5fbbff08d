from __future__ import annotations

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from catalog.models import Author, Book

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("address", "shown", "hidden"),
    [
        ("/admin/catalog/author/?q=tolk", "J.R.R. Tolkien", "J.K. Rowling"),
        ("/admin/catalog/author/?country=United+Kingdom", "J.K. Rowling", "George R.R. Martin"),
        ("/admin/catalog/book/?q=Rowling", "Chamber of Secrets", "A Game of Thrones"),
        ("/admin/catalog/book/?author__country=United+States", "A Game of Thrones", "Chamber of Secrets"),
        ("/admin/catalog/book/1/change/", "admin-autocomplete", "Chamber of Secrets"),
    ],
)
def test_authors_and_books_can_be_searched_and_filtered(
    admin_client: Client, address: str, shown: str, hidden: str
) -> None:
    call_command("populate", verbosity=0)
    address = address.replace("/1/", f"/{Book.objects.earliest('pk').pk}/")
    page = admin_client.get(address)
    assert page.status_code == 200
    assert shown in page.content.decode()
    assert hidden not in page.content.decode()


def test_a_list_of_books_takes_as_many_queries_for_many_as_for_few(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(50):
        Book.objects.create(title=f"t{number}", author=Author.objects.create(name=f"n{number}"))
    with django_assert_max_num_queries(10):
        admin_client.get("/admin/catalog/book/")


def test_its_static_files_are_served_with_debug_off(client: Client, settings: object) -> None:
    assert settings.DEBUG is False  # type: ignore[attr-defined]
    response = client.get("/static/admin/css/base.css")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/css")
    assert b"--primary" in b"".join(response.streaming_content)  # type: ignore[attr-defined]
    response.close()
