"""What may stand in the line of a magic, and in a text that one of our functions takes."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import get_commands
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.loader import MigrationLoader
from django.db.models import Model
from psycopg2.extensions import TRANSACTION_STATUS_INERROR

from workbench.branches import verbs
from workbench.branches.kind import EMPTY, MAIN, Branch, Kind
from workbench.branches.template import Templates
from workbench.connection.url import is_neon
from workbench.management import branching
from workbench.notebook.commands import NEED_A_TERMINAL
from workbench.notebook.line import Parser
from workbench.notebook.magics import command_named
from workbench.schema.history import remembered

# What may stand at a place, each with what it is.
Candidates = list[tuple[str, str]]

# Tab waits so long for Neon, and then takes what it knew, for as long as that is fresh.
MOMENT_SECONDS = 1.0
FRESH_SECONDS = 10.0
# Options that every command of Django has.
LAST = {"--settings", "--pythonpath", "--traceback", "--no-color", "--force-color", "--version", "--help"}


def of_line(name: str, function: Any, line: str, names: Iterable[str]) -> tuple[str, Candidates]:
    """Return what is typed of a word in the line of a magic of ours, and what may stand there.

    ``names`` are those that ``%workbench`` can tell about.
    """
    typed = re.findall(r"\S*$", line)[0]
    before = line[: len(line) - len(typed)].split()
    try:
        found = _in_line(name, function, before, typed, names)
    except Exception:  # A command that there is not, or whose parser fails: its own run will say so.
        found = []
    return typed, [each for each in found if each[0].startswith(typed)]


def _in_line(name: str, function: Any, before: list[str], typed: str, names: Iterable[str]) -> Candidates:
    match name:
        case "workbench":
            return [(each, "name") for each in names]
        case "manage" if not before:
            return [(each, "command") for each in sorted({"help", *get_commands()} - NEED_A_TERMINAL)]
        case "manage" if before[0] == "help":
            return [(each, "command") for each in sorted(get_commands())]
        case "manage":
            parser = command_named(before[0]).create_parser("%manage", before[0])
            return _following(parser, before[1:], typed)
    made = parser_of(name, function)
    return _following(made, before, typed) if made else _values("app_labels", {})


def of_function(function: Any, call: ast.Call, text: ast.AST, typed: str) -> Candidates:
    """Return what a function of ours takes where a text stands, by the name of its parameter."""
    keywords = {str(each.arg): each.value for each in call.keywords if each.arg}
    signature = inspect.signature(function)
    bound = signature.bind_partial(*call.args, **keywords)
    asked, given = "", {}
    for name, value in bound.arguments.items():
        for node in value if isinstance(value, tuple) else (value,):
            if node is text:
                asked = name
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                given[name] = node.value
    if not asked:
        return []
    literals = re.findall(r"'(\w+)'", str(signature.parameters[asked].annotation))
    found = [(each, "choice") for each in literals] or _values(asked, given)
    return [each for each in found if each[0].startswith(typed)]


def parser_of(name: str, function: Any) -> argparse.ArgumentParser | None:
    """Return what reads the line of a magic; None where that takes the labels of apps."""
    if name == "branch":
        parser = Parser("%branch")
        branching.add_arguments(parser)
        return parser
    module = sys.modules[function.__module__]
    for each in (f"_{name}_parser", "_parser"):
        if callable(make := getattr(module, each, None)):
            made = make()
            return made if isinstance(made, argparse.ArgumentParser) else None
    return None


def _following(parser: argparse.ArgumentParser, given: Sequence[str], typed: str) -> Candidates:
    """Return what may follow in a line that a parser reads."""
    open_: argparse.Action | None = None
    places = _places(parser)
    said: dict[str, str] = {}
    for word in given:
        if open_ is not None:
            said[open_.dest], open_ = word, None
        elif word.startswith("-"):
            option, is_whole, value = word.partition("=")
            action = parser._option_string_actions.get(option)
            if action is not None and action.nargs != 0 and not is_whole:
                open_ = action
            elif action is not None:
                said[action.dest] = value
        elif places and isinstance(places[0], argparse._SubParsersAction):
            if word not in places[0].choices:
                return []
            parser = places[0].choices[word]
            said[places[0].dest], places = word, _places(parser)
        elif places:
            said[places[0].dest] = word
            if places[0].nargs not in ("*", "+"):
                places.pop(0)
    if open_ is not None:
        return _of_action(open_, said)
    found = _of_action(places[0], said) if places else []
    if typed.startswith("-") or not found:
        options = [(each, action) for each, action in parser._option_string_actions.items() if each[1] == "-"]
        options.sort(key=lambda option: option[0] in LAST)
        return [
            (option, "option")
            for option, action in options
            if action.dest not in said or isinstance(action, argparse._AppendAction)
        ]
    return found


def _places(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _of_action(action: argparse.Action, said: Mapping[str, str]) -> Candidates:
    if isinstance(action, argparse._SubParsersAction):
        return [(each, "verb") for each in action.choices]
    if action.choices is not None:
        return [(str(each), "choice") for each in action.choices]
    metavar = str(action.metavar or "")
    if metavar == "MODEL":
        return [(model.__name__, "model") for model in _models(said.get("app_label", ""))]
    if metavar.startswith("FIELD"):
        return [
            (f"{model.__name__}.{field.name}{'=' if '=' in metavar else ''}", type(field).__name__)
            for model in _models(said.get("app_label", ""))
            for field in model._meta.concrete_fields
        ]
    if action.dest == "name" and said.get("verb") != "create":
        return _branches(said.get("database", DEFAULT_DB_ALIAS)) if "verb" in said else []
    if action.dest == "args":
        return _values("app_labels", said) if "app_label" in metavar else []
    return _values(action.dest, said)


def _values(name: str, given: Mapping[str, str]) -> Candidates:
    """Return what a parameter, or an argument, of a name may be."""
    using = given.get("using") or given.get("database") or DEFAULT_DB_ALIAS
    match name:
        case "app_label" | "app_labels" | "target" | "what":
            return [(each, "app") for each in _labels()]
        case "migration" | "migration_name" | "start" | "start_migration_name":
            label = given.get("app_label") or given.get("target") or ""
            return [(each, "migration") for each in [*_migrations(label, using), "zero"]]
        case "using" | "alias" | "database":
            return [(each, "database") for each in connections]
        case "parent":
            return [*_branches(using), (EMPTY, "no tables")]
    return []


def _labels() -> Iterator[str]:
    """The apps that have models or migrations, in the order in which they are installed."""
    for config in apps.get_app_configs():
        if any(config.get_models()) or _files(config.label):
            yield config.label


def _migrations(label: str, using: str) -> list[str]:
    files = _files(label)
    # Those made in a cell are known once the history was read.
    history = remembered(using)
    known = [each.name for each in history.of(label)] if history is not None else []
    return [*files, *(name for name in known if name not in files)]


def _files(label: str) -> list[str]:
    """Return the names of an app's migration files, none of which is imported."""
    name = MigrationLoader.migrations_module(label)[0] if label in apps.app_configs else None
    try:
        found = [*getattr(importlib.import_module(name), "__path__", [])] if name else []
    except ImportError:
        return []
    return sorted(each.name for each in pkgutil.iter_modules(found) if each.name[0] not in "_~")


