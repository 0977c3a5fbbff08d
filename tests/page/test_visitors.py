"""Whom the page is shown to, in Django's own server and in one for others."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, override_settings

from tests.page.conftest import Seen
from workbench.page import AGAIN
from workbench.page.visitors import LET_IN

FOR_OTHERS = override_settings(WORKBENCH_WEB=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_whoever_is_on_this_machine_is_shown_it(seen: Seen, address: str) -> None:
    assert seen.client.get("/", {"database": "seen"}, REMOTE_ADDR=address).status_code == 200


@pytest.mark.parametrize(
    "visitor",
    [
        {"REMOTE_ADDR": "192.0.2.7"},
        {"REMOTE_ADDR": "::ffff:192.0.2.7"},
        {"REMOTE_ADDR": ""},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.7"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=192.0.2.7"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_VIA": "1.1 proxy"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_HOST": "data.example.org"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "https"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_CF_CONNECTING_IP": "192.0.2.7"},
        {"REMOTE_ADDR": "192.0.2.7", "HTTP_WORKBENCH_LET_IN": "1", "HTTP_WORKBENCH.LET_IN": "1"},
    ],
)
def test_whoever_is_not_is_sent_to_the_login(client: Client, visitor: dict[str, str]) -> None:
    for headers in ({}, {AGAIN: "1"}):
        response = client.get("/?branch=try-out", headers=headers, **visitor)  # type: ignore[arg-type]
        assert (response.status_code, response["Location"]) == (
            302,
            "/admin/login/?next=/%3Fbranch%3Dtry-out",
        )


@FOR_OTHERS
def test_a_server_for_others_takes_nobody_for_somebody_on_this_machine(client: Client) -> None:
    assert client.get("/").status_code == 302


@FOR_OTHERS
@override_settings(ROOT_URLCONF="workbench.page.urls")
def test_without_an_admin_it_is_nobodys(client: Client) -> None:
    assert client.get("/").status_code == 403


@FOR_OTHERS
@pytest.mark.django_db
def test_of_those_who_are_logged_in_only_superusers_are_shown_it(
    client: Client, admin_client: Client
) -> None:
    assert admin_client.get("/").status_code == 200
    client.force_login(get_user_model().objects.create_user("staff", is_staff=True))
    response = client.get("/")
    assert response.status_code == 403
    assert "This page is for superusers" in response.content.decode()
    assert "catalog_author" not in response.content.decode()


@FOR_OTHERS
def test_whom_jupyter_let_in_is_not_asked_again(seen: Seen) -> None:
    let_in = {LET_IN: True, "REMOTE_ADDR": "192.0.2.7"}
    assert seen.client.get("/", {"database": "seen"}, **let_in).status_code == 200  # type: ignore[arg-type]
