"""What spares a query for each row: found from the relation that was read, not from the SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, NamedTuple
from weakref import ref

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.lookups import Exact

from workbench.queries.origin import Found, Need

STEPS = 4
# Related rows that were read last, each with the row that they were read from.
READ_KEPT = 16
# Verbs of a queryset that no relation answers beforehand.
ASK_ONE = ("get", "first", "last")


@dataclass(frozen=True)
class Remedy:
    """What was done, how it was told apart from one time to the next, and what does it for all at once.

    ``is_certain`` says that it is done for each row, whatever the values; otherwise they have to differ.
    ``is_relation`` says that it is an attribute of a row.
    """

    what: str
    each: str
    instead: str
    code: str = ""
    is_certain: bool = True
    is_relation: bool = False


class Read(NamedTuple):
    """A relation of an instance that was read."""

    instance: ref[models.Model]
    name: str
    cache_name: str


class Relation(NamedTuple):
    """What a related manager's queryset is of."""

    instance: models.Model
    name: str
    model: type[models.Model]
    # For lookups: from the instance's model, and from the related one back.
    query_name: str
    back: str
    key: str


def read_of(found: Found) -> Read | None:
    """Return what is worth remembering of a relation that is about to be read."""
    if found.need.kind not in ("forward", "one", "generic"):
        return None
    name = found.need.name
    cache_name = name
    if found.need.kind == "one":
        cache_name = next(
            (
                each.cache_name
                for each in found.need.model._meta.related_objects
                if each.one_to_one and each.field.related_query_name() == name
            ),
            name,
        )
    return Read(ref(found.subject), name, cache_name)


def remedy(found: Found, sql: str, read: Iterable[Read], frames: Iterable[FrameType]) -> Remedy | None:
    """Return what spares a statement that is sent again and again; None where nothing can be said for sure.

    ``read`` are the relations read before, ``frames`` the person's own, from the outermost.
    """
    need, subject = found
    if isinstance(subject, models.Model):
        if need.kind in ("save", "remove"):
            return _written(need, sql)
        root, path = _way(subject, [*read], [*frames])
        return _of_instance(need, root, "__".join([*path, need.name]))
    if need.kind in ("insert", "update", "delete", "get_or_create", "update_or_create"):
        return _written(need, sql)
    if need.kind == "many":
        return None
    if (relation := relation_of(subject)) is not None:
        root, path = _way(relation.instance, [*read], [*frames])
        return _of_relation(need, subject, relation, root, path)
    return _of_queryset(need, subject)


def _of_instance(need: Need, root: type[models.Model], path: str) -> Remedy:
    what = f"{need.model.__name__}.{need.name} was read"
    each = f"once for each {need.model.__name__}"
    remedy = partial(Remedy, what, each, is_relation=True)
    if need.kind == "deferred":
        return remedy(f"only() or defer() left it out: let the query read {need.name}, too.")
    together = "prefetch_related" if need.kind == "generic" or _is_generic(root, path) else "select_related"
    return remedy(f"{together} reads it for all of them:", f'{_manager(root)}.{together}("{path}")')


def _of_relation(
    need: Need, queryset: Any, relation: Relation, root: type[models.Model], path: list[str]
) -> Remedy:
    owner, related = type(relation.instance).__name__, relation.model
    verb = "" if need.kind == "all" else f".{need.kind}()"
    remedy = partial(
        Remedy, f"{owner}.{relation.name}{verb} was asked for", f"once for each {owner}", is_relation=True
    )
    lookup = "__".join([*path, relation.query_name])
    is_all = _is_all(queryset, relation)
    annotate = f"{_manager(root)}.annotate"
    if need.kind == "count":
        condition = "" if is_all else ", filter=Q(...)"
        code = f'{annotate}({relation.query_name}_count=Count("{lookup}"{condition}))'
        return remedy("annotate counts for all of them:", code)
    if need.kind == "exists" and _is_generic(related, relation.back):
        return remedy("annotate with Exists() looks for all of them.")
    if need.kind == "exists":
        key = "__".join([*path, relation.key])
        condition = "" if is_all else ", ..."
        rows = f'{_manager(related)}.filter({relation.back}=OuterRef("{key}"){condition})'
        return remedy(
            "annotate looks for all of them:", f"{annotate}(has_{relation.query_name}=Exists({rows}))"
        )
    if need.kind == "aggregate":
        return remedy("annotate with the same aggregate does it for all of them.")
    is_other = queryset._fields is not None or queryset.query.is_sliced or queryset.query.combinator
    if need.kind in ASK_ONE or is_other:
        return remedy(f"One query with {relation.back}__in reads the rows of all of them.")
    name = "__".join([*path, relation.name])
    if is_all:
        code = f'{_manager(root)}.prefetch_related("{name}")'
        return remedy("prefetch_related reads it for all of them:", code)
    rows = f"{_manager(related)}.filter(...)"
    return remedy(
        "Prefetch with the same filter reads it for all of them:",
        f'{_manager(root)}.prefetch_related(\n    Prefetch("{name}", queryset={rows}, to_attr="chosen")\n)',
    )


