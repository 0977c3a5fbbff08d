"""What frame is asked for, as SQL: its columns' names, and what Django would make of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from inspect import getattr_static
from typing import Any, Union

from django.conf import settings
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import DEFAULT_DB_ALIAS, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import BaseExpression, ColPairs
from django.db.models.functions.datetime import TruncBase
from django.db.models.query import ModelIterable, RawQuerySet
from django.utils import timezone
from psycopg2 import extensions

from workbench.frames import types
from workbench.frames.database import connection_of
from workbench.frames.errors import FrameError
from workbench.frames.types import Type

Source = Union[models.QuerySet[Any, Any], models.Manager[Any], type[models.Model], "RawQuerySet[Any]", str]
Params = Sequence[Any] | Mapping[str, Any] | None

# Comments and brackets, then the statement. Atomic, for a long comment would be gone through again and again.
READS = re.compile(r"(?>\s|\(|--[^\n]*\n|/\*.*?\*/)*+(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Query:
    """What to ask, and what Django knows of its columns; without names, they are as Postgres says."""

    connection: BaseDatabaseWrapper
    sql: str
    params: Params
    names: list[str] | None = None
    expressions: list[Any] | None = None
    # For columns whose names are only known from the answer.
    field: Callable[[str], tuple[str, Any]] | None = None

    @property
    def is_text(self) -> bool:
        return self.names is None


def query_of(source: Any, params: Params, using: str | None) -> Query:
    if isinstance(source, type) and issubclass(source, models.Model):
        source = source._default_manager
    if isinstance(source, models.Manager):
        source = source.all()
    if isinstance(source, str):
        return _of_text(source, params, using)
    if params is not None:
        raise FrameError("Parameters go with SQL text; a queryset has its own.")
    if isinstance(source, models.QuerySet | RawQuerySet):
        if using is not None:
            source = source.using(using)
        return _of_raw(source) if isinstance(source, RawQuerySet) else _of_queryset(source)
    raise FrameError(
        f"frame reads a queryset, a model or SQL text, not {type(source).__name__}. "
        f"A DataFrame of other rows is pd.DataFrame(rows)."
    )


def _of_text(sql: str, params: Params, using: str | None) -> Query:
    if not READS.match(sql):
        raise FrameError(
            "frame reads what SELECT, WITH, VALUES or TABLE give; use a cursor for other statements."
        )
    return Query(connection_of(using or DEFAULT_DB_ALIAS), sql.rstrip().rstrip(";"), params)


def _of_raw(queryset: RawQuerySet[Any]) -> Query:
    model: type[models.Model] = queryset.model  # type: ignore[assignment]
    table = model._meta.db_table
    fields = {field.column: field for field in model._meta.concrete_fields}

    def named(column: str) -> tuple[str, Any]:
        name = queryset.translations.get(column, column)
        try:
            field = fields.get(name) or model._meta.get_field(name)
        except FieldDoesNotExist:
            return name, None
        return field.attname, field.get_col(table)  # type: ignore[union-attr]

    query = _of_text(str(queryset.raw_query), queryset.params or None, queryset.db)
    return replace(query, field=named)


def _of_queryset(queryset: models.QuerySet[Any, Any]) -> Query:
    connection = connection_of(queryset.db)
    query = queryset.all().query
    query.annotations = {name: _typed(expression) for name, expression in query.annotations.items()}
    query.set_annotation_mask(query.annotation_select_mask)
    # Where a filter can match nothing, there is still a query to ask for the types.
    compiler = query.get_compiler(queryset.db, elide_empty=False)
    sql, params = compiler.as_sql()
    selected = [expression for expression, *_ in compiler.select]
    if issubclass(queryset._iterable_class, ModelIterable):
        names = _model_names(compiler, selected)
    else:
        names = names_of(query)
    expanded = [
        pair
        for name, expression in zip(names, selected, strict=True)
        for pair in (
            [(column.target.attname, column) for column in expression.get_cols()]
            if isinstance(expression, ColPairs)
            else [(name, expression)]
        )
    ]
    names, expressions = map(list, zip(*expanded, strict=True))
    return Query(connection, sql, params, names, expressions)


def names_of(query: Any) -> list[str]:
    """Return the names of the columns that ``values`` or ``values_list`` asks for, in their order."""
    return list(query.selected or (*query.extra_select, *query.values_select, *query.annotation_select))


def _typed(expression: Any) -> Any:
    """Return the expression with an output_field, for Django sends none whose type it cannot tell."""
    try:
        expression.output_field  # noqa: B018
    except FieldError:
        expression = copy(expression)
        expression.output_field = models.Field()
    return expression


def _model_names(compiler: Any, selected: list[Any]) -> list[str]:
    names = [""] * len(selected)
    for name, position in compiler.annotation_col_map.items():
        names[position] = name

    def walk(model: dict[str, Any], prefix: str) -> None:
        for position in model["select_fields"]:
            # A child of a parent that is selected too has the parent's columns for its own.
            names[position] = names[position] or prefix + selected[position].target.attname
        for related in model.get("related_klass_infos", ()):
            field = related["field"]
            step = field.related_query_name() if related["reverse"] else field.name
            walk(related, f"{prefix}{step}__")

    walk(compiler.klass_info, "")
    return names


def column_type(column: Any, expression: Any, connection: BaseDatabaseWrapper, cursor: Any) -> Type:
    """Return how to read a column so that its values are those that Django would give."""
    caster = _caster(connection, column.type_code, cursor)
    plain = types.type_of(column.type_code, column.precision, column.scale, caster)
    if expression is None:
        return plain
    converters = [*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)]
    if not converters:
        return plain
    if len(converters) == 1 and (known := _known(converters[0], expression, column.type_code, plain)):
        return known

    def make(text: str | None) -> Any:
        value = text if caster is None else caster(text)
        return reduce(lambda value, convert: convert(value, expression, connection), converters, value)

    return types.objects(make)


def _caster(connection: BaseDatabaseWrapper, oid: int, cursor: Any) -> Callable[[str | None], Any] | None:
    """Return what psycopg2 makes of a text of this type; None where that is the text."""
    caster = connection.connection.string_types.get(oid) or extensions.string_types.get(oid)
    if caster is None or caster.name in ("STRING", "UNICODE"):
        return None
    return lambda text: caster(text, cursor)


def _known(converter: Any, expression: Any, oid: int, plain: Type) -> Type | None:
    """Return the type that gives what one of Django's own converters would, or None if none is known."""
    field = expression.output_field
    if getattr(converter, "__func__", None) is models.JSONField.from_db_value:
        return plain if field.decoder is None and oid in (types.JSON, types.JSONB) else None
    converts = getattr_static(type(expression), "convert_value")
    if converter != expression.convert_value:
        return None
    kind = field.get_internal_type()
    if converts is getattr_static(BaseExpression, "convert_value"):
        # https://github.com/django/django/blob/stable/5.2.x/django/db/models/expressions.py, convert_value
        if kind == "FloatField":
            return types.AS_FLOAT.get(oid)
        if kind.endswith("IntegerField"):
            return types.AS_INTEGER.get(oid)
        return types.AS_DECIMAL.get(oid)
    if converts is getattr_static(TruncBase, "convert_value"):
        zone = expression.tzinfo or timezone.get_current_timezone()
        if kind == "DateTimeField" and oid == types.TIMESTAMP and settings.USE_TZ:
            return types.TYPES[types.TIMESTAMPTZ] if str(zone) == "UTC" else None
        return {"DateField": types.AS_DATE, "TimeField": types.AS_TIME}.get(kind, {}).get(oid)
    return None
