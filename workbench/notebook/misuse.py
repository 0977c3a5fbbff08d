"""A function of ours that is called with other arguments than it takes: how it is called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from traceback import walk_tb
from types import TracebackType
from typing import Any

from django.apps import apps
from IPython.core.interactiveshell import InteractiveShell

from workbench.errors import listed, or_rather
from workbench.notebook import guide
from workbench.notebook.persons import is_own, is_own_file, module

CALL = re.compile(r"([\w.]+)\(\) (.*)", re.DOTALL)
MISSING = re.compile(r"missing \d+ required .*?arguments?: (.*)")
UNKNOWN = re.compile(r"got an unexpected keyword argument '(\w+)'")
TOO_MANY = re.compile(r"takes (?:from )?\d+ .*positional")
QUOTED = re.compile(r"'(\w+)'")
HOW_MANY = {"count", "first", "head", "limit", "max_rows", "n", "nrows", "rows", "top"}


def misuse(error: BaseException | None, trace: TracebackType | None, shell: InteractiveShell) -> str:
    """Return one sentence on a call of a function of ours that could not begin, "" for any other error."""
    if type(error) is not TypeError or trace is None or not (call := CALL.fullmatch(str(error))):
        return ""
    # What fails further in is not the person's call, but for what makes a function one for "with".
    frames = [frame for frame, _ in walk_tb(trace) if module(frame) != "contextlib"]
    if not frames or not is_own(frames[-1]):
        return ""
    names = frames[-1].f_globals | frames[-1].f_locals
    for thing in guide.things(shell):
        if names.get(thing.name) is thing.value:
            for name, function in _calls(thing.name, thing.value):
                if getattr(function, "__qualname__", "") == call[1]:
                    named = thing if name == thing.name else guide.Thing(name, function)
                    return _said(named, function, call[2])
    return ""


def _calls(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what can be called of a thing, by how that is typed."""
    if inspect.isfunction(value):
        yield name, value
        return
    kind = value if inspect.isclass(value) else type(value)
    for method, function in inspect.getmembers(kind, inspect.isfunction):
        if method == ("__init__" if kind is value else "__call__"):
            yield name, function
        elif not method.startswith("_"):
            yield f"{name}.{method}", function


def _said(thing: guide.Thing, function: Any, reason: str) -> str:
    examples = [line for cell in thing.examples for line in _lines(cell)]
    example = f", as in {examples[0]}" if examples else ""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    known = [each.name for each in parameters]
    positional = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
    if missing := MISSING.fullmatch(reason):
        needed = QUOTED.findall(missing[1])
        which = f" The apps are {listed(_apps())}." if "app_label" in needed else ""
        return f"{thing.name} needs {listed(needed)}{example}.{which}"
    if unknown := UNKNOWN.match(reason):
        name = unknown[1]
        # A queryset says itself how many rows.
        sliced = [each for each in examples if "[:" in each]
        if name in HOW_MANY and sliced:
            return f"{thing.name} takes no {name}: write {sliced[0]}."
        return f"{thing.name} takes no {name}{or_rather(name, known, f': it takes {listed(known)}.')}"
    if TOO_MANY.match(reason) and positional:
        named = "" if len(positional) == len(known) else "; the others by their name"
        return f"{thing.name} takes no more than {listed(positional)}{named}{example}."
    return ""


def _lines(cell: str) -> list[str]:
    """Return the examples of a cell, which may go on over several lines."""
    first, *rest = cell.split("\n")
    return [f"{first} ..."] if any(line.startswith(" ") for line in rest) else [first, *rest]


def _apps() -> list[str]:
    """Return the apps that have models, the person's own first."""
    found = [app for app in apps.get_app_configs() if any(app.get_models())]
    return [app.label for app in sorted(found, key=lambda app: not is_own_file(str(app.path)))]
