"""Tables that Django makes of models, for a moment, in a session of their own.

They are temporary tables, which no other session sees and which end with this one, even if it is killed. So
Postgres itself says what a model's tables are, and what a change does to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.db import DatabaseError, models
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.schema.errors import SchemaError


@contextmanager
def session(connection: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    """Give a second connection to the same database, on which every new table is a temporary one.

    Django's ``atomic`` looks connections up by their alias, so it would begin its transaction on the first:
    use ``schema_editor(atomic=False)`` on this one.
    """
    other: BaseDatabaseWrapper = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('search_path', 'pg_temp, ' || current_setting('search_path'), false), "
                "set_config('synchronous_commit', 'off', false)"
            )
        yield other
    finally:
        other.close()


@contextmanager
def tables(
    connection: BaseDatabaseWrapper, wanted: Iterable[type[models.Model]]
) -> Iterator[tuple[BaseDatabaseWrapper, set[str]]]:
    """Make the tables of the wanted models, and those that they refer to.

    Gives the session and the wanted tables' names. Raises SchemaError.
    """
    wanted = [*wanted]
    everything = [model for model in _closure(wanted) if model._meta.can_migrate(connection)]
    with session(connection) as other, _without_schemas(everything):
        try:
            with other.schema_editor(atomic=False) as editor:
                for model in everything:
                    editor.create_model(model)
        except DatabaseError as error:
            said = str(error).partition("\n")[0]
            raise SchemaError(f"Postgres could not make the models' tables for a moment: {said}.") from error
        yield other, {table_of(model) for model in _with_links(wanted) if model._meta.can_migrate(connection)}


def table_of(model: type[models.Model]) -> str:
    """Return the name of a model's table, with its schema where ``db_table`` smuggles one in."""
    return model._meta.db_table.replace('"."', ".").strip('"')


def _closure(wanted: list[type[models.Model]]) -> list[type[models.Model]]:
    """Return the models, and those that their tables refer to."""
    found: dict[type[models.Model], None] = {}
    waiting = [*wanted]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            for owner in _with_links([model]):
                waiting += [
                    each.remote_field.model
                    for each in owner._meta.local_fields
                    if each.remote_field is not None
                ]
    return [model for model in found if not model._meta.auto_created]


def _with_links(wanted: Iterable[type[models.Model]]) -> Iterator[type[models.Model]]:
    """Yield the models, and the tables that Django makes for their many-to-many fields."""
    for model in wanted:
        yield model
        for each in model._meta.local_many_to_many:
            if each.remote_field.through._meta.auto_created:  # type: ignore[union-attr]
                yield each.remote_field.through  # type: ignore[misc]


@contextmanager
def _without_schemas(everything: Iterable[type[models.Model]]) -> Iterator[None]:
    """Name tables of other schemas, which cannot be temporary, as one word: ``"library.book"``."""
    renamed = {
        model: model._meta.db_table for model in _with_links(everything) if '"' in model._meta.db_table
    }
    for model in renamed:
        model._meta.db_table = table_of(model)
    try:
        yield
    finally:
        for model, table in renamed.items():
            model._meta.db_table = table
