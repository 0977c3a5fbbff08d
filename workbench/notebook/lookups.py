"""The names that a query may use, of the model that a name holds now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import Any

from django.db.models import Field, Model, Transform
from django.db.models.fields.related_lookups import RelatedLookupMixin

SEPARATOR = "__"
# A field by itself is meant exactly so.
UNSAID = "exact"


class Use(Enum):
    """What for: the keywords of ``filter``, the columns of ``values`` and ``order_by``, what ``only`` loads,
    what ``select_related`` follows, what ``prefetch_related`` does, and what ``create`` sets.
    """

    LOOKUP = auto()
    COLUMN = auto()
    LOADED = auto()
    JOINED = auto()
    PREFETCHED = auto()
    SET = auto()


def names(model: type[Model], typed: str, use: Use, extra: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return what may stand where ``typed`` does, each with what it is.

    Those at the level of what is typed, then those one level down. ``extra`` are the query's own, as of
    ``annotate``.
    """
    *path, last = typed.split(SEPARATOR)
    at: Any = model
    for part in path:
        at = _below(at, use).get(part)
        if at is None:
            return []
    start = "".join(f"{part}{SEPARATOR}" for part in path)
    here = [(name, each) for name, each in _below(at, use).items() if name.startswith(last)]
    found = [(f"{start}{name}", _what(each)) for name, each in here]
    if not path:
        found += [(name, "annotation") for name in extra if name.startswith(last)]
    for name, each in here if use is not Use.SET else ():
        below = _below(each, use)
        if last:
            found += [(f"{start}{name}{SEPARATOR}{more}", _what(what)) for more, what in below.items()]
        elif below and _model(each):
            found.append((f"{start}{name}{SEPARATOR}", _what(each)))
    return found


def _below(at: Any, use: Use) -> dict[str, Any]:
    """Return what may follow, by name: fields, relations, and kinds of lookups."""
    if model := _model(at):
        found = dict(_fields(model, use))
        return found | _comparisons(at) if use is Use.LOOKUP and at is not model else found
    if use is Use.LOOKUP:
        return _comparisons(at)
    if use is Use.COLUMN:
        return {name: kind for name, kind in _comparisons(at).items() if issubclass(kind, Transform)}
    return {}


def _model(at: Any) -> type[Model] | None:
    """Return the model that is meant, or that a relation leads to."""
    if isinstance(at, type):
        return at if issubclass(at, Model) else None
    return getattr(at, "related_model", None)


def fields_of(model: type[Model]) -> list[Any]:
    """Return a model's own fields, then the relations that lead to it."""
    return sorted(model._meta.get_fields(), key=lambda field: not isinstance(field, Field))


def accessor(field: Any) -> str:
    """Return the attribute of an instance that a field, or a relation from elsewhere, is."""
    return str(field.name if isinstance(field, Field) else field.get_accessor_name())


def _fields(model: type[Model], use: Use) -> Iterator[tuple[str, Any]]:
    for field in fields_of(model):
        is_reverse = not isinstance(field, Field)
        is_one = bool(field.one_to_one or field.many_to_one)
        leads = bool(field.is_relation and field.related_model)
        if field.is_relation and not leads:
            continue  # A GenericForeignKey: no query can follow it.
        match use:
            case Use.LOOKUP | Use.COLUMN:
                yield field.name, field
            case Use.LOADED if is_one or not (is_reverse or field.many_to_many):
                yield field.name, field
            case Use.JOINED if leads and is_one:
                yield field.name, field
            case Use.PREFETCHED if leads:
                yield accessor(field), field
            case Use.SET if not (is_reverse or field.many_to_many or getattr(field, "generated", False)):
                yield field.name, field
    if use in (Use.LOOKUP, Use.COLUMN):
        for field in model._meta.concrete_fields:
            if field.attname != field.name:
                yield field.attname, _Key(field)
        yield "pk", model._meta.pk


class _Key:
    """The column of a foreign key, which leads nowhere."""

    def __init__(self, field: Any) -> None:
        self.field = field


def _comparisons(at: Any) -> dict[str, Any]:
    """Return the lookups and transforms of a field, of a relation, or of what a transform makes."""
    found: dict[str, Any]
    if isinstance(at, type):
        made = getattr(at, "output_field", None) if issubclass(at, Transform) else None
        found = {**made.get_lookups(), **_own(at)} if isinstance(made, Field) else {}
    elif isinstance(at, Field):
        found = at.get_lookups()
    else:
        found = at.field.get_lookups() if getattr(at, "field", None) is not None else {}
    if _model(at) is not None or isinstance(at, _Key):
        found = {name: kind for name, kind in found.items() if issubclass(kind, RelatedLookupMixin)}
    return {name: kind for name, kind in found.items() if name != UNSAID}


def _own(transform: Any) -> dict[str, Any]:
    return dict(transform.get_class_lookups())


def _what(at: Any) -> str:
    """Say in a word what it is."""
    if isinstance(at, type):
        return "transform" if issubclass(at, Transform) else "lookup"
    if isinstance(at, _Key):
        return type(at.field.target_field).__name__
    return type(at).__name__
