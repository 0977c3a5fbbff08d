"""What a person sees who runs ``make lab`` and opens the address it prints.

Pictures of the lessons, as they look when they have run, are kept in WORKBENCH_SCREENSHOTS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Lab
from tests.throwaway import PROJECT
from workbench.connection import embedded
from workbench.notebook.kernelspec import NAME

pytestmark = pytest.mark.needs("chromium", "git")

LESSONS = sorted(path.name for path in (PROJECT / "notebooks").glob("*.ipynb"))
SCREENSHOTS = Path(os.environ.get("WORKBENCH_SCREENSHOTS") or PROJECT / ".workbench" / "screenshots")
MILLISECONDS = 60_000

# JupyterLab shows an exception as it shows what a cell writes to stderr.
COMPLAINT = '[data-mime-type="application/vnd.jupyter.stderr"]'
HAS_RUN = f"""(foreseen) => document.querySelectorAll('{COMPLAINT}').length > foreseen ||
    [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(e => /[0-9]/.test(e.textContent))"""
# https://www.w3.org/TR/WCAG22/#contrast-minimum
FAINT = """() => {
    const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const over = (colours) => {
        context.clearRect(0, 0, 1, 1);
        for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(part => part / 255);
    };
    const luminance = rgb => {
        const [r, g, b] = rgb.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const element of document.querySelectorAll('.wb *')) {
        const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim();
        if (!text) continue;
        const backgrounds = [];
        for (let up = element; up; up = up.parentElement) {
            backgrounds.unshift(getComputedStyle(up).backgroundColor);
        }
        const behind = luminance(over(['white', ...backgrounds]));
        const ink = luminance(over(['white', ...backgrounds, getComputedStyle(element).color]));
        const ratio = (Math.max(behind, ink) + 0.05) / (Math.min(behind, ink) + 0.05);
        if (ratio < 4.5) found.push(`${text}: ${ratio.toFixed(2)}`);
    }
    return found;
}"""
# JupyterLab leaves out what is outside of the window, and guesses its height.
RENDER_EVERYTHING = ".jp-Cell { content-visibility: visible !important }"


def open_notebook(page: Page, lab: Lab, path: str) -> None:
    """Open a notebook of the project, alone, and wait until its kernel is ready."""
    address = urlsplit(lab.address)
    page.goto(address._replace(path=f"/lab/tree/{path}", query=f"reset&{address.query}").geturl())
    expect_idle(page)


def expect_idle(page: Page) -> None:
    # The status bar, because the sign in the toolbar says idle when there is no kernel yet.
    expect(page.get_by_role("button", name="Workbench | Idle")).to_be_visible(timeout=MILLISECONDS)


def choose(page: Page, menu: str, *labels: str) -> None:
    page.get_by_role("menubar").get_by_role("menuitem", name=menu, exact=True).click()
    for label in labels:
        page.locator(".lm-Menu-itemLabel").get_by_text(label, exact=True).click()


def foreseen(name: str) -> list[str]:
    """Return what a lesson complains about on purpose."""
    cells = nbformat.read(PROJECT / "notebooks" / name, as_version=4).cells
    errors = [output for cell in cells for output in cell.get("outputs", []) if output.output_type == "error"]
    return ["\n".join(error.traceback) for error in errors]


def run_all(page: Page, foreseen: int = 0) -> list[str]:
    """Run all cells and return what they complained about; do not wait for more than what is foreseen."""
    choose(page, "Edit", "Clear Outputs of All Cells")
    choose(page, "Run", "Run All Cells")
    page.wait_for_function(HAS_RUN, arg=foreseen, timeout=MILLISECONDS)
    expect_idle(page)
    return page.locator(COMPLAINT).all_text_contents()


@contextmanager
def dark(page: Page) -> Iterator[None]:
    """Switch to the dark theme, as a person does in the middle of a lesson."""
    choose(page, "Settings", "Theme", "JupyterLab Dark")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)
    yield
    choose(page, "Settings", "Theme", "JupyterLab Light")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "true")


def faint(page: Page) -> list[str]:
    """Return the texts of our results that stand out less from their background than WCAG 2.2 AA asks for."""
    found: list[str] = page.evaluate(FAINT)
    return found


def save_picture(page: Page, path: Path) -> None:
    """Save a picture of the page, made so high that the whole notebook is on it."""
    page.add_style_tag(content=RENDER_EVERYTHING)
    notebook = page.locator(".jp-WindowedPanel-outer")
    notebook.evaluate("notebook => notebook.scrollTop = 0")
    last = page.locator(".jp-Notebook .jp-Cell").last.bounding_box()
    assert last is not None
    page.set_viewport_size({"width": 1280, "height": int(last["y"] + last["height"]) + 60})
    notebook.evaluate("notebook => notebook.scrollTop = 0")
    page.wait_for_timeout(300)
    page.screenshot(path=path)


@pytest.fixture
def scratch(page: Page, lab: Lab, request: pytest.FixtureRequest) -> Page:
    """A page with an empty notebook."""
    kernel = {"name": NAME, "display_name": "Workbench", "language": "python"}
    empty = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell()], metadata=nbformat.from_dict({"kernelspec": kernel})
    )
    path = f"{request.node.name}.ipynb"
    nbformat.write(empty, lab.folder / path)
    open_notebook(page, lab, path)
    return page


def run(page: Page, code: str) -> Locator:
    """Type a cell below the others, run it, and return it."""
    cells = page.locator(".jp-CodeCell")
    cell = cells.nth(cells.count() - 1)  # Not cells.last: running it adds another.
    cell.locator(".cm-content").fill(code)
    cell.locator(".cm-content").press("Shift+Enter")
    return cell


def welcome(page: Page, lab: Lab) -> Locator:
    """Open the address that the lab prints, and return the page it opens on."""
    address = urlsplit(lab.address)
    page.goto(address._replace(query=f"reset&{address.query}").geturl())
    shown = page.locator(".jp-MarkdownViewer .jp-RenderedMarkdown")
    heading = shown.get_by_role("heading", name="Welcome to the workbench")
    expect(heading).to_be_visible(timeout=MILLISECONDS)
    return shown


def test_the_printed_address_welcomes_and_asks_nothing(page: Page, lab: Lab) -> None:
    shown = welcome(page, lab)
    names = shown.get_by_role("table").get_by_role("link").all_inner_texts()
    assert len(names) == len(LESSONS)
    assert page.locator(".jp-DirListing-itemText").all_inner_texts() == [*LESSONS, "Welcome.md"]
    page.wait_for_timeout(2_000)  # Prompts come late.
    assert page.locator(".jp-Dialog, .Toastify__toast").all_inner_texts() == []
    page.screenshot(path=SCREENSHOTS / "welcome.png")
    with dark(page):
        page.screenshot(path=SCREENSHOTS / "welcome-dark.png")


def test_from_the_welcome_to_the_first_dataframe(page: Page, lab: Lab) -> None:
    shown = welcome(page, lab)
    expect(shown.get_by_role("row", name=re.compile("1. Migrate"))).to_contain_text("not begun")
    choose(page, "File", "New", "Notebook")
    expect_idle(page)  # And no question for a kernel.
    run(page, "%manage migrate\n%manage populate")
    cell = run(page, "frame(Author)")
    expect(cell.locator("table")).to_contain_text("J.K. Rowling", timeout=MILLISECONDS)
    greeting = page.locator(".jp-CodeCell").first.locator(".jp-OutputArea-output").first
    expect(greeting).to_contain_text(re.compile(r"PostgreSQL .* migrations pending"))
    assert page.locator(".jp-Notebook").get_by_text("lists what can be done").count() == 1
    page.screenshot(path=SCREENSHOTS / "first-dataframe.png")


def test_the_welcome_page_says_how_far_a_lesson_is(page: Page, lab: Lab) -> None:
    lesson = welcome(page, lab).get_by_role("link", name=re.compile("Migrate"))
    lesson.click()
    expect_idle(page)
    assert run_all(page) == []
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "01_migrate" in answer.url):
        choose(page, "File", "Save Notebook")
    expect(welcome(page, lab).get_by_role("row", name=re.compile("1. Migrate"))).to_contain_text("done")


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_twice_without_a_complaint_in_either_theme(name: str, page: Page, lab: Lab) -> None:
    complaints = foreseen(name)
    open_notebook(page, lab, f"notebooks/{name}")
    assert run_all(page, len(complaints)) == complaints
    assert faint(page) == []
    save_picture(page, SCREENSHOTS / f"{Path(name).stem}.png")
    with dark(page):
        assert faint(page) == []
        save_picture(page, SCREENSHOTS / f"{Path(name).stem}-dark.png")
    assert run_all(page, len(complaints)) == complaints


def test_a_plot_and_the_table_above_it_fit_on_one_screen(browser: Browser, lab: Lab) -> None:
    # The README's picture: 1400 by 900.
    page = browser.new_context(
        viewport={"width": 1792, "height": 1152}, device_scale_factor=1400 / 1792
    ).new_page()
    open_notebook(page, lab, "notebooks/03_query.ipynb")
    assert run_all(page) == []
    page.add_style_tag(content=RENDER_EVERYTHING)
    plotting = page.locator(".jp-CodeCell", has=page.locator(".jp-RenderedImage")).last
    plot = plotting.locator(".jp-RenderedImage img")
    above = plotting.locator("xpath=preceding-sibling::div[.//table][1]")
    above.evaluate("cell => cell.scrollIntoView({ block: 'start' })")
    page.mouse.move(0, 0)  # Away from what would change its look.
    expect(above.locator("table")).to_be_in_viewport(ratio=1)
    expect(plot).to_be_in_viewport(ratio=1)
    page.screenshot(path=SCREENSHOTS / "lab.png")
    page.context.close()


def test_a_cell_can_be_run_again(scratch: Page) -> None:
    cell = run(
        scratch, "%manage migrate --verbosity 0\n%manage populate\nAuthor.objects.filter(pk__lt=4).count()"
    )
    output = cell.locator(".jp-OutputArea-executeResult pre")
    expect(output).to_have_text("3", timeout=MILLISECONDS)
    expect(cell.locator(".jp-InputPrompt")).to_have_text("[1]:")
    cell.locator(".cm-content").press("Shift+Enter")
    expect(cell.locator(".jp-InputPrompt")).to_have_text("[2]:")
    expect(cell.locator(".jp-OutputArea-output").first).to_contain_text("Nothing to add")
    expect(output).to_have_text("3")


def test_a_misspelt_command_is_answered_in_one_line(scratch: Page) -> None:
    cell = run(scratch, "%manage migrat")
    expect(cell.locator(COMPLAINT)).to_have_text(
        re.compile(r"^There is no command 'migrat': did you mean migrate\?\s*$"), timeout=MILLISECONDS
    )


def test_the_stop_button_ends_a_query_and_the_next_cell_works(scratch: Page) -> None:
    sleep = 'with connection.cursor() as c:\n    print("asleep")\n    c.execute("select pg_sleep(60)")'
    cell = run(scratch, sleep)
    expect(cell.locator(".jp-OutputArea pre").first).to_have_text("asleep\n", timeout=MILLISECONDS)
    scratch.locator('[data-command="notebook:interrupt-kernel"]').click()
    expect(cell.locator(COMPLAINT)).to_contain_text("KeyboardInterrupt", timeout=5_000)
    expect_idle(scratch)  # A cell sent before that is dropped, as all are that waited behind a failed one.
    expect(run(scratch, "where().database").locator("pre").last).to_have_text("'workbench'", timeout=5_000)


def test_a_server_that_was_killed_is_started_anew_for_the_next_cell(scratch: Page, lab: Lab) -> None:
    cell = run(scratch, "connection.ensure_connection()\nwhere().database")
    expect(cell.locator("pre").last).to_have_text("'workbench'", timeout=MILLISECONDS)
    postmaster = embedded.Cluster(lab.folder / ".workbench").postmaster()
    assert postmaster is not None
    postmaster.kill()
    postmaster.wait(30)
    cell = run(scratch, "Author.objects.none().count(), where().database")
    expect(cell.locator("pre").last).to_have_text("(0, 'workbench')", timeout=MILLISECONDS)
