"""Beside nbval, which runs the lessons and compares their outputs: what nbval cannot see."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.conftest import Manage
from tests.notebooks import lessons
from tests.notebooks.lessons import LESSONS, METADATA, read
from tests.throwaway import PROJECT
from workbench.connection import embedded

# Each says why nbval has nothing to compare.
REASONS = {"nbval-ignore-output", "nbval-skip", "raises-exception", "no-output"}

DATE = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b\d\d:\d\d:\d\d\b"
FORBIDDEN = {
    "a local path": r"(?<![\w:/])/(home|root|tmp|usr|var|work|Users|opt)/|[A-Z]:\\\\|site-packages",
    "a time": DATE + r"|\d+(\.\d+)? ?(ms|s|seconds)\b",
    "an address": r"\w+://|\b\d{1,3}(\.\d{1,3}){3}\b|0x[0-9a-f]{6,}|\blocalhost\b|\.neon\.tech",
    "a password": r"npg_|://[^/\s]*:[^/\s]*@|password\s*=",
}


def outputs_as_text(cell: NotebookNode) -> str:
    parts = [output.get("text", "") for output in cell.outputs]
    parts += [
        str(text)
        for output in cell.outputs
        for key, text in output.get("data", {}).items()
        if "image" not in key
    ]
    parts += ["\n".join(output.get("traceback", [])) for output in cell.outputs]
    return "\n".join(parts)


def faults(notebook: NotebookNode) -> list[str]:
    """Say what is wrong with a lesson as it is saved."""
    found = []
    if notebook.metadata != METADATA:
        found.append("its metadata is not the kernel's alone: save it with 'make lessons'")
    count = 0
    for cell in notebook.cells:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", cell.id):
            found.append(f"cell {cell.id!r} has no name of its own")
        if cell.cell_type != "code":
            continue
        count += 1
        tags = set(cell.metadata.get("tags", []))
        if not cell.outputs and not tags & REASONS:
            found.append(f"cell {cell.id!r} has neither outputs nor a tag that says why")
        if cell.execution_count != count:
            found.append(f"cell {cell.id!r} was not run in its turn, so nbval would not compare it")
        if set(cell.metadata) - {"tags"}:
            found.append(f"cell {cell.id!r} has metadata other than tags")
        for name, pattern in FORBIDDEN.items():
            if name == "a time" and "nbval-ignore-output" in tags:
                pattern = DATE  # What was measured is a figure of the lesson's.
            if match := re.search(pattern, outputs_as_text(cell)):
                found.append(f"cell {cell.id!r} holds {name} in its outputs: {match[0]!r}")
    return found


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_saved_so_that_nbval_compares_all_of_it_and_it_holds_nothing_local(lesson: Path) -> None:
    assert faults(read(lesson)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "neither outputs nor a tag"),
        ("/home/me/x.py", "a local path"),
        ("2026-01-01 12:00", "a time"),
        ("took 3.2 s", "a time"),
        ("postgresql://h/d", "an address"),
        ("127.0.0.1", "an address"),
        ("npg_abc", "a password"),
    ],
)
def test_a_fault_is_found(text: str, fault: str) -> None:
    cell = nbformat.v4.new_code_cell("x", id="x", execution_count=1)
    if text:
        cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=METADATA)
    (said,) = faults(notebook)
    assert fault in said


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_where_to_go_next_and_its_links_lead_somewhere(lesson: Path) -> None:
    *others, last = (cell.source for cell in read(lesson).cells if cell.cell_type == "markdown")
    assert last.startswith("**Next:** [")
    for text in [*others, last]:
        for address, heading in re.findall(r"\]\(([^):#]+)#?([^)]*)\)", text):
            there = (lesson.parent / address).read_text(encoding="utf-8")
            assert not heading or heading in _anchors(there)


def _anchors(markdown: str) -> list[str]:
    """Return what GitHub and JupyterLab call the headings."""
    titles = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_announces_each_cell_that_is_refused(lesson: Path) -> None:
    cells = read(lesson).cells
    for text, cell in pairwise(cells):
        if "raises-exception" in cell.metadata.get("tags", []):
            assert "refused: read why" in text.source or "refused, too: read why" in text.source


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_alone_on_a_fresh_server_and_twice(lesson: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="workbench-lesson-"))
    home.chmod(0o755)
    try:
        lessons.run(read(lesson), {"WORKBENCH_HOME": str(home), "DATABASE_URL": ""}, times=2)
    finally:
        embedded.stop(home)
        shutil.rmtree(home, ignore_errors=True)


def test_a_lesson_that_would_drop_a_table_of_another_database_stops_and_says_so(
    scratch_url: str, manage: Manage
) -> None:
    database = {"DATABASE_URL": scratch_url}
    for command in ("migrate", "populate"):
        assert manage(command, **database).returncode == 0
    for name in ("01_migrate", "02_seed", "04_schema_change", "05_evolve"):
        with pytest.raises(Exception, match=r"This drops .* Nothing was changed"):
            lessons.run(read(PROJECT / "notebooks" / f"{name}.ipynb"), database)
    lessons.run(read(PROJECT / "notebooks" / "04_schema_change.ipynb"), {**database, "WORKBENCH_YES": "1"})


def test_a_lesson_runs_in_nbconvert(tmp_path: Path) -> None:
    lesson = PROJECT / "notebooks" / "03_query.ipynb"
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--execute",
        "--to",
        "notebook",
        "--output-dir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(lesson)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / lesson.name, as_version=4)
    assert not [
        output
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]


def test_what_nbval_ran_is_kept_when_it_finds_a_difference(tmp_path: Path) -> None:
    notebook = read(PROJECT / "notebooks" / "01_migrate.ipynb")
    notebook.cells = [cell for cell in notebook.cells if cell.id == "where"]
    notebook.cells[0].outputs[0]["data"]["text/plain"] = "something else"
    nbformat.write(notebook, tmp_path / "differs.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    kept = PROJECT / ".workbench" / "executed" / "differs.ipynb"
    assert str(kept) in done.stdout
    assert "PostgreSQL" in kept.read_text(encoding="utf-8")
    kept.unlink()
