"""The lessons in Notebook 7: another frontend, which finds the kernel by its kernelspec and does the same."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Lab, serving
from tests.browser.test_lab import (
    COMPLAINT,
    HAS_RUN,
    MILLISECONDS,
    SCREENSHOTS,
    choose,
    faint,
    foreseen,
    run,
)
from workbench.notebook.kernelspec import NAME, register

pytestmark = pytest.mark.needs("chromium", "git")

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/tree\?token=\w+")
LESSON = "06_branches.ipynb"


@pytest.fixture(scope="module")
def notebook(project: Path) -> Iterator[Lab]:
    """What ``jupyter notebook`` starts in the project, where the kernel is registered."""
    home = project / ".workbench" / "notebook7"
    register(str(home))
    ours = {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "share" / "jupyter"),
        "WORKBENCH_ENV_FILE": os.devnull,
        "WORKBENCH_HOME": str(home),
        "WORKBENCH_PROGRESS": "1",
    }
    arguments = ["-m", "notebook", "--no-browser", "--allow-root", "--port=0"]
    with serving(arguments, project, ours, ADDRESS) as served:
        yield served
    shutil.rmtree(home / "share")


def open_notebook(page: Page, notebook: Lab, path: str) -> None:
    address = urlsplit(notebook.address)
    page.goto(address._replace(path=f"/notebooks/{path}").geturl())
    expect_idle(page)


def expect_idle(page: Page) -> None:
    # The sign says idle when there is no kernel yet, too.
    expect(page.locator(".jp-Toolbar-kernelName")).to_contain_text("Workbench", timeout=MILLISECONDS)
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute(
        "data-status", "idle", timeout=MILLISECONDS
    )


def test_a_lesson_runs_top_to_bottom_and_no_kernel_is_asked_for(page: Page, notebook: Lab) -> None:
    complaints = foreseen(LESSON)
    open_notebook(page, notebook, f"notebooks/{LESSON}")
    assert page.locator(".jp-Dialog").all_inner_texts() == []
    choose(page, "Edit", "Clear Outputs of All Cells")
    choose(page, "Run", "Run All Cells")
    page.wait_for_function(HAS_RUN, arg=len(complaints), timeout=MILLISECONDS)
    expect_idle(page)
    assert page.locator(COMPLAINT).all_text_contents() == complaints
    assert faint(page) == []
    expect(
        page.locator(".jp-OutputArea-output", has_text=re.compile("^On branch try-out$")).first
    ).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "notebook7.png")


def test_what_takes_long_is_one_line_that_a_stop_ends(page: Page, notebook: Lab) -> None:
    kernel = {"name": NAME, "display_name": "Workbench", "language": "python"}
    empty = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell()], metadata=nbformat.from_dict({"kernelspec": kernel})
    )
    nbformat.write(empty, notebook.folder / "long.ipynb")
    open_notebook(page, notebook, "long.ipynb")
    run(page, "connection.ensure_connection()")
    cell = run(page, "frame('SELECT pg_sleep(60)')")
    bar = cell.get_by_role("progressbar", name="Reading")
    expect(bar).to_be_visible(timeout=MILLISECONDS)
    shown = cell.locator(".jp-OutputArea-output")
    height = shown.first.evaluate("output => output.getBoundingClientRect().height")
    expect(shown).to_have_text(re.compile(r"^Reading, [3-9] s$"), timeout=10_000)
    page.screenshot(path=SCREENSHOTS / "notebook7-progress.png")
    page.locator('[data-command="notebook:interrupt-kernel"]').first.click()
    expect(cell.locator(COMPLAINT)).to_contain_text("KeyboardInterrupt: the query was cancelled.")
    expect(shown.first).to_have_text(re.compile(r"^Reading was interrupted after \d+\.\d s$"))
    expect(bar).to_have_count(0)
    assert shown.first.evaluate("output => output.getBoundingClientRect().height") == height
