"""How results look in a cell."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path

from django.conf import settings
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

from workbench import progress
from workbench.notebook.request import is_cell
from workbench.progress import Progress

# The colours are those of JupyterLab and Notebook, of VS Code, or the browser's own.
BAR = (
    '<progress aria-label="{what}"{amount} style="width: 12em; margin-right: .6em; vertical-align: middle; '
    'accent-color: var(--jp-brand-color1, var(--vscode-progressBar-background, auto))"></progress>'
)
# As high with a bar as without, and as wide with one digit as with another, so that nothing jumps.
LINE = '<div style="min-height: 1.6em; line-height: 1.6em; font-variant-numeric: tabular-nums">{}</div>'


def register(shell: InteractiveShell) -> None:
    shell.events.register("post_run_cell", lambda *_: progress.end_all())
    if hasattr(shell, "kernel"):  # Else the terminal has a line for it.
        progress.make_show = partial(_in_cell, shell)


def short(path: Path) -> str:
    """Return the path as seen from the project."""
    project = getattr(settings, "BASE_DIR", Path.cwd())
    return str(path.relative_to(project) if path.is_relative_to(project) else path)


def _in_cell(shell: InteractiveShell) -> progress.Show | None:
    """Return what shows progress in a cell's output, of which one line stays."""
    if not is_cell(shell):
        return None
    handle = DisplayHandle()
    before: dict[str, str] = {}

    def show(shown: Progress) -> None:
        nonlocal before
        text = str(shown)
        data = {"text/plain": text, "text/html": LINE.format(f"{_bar(shown)}{escape(text)}")}
        if data != before:
            (handle.update if before else handle.display)(data, raw=True)  # type: ignore[no-untyped-call]
            before = data

    return show


def _bar(shown: Progress) -> str:
    if shown.end:
        return ""
    # Without a value it moves: something goes on, and nobody knows how far it is.
    amount = "" if shown.share is None else f' max="1" value="{shown.share:.3f}"'
    return BAR.format(what=escape(shown.what), amount=amount)
