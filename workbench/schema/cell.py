"""Classes and functions of a cell, made without touching the project's own registry of models.

Every error names the line of the cell, whose first is the magic.
"""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from sys import modules
from traceback import walk_tb
from typing import Any

import django.db.models
from django.apps import apps as installed
from django.apps.registry import Apps
from django.core.checks import CheckMessage
from django.db import models
from django.db.models.options import Options
from django.utils import timezone

from workbench.errors import or_rather
from workbench.schema.errors import SchemaError

FILE = "<cell>"
# A cell that has the first makes a data migration.
DATA_FUNCTIONS = FORWARDS, BACKWARDS = "forwards", "backwards"


@dataclass(frozen=True)
class Cell:
    """What a cell defines: its models, not the abstract ones, and its functions by their names."""

    source: str
    models: tuple[type[models.Model], ...]
    functions: Mapping[str, Any]
    names: Mapping[str, Any]

    def error(self, message: str, *, model: str = "", words: Iterable[str] = ()) -> SchemaError:
        """Return an error at the line of a class where one of the words stands, else at that of the class."""
        return _at(self.source, _line_of(self.source, model, words), message)


def run(app_label: str, source: str, namespace: Mapping[str, Any], registry: Apps) -> Cell:
    """Run a cell as if it stood in the app's models.py, in which the registry's models are.

    Raises SchemaError: what Python or Django find wrong with it.
    """
    # The magic is the first line.
    source = f"\n{source}"
    config = installed.get_app_config(app_label)
    module = config.models_module.__name__ if config.models_module else f"{config.name}.models"
    names: dict[str, Any] = {
        "datetime": datetime,
        "timezone": timezone,
        **namespace,
        "models": django.db.models,
        **{
            name: value
            for name, value in vars(modules.get(module, object)).items()
            if not name.startswith("__")
        },
        **{model.__name__: model for model in registry.get_models() if model._meta.app_label == app_label},
        "__name__": module,
    }
    before = set(registry.get_models(include_auto_created=True))
    try:
        tree = ast.parse(source, FILE)
        with _registering_in(registry, app_label):
            exec(compile(tree, FILE, "exec", dont_inherit=True), names)
    except SyntaxError as error:
        raise _at(source, error.lineno or 1, error.msg) from None
    except Exception as error:
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == FILE]
        raise _at(source, lines[-1] if lines else 1, _said(error, names)) from None
    made = [model for model in registry.get_models() if model not in before]
    for model in made:
        if model._meta.app_label != app_label:
            said = f"{model.__name__} is of the app {model._meta.app_label}, and the cell is of {app_label}."
            raise _at(source, _line_of(source, model.__name__, ()), said)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    defined |= {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in DATA_FUNCTIONS
    }
    functions = {name: names[name] for name in defined if callable(names.get(name))}
    return Cell(source, tuple(made), functions, names)


def wrong(cell: Cell, message: CheckMessage) -> SchemaError:
    """Return the error that one of Django's checks found in a model of the cell."""
    obj = message.obj
    words = re.findall(r"'([^']+)'", message.msg)
    if isinstance(obj, models.Field):
        return cell.error(_sentence(message), model=obj.model.__name__, words=[obj.name, *words])
    name = obj.__name__ if isinstance(obj, type) else ""
    # What is wrong is named last: 'constraints' refers to the nonexistent field 'naem'.
    return cell.error(_sentence(message), model=name, words=[word.rpartition(".")[2] for word in words[::-1]])


def _sentence(message: CheckMessage) -> str:
    return " ".join(filter(None, [message.msg, message.hint]))


@contextmanager
def _registering_in(registry: Apps, app_label: str) -> Iterator[None]:
    """Let new classes register there; Django's own isolate_apps would set the apps up a second time."""
    before = Options.default_apps
    Options.default_apps = registry
    if stub := registry.app_configs.get(app_label):
        stub.default_auto_field = installed.get_app_config(app_label).default_auto_field
    try:
        yield
    finally:
        Options.default_apps = before


def _said(error: Exception, names: Iterable[str]) -> str:
    """Return an exception in a sentence, with a guess at what was meant."""
    if isinstance(error, AttributeError | NameError) and error.name:
        return (
            f"{error}{or_rather(error.name, dir(error.obj) if isinstance(error, AttributeError) else names)}"
        )
    return f"{error} ({type(error).__name__})."


def _at(source: str, line: int, message: str) -> SchemaError:
    lines = source.splitlines()
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return SchemaError(f"Line {line} of the cell{f' ({text})' if text else ''}: {message}")


def _line_of(source: str, model: str, words: Iterable[str]) -> int:
    """Return the line of the class on which one of the words is a name or a string, else its first.

    Without such a class it is anywhere in the cell.
    """
    words = [*words]
    tree = ast.parse(source)
    classes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == model
    ]
    within: ast.AST = classes[-1] if classes else tree
    # Where it is used, before where it is defined.
    for attributes in (("id", "value"), ("name",)):
        for word, part in product(words, [*ast.walk(within)]):
            said = [getattr(part, attribute, None) for attribute in attributes]
            if word.lower() in [each.lower().lstrip("-") for each in said if isinstance(each, str)]:
                return part.lineno  # type: ignore[attr-defined, no-any-return]
    return classes[-1].lineno if classes else 1
