"""The labeling page in a real browser, checked by axe for what keeps people out."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    DESK,
    TABS,
    Server,
    add_training,
    kind_of,
    open_page,
    see,
    serving,
    sign_in,
)
from tests.support.labeling_rater import PASSWORD, answer_by_keys, make_admin, prepare

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("colors", "name"), [("light", "Eve"), ("dark", "Fay")])
def test_axe_finds_no_serious_violation(
    browser: Browser, server: Server, colors: str, name: str
) -> None:
    page = open_page(browser, server.url, color_scheme=colors, reduced_motion="reduce", **DESK)
    found = [violations(page, "sign-in")]
    sign_in(page, name, PASSWORD)  # one for each, since a rater's tasks of a kind may run out
    found.append(violations(page, "guidelines"))
    page.keyboard.press("g")
    kinds: set[str] = set()
    while kinds != {"binary", "ranking"}:
        kinds.add(kind := kind_of(page))
        found.append(violations(page, kind))
        answer_by_keys(page)
        page.wait_for_timeout(50)
    kind_of(page)
    see(page)
    skip = "3" if kind_of(page) == "binary" else "s"
    for key, view in (("?", "help"), ("h", "history"), (skip, "reasons")):
        page.keyboard.press(key)
        found.append(violations(page, view))
        page.keyboard.press("Escape")
    assert [line for lines in found for line in lines] == []


def test_axe_finds_no_serious_violation_in_training_and_on_the_admin_page(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=5, ranking_size=3))
    add_training(campaign)
    make_admin(campaign, "Eve")
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        sign_in(page, "Eve", PASSWORD)
        page.keyboard.press("g")
        see(page)
        page.keyboard.press("2")
        expect(page.locator("[data-slot=feedback]")).to_be_visible()
        found = violations(page, "feedback")
        page.goto(f"{server.url}/admin")
        expect(page.locator("#progress")).to_contain_text("labels")
        for tab in TABS:
            page.get_by_role("tab", name=tab, exact=True).click()
            found += violations(page, tab)
            if tab == "Raters":
                expect(page.get_by_role("grid", name="Raters")).to_contain_text("Eve")
        assert found == []


def violations(page: Page, view: str) -> list[str]:
    page.wait_for_timeout(200)
    result = Axe().run(page).response["violations"]
    grave = [one for one in result if one["impact"] in ("serious", "critical")]
    return [
        f"{view}: {one['id']}: {node['html'][:200]}: {node['any'][:1]}"
        for one in grave
        for node in one["nodes"]
    ]
