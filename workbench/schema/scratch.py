"""Tables that Django makes of models, for a moment, in a session of their own.

They are temporary tables, which no other session sees and which end with this one, even if it is killed. So
Postgres itself says what a model's tables are, and what a change does to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import DatabaseError, models
from django.db.backends.base.base import BaseDatabaseWrapper

from workbench.schema.errors import SchemaError

# A schema, None for those that are searched, and a table.
Place = tuple[str | None, str]


@contextmanager
def session(connection: BaseDatabaseWrapper) -> Iterator[BaseDatabaseWrapper]:
    """Give a second connection to the same database, on which every new table is a temporary one.

    Django's ``atomic`` looks connections up by their alias, so it would begin its transaction on the first:
    use ``schema_editor(atomic=False)`` on this one.
    """
    other: BaseDatabaseWrapper = connection.copy()
    try:
        with other.cursor() as cursor:
            # Where sessions only read, too: what is made here is seen by nobody else, and gone in a moment.
            cursor.execute(
                "SELECT set_config('search_path', 'pg_temp, ' || current_setting('search_path'), false), "
                "set_config('synchronous_commit', 'off', false), "
                "set_config('default_transaction_read_only', 'off', false)"
            )
        yield other
    finally:
        other.close()


@dataclass(frozen=True)
class Made:
    """Temporary tables: their session, the place of each one's real table, and which were asked for."""

    session: BaseDatabaseWrapper
    places: dict[str, Place]
    wanted: set[str]


@contextmanager
def tables(connection: BaseDatabaseWrapper, wanted: Iterable[type[models.Model]]) -> Iterator[Made]:
    """Make the tables of the wanted models, and those that they refer to. Raises SchemaError."""
    wanted = [*wanted]
    # One for each table; a model that Django does not manage may stand for another one's.
    models_of: dict[Place, type[models.Model]] = {}
    for model in sorted(_closure(wanted), key=lambda model: not model._meta.managed):
        models_of.setdefault(place_of(model), model)
    everything = list(models_of.values())
    places = {name_of(place_of(model)): place_of(model) for model in _with_links(everything)}
    ours = {name_of(place_of(model)) for model in _with_links(wanted) if model._meta.can_migrate(connection)}
    with session(connection) as other, _without_schemas(everything):
        try:
            with other.schema_editor(collect_sql=True, atomic=False) as editor:
                for model in everything:
                    editor.create_model(model)
            if editor.collected_sql:
                # In one round trip.
                with other.cursor() as cursor:
                    cursor.execute("\n".join(editor.collected_sql))
        except DatabaseError as error:
            said = str(error).partition("\n")[0]
            raise SchemaError(f"Postgres could not make the models' tables for a moment: {said}.") from error
        yield Made(other, places, ours)


def place_of(model: type[models.Model]) -> Place:
    """Return the schema and name of a model's table; the schema is None unless ``db_table`` has one."""
    schema, separator, relation = model._meta.db_table.strip('"').rpartition('"."')
    return schema if separator else None, relation


def name_of(place: Place) -> str:
    """Return a table's name with its schema before it, in one word."""
    return ".".join(filter(None, place))


def _closure(wanted: list[type[models.Model]]) -> list[type[models.Model]]:
    """Return the models that have tables of their own, and those that these refer to."""
    found: dict[type[models.Model], None] = {}
    waiting = [model for model in wanted if not model._meta.proxy and not model._meta.swapped]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            for owner in _with_links([model]):
                waiting += [
                    each.remote_field.model._meta.concrete_model or each.remote_field.model
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
        model._meta.db_table = name_of(place_of(model))
    try:
        yield
    finally:
        for model, table in renamed.items():
            model._meta.db_table = table
