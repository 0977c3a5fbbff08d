"""The line of a magic, read as a command's is."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any, NoReturn

from workbench.notebook.errors import CellError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, with the line as it should be."""

    def __init__(self, prog: str, **options: Any) -> None:
        defaults: dict[str, Any] = {"add_help": False, "allow_abbrev": False, "formatter_class": _OneLine}
        super().__init__(prog, **(defaults | options))

    def error(self, message: str) -> NoReturn:
        raise CellError(f"{message}. The line is: {self.format_usage().removeprefix('usage: ').strip()}")


class _OneLine(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=10_000)


def words(line: str) -> list[str]:
    """Return the words of a line, as a shell reads them. Raises CellError."""
    try:
        return shlex.split(line, posix=os.name != "nt")
    except ValueError as error:
        raise CellError(f"This line cannot be read: {error}. Close its quotes.") from None