def _of_queryset(need: Need, queryset: Any) -> Remedy:
    manager = _manager(queryset.model)
    verb = "" if need.kind == "all" else f".{need.kind}()"
    remedy = partial(
        Remedy,
        f"{manager}{verb} ran" if verb else f"a query of {queryset.model.__name__} ran",
        "each time with other values",
        is_certain=False,
    )
    if need.kind == "get" and _is_by_key(queryset):
        return remedy("in_bulk reads all of them:", f"{manager}.in_bulk(keys)")
    return remedy("One query with __in may read the rows for all of them.")


def _written(need: Need, sql: str) -> Remedy:
    name, manager = need.model.__name__, _manager(need.model)
    each = "one row each time"
    if need.kind in ("get_or_create", "update_or_create"):
        option = "ignore_conflicts=True" if need.kind == "get_or_create" else "update_conflicts=True, ..."
        code = f"{manager}.bulk_create(rows, {option})"
        return Remedy(f"{manager}.{need.kind}() ran", each, "bulk_create writes all of them:", code)
    if need.kind in ("delete", "remove"):
        code = f"{manager}.filter(...).delete()"
        return Remedy(f"{name} was deleted", each, "delete() of a queryset deletes all of them:", code)
    if sql.lstrip()[:6].upper() == "INSERT":
        code = f"{manager}.bulk_create(rows)  # or load({name}, rows)"
        return Remedy(f"{name} was inserted", each, "bulk_create writes all of them:", code)
    code = f"{manager}.bulk_update(rows, [...])  # or .filter(...).update(...), where all get the same"
    return Remedy(f"{name} was updated", each, "bulk_update writes all of them:", code)


def relation_of(queryset: Any) -> Relation | None:
    """Return the relation whose manager made the queryset; None if it is no related manager's."""
    instance = queryset._hints.get("instance")
    if instance is None:
        return _generic_relation(queryset)
    for field in queryset._known_related_objects:
        remote = field.remote_field
        if not isinstance(instance, remote.model):
            continue
        target = field.target_field
        key = "pk" if target.primary_key else target.name
        names = remote.get_accessor_name(), queryset.model, field.related_query_name(), field.name
        return Relation(instance, *names, key)
    targets = [
        getattr(child.lhs, "target", None) for child in queryset.query.where.children if _is_exact(child)
    ]
    options = instance._meta
    for field in options.many_to_many:
        through = field.remote_field.through
        if through._meta.get_field(field.m2m_field_name()) in targets:
            names = field.name, field.related_model, field.name, field.related_query_name()
            return Relation(instance, *names, "pk")
    for related in options.related_objects:
        if related.many_to_many:
            field = related.field
            if related.through._meta.get_field(field.m2m_reverse_field_name()) in targets:
                names = related.get_accessor_name(), field.model, field.related_query_name(), field.name
                return Relation(instance, *names, "pk")
    return None


