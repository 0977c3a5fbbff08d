"""Secrets in the files of a repository, and in the cells and outputs of its notebooks.

What is looked for is what looks like one, see workbench/shapes.py, and the secrets that this process knows,
as those of ``.env``.
"""

from __future__ import annotations

import codecs
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import shapes
from workbench.errors import OneSentence
from workbench.redaction import holds_secret

# https://www.unicode.org/faq/utf_bom.html#bom4. Those of four bytes first, which begin as those of two do.
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Parts of a notebook or of a cell in it, as they are said.
PARTS = {"outputs": "output", "attachments": "attachments", "worksheets": "worksheets"}
MOST_BYTES = 50_000_000


@dataclass(frozen=True)
class Leak:
    """Where a secret stands, ``notebooks/mine.ipynb, cell 3, output``, and what it is. Never the secret."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def leaks(folder: Path) -> list[Leak]:
    """Return the secrets in the files that git keeps, or would with ``git add``. Raises OneSentence."""
    return [leak for path in _files(folder) for leak in _in_file(path, str(path.relative_to(folder)))]


def in_notebook(content: Any, name: str) -> Iterator[Leak]:
    """Yield the secrets in a notebook's content, of whatever format. Cells are counted from 1."""
    for part, value in _parts(content):
        if part == "cells" and isinstance(value, list):
            for number, cell in enumerate(value, 1):
                yield from _in_cell(cell, f"{name}, cell {number}")
        else:
            yield from _in_part(part, value, name)


def in_text(text: str, name: str) -> Iterator[Leak]:
    """Yield the secrets in a text, each with its line."""
    for what, place in sorted({*_found(text)}, key=lambda found: found[1]):
        yield Leak(f"{name}, line {text.count(chr(10), 0, place) + 1}", what)


def _found(text: str) -> Iterator[tuple[str, int]]:
    for what, place, _ in shapes.found(text):
        yield what, place
    if holds_secret(text):
        place = 0
        for line in text.splitlines(keepends=True):
            if holds_secret(line):
                yield "a secret of yours", place
            place += len(line)


def _in_cell(cell: Any, place: str) -> Iterator[Leak]:
    for part, value in _parts(cell):
        if part == "source":
            for text in _texts(value):
                yield from in_text(text, place)
        else:
            yield from _in_part(part, value, place)


def _in_part(part: str, value: Any, place: str) -> Iterator[Leak]:
    place = f"{place}, {PARTS.get(part, 'metadata')}"
    for text in (part, *_texts(value)):
        for leak in in_text(text, place):
            yield Leak(place, leak.what)


def _parts(content: Any) -> Iterable[tuple[str, Any]]:
    return content.items() if isinstance(content, dict) else [("", content)]


def _files(folder: Path) -> Iterator[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise OneSentence(
            f"{folder} is no git repository, or there is no git: run 'git init' there, or install git."
        ) from None
    for name in sorted({*done.stdout.decode(errors="surrogateescape").split("\0")} - {""}):
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_BYTES:
            yield path


def _in_file(path: Path, name: str) -> Iterable[Leak]:
    raw = path.read_bytes()
    encoding = next((encoding for mark, encoding in BOMS.items() if raw.startswith(mark)), "")
    if not encoding and b"\0" in raw[:8192]:
        return ()
    text = raw.decode(encoding or "utf-8-sig", errors="replace")
    if path.suffix == ".ipynb":
        try:
            return list(in_notebook(json.loads(text), name))
        except (ValueError, RecursionError):  # In the middle of a merge; or nested like nobody's.
            pass
    return in_text(text, name)


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts in a part of a notebook: lists of lines are one."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from (text for name, each in content.items() for text in (name, *_texts(each)))
    elif isinstance(content, list):
        if all(isinstance(each, str) for each in content):
            yield "".join(content)
        else:
            yield from (text for each in content for text in _texts(each))
