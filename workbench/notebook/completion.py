"""Tab: after our magics, in the texts that our functions take, and for Django's queries and models.

Nothing here reaches the database by itself, or fails: what cannot be told is left to IPython.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.db.models import Expression, F, Model, Prefetch, Q
from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from workbench.notebook import guide
from workbench.notebook.arguments import Candidates, of_function, of_line
from workbench.notebook.cursor import Cursor, cursor
from workbench.notebook.expressions import Reader, Rows, Thing, words
from workbench.notebook.lookups import Use, names
from workbench.notebook.quiet import quiet

LINE = re.compile(r"^\s*%%?(\w+)\s(.*)$")
PRIORITY = 1_000

KEYWORDS = {
    **dict.fromkeys(["filter", "exclude", "get", "aget", "get_or_create", "update_or_create"], Use.LOOKUP),
    **dict.fromkeys(["create", "acreate", "update", "aupdate"], Use.SET),
}
TEXTS = {
    **dict.fromkeys(["order_by", "values", "values_list", "distinct", "earliest", "latest"], Use.COLUMN),
    **dict.fromkeys(["dates", "datetimes"], Use.COLUMN),
    **dict.fromkeys(["only", "defer"], Use.LOADED),
    "select_related": Use.JOINED,
    "prefetch_related": Use.PREFETCHED,
}
# What is said about the rows of the query around it.
INNER = (Q, Expression, F, Prefetch)
ORDERS = {"order_by", "earliest", "latest"}


class Nothing(list[SimpleCompletion]):
    """No completions, where there is nothing to offer, and IPython's guesses would mislead.

    It lets a matcher that finds none suppress the others only if it says that it has one.
    """

    def __len__(self) -> int:
        return 1


def register(shell: InteractiveShell) -> None:
    completer: Any = shell.Completer
    completer.custom_matchers.append(_matcher(shell))
    every = completer.completions

    def completions(text: str, offset: int) -> Iterator[Any]:
        """Let no one's guesses, IPython's and jedi's neither, query: they look attributes up."""
        with quiet():
            yield from [*every(text, offset)]

    completer.completions = completions


def _matcher(shell: InteractiveShell) -> Any:
    def match(context: CompletionContext) -> dict[str, Any]:
        lines = context.full_text.split("\n")
        before = "\n".join([*lines[: context.cursor_line], context.text_until_cursor])
        after = context.full_text[len(before) :]
        with suppress(Exception):
            if (answer := complete(before, after, shell)) is not None:
                typed, candidates = answer
                completions = [SimpleCompletion(text, type=what) for text, what in candidates]
                return {
                    "completions": completions or Nothing(),
                    "matched_fragment": typed,
                    "suppress": True,
                    "ordered": True,
                }
        return {"completions": [], "suppress": False}

    return context_matcher(identifier="workbench", priority=PRIORITY)(match)


def complete(before: str, after: str, shell: InteractiveShell) -> tuple[str, Candidates] | None:
    """Return what is typed of a word, and what may stand there; None where that is not for us to say."""
    if line := LINE.match(before.rpartition("\n")[2]):
        things = guide.things(shell)
        if (magic := next((each for each in things if each.is_magic(line[1])), None)) is not None:
            return of_line(line[1], magic.value, line[2], guide.names(shell))
    here = cursor(before, after)
    if here is None:
        return None
    found = _in_text(here, shell) if here.is_in_string else _in_code(here, shell)
    return None if found is None else (here.fragment, found)


# Code.


def _in_code(here: Cursor, shell: InteractiveShell) -> Candidates | None:
    match here.around:
        case [ast.Attribute(value=owner), *_]:
            found = Reader(here, shell.user_ns).meaning(owner)
            if found is None or (known := words(found)) is None:
                return None
            typed = here.fragment
            is_private = typed.startswith("_")
            return [
                (name, what)
                for name, what in known
                if name.startswith(typed) and (is_private or not name.startswith("_"))
            ]
        case [ast.Name() as name, ast.Call() | ast.keyword(arg=None) as inside, *_] if (
            getattr(inside, "func", None) is not name
        ):
            keywords = _keywords(here, shell)
            if keywords is None:
                return None
            completer: Any = shell.Completer
            others = completer.global_matches(here.fragment) if here.fragment else []
            return [*keywords, *((name, "name") for name in others)]
    return None


def _keywords(here: Cursor, shell: InteractiveShell) -> Candidates | None:
    """Return the keywords of the query, or of the new instance, that the cursor is in."""
    query = _query(here, shell)
    if query is None:
        return None
    rows, method, _ = query
    if (use := KEYWORDS.get(method)) is None:
        return None
    found = names(rows.model, here.fragment, use, rows.extra)
    return [(name if name.endswith("__") else f"{name}=", what) for name, what in found]


def _query(here: Cursor, shell: InteractiveShell) -> tuple[Rows, str, ast.Call] | None:
    """Return the rows that the cursor says something about, by which method, and where."""
    reader = Reader(here, shell.user_ns)
    for node in here.around:
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=method)) if isinstance(
                found := reader.meaning(owner), Rows
            ):
                return found, method, node
            case ast.Call(func=function):
                match reader.meaning(function):
                    case Thing(value=type() as kind) if issubclass(kind, Model):
                        return Rows(kind, kind), "create", node
                    case Thing(value=type() as kind) if issubclass(kind, INNER):
                        continue
                return None
            case ast.stmt():
                return None
    return None


# Texts.


def _in_text(here: Cursor, shell: InteractiveShell) -> Candidates | None:
    text = here.around[0]
    match here.around[1:]:
        case [ast.Call() as call, *_] if text in call.args:
            pass
        case [ast.keyword(), ast.Call() as call, *_]:
            pass
        case _:
            return None
    found = Reader(here, shell.user_ns).meaning(call.func)
    if isinstance(found, Thing) and _is_ours(found.value):
        return of_function(found.value, call, text, here.fragment)
    return _columns(here, call, shell)


def _is_ours(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return callable(function) and module.startswith("workbench.")


def _columns(here: Cursor, call: ast.Call, shell: InteractiveShell) -> Candidates | None:
    """Return the columns that a text in a query may name."""
    if (query := _query(here, shell)) is None:
        return None
    rows, method, around = query
    typed, sign = here.fragment, ""
    if around is not call:
        # Count("..."), F("..."), Q(...), Prefetch("...")
        found = Reader(here, shell.user_ns).meaning(call.func)
        is_prefetch = isinstance(found, Thing) and found.value is Prefetch
        use = Use.PREFETCHED if is_prefetch else Use.COLUMN
    elif method in TEXTS:
        use = TEXTS[method]
        if method in ORDERS and typed.startswith("-"):
            typed, sign = typed[1:], "-"
    else:
        return None
    extra = rows.extra if use is Use.COLUMN else ()
    return [(f"{sign}{name}", what) for name, what in names(rows.model, typed, use, extra)]