def _generic_relation(queryset: Any) -> Relation | None:
    """Return the relation of a GenericRelation's queryset, which keeps no hint of its instance."""
    if not apps.is_installed("django.contrib.contenttypes"):
        return None
    from django.contrib.contenttypes.fields import GenericForeignKey
    from django.contrib.contenttypes.models import ContentType

    options = queryset.model._meta
    values = {child.lhs.target.name: child.rhs for child in queryset.query.where.children if _is_exact(child)}
    for key in options.private_fields:
        if not isinstance(key, GenericForeignKey) or not {key.ct_field, key.fk_field} <= values.keys():
            continue
        # Its manager has looked it up: it is at hand.
        owner: Any = ContentType.objects.get_for_id(values[key.ct_field]).model_class()
        for field in owner._meta.private_fields if owner else ():
            if (
                getattr(field, "object_id_field_name", "") == key.fk_field
                and field.related_model is queryset.model
            ):
                names = field.name, queryset.model, field.name, key.fk_field
                return Relation(owner(pk=values[key.fk_field]), *names, "pk")
    return None


def _is_exact(child: Any) -> bool:
    return isinstance(child, Exact) and hasattr(child.lhs, "target")


def _is_by_key(queryset: Any) -> bool:
    children = queryset.query.where.children
    return len(children) == 1 and _is_exact(children[0]) and children[0].lhs.target.primary_key


def _is_all(queryset: Any, relation: Relation) -> bool:
    """Tell whether it reads what the relation's ``all()`` would, so that prefetched rows do."""
    if queryset.model is not relation.model:
        return True  # Django counts what links them, where that is enough.
    with suppress(Exception):
        rows = getattr(relation.instance, relation.name).all()
        return bool(_compiled(rows) == _compiled(queryset))
    return False


def _compiled(queryset: Any) -> Any:
    return queryset.query.get_compiler(queryset.db).as_sql()


def _is_generic(model: type[models.Model], path: str) -> bool:
    """Tell whether a way through relations goes by one that no join can follow."""
    if any(getattr(field, "fk_field", None) == path for field in model._meta.private_fields):
        return True
    for step in path.split("__"):
        try:
            field = model._meta.get_field(step)
        except FieldDoesNotExist:
            return False
        if field in model._meta.private_fields:
            return True
        model = field.related_model  # type: ignore[assignment]
    return False


def _manager(model: type[models.Model]) -> str:
    manager = model._meta.default_manager
    return f"{model.__name__}.{manager.name if manager else 'objects'}"


def _way(
    instance: models.Model, read: list[Read], frames: list[FrameType]
) -> tuple[type[models.Model], list[str]]:
    """Return the model that rows were asked of, and the relations from there to the instance.

    What is not known is not guessed: then it is the instance's own model.
    """
    path: list[str] = []
    current = instance
    for _ in range(STEPS):
        step = next(
            ((parent, name) for parent, name in _parents(read) if _is_at(parent, name, current)), None
        )
        if step is None:
            break
        current = step[0]
        path.insert(0, step[1].name)
    for frame in frames:
        if found := _from_locals(frame, current):
            return found[0], [*found[1], *path]
    return type(current), path


def _parents(read: list[Read]) -> Iterator[tuple[models.Model, Read]]:
    for each in reversed(read):
        if (parent := each.instance()) is not None:
            yield parent, each


def _is_at(parent: models.Model, read: Read, instance: models.Model) -> bool:
    return parent._state.fields_cache.get(read.cache_name) is instance


def _from_locals(frame: FrameType, instance: models.Model) -> tuple[type[models.Model], list[str]] | None:
    """Return the way to an instance from one that a frame has a name for."""
    code, held = frame.f_code, frame.f_locals
    names = {*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars}
    starts = [held[name] for name in names if name in held and isinstance(held[name], models.Model)]
    if any(each is instance for each in starts):
        return type(instance), []
    ways = [(each, type(each), list[str]()) for each in starts]
    seen = {id(each) for each in starts}
    for _ in range(STEPS):
        further = []
        for here, root, path in ways:
            for name, there in here._state.fields_cache.items():
                if there is instance:
                    return root, [*path, name]
                if isinstance(there, models.Model) and id(there) not in seen:
                    seen.add(id(there))
                    further.append((there, root, [*path, name]))
        ways = further
    return None
