"""What an expression means, as far as that can be told without running it: no call, no property, no query."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model, QuerySet
from django.db.models.manager import BaseManager
from django.utils.connection import ConnectionProxy

from workbench.notebook.cursor import Cursor, Value
from workbench.notebook.lookups import accessor, fields_of
from workbench.notebook.quiet import quiet
from workbench.schema import models_at
from workbench.schema.history import Models, remembered

# The methods of a queryset that give one like it, and those that give one instance.
ALIKE = set(
    "all filter exclude order_by reverse distinct annotate alias select_related prefetch_related defer only "
    "using select_for_update union intersection difference none complex_filter extra".split()
)
FLAT = {"values", "values_list", "dates", "datetimes"}
ONE = {f"{a}{name}" for a in ("", "a") for name in ("get", "first", "last", "earliest", "latest", "create")}
# What reads rows into a sequence.
READING = {"list": list, "sorted": list, "tuple": tuple, "set": set}
NAMING = {"annotate", "alias", "values"}
DEPTH = 30


@dataclass(frozen=True)
class Rows:
    """A manager or a queryset of a model; ``kind`` is its class. ``extra`` are names that annotate() gave."""

    model: type[Model]
    kind: type[Any]
    extra: frozenset[str] = frozenset()
    are_instances: bool = True


@dataclass(frozen=True)
class Instance:
    """An instance of a model, which may not exist yet: then ``value`` is None."""

    model: type[Model]
    value: Model | None = None


@dataclass(frozen=True)
class Read:
    """A list of what a queryset gives; ``kind`` is its class."""

    rows: Rows
    kind: type[Any]


@dataclass(frozen=True)
class Thing:
    """Anything else that exists."""

    value: Any


Meaning = Rows | Instance | Read | Thing


class Reader:
    """Tells what expressions of a cell mean, by what the cell says before and by what the kernel holds."""

    def __init__(self, cursor: Cursor, namespace: Mapping[str, Any]) -> None:
        self._cell = cursor.names
        self._namespace = namespace
        self._depth = 0

    def meaning(self, node: ast.AST) -> Meaning | None:
        """Return None where that cannot be told."""
        if self._depth > DEPTH:
            return None  # A name that is made of itself.
        self._depth += 1
        try:
            return self._meaning(node)
        finally:
            self._depth -= 1

    def _meaning(self, node: ast.AST) -> Meaning | None:
        match node:
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute(value=owner, attr=name):
                found = self.meaning(owner)
                return found and _attribute(found, name)
            case ast.Call(func=ast.Attribute(value=owner, attr=name)) if isinstance(
                found := self.meaning(owner), Rows
            ):
                return _called(found, name, {each.arg for each in node.keywords if each.arg})
            case ast.Call(func=ast.Name(id=name), args=[rows, *_]) if name in READING and isinstance(
                found := self.meaning(rows), Rows
            ):
                return Read(found, READING[name])
            case ast.Call(func=function):
                found = self.meaning(function)
                return _made(found.value, node) if isinstance(found, Thing) else None
            case ast.Subscript(value=owner, slice=index):
                found = self.meaning(owner)
                return found and _item(found, index)
            case ast.Await(value=value) | ast.NamedExpr(value=value) | ast.BinOp(left=value):
                return self.meaning(value)
        return None

    def _named(self, name: str) -> Meaning | None:
        if (said := self._cell.get(name)) is not None:
            return self._said(said)
        return of(self._namespace[name]) if name in self._namespace else None

    def _said(self, said: Value) -> Meaning | None:
        found = self.meaning(said.of)
        if said.is_each:
            return found and _item(found, ast.Constant(0))
        return found


def of(value: Any) -> Meaning:
    """Return what a value means, which is only looked at."""
    if isinstance(value, QuerySet):
        are_instances = value._fields is None  # type: ignore[attr-defined]
        return Rows(value.model, type(value), frozenset(value.query.annotations), are_instances)
    if isinstance(value, BaseManager) and value.model is not None:
        return Rows(value.model, type(value))
    if isinstance(value, Model):
        return Instance(type(value), value)
    return Thing(value)


def _attribute(found: Meaning, name: str) -> Meaning | None:
    match found:
        case Rows(model=model):
            return Thing(model) if name == "model" else None
        case Instance(model=model, value=value):
            return _of_instance(model, value, name)
        case Thing(value=type() as model) if issubclass(model, Model):
            managers = {**model._meta.managers_map, "_default_manager": model._meta.default_manager}
            return of(managers[name]) if name in managers else None
        case Thing(value=ModuleType() as module):
            return of(vars(module)[name]) if name in vars(module) else None
        case Thing(value=Models() as classes):
            return Thing(getattr(classes, name)) if name in dir(classes) else None
        case Thing(value=ConnectionProxy()) | Read():
            return None
        case Thing(value=value):
            static = inspect.getattr_static(value, name, None)
            return None if static is None or hasattr(type(static), "__get__") else of(static)


def _of_instance(model: type[Model], value: Model | None, name: str) -> Meaning | None:
    """Follow a relation of an instance to where its model says that it leads."""
    for field in fields_of(model):
        related = field.related_model if field.is_relation else None
        if accessor(field) != name or not isinstance(related, type):
            continue
        if field.many_to_one or field.one_to_one:
            cached = field.get_cached_value(value, default=None) if value is not None else None
            return Instance(related, cached)
        kind: type[Any] = type(related._default_manager)  # type: ignore[attr-defined]
        if value is not None:
            with suppress(Exception), quiet():  # Of one that has no primary key yet.
                kind = type(getattr(value, name))
        return Rows(related, kind)
    held = vars(value) if value is not None else {}
    return of(held[name]) if name in held else None


def _called(found: Rows, method: str, keywords: set[str]) -> Meaning | None:
    """Return what a method of a manager or a queryset gives."""
    kind = getattr(found.kind, "_queryset_class", found.kind)
    if method in ALIKE | FLAT:
        extra = found.extra | keywords if method in NAMING else found.extra
        return replace(
            found, kind=kind, extra=extra, are_instances=found.are_instances and method not in FLAT
        )
    return Instance(found.model) if method in ONE and found.are_instances else None


def _made(function: Any, call: ast.Call) -> Meaning | None:
    """Return what a class or a function of ours gives."""
    if isinstance(function, type) and issubclass(function, Model):
        return Instance(function)
    if function is models_at:
        with suppress(Exception), quiet():
            keywords = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
            return Thing(_models_at(*map(ast.literal_eval, call.args), **keywords))
    return None


def _models_at(app_label: str, migration: str | None = None, *, using: str = DEFAULT_DB_ALIAS) -> Models:
    """Return what models_at() does, as far as this process knows the history already."""
    history = remembered(using)
    if history is None:
        raise LookupError(using)
    return history.beside(app_label, history.find(app_label, migration)).of(app_label, using)


def _item(found: Meaning, index: ast.AST) -> Meaning | None:
    match found, index:
        case Rows() | Read(), ast.Slice():
            return found
        case Rows(are_instances=True, model=model) | Read(Rows(are_instances=True, model=model)), _:
            return Instance(model)
        # Not their subclasses, which may do anything: a defaultdict takes what it is asked for.
        case Thing(value=items), ast.Constant(value=key) if type(items) in (list, tuple, dict):
            with suppress(LookupError, TypeError):
                return of(items[key])
    return None


def words(found: Meaning) -> list[tuple[str, str]] | None:
    """Return what may follow a dot, each with what it is: fields first. None for what is not Django's."""
    match found:
        case Rows(kind=kind):
            return [(name, "method") for name in _sorted(dir(kind))]
        case Read(kind=kind):
            return [(name, "method") for name in dir(kind)]
        case Instance(model=model, value=value):
            own = vars(value).keys() if value is not None else ()
            hidden = {*model._meta.managers_map}
            return [(name, what) for name, what in _of_model(model, own) if name not in hidden]
        case Thing(value=type() as model) if issubclass(model, Model):
            return _of_model(model, ())
        case Thing(value=ConnectionProxy() as proxy):
            return [(name, "connection") for name in dir(connections[proxy._alias])]
        case Thing(value=Models() as classes):
            return [(name, "model") for name in (*dir(classes), "app_label", "migration", "using")]
    return None


def _of_model(model: type[Model], own: Any) -> list[tuple[str, str]]:
    fields = {accessor(field): type(field).__name__ for field in fields_of(model)}
    fields |= {field.attname: type(field).__name__ for field in model._meta.concrete_fields}
    fields |= dict.fromkeys(model._meta.managers_map, "Manager")
    rest = _sorted({*dir(model), *own} - fields.keys())
    return [*fields.items(), *((name, _what(model, name)) for name in rest)]


def _sorted(names: Iterable[str]) -> list[str]:
    """Put the asynchronous twins last."""
    known = {*names}
    return sorted(known, key=lambda name: (name[0] == "a" and name[1:] in known, name))


def _what(model: type[Model], name: str) -> str:
    static = inspect.getattr_static(model, name, None)
    if isinstance(static, type):
        return "class"
    return "function" if callable(static) or isinstance(static, classmethod) else "property"
