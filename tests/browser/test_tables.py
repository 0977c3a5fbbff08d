"""Tables can be read and used with keys, a mouse, a screen reader, in light and in the dark, and in VS Code.

Pictures of them are kept in WORKBENCH_SCREENSHOTS.
"""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Lab
from tests.browser.test_lab import SCREENSHOTS, dark, faint, open_notebook, run_all, save_picture
from workbench.notebook.kernelspec import NAME

pytestmark = pytest.mark.needs("chromium", "git")

LONG = " ".join(["It was a dark and stormy night; the rain fell in torrents, except at times."] * 6)
CELLS = [
    'pd.DataFrame([range(40)] * 4, index=pd.Index(list("abcd"), name="letter")).add_prefix("column_")',
    f'pd.DataFrame({{"text": ["NULL", None, "", "  ", "a\\u200bb", {LONG!r}], '
    '"number": pd.array([1, 20, None, 3000, 5, 6], dtype="Int64"), "price": [1.5, 10.25, 1, 2, 3, 4]})',
    'pairs = pd.MultiIndex.from_product([["a", "b"], range(50)], names=["letter", "n"])\n'
    'over = pd.MultiIndex.from_product([["books", "authors"], ["mean", "max"]])\n'
    "pd.DataFrame([[1, 2, 3, 4]] * 100, index=pairs, columns=over)",
    '%manage migrate --verbosity 0\nsnapshot("catalog")',
    'states("catalog")',
    "snapshot('catalog') - models_at('catalog', 'zero')",
]
# What the webview of VS Code's notebooks has: variables of its themes, and a style for every table.
VS_CODE = """<html><head><style>
:root {{ --vscode-editor-background: {0}; --vscode-editor-foreground: {1}; --vscode-focusBorder: #0078d4;
    --vscode-editor-font-family: monospace; --vscode-editor-font-size: 14px }}
body {{ background: {0}; color: {1}; font: 13px sans-serif }}
table, thead, tr, th, td, tbody {{ border: none !important; border-spacing: 0; border-collapse: collapse }}
table {{ width: 100% }} table, th, tr {{ text-align: left !important }}
thead {{ font-weight: bold; background-color: rgba(130, 130, 130, 0.16) }}
th, td {{ padding: 4px 8px }} tbody th {{ font-weight: normal }}
tr:nth-child(even) {{ background-color: rgba(130, 130, 130, 0.08) }}
</style></head><body class="vscode-{2}">{3}</body></html>"""
VS_CODE_THEMES = {"dark": ("#1f1f1f", "#cccccc"), "light": ("#ffffff", "#3b3b3b")}


@pytest.fixture(scope="module")
def shown(browser: Browser, lab: Lab) -> Iterator[Page]:
    """A notebook that has run."""
    kernel = {"name": NAME, "display_name": "Workbench", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS],
        metadata=nbformat.from_dict({"kernelspec": kernel}),
    )
    nbformat.write(notebook, lab.folder / "tables.ipynb")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    open_notebook(page, lab, "tables.ipynb")
    assert run_all(page) == []
    yield page
    context.close()


def test_a_wide_table_scrolls_with_keys_and_leaves_those_of_the_notebook_alone(shown: Page) -> None:
    table = shown.get_by_role("table", name="4 rows, 40 columns")
    label, last = (
        table.get_by_role("rowheader", name="a"),
        table.get_by_role("columnheader", name="column_39"),
    )
    expect(last).not_to_be_in_viewport()
    table.locator("caption").focus()
    for _ in range(100):
        shown.keyboard.press("ArrowRight")
    expect(last).to_be_in_viewport()
    expect(label).to_be_in_viewport()
    expect(shown.locator(".jp-CodeCell").first.locator(".jp-InputPrompt")).to_have_text("[1]:")
    table.get_by_role("cell", name="39").first.click()
    shown.keyboard.press("Shift+Enter")
    expect(shown.locator(".jp-CodeCell").first.locator(".jp-InputPrompt")).to_have_text("[7]:")


def test_a_long_text_opens_with_a_key(shown: Page) -> None:
    cut = shown.locator("td summary")
    whole = shown.locator("td details").get_by_text(LONG)
    expect(cut).to_have_text(f"{LONG[:49]}…")
    cut.focus()
    shown.keyboard.press("Enter")
    expect(cut.locator("xpath=..")).to_have_attribute("open", "")
    expect(whole).to_be_visible()
    shown.keyboard.press("Enter")
    expect(cut.locator("xpath=..")).not_to_have_attribute("open", "")


def test_a_screen_reader_is_told_heads_and_signs(shown: Page) -> None:
    tables = shown.get_by_role("table")
    expect(tables.nth(1)).to_match_aria_snapshot("""
      - table:
        - rowgroup:
          - row:
            - cell
            - columnheader "text"
            - columnheader "number"
            - columnheader "price"
        - rowgroup:
          - row:
            - rowheader "0"
            - cell "'NULL'"
            - cell "1"
            - cell "1.50"
          - row:
            - rowheader "1"
            - cell "NULL"
          - row:
            - rowheader "2"
            - cell "''"
    """)
    author = shown.get_by_role("table", name="catalog_author", exact=True)
    expect(author.first.get_by_role("rowheader", name="country")).to_be_visible()
    expect(author.first.get_by_role("columnheader", name="real tables")).to_be_visible()
    expect(author.last.get_by_role("cell", name="added", exact=True)).to_have_text("+")
    expect(shown.get_by_role("table", name="100 rows, 4 columns")).to_be_visible()


def test_everything_stands_out_in_light_and_in_the_dark(shown: Page) -> None:
    shown.locator("td summary").click()
    assert faint(shown) == []
    save_picture(shown, SCREENSHOTS / "tables.png")
    with dark(shown):
        assert faint(shown) == []
        save_picture(shown, SCREENSHOTS / "tables-dark.png")


@pytest.mark.parametrize("name", VS_CODE_THEMES)
def test_everything_stands_out_in_vs_code(name: str, shown: Page, page: Page) -> None:
    outputs = "".join(shown.locator(".jp-RenderedHTML").evaluate_all("all => all.map(one => one.innerHTML)"))
    page.set_content(VS_CODE.format(*VS_CODE_THEMES[name], name, outputs))
    assert faint(page) == []
    number = page.get_by_role("cell", name="3000")
    expect(number).to_have_css("text-align", "right")
    expect(number).to_have_css("border-bottom-style", "solid")
    page.screenshot(path=SCREENSHOTS / f"tables-vscode-{name}.png", full_page=True)
