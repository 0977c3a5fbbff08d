from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from pytest_django import DjangoDbBlocker

from tests.queries.shelves.models import TABLES, Cover, Novel, Publisher, Shelf, Tag, Writer
from workbench.schema import history


@pytest.fixture(scope="package", autouse=True)
def shelves(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    apps.set_installed_apps([*settings.INSTALLED_APPS, "tests.queries.shelves"])
    with django_db_blocker.unblock(), connection.schema_editor() as editor:
        for model in TABLES:
            editor.create_model(model)
    yield
    with django_db_blocker.unblock(), connection.schema_editor() as editor:
        for model in reversed(TABLES):
            editor.delete_model(model)
    apps.unset_installed_apps()
    ContentType.objects.clear_cache()
    # It remembers which apps there were.
    history._histories.clear()


@pytest.fixture
def novels(db: None) -> list[Novel]:
    """Five novels by five writers of five publishers, each with a cover, a tag, and on a shelf."""
    ContentType.objects.clear_cache()
    made = []
    for number in range(5):
        publisher = Publisher.objects.create(name=f"publisher {number}")
        writer = Writer.objects.create(name=f"writer {number}", publisher=publisher)
        novel = Novel.objects.create(title=f"novel {number}", writer=writer)
        novel.shelves.add(Shelf.objects.create(name=f"shelf {number}"))
        Cover.objects.create(novel=novel)
        Tag.objects.create(name="new", target=novel)
        made.append(novel)
    return made
