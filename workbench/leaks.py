"""Secrets in the files of a repository, and in the cells and outputs of its notebooks.

What is looked for: addresses with a password, Neon's passwords and keys, keys that ``startproject`` makes
(https://docs.djangoproject.com/en/5.2/ref/settings/#secret-key), private keys, and the secrets that this
process knows, as those of ``.env``.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import OneSentence
from workbench.redaction import ADDRESSES, holds_secret

PATTERNS = {
    "a password of Neon's": re.compile(r"\bnpg_[A-Za-z0-9]{12,}"),
    "a key of Neon's API": re.compile(r"\bnapi_[a-z0-9]{32,}"),
    "a SECRET_KEY of Django's": re.compile(r"django-insecure-[^\s\"'\\]{30,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\s|\\n)+[A-Za-z0-9+/=]{40,}"),
}
# An example repeats itself: npg_xxxxxxxxxxxx.
LEAST_LETTERS = 10
# What stands for a password: {password}, <password>, $PASSWORD, %s, ****, PASSWORD.
PLACEHOLDER = re.compile(r"\W*[{<$%*•….\[].*|[A-Z_]+|\W*", re.DOTALL)
# Hosts that nobody else reaches, and those that documentation is to use (RFC 2606, RFC 6761).
NOWHERE = re.compile(
    r"(?:localhost|127\.[\d.]+|[^.]*|.*\.(?:example|test|invalid|localhost|local)|(?:.*\.)?example\.\w+)",
    re.IGNORECASE,
)
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
    """Yield the secrets in a notebook's content, as nbformat has it. Cells are counted from 1."""
    cells = content.get("cells") if isinstance(content, dict) else None
    for number, cell in enumerate(cells if isinstance(cells, list) else [], 1):
        place = f"{name}, cell {number}"
        yield from in_text(_joined(cell.get("source", "")), place)
        for text in _texts(cell.get("outputs", [])):
            for leak in in_text(text, f"{place}, output"):
                yield Leak(f"{place}, output", leak.what)


def in_text(text: str, name: str) -> Iterator[Leak]:
    """Yield the secrets in a text, each with its line."""
    for what, place in sorted({*_found(text)}, key=lambda found: found[1]):
        yield Leak(f"{name}, line {text.count(chr(10), 0, place) + 1}", what)


def _found(text: str) -> Iterator[tuple[str, int]]:
    for pattern in ADDRESSES if "://" in text else ():
        for found in pattern.finditer(text):
            if _is_meant(found["password"], found["rest"]):
                yield "an address with its password", found.start()
    for what, pattern in PATTERNS.items():
        for found in pattern.finditer(text):
            if len({*found[0]}) >= LEAST_LETTERS:
                yield what, found.start()
    if holds_secret(text):
        place = 0
        for line in text.splitlines(keepends=True):
            if holds_secret(line):
                yield "a secret of yours", place
            place += len(line)


def _is_meant(password: str, rest: str) -> bool:
    """Tell whether an address's password is one, and no example's."""
    host = re.split(r"[^\w.-]", rest)[0]
    return not (NOWHERE.fullmatch(host) or PLACEHOLDER.fullmatch(password))


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
    if b"\0" in raw[:8192]:
        return ()
    text = raw.decode(errors="replace")
    if path.suffix == ".ipynb":
        try:
            return list(in_notebook(json.loads(text), name))
        except ValueError:  # In the middle of a merge.
            pass
    return in_text(text, name)


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts in an output: lists of lines are one."""
    if isinstance(content, str) or (isinstance(content, list) and all(isinstance(x, str) for x in content)):
        yield _joined(content)
    elif isinstance(content, dict):
        yield from (text for name, each in content.items() for text in (name, *_texts(each)))
    elif isinstance(content, list):
        yield from (text for each in content for text in _texts(each))


def _joined(lines: Any) -> str:
    return "".join(lines) if isinstance(lines, list) else str(lines)
