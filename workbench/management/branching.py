"""What follows ``%branch`` and ``manage.py branch``: one line, read and carried out."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from workbench.branches import (
    Branch,
    BranchError,
    InUse,
    branches,
    connected,
    create,
    drop,
    here,
    rename,
    reset,
    use,
)
from workbench.branches.kind import EMPTY, MAIN, this, typed
from workbench.branches.listing import age, expiry, is_called
from workbench.connection import Place, where
from workbench.schema import snapshot as tables
from workbench.schema.snapshot import Difference, only, read
from workbench.show import Grid, Part, Row, Shown, Words, printable
from workbench.words import size

VERBS = ("create", "use", "list", "diff", "reset", "drop", "rename")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, repr=False)
class Said(Shown):
    text: str

    def _parts(self) -> Iterator[Part]:
        yield Words(self.text)


@dataclass(frozen=True, repr=False)
class Status(Shown):
    """Where this process is."""

    place: Place
    branch: Branch

    def _parts(self) -> Iterator[Part]:
        facts = {
            "server": f"PostgreSQL {self.place.version}, {self.place.server}",
            "database": self.place.database,
            "branch": self.branch.name,
            "parent": self.branch.parent,
            "size": size(self.branch.bytes),
            "age": age(self.branch),
            "expires": expiry(self.branch),
        }
        yield Grid("", [Row([name, fact]) for name, fact in facts.items() if fact])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a parser read such a line; without a verb it asks where one is."""
    _add_common(parser, default=DEFAULT_DB_ALIAS)
    parser.add_argument("--json", action="store_true", help="As JSON.")
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    def verb(name: str, said: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(
            name,
            help=said,
            description=said,
            formatter_class=parser.formatter_class,
            add_help=parser.add_help,
            allow_abbrev=parser.allow_abbrev,
        )
        _add_common(made)
        return made

    making = verb("create", "Copy the branch that you are on, or another one.")
    making.add_argument("name")
    making.add_argument(
        "--from", dest="parent", metavar="BRANCH", help=f"What to copy; {EMPTY} has no tables."
    )
    making.add_argument("--expires", type=_span, metavar="2h", help="When to remove it, if nobody is on it.")
    verb("use", "Go to a branch.").add_argument("name")
    listing = verb("list", "List the branches.")
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="As JSON.")
    comparing = verb("diff", "Show how the tables differ from those of another branch.")
    comparing.add_argument("name", nargs="?", default=MAIN)
    comparing.add_argument("app_labels", nargs="*")
    resetting = verb("reset", "Make a branch a copy of its parent again.")
    resetting.add_argument("name", nargs="?")
    dropping = verb("drop", "Remove a branch.")
    dropping.add_argument("name", nargs="?")
    renaming = verb("rename", "Give a branch another name.")
    renaming.add_argument("name")
    renaming.add_argument("to")
    for ending in (making, resetting, dropping, renaming):
        ending.add_argument("--end", action="store_true", help="End the sessions that are in the way.")


def answer(asked: Mapping[str, Any]) -> Shown:
    """Do what a line says, as a parser read it, and return what there is to show. Raises BranchError."""
    try:
        return _answer(asked)
    except InUse as error:
        raise BranchError(error.on_a_line) from None


def _answer(asked: Mapping[str, Any]) -> Shown:
    using = asked["database"]
    match asked["verb"]:
        case "create":
            was_there = asked["name"] in branches(using)
            made = create(
                asked["name"],
                asked["parent"],
                expires=asked["expires"],
                end_sessions=asked["end"],
                using=using,
            )
            what = "empty" if made.parent == EMPTY else f"a copy of {made.parent}"
            if was_there:
                anew = typed(f"reset {made.name}")
                return Said(f"{made.name} is there already, {age(made)} old: {anew} makes it {what} again.")
            return Said(f"{made.name} is {what}.")
        case "use":
            return Said(f"{this().capitalize()} is on {use(asked['name'], using).name} now.")
        case "list":
            return _list(using, asked["json"])
        case "diff":
            return _difference(asked["name"], asked["app_labels"], using)
        case "reset":
            made = reset(asked["name"], end_sessions=asked["end"], using=using)
            what = "empty again" if made.parent == EMPTY else f"again a copy of {made.parent}"
            return Said(f"{made.name} is {what}.")
        case "drop":
            return _drop(asked["name"], asked["end"], using)
        case "rename":
            made = rename(asked["name"], asked["to"], end_sessions=asked["end"], using=using)
            return Said(f"{asked['name']} is called {made.name} now.")
    return _status(using, asked["json"])


def _status(using: str, as_json: bool) -> Shown:
    branch = here(using)
    place = where(using)
    if as_json:
        return _json({**asdict(place), **_facts(branch)})
    return Status(place, branch)


def _list(using: str, as_json: bool) -> Shown:
    found = branches(using)
    if as_json:
        return _json([{**_facts(each), "is_here": is_called(each, found.here)} for each in found])
    return found


def _drop(name: str | None, end: bool, using: str) -> Shown:
    was_on = connections.settings.get(using, {}).get("BRANCH")
    gone = drop(name, end_sessions=end, using=using)
    back = f" {this().capitalize()} is on main again." if gone.name == was_on else ""
    return Said(f"{gone.name} is dropped.{back}")


def removed(said: list[str]) -> str:
    """Say what a sweep removed."""
    return printable(f"Removed what was left: {'; '.join(said)}.")


def _difference(other: str, app_labels: list[str], using: str) -> Difference:
    with connected(other, using) as connection:
        theirs = read(connection)
    if app_labels:
        theirs = only(theirs, *app_labels)
    return tables(*app_labels, using=using) - theirs


def _facts(branch: Branch) -> dict[str, Any]:
    facts = asdict(branch)
    facts["branch"] = facts.pop("name")
    return facts


def _json(facts: Any) -> Said:
    return Said(json.dumps(facts, indent=2, default=datetime.isoformat, ensure_ascii=False))


def _add_common(parser: argparse.ArgumentParser, default: str = argparse.SUPPRESS) -> None:
    parser.add_argument("--database", default=default, metavar="ALIAS", help="One of DATABASES.")


def _span(said: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([mhd])", said)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{said!r} is no time: write 30m, 2h or 3d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})
