"""The admin page in a real browser: signing in, its tabs and its raters."""

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.labeling_browser import Server

PASSWORD = "correct horse"


def open_admin_page(browser: Browser, server: Server, **context: object) -> Page:
    page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    page.on("dialog", lambda _dialog: pytest.fail("a remark was run as a program"))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(f"{server.url}/admin")
    page.locator("[name=rater]").fill("Eve")
    page.locator("[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#progress")).to_contain_text("labels")
    expect(page.get_by_label("Disputed task")).not_to_have_value("")
    return page


def go_to(page: Page, tab: str) -> None:
    """Open a part of the page; on a phone most are behind the button with three dots."""
    button = page.get_by_role("tab", name=tab, exact=True)
    if not button.is_visible():
        page.locator(".overflow-menu > button").click()
        button = page.locator(".overflow-dropdown button", has_text=tab)
    button.click()


def rater_row(page: Page, name: str) -> Locator:
    table = page.get_by_role("grid", name="Raters")
    return table.get_by_role("row").filter(has=page.get_by_text(name, exact=True))


def choose_rater(page: Page, name: str) -> None:
    rater_row(page, name).get_by_text(name, exact=True).click()
    expect(page.get_by_label("Rater", exact=True)).to_have_value(name)
