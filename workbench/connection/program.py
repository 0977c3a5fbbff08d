"""What this process is called where others see its sessions: the notebook, or the command."""

from __future__ import annotations

import os
import re
import sys
from pathlib import PurePath

OURS = "workbench"
START = f"{OURS}: "
NOTEBOOK = ".ipynb"
UNNAMED = "a notebook"
# What Postgres keeps of an application_name.
NAME_BYTES = 63

# JupyterLab and VS Code put them behind names of files.
IDENTITY = re.compile(r"(-jvsc)?-?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# How Postgres writes the bytes of other letters since 16; before, each of them is a question mark.
ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")


def is_notebook() -> bool:
    """Tell whether this process is a notebook's kernel."""
    module = sys.modules.get("ipykernel.kernelapp")
    return module is not None and bool(module.IPKernelApp.initialized())


def application_name() -> str:
    """Return what the sessions of this process are called: ``workbench: 01_migrate.ipynb``."""
    name = PurePath(_notebook() if is_notebook() else _command())
    stem, suffix = name.stem, name.suffix
    while stem and len(_as_ascii(f"{START}{stem}{suffix}")) > NAME_BYTES:
        stem = stem[:-1]
    return f"{START}{stem}{suffix}" if stem else OURS


def program(application: str) -> str:
    """Return which of ours an application_name tells of, as a person knows it; "" where it is another's."""
    if not application.startswith(START):
        return ""
    return ESCAPED.sub(
        lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode(errors="ignore"),
        application.removeprefix(START),
    )


def _notebook() -> str:
    # A path: of the server's own, or a local one.
    path = os.environ.get("JPY_SESSION_NAME", "").replace("\\", "/")
    name = IDENTITY.sub("", PurePath(path).name)
    return name if name.removesuffix(NOTEBOOK) and name.endswith(NOTEBOOK) else UNNAMED


def _command() -> str:
    path = PurePath(sys.argv[0] if sys.argv else "")
    name = path.parent.name if path.stem == "__main__" else path.stem
    if name in ("manage", "django", "django-admin"):
        return next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    # Code on the command line, or at a prompt.
    return "" if name.startswith("-") else name


def _as_ascii(name: str) -> str:
    return "".join(
        letter if " " <= letter <= "~" else "\\xhh" * len(letter.encode(errors="replace")) for letter in name
    )
