"""The page in a browser, beside somebody who migrates.

Pictures of it, narrow and wide, light and dark, are kept in WORKBENCH_SCREENSHOTS.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import httpx
import psycopg2
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_lab import FAINT, SCREENSHOTS
from tests.conftest import scratch
from tests.migrating import Migrator, until
from tests.throwaway import PROJECT, environment

pytestmark = pytest.mark.needs("chromium")

MILLISECONDS = 15_000
SIZES = {"narrow": (640, 900), "wide": (1280, 900)}
IS_SEEN = "element => element.getBoundingClientRect().top"


@dataclass
class Site:
    """A web server with the page, on a database of its own."""

    url: str
    port: int
    migrator: Migrator

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def migrate(self, *arguments: str) -> None:
        """Migrate in another process, as a cell does."""
        self.migrator.begin(self.url, *arguments, "--verbosity=0")
        assert not self.migrator.end().error

    def branch(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", "branch", *arguments],
            cwd=PROJECT,
            env=environment({"DATABASE_URL": self.url}),
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def ask(self, *statements: str) -> None:
        with self.session() as run:
            run(*statements)

    @contextmanager
    def session(self) -> Iterator[Callable[..., None]]:
        connection = psycopg2.connect(self.url, application_name="somebody")
        connection.autocommit = True
        cursor = connection.cursor()
        try:
            yield lambda *statements: cursor.execute("; ".join(statements))
        finally:
            connection.close()

    @contextmanager
    def serving(self) -> Iterator[None]:
        serve = [sys.executable, "manage.py", "runserver", "--noreload", str(self.port)]
        process = subprocess.Popen(
            serve,
            cwd=PROJECT,
            env=environment({"DATABASE_URL": self.url}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(self._answers)
            yield
        finally:
            process.terminate()
            process.wait(20)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.address).status_code < 500
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def unserved() -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with scratch() as url:
        migrator = Migrator({"DATABASE_URL": url})
        yield Site(url, port, migrator)
        migrator.close()


@pytest.fixture(scope="module")
def served(unserved: Site) -> Iterator[Site]:
    with unserved.serving():
        yield unserved


@pytest.fixture
def site(served: Site) -> Site:
    """At the first migration, with an author and her books."""
    served.ask("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    served.migrate("catalog", "0001")
    served.ask(
        "INSERT INTO catalog_author (name, bio, created_at) VALUES ('Ursula K. Le Guin', '', now())",
        "INSERT INTO catalog_book (title, author_id, created_at) "
        "SELECT 'Title ' || n, 1, now() FROM generate_series(1, 5) AS n",
    )
    return served


@pytest.fixture
def narrow(browser: Browser, site: Site) -> Iterator[Page]:
    """The page beside a notebook. No error of its own is left unnoticed."""
    context = browser.new_context(viewport={"width": 640, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Policy" in said.text else None)
    page.goto(site.address)
    expect(page.locator("#pulse")).to_have_text("Live")
    yield page
    context.close()
    assert not complaints


def test_a_locked_table_stays_as_it_was_with_a_sentence(narrow: Page, site: Site) -> None:
    rows = narrow.locator('[data-key="rows catalog_author"]')
    with site.session() as run:
        run("BEGIN", "LOCK TABLE catalog_author IN ACCESS EXCLUSIVE MODE")
        expect(rows).to_contain_text("catalog_author is locked by process", timeout=MILLISECONDS)
        expect(rows).to_contain_text("What is shown is from before.")
        expect(rows.locator("td", has_text="Ursula K. Le Guin").first).to_be_visible()
        expect(narrow.get_by_role("log")).to_have_text("")
        narrow.screenshot(path=SCREENSHOTS / "page-locked.png")
        run("ROLLBACK")
    expect(rows).not_to_contain_text("locked", timeout=MILLISECONDS)
    expect(narrow.get_by_role("log")).to_have_text("")


def test_a_web_server_that_is_gone_is_said_and_it_recovers_by_itself(
    browser: Browser, unserved: Site, served: Site
) -> None:
    del served
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = Site(unserved.url, listener.getsockname()[1], unserved.migrator)
    page = browser.new_page()
    with other.serving():
        page.goto(other.address)
        expect(page.locator("#pulse")).to_have_text("Live")
    expect(page.get_by_role("alert")).to_have_text(
        "The server of this page does not answer.", timeout=MILLISECONDS
    )
    expect(page.get_by_role("heading", name="Migrations")).to_be_visible()
    with other.serving():
        expect(page.locator("#pulse")).to_have_text("Live", timeout=2 * MILLISECONDS)
        expect(page.locator("#trouble")).to_have_text("")
        page.close()


def test_while_another_process_migrates_it_follows_in_place_and_says_so(narrow: Page, site: Site) -> None:
    folded = narrow.locator('[data-key="schema catalog_book"] details')
    folded.locator("summary").click()
    scrolled = narrow.locator('[data-key="rows catalog_author"] .scroll')
    scrolled.focus()
    narrow.evaluate("scrollTo(0, 60)")
    narrow.evaluate("""() => {
        const text = document.querySelector('[data-key^="cell catalog_author 1 is name"] bdi').firstChild;
        getSelection().setBaseAndExtent(text, 0, text, 6);
        window.isStillThere = true;
    }""")
    before = scrolled.evaluate(IS_SEEN)
    site.migrate("catalog", "0002")
    news = narrow.get_by_role("log")
    expect(news).to_contain_text(
        "0002_author_country applied; catalog_author: column country added", timeout=MILLISECONDS
    )
    heading = narrow.get_by_role("columnheader", name="country")
    expect(heading).to_have_attribute("data-mark", "added")
    narrow.screenshot(path=SCREENSHOTS / "page-migrated.png")
    assert narrow.evaluate("window.isStillThere")
    assert narrow.evaluate("getSelection().toString()") == "Ursula"
    assert scrolled.evaluate("element => element === document.activeElement")
    assert scrolled.evaluate(IS_SEEN) == before
    expect(folded).not_to_have_attribute("open", "")
    expect(narrow.locator('[data-key="schema catalog_author"] details')).to_have_attribute("open", "")
    site.ask("UPDATE catalog_author SET country = 'Oregon'", "DELETE FROM catalog_book WHERE id = 5")
    expect(news).to_contain_text("catalog_author: row 1 changed", timeout=MILLISECONDS)
    expect(news).to_contain_text("catalog_book: 4 rows")
    site.migrate("catalog", "zero")
    expect(news).to_contain_text("table catalog_author removed", timeout=MILLISECONDS)
    expect(narrow.get_by_text("catalog has no tables here.")).to_be_visible()
    site.migrate("catalog")
    expect(news).to_contain_text("table catalog_book added", timeout=MILLISECONDS)
    expect(heading).to_be_visible()


def test_a_pause_is_a_pause(narrow: Page, site: Site) -> None:
    narrow.get_by_role("button", name="Pause").press("Enter")
    expect(narrow.locator("#pulse")).to_have_text("Paused")
    asked: list[str] = []
    narrow.on("request", lambda request: asked.append(request.url))
    site.ask("UPDATE catalog_author SET name = 'Somebody else'")
    narrow.wait_for_timeout(2500)
    assert not asked
    narrow.get_by_role("button", name="Resume").press("Enter")
    expect(narrow.get_by_role("log")).to_contain_text("catalog_author: row 1 changed", timeout=MILLISECONDS)


def test_a_branch_is_chosen_by_keyboard_and_without_javascript(browser: Browser, site: Site) -> None:
    site.branch("create", "try-out")
    context = browser.new_context(java_script_enabled=False, viewport={"width": 640, "height": 900})
    page = context.new_page()
    try:
        page.goto(site.address)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="try-out").press("Enter")
        expect(page).to_have_title("try-out · catalog · Workbench")
        expect(page.locator("#choose-branch summary")).to_have_text(re.compile(r"branch\s+try-out"))
        expect(page.get_by_role("cell", name="Ursula K. Le Guin").first).to_be_visible()
        expect(page.get_by_role("link", name="Refresh")).to_have_attribute("href", "?branch=try-out")
        site.branch("drop", "try-out")
        page.get_by_role("link", name="Refresh").click()
        expect(page.get_by_text("There is no branch try-out: there is main.")).to_be_visible()
        page.get_by_role("link", name="Branch main").click()
        expect(page.get_by_role("cell", name="Ursula K. Le Guin").first).to_be_visible()
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_read_in_both_schemes(
    browser: Browser, site: Site, scheme: Literal["light", "dark"]
) -> None:
    site.migrate("catalog", "0002")
    site.migrate("catalog", "0001")
    for name, (width, height) in SIZES.items():
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto(site.address)
        site.migrate("catalog", "0002")
        site.ask(
            f"INSERT INTO catalog_author (id, name, bio, country, created_at) VALUES ({width}, '{name}', "
            "'Born in Santiago de Las Vegas, he wrote of cities that nobody has ever seen.', 'Italy', now())"
        )
        expect(page.get_by_role("log")).to_contain_text("catalog_author: 2 rows", timeout=MILLISECONDS)
        assert page.locator('[data-mark="added"]').count() >= 4
        assert (
            page.evaluate(FAINT.replace(".wb *", "body *").replace("'white',", f"'{PAPER[scheme]}',")) == []
        )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=SCREENSHOTS / f"page-{name}-{scheme}.png", full_page=False)
        context.close()
        site.ask(f"DELETE FROM catalog_author WHERE id = {width}")
        site.migrate("catalog", "0001")


PAPER = {"light": "white", "dark": "black"}
