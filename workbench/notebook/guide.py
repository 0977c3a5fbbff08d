"""The magic ``%workbench``: what can be done here, as the docstrings of what the kernel has tell it."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db.models import Model
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.display import display

from workbench.errors import or_rather
from workbench.notebook.arguments import parser_of
from workbench.notebook.errors import CellError
from workbench.notebook.inspector import sections, signature, texts
from workbench.notebook.line import words
from workbench.show import Code, Grid, Part, Row, Shown, Words

OURS = "workbench"
EXAMPLES = re.compile(r"^Examples?::\n\n((?:(?: {4}.*)?(?:\n|$))+)", re.MULTILINE)
LITERAL = re.compile(r"``(.+?)``")
# A magic that asks for help asks this one, but for %manage, whose commands have help of their own.
HELP = re.compile(r"^\s*(%%?(?!manage\b)(\w+))(?:\s.*)?\s(?:--help|-h)\s*$")

# What one wants to do, in the order in which it is told. What is in none of them comes last.
GROUPS = {
    "Find your way": ("%workbench", "where"),
    "Look at the database": ("snapshot", "%%diff", "diagram", "who_blocks"),
    "Read and write rows": ("frame", "load", "%%queries", "queries"),
    "Migrate, and change the schema": (
        *("%manage", "%%evolve", "rehearse", "models_at", "states", "timeline"),
    ),
    "Try things on a copy": ("%branch", "branch"),
}
OTHERS = "And"
# Few have more than one, and its examples say nothing else.
DATABASE = " [--database ALIAS]"
HEAD = ("", "what it does", "for example")


@dataclass(frozen=True)
class Thing:
    """A name that is pushed into the kernel, or a magic, whose name has its signs."""

    name: str
    value: Any

    @cached_property
    def doc(self) -> str:
        return inspect.getdoc(self.value) or ""

    @property
    def line(self) -> str:
        return self.doc.partition("\n")[0]

    @property
    def examples(self) -> list[str]:
        """The examples of the docstring, each a cell."""
        blocks = [textwrap.dedent(block).strip("\n") for block in EXAMPLES.findall(self.doc)]
        return [cell for block in blocks for cell in re.split(r"\n{2,}", block)]

    @property
    def example(self) -> str:
        """The first line of the examples."""
        first, _, rest = "\n".join(self.examples[:1]).partition("\n")
        goes_on = rest.startswith(" ") or first.startswith("%%")
        return f"{first} …" if rest and goes_on else first

    def is_called(self, name: str) -> bool:
        return name in (self.name, self.name.lstrip("%"))

    def is_magic(self, name: str) -> bool:
        return self.name.startswith("%") and self.is_called(name)


def things(shell: InteractiveShell) -> list[Thing]:
    """Return what of ours is in the kernel: the names that settings tell it to import, and the magics."""
    tree = ast.parse("\n".join(settings.SHELL_PLUS_IMPORTS))
    imported = [
        Thing(each.asname or each.name, getattr(importlib.import_module(node.module), each.name))
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == OURS
        for each in node.names
    ]
    magics = shell.magics_manager.magics
    signs = {**dict.fromkeys(magics["line"], "%"), **dict.fromkeys(magics["cell"], "%%")}
    known = [
        Thing(f"{sign}{name}", magics["cell" if sign == "%%" else "line"][name])
        for name, sign in signs.items()
    ]
    return imported + [each for each in known if _module(each.value).partition(".")[0] == OURS]


def _module(function: Any) -> str:
    return getattr(function, "__module__", None) or ""


def models_of(shell: InteractiveShell) -> dict[str, type[Model]]:
    """Return the models that names of the kernel stand for now."""
    return {
        name: value
        for name, value in shell.user_ns.items()
        if isinstance(value, type) and issubclass(value, Model) and not name.startswith("_")
    }


def names(shell: InteractiveShell) -> list[str]:
    """Return what there is to be told about."""
    return [*(each.name for each in things(shell)), *models_of(shell)]


@dataclass(frozen=True, repr=False)
class Guide(Shown):
    """What there is, by what one wants to do. ``models`` are those imported, by their names."""

    things: Sequence[Thing]
    models: Mapping[str, type[Model]]

    def _parts(self) -> Iterator[Part]:
        by_name = {each.name: each for each in self.things}
        grouped = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in by_name if name not in grouped)
        for title, names in {**GROUPS, OTHERS: others}.items():
            rows = [
                Row([name, by_name[name].line, by_name[name].example]) for name in names if name in by_name
            ]
            if rows:
                yield Grid(title, rows, HEAD)
        if self.models:
            yield Grid("Models", [Row(each) for each in self._apps()], ("app", "models"))
        yield Words(
            "%workbench frame says all of one, as does frame? in a cell. Tab completes what you type."
        )

    def _apps(self) -> Iterator[tuple[str, str]]:
        labels = dict.fromkeys(model._meta.app_label for model in self.models.values())
        for label in labels:
            yield (
                label,
                ", ".join(name for name, each in self.models.items() if each._meta.app_label == label),
            )


@dataclass(frozen=True, repr=False)
class About(Shown):
    """All of one: its signature, what its docstring says, and its examples."""

    thing: Thing

    def _parts(self) -> Iterator[Part]:
        name, value = self.thing.name, self.thing.value
        said = "" if name.startswith("%") else signature(value)
        yield Code(f"{name}{said}", "python")
        text = EXAMPLES.sub("", self.thing.doc)
        for paragraph in filter(None, map(str.strip, text.split("\n\n"))):
            yield Words(" ".join(paragraph.split()))
        examples = "\n\n".join(self.thing.examples)
        is_python = any(not line.startswith("%") for line in examples.split("\n"))
        yield Code(examples, "python" if is_python else "text", title="For example")
        yield from self._usage()

    def _usage(self) -> Iterator[Part]:
        """The lines that a magic reads, each verb's own."""
        name = self.thing.name
        parser = parser_of(name.lstrip("%"), self.thing.value) if name.startswith("%") else None
        if parser is None:
            return
        verbs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        rows = [
            Row([_usage(verb.choices[each.dest]), each.help or ""])
            for verb in verbs
            for each in verb._choices_actions
        ]
        yield Grid("The line", rows) if rows else Code(_usage(parser), "text", title="The line")

    def __repr__(self) -> str:
        return LITERAL.sub(r"\1", super().__repr__())

    def _repr_html_(self) -> str:
        return LITERAL.sub(r"<code>\1</code>", super()._repr_html_())


