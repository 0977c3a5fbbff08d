"""How results look in a cell."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from IPython.display import DisplayHandle

from workbench import progress


def register() -> None:
    progress.make_show = _in_cell


def short(path: Path) -> str:
    """Return the path as seen from the project."""
    project = getattr(settings, "BASE_DIR", Path.cwd())
    return str(path.relative_to(project) if path.is_relative_to(project) else path)


def _in_cell() -> progress.Show:
    """Return what shows progress in a cell's output, of which one line stays."""
    handle = DisplayHandle()
    is_new = True

    def show(shown: progress.Progress) -> None:
        nonlocal is_new
        bar = ""
        if shown.total and not shown.is_done:
            bar = f'<progress max="{shown.total}" value="{shown.rows}"></progress> '
        data = {"text/plain": str(shown), "text/html": f"<div>{bar}{shown}</div>"}
        (handle.display if is_new else handle.update)(data, raw=True)  # type: ignore[no-untyped-call]
        is_new = False

    return show
