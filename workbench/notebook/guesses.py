"""What was meant: a name that is near to one that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Model
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from workbench.errors import or_rather
from workbench.notebook.quiet import quiet

CHOICES = re.compile(r".*?'([^']*)'.*Choices are: (.*)", re.DOTALL)
UNEXPECTED = re.compile(r"\w+\(\) got unexpected keyword arguments: '(\w+)'")
MAGIC = re.compile(r"(?:Line|Cell) magic(?: function)? `(%%?)(\w+)` not found\.")


def register(shell: InteractiveShell) -> None:
    show: Any = shell.show_usage_error

    def show_usage_error(error: UsageError) -> None:
        """Say which magic was meant, too."""
        if found := MAGIC.fullmatch(str(error)):
            signs, name = found.groups()
            magics = shell.magics_manager.magics["cell" if signs == "%%" else "line"]
            guess = or_rather(f"{signs}{name}", [f"{signs}{each}" for each in magics])
            error = UsageError(f"{str(error).rstrip('.')}{guess}")
        show(error)

    shell.show_usage_error = show_usage_error  # type: ignore[method-assign]


def meant(error: BaseException | None) -> str:
    """Return a question after the name that an error is about, "" where nothing is near to it."""
    # People's own classes may do anything when they are looked at.
    with suppress(Exception), quiet():
        for name, known in _names(error):
            if guess := or_rather(name, (each for each in known if not each.startswith("_")), ""):
                return f"D{guess.removeprefix(': d')}"
    return ""


def _names(error: Any) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the name that is not there, and those that are."""
    trace = getattr(error, "__traceback__", None)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if isinstance(error, FieldError) and (found := CHOICES.fullmatch(str(error))):
        yield found[1], found[2].split(", ")
    elif isinstance(error, NameError) and error.name and trace is not None:
        frame = trace.tb_frame
        yield error.name, {**frame.f_builtins, **frame.f_globals, **frame.f_locals}
    elif isinstance(error, AttributeError) and error.name and error.obj is not None:
        yield error.name, dir(error.obj)
    elif isinstance(error, TypeError) and trace is not None and (found := UNEXPECTED.match(str(error))):
        instance = trace.tb_frame.f_locals.get("self")
        if isinstance(instance, Model):
            yield found[1], [field.name for field in instance._meta.fields]