def _models(label: str) -> list[type[Model]]:
    return [*apps.get_app_config(label).get_models()] if label in apps.app_configs else []


# Branches.

_known: dict[str, tuple[float, list[str]]] = {}
_asking: dict[str, threading.Thread] = {}


def _branches(using: str) -> Candidates:
    """Return the names of the branches, as far as that is known in a moment."""
    with suppress(Exception):
        key = getattr(settings, "NEON_API_KEY", "")
        if key and is_neon(verbs.main_entry(using)["HOST"] or ""):
            _ask_neon(using, key)
        elif found := _beside(using):
            _known[using] = time.monotonic(), found
    _, names = _known.get(using, (0.0, [MAIN]))
    return [(name, "branch") for name in names]


def _beside(using: str) -> list[str] | None:
    """Ask in the session that is open, if one is and may be asked: no server is started by Tab."""
    raw = connections[using].connection
    if raw is None or raw.closed or raw.get_transaction_status() == TRANSACTION_STATUS_INERROR:
        return None
    if not raw.autocommit:
        return None  # It would begin a transaction, or be a part of one.
    session: Any = _Session(raw)
    return _names(Templates(verbs.main_entry(using), session))


def _ask_neon(using: str, key: str) -> None:
    """Ask Neon, and wait for it for no more than a moment: what it says later is there at the next Tab."""
    asked, _ = _known.get(using, (0.0, []))
    if asked and time.monotonic() - asked < FRESH_SECONDS:
        return

    def ask() -> None:
        with suppress(Exception):
            _known[using] = time.monotonic(), _names(kind)

    if using not in _asking or not _asking[using].is_alive():
        kind = verbs.neon_kind(verbs.main_entry(using), key)
        _asking[using] = threading.Thread(target=ask, daemon=True)
        _asking[using].start()
    _asking[using].join(MOMENT_SECONDS)


def _names(kind: Kind) -> list[str]:
    found: list[Branch] = kind.all()
    return [MAIN if each.is_main else each.name for each in found]


class _Session:
    """What ``Templates`` asks: the driver's own connection, so that no query of the person's is counted."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def ask(self, query: str, params: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(self._raw.cursor()) as asking:
            asking.execute(query, params)
            return list(asking.fetchall())
