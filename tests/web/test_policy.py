"""The headers with which browsers are told what may be done with an answer."""

from __future__ import annotations

import pytest
from django.test import Client, override_settings

from workbench.web.policy import HEADER, POLICY

HEADERS = {
    HEADER: POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PATHS = [
    "/",
    "/page.js",
    "/catalog/authors/",
    "/admin/login/",
    "/static/admin/css/base.css",
    "/nothing",
    "/admin",
]


@pytest.mark.django_db
@pytest.mark.parametrize("path", PATHS)
def test_they_are_on_every_answer(client: Client, path: str) -> None:
    response = client.get(path)
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    response.close()


@pytest.mark.django_db
def test_they_are_on_refusals(client: Client) -> None:
    for response in (
        client.get("/", headers={"Host": "elsewhere.example"}),
        client.post("/catalog/authors/"),
    ):
        assert response.status_code in (400, 405)
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@override_settings(DEBUG=True)
def test_only_debugging_pages_may_run_what_is_in_them(client: Client) -> None:
    assert HEADER not in client.get("/nothing").headers
    assert client.get("/page.js").headers[HEADER] == POLICY


@override_settings(SECURE_SSL_REDIRECT=True, SECURE_HSTS_SECONDS=60)
def test_https_is_asked_for_where_it_was_chosen(client: Client) -> None:
    assert client.get("/catalog/authors/")["Location"] == "https://testserver/catalog/authors/"
    assert client.get("/page.js", secure=True)["Strict-Transport-Security"] == "max-age=60"
