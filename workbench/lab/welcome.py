"""The page that the lab opens on: what this is, where the database is, and how far the lessons are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

from workbench.connection import server_of

FOLDER = "notebooks"
NAME = "Welcome.md"
PATH = f"{FOLDER}/{NAME}"

# A line of the README's table of lessons.
LISTED = re.compile(rf"^\| \[.*?\]\({FOLDER}/(?P<name>[^)]+\.ipynb)\) \| (?P<about>.*?) \|$", re.MULTILINE)

TEXT = """\
# Welcome to the workbench

A Django project and a Postgres that you hold in a notebook: every model is imported, every query gives you a
DataFrame, and every migration shows what it really did.

**Start with [lesson 1]({first}).** In a notebook, Shift+Enter runs a cell and goes on to the next one.

## The lessons

| Lesson | What you do | State |
| :--- | :--- | :--- |
{lessons}

Any lesson can be run alone, in any order, and again: its first cell brings the database to where it needs it.
Save a notebook, and reload this page in the browser, to bring the last column up to date.

## Where the database is

{place}

## What else there is

- **[The page beside the notebook]({page})** shows the rows, the tables and the migrations, and follows what
  your cells do. Put it beside this window, or on the projector.
- **`%workbench`** in any cell lists what can be done there, with an example of each. A name with a question
  mark, `frame?`, explains it; the Tab key completes it.
- **A notebook of your own**: *File*, *New*, *Notebook*. Its kernel is "Workbench", which has all this in it.
- The [README](../README.md) has the reference.
"""
EMBEDDED = """\
On **the embedded Postgres**, which comes with the workbench and starts with the first cell that needs it. Its
rows are in the folder {home}. To work on a Postgres of your own, or on [Neon](https://neon.tech), run
`cp .env.example .env` in a terminal (*File*, *New*, *Terminal*), write its address into that file after
`DATABASE_URL=`, and restart the kernel."""
GIVEN = """\
In the database **{database}** on **{server}**, as `DATABASE_URL` says. The first cell that needs it
connects."""


@dataclass(frozen=True)
class Lesson:
    """A notebook of ``cells`` code cells: ``run`` were run here, ``failed`` if one of those raised."""

    name: str
    title: str
    about: str
    cells: int
    run: int
    failed: bool

    @property
    def state(self) -> str:
        if not self.run:
            return "not begun"
        if self.failed:
            return "stopped at an error"
        return "✓ done" if self.run == self.cells else f"{self.run} of {self.cells} cells"


def welcome(page: str) -> str:
    """Return the welcome page as Markdown; ``page`` is the address of the page beside the notebooks."""
    found = list(lessons(settings.BASE_DIR))
    rows = [
        f"| [{_cell(each.title)}]({quote(each.name)}) | {each.about} | {_state(each)} |" for each in found
    ]
    return TEXT.format(
        first=quote(found[0].name) if found else "",
        lessons="\n".join(rows),
        place=_place(),
        page=page,
    )


def lessons(project: Path) -> Iterator[Lesson]:
    """Give the project's notebooks by name, those that can be read."""
    about = described(project)
    for path in sorted((project / FOLDER).glob("*.ipynb")):
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            cells: list[dict[str, Any]] = notebook["cells"]
            code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
            run = [cell for cell in code if cell["execution_count"] and not is_as_it_came(notebook)]
            yield Lesson(
                name=path.name,
                title=_title(cells) or path.stem,
                about=about.get(path.name, ""),
                cells=len(code),
                run=len(run),
                failed=any(map(_has_failed, run)),
            )
        except (OSError, ValueError, LookupError, TypeError):
            continue  # No notebook, or one that is just being written.


def described(project: Path) -> dict[str, str]:
    """Return what one does in each lesson, by its file's name, as the README says."""
    readme = project / "README.md"
    return dict(LISTED.findall(readme.read_text(encoding="utf-8"))) if readme.is_file() else {}


def is_as_it_came(lesson: dict[str, Any]) -> bool:
    """Tell whether no frontend has saved a lesson since: each notes the version of the kernel's Python."""
    return "version" not in lesson["metadata"].get("language_info", {})


def _title(cells: list[dict[str, Any]]) -> str:
    for cell in cells:
        heading = re.search(r"^# (.+)$", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "markdown" and heading:
            return heading[1].strip()
    return ""


def _has_failed(cell: dict[str, Any]) -> bool:
    is_foreseen = "raises-exception" in cell["metadata"].get("tags", [])
    return not is_foreseen and any(output["output_type"] == "error" for output in cell.get("outputs", []))


def _state(lesson: Lesson) -> str:
    # A notebook of one's own is never done.
    return lesson.state.replace(" ", "&nbsp;") if lesson.about else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _place() -> str:
    entry = settings.DATABASES[DEFAULT_DB_ALIAS]
    if not entry.get("EMBEDDED"):
        return GIVEN.format(database=entry["NAME"], server=server_of(entry))
    home, project = settings.WORKBENCH_HOME, settings.BASE_DIR
    inside = (
        f"`{home.relative_to(project)}`" if home.is_relative_to(project) else "that `WORKBENCH_HOME` names"
    )
    return EMBEDDED.format(home=inside)
