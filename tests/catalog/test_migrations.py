from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader


@pytest.mark.django_db
def test_the_migrations_are_those_of_the_models() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db
def test_the_first_migration_knows_no_country() -> None:
    state = MigrationLoader(connection).project_state(("catalog", "0001_initial"))
    assert set(state.models["catalog", "author"].fields) == {"id", "name", "bio", "created_at"}
    assert set(state.models["catalog", "book"].fields) == {"id", "title", "author", "created_at"}
