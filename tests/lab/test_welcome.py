from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from django.conf import settings
from django.test import override_settings

from tests.throwaway import PROJECT
from workbench.connection import database
from workbench.lab.welcome import FOLDER, lessons, welcome

PAGE = "http://127.0.0.1:8888/workbench/"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def write(
    project: Path, name: str, *cells: dict[str, Any], title: str = "# A title", is_saved: bool = True
) -> None:
    language = {"name": "python"} | ({"version": "3"} if is_saved else {})
    made = [nbformat.v4.new_markdown_cell(title), *cells]
    notebook = nbformat.v4.new_notebook(cells=made, metadata={"language_info": language})
    nbformat.write(notebook, project / FOLDER / name)


def cell(*, run: bool = True, fails: bool = False, tags: list[str] | None = None) -> dict[str, Any]:
    outputs = [nbformat.v4.new_output("error", ename="E", evalue="e")] if fails else []
    count = 1 if run else None
    made: dict[str, Any] = nbformat.v4.new_code_cell(
        "x", execution_count=count, metadata={"tags": tags or []}, outputs=outputs
    )
    return made


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ([], "not begun"),
        ([cell(run=False), cell(run=False)], "not begun"),
        ([cell(), cell(run=False)], "1 of 2 cells"),
        ([cell(), cell(fails=True), cell(run=False)], "stopped at an error"),
        ([cell(), cell(fails=True, tags=["raises-exception"])], "✓ done"),
        ([cell(), nbformat.v4.new_code_cell("  ")], "✓ done"),
    ],
)
def test_a_lesson_is_as_far_as_its_cells_were_run(
    project: Path, cells: list[dict[str, Any]], state: str
) -> None:
    write(project, "1.ipynb", *cells)
    assert [each.state for each in lessons(project)] == [state]


def test_a_lesson_as_it_came_is_not_begun_though_it_has_outputs(project: Path) -> None:
    write(project, "1.ipynb", cell(), cell(fails=True), is_saved=False)
    assert [each.state for each in lessons(project)] == ["not begun"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": [{}]}', '{"cells": [1]}'])
def test_a_file_that_is_no_notebook_is_left_out(project: Path, text: str) -> None:
    (project / FOLDER / "1.ipynb").write_text(text)
    write(project, "2.ipynb")
    assert [each.name for each in lessons(project)] == ["2.ipynb"]


def test_a_notebook_of_ones_own_is_listed_by_its_heading_or_its_name(project: Path) -> None:
    write(project, "my notes.ipynb", title="text\n\n# Sales | 2026")
    write(project, "2.ipynb", title="no heading")
    with override_settings(BASE_DIR=project):
        text = welcome(PAGE)
    assert "| [Sales \\| 2026](my%20notes.ipynb) |  |  |" in text
    assert "| [2](2.ipynb) |  |  |" in text


def test_a_project_without_a_notebook_is_welcomed_too(tmp_path: Path) -> None:
    with override_settings(BASE_DIR=tmp_path):
        assert "Welcome" in welcome(PAGE)


def test_every_lesson_comes_not_begun_and_says_what_one_does_in_it() -> None:
    found = list(lessons(PROJECT))
    assert len(found) == len(list((PROJECT / FOLDER).glob("*.ipynb")))
    assert [each.name for each in found if each.state != "not begun" or not each.about] == []


def test_it_says_where_the_database_is_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"DATABASE_URL": "postgresql://me:hidden@db.example.com:5433/shop"}
    monkeypatch.setitem(settings.DATABASES, "default", database(given, home=PROJECT))
    text = welcome(PAGE)
    assert "In the database **shop** on **db.example.com:5433**" in text
    assert "hidden" not in text
    home = PROJECT / ".workbench"
    monkeypatch.setitem(settings.DATABASES, "default", database({}, home=home))
    with override_settings(WORKBENCH_HOME=home):
        text = welcome(PAGE)
    assert "On **the embedded Postgres**" in text
    assert "in the folder `.workbench`" in text
    assert f"]({PAGE})" in text
