"""A database to look at, made for the tests of one module, at an alias of this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from pytest_django import DjangoDbBlocker

from tests.branches.conftest import clear
from tests.conftest import scratch
from tests.page import patient
from tests.schema.places import settings_for
from workbench.branches import branches, drop, use
from workbench.page import AGAIN, look

ALIAS = "seen"


@dataclass(frozen=True)
class Answered:
    """What the page answered; ``text`` is what a person reads, each blank one space."""

    status: int
    html: str
    headers: Any

    @property
    def text(self) -> str:
        body = self.html.partition("<body>")[2]
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


@dataclass(frozen=True)
class Seen:
    """The database, and the page that shows it."""

    client: Client
    url: str

    def ask(self, *statements: str) -> list[Any]:
        with connections[ALIAS].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def get(self, *, is_again: bool = False, etag: str = "", **query: str) -> Answered:
        headers = {AGAIN: "1"} if is_again else {}
        if etag:
            headers["If-None-Match"] = etag
        response = self.client.get("/", {"database": ALIAS, "app": "catalog", **query}, headers=headers)
        return Answered(response.status_code, response.content.decode(), response.headers)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "BEGIN", look.BEGIN)
    patient.wait()


@pytest.fixture(scope="module")
def url(django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with django_db_blocker.unblock(), scratch() as url:
        connections.databases[ALIAS] = settings_for(url)
        yield url
        name = connections.databases[ALIAS]["NAME"]
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]
        clear(name)


@pytest.fixture
def seen(url: str, client: Client) -> Iterator[Seen]:
    """The page of an empty database without branches."""
    made = Seen(client, url)
    made.ask("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    yield made
    connections[ALIAS].close()
    use("main", ALIAS)
    for each in branches(ALIAS):
        if not each.is_main:
            drop(each.name, end_sessions=True, using=ALIAS)