@dataclass(frozen=True, repr=False)
class Described(Shown):
    """A model."""

    model: type[Model]

    def _parts(self) -> Iterator[Part]:
        for text in texts(self.model):
            yield Words(text)
        for title, rows in sections(self.model):
            yield Grid(title, [Row(row) for row in rows])


def _usage(parser: argparse.ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").strip().replace(DATABASE, "")


def register(shell: InteractiveShell) -> None:
    shell.register_magics(GuideMagics)

    def with_help(lines: list[str]) -> list[str]:
        """Let a magic of ours in the first line that is asked for ``--help`` be told about."""
        found = HELP.match(lines[0]) if lines else None
        if not found or found[2] not in {each.name.lstrip("%") for each in things(shell)}:
            return lines
        told = f"%workbench {found[1]}\n"
        return [told] if found[1].startswith("%%") else [told, *lines[1:]]

    shell.input_transformers_cleanup.append(with_help)


@magics_class
class GuideMagics(Magics):
    @line_magic
    def workbench(self, line: str) -> None:
        """Say what can be done here, or all about one name.

        Examples::

            %workbench
            %workbench frame
            %workbench %branch
        """
        assert self.shell is not None
        guide = Guide(things(self.shell), models_of(self.shell))
        if not line.strip():
            display(guide)
        for name in words(line):
            found: list[Shown] = [About(each) for each in guide.things if each.is_called(name)]
            if not found and name not in guide.models:
                guess = or_rather(name, names(self.shell), ": %workbench lists what there is.")
                raise CellError(f"There is no {name} here{guess}")
            for each in found or [Described(guide.models[name])]:
                display(each)
