"""Which code is the person's own."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType

import workbench

LIBRARIES = [
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    Path(workbench.__path__[0]),
]


def is_own(frame: FrameType) -> bool:
    """Tell whether a frame is of a cell, of what a cell runs as a program, or of a file of the person's."""
    return module(frame) == "__main__" or is_own_file(frame.f_code.co_filename)


@cache
def is_own_file(file: str) -> bool:
    """Tell whether a file belongs neither to a library, nor to Python, nor to the workbench."""
    path = Path(file)
    is_library = any(path.is_relative_to(each) for each in LIBRARIES)
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return path.is_absolute() and not (is_library or is_installed)


def module(frame: FrameType) -> str:
    """Return the name of the module that a frame runs in."""
    return str(frame.f_globals.get("__name__") or "")
