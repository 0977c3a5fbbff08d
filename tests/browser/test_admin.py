"""The admin in a browser, under the headers of every answer."""

from __future__ import annotations

import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_page import Site
from tests.browser.test_page import served as served
from tests.browser.test_page import unserved as unserved
from tests.throwaway import PROJECT, environment

pytestmark = pytest.mark.needs("chromium")

PASSWORD = "a-long-one-for-tests"
SUPERUSER = {"DJANGO_SUPERUSER_USERNAME": "ana", "DJANGO_SUPERUSER_PASSWORD": PASSWORD}


def test_an_author_and_her_book_are_added_and_found_without_a_complaint_of_the_policy(
    page: Page, served: Site
) -> None:
    served.migrate()
    subprocess.run(
        [sys.executable, "manage.py", "createsuperuser", "--noinput", "--email", "ana@example.org"],
        cwd=PROJECT,
        env=environment({"DATABASE_URL": served.url, **SUPERUSER}),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Policy" in said.text else None)
    page.goto(f"{served.address}admin/")
    page.get_by_label("Username").fill("ana")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{served.address}admin/catalog/author/add/")
    page.get_by_label("Name").fill("Ursula K. Le Guin")
    page.get_by_label("Bio").fill("Science fiction")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".success")).to_contain_text("was added successfully")
    page.goto(f"{served.address}admin/catalog/book/add/")
    page.get_by_label("Title").fill("The Dispossessed")
    page.locator(".select2-selection").click()
    page.locator(".select2-results__option", has_text="Ursula K. Le Guin").click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".success")).to_contain_text("was added successfully")
    page.goto(f"{served.address}admin/catalog/book/?q=Guin")
    expect(page.get_by_role("link", name="The Dispossessed")).to_be_visible()
    # The list's own script counts what is chosen.
    page.locator("#action-toggle").check()
    expect(page.locator(".action-counter")).to_have_text("1 of 1 selected")
    assert complaints == []
