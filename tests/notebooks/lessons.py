"""The lessons, run in real kernels.

``python -m tests.notebooks.lessons`` runs them all on a database of its own, in full size, and saves their
outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

from tests.throwaway import environment, pytest_sessionfinish

FOLDER = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))

METADATA = {
    "kernelspec": {"display_name": "Workbench", "language": "python", "name": "workbench"},
    "language_info": {"name": "python"},
}


def read(lesson: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(lesson, as_version=4)
    return notebook


def run(notebook: NotebookNode, changes: Mapping[str, str | None] | None = None, times: int = 1) -> None:
    """Run the notebook's cells in one kernel, top to bottom; raise nbclient's CellExecutionError."""
    client = NotebookClient(notebook, resources={"metadata": {"path": str(FOLDER)}}, timeout=300)
    with client.setup_kernel(env=environment(changes)):
        for _ in range(times):
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)


def save(notebook: NotebookNode, lesson: Path) -> None:
    """Write the notebook without what differs from run to run."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = coalesce_streams(cell.outputs)
            cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
    nbformat.write(notebook, lesson)


if __name__ == "__main__":
    chosen = [FOLDER / name for name in sys.argv[1:]] or LESSONS
    try:
        for path in chosen:
            lesson = read(path)
            run(lesson, {"WORKBENCH_SMALL": ""})
            save(lesson, path)
    finally:
        pytest_sessionfinish()
