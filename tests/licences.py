"""The licences of what requirements.txt installs, as the packages themselves tell them.

``python -m tests.licences`` writes them into .github/licences.md.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1]
FILE = PROJECT / ".github" / "licences.md"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)")

# What is not installed on every system and Python, from the metadata of its wheels where it is.
ELSEWHERE = {
    "appnope": "BSD License",
    "colorama": "BSD License",
    "overrides": "Apache License, Version 2.0",
    "pexpect": "ISC License (ISCL)",
    "ptyprocess": "ISC License (ISCL)",
    "pywinpty": "MIT",
}
HEAD = """\
# Licences

The workbench is [MIT licensed](../LICENSE). `make` installs these packages beside it, which tell these
licences of themselves; none of them is part of this repository. `make pins` writes this file.

| package | version | licence |
| --- | --- | --- |
"""


def pinned() -> Iterator[tuple[str, str]]:
    """Yield name and version of each line of requirements.txt; a package may have one for each Python."""
    for line in (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        match = REQUIREMENT.match(line)
        assert match, line
        yield match["name"], match["version"]


def licence(package: str) -> str:
    """Return an SPDX expression (https://peps.python.org/pep-0639/) or, in older metadata, a name.

    Raises importlib.metadata.PackageNotFoundError for one that nobody has looked at.
    """
    if package in ELSEWHERE:
        return ELSEWHERE[package]
    metadata = importlib.metadata.metadata(package)
    expressions = metadata.get_all("License-Expression", [])
    classifiers = [each for each in metadata.get_all("Classifier", []) if each.startswith("License :: ")]
    # The last may be a whole text where only a name is meant.
    names = (
        expressions or [each.rpartition(" :: ")[2] for each in classifiers] or metadata.get_all("License", [])
    )
    return " OR ".join(names).partition("\n")[0]


def table() -> str:
    return HEAD + "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in pinned())


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
