"""Choices of a rater in the page: language, colors and keys, each kept in the browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    DESK,
    PATIENCE_S,
    PHONE,
    SETTINGS,
    kind_of,
    see,
    serving,
)
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import PASSWORD, answers, last_answer, prepare, wait_until

pytestmark = pytest.mark.slow

LIGHT, DARK = "rgb(246, 247, 249)", "rgb(20, 22, 27)"


def come(browser: Browser, url: str, context: dict[str, Any] = DESK, **more: Any) -> Page:
    """A page of somebody who has not been here before."""
    page = browser.new_context(**context, **more).new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    page.goto(url)
    page.locator("[name=rater]").wait_for()
    return page


def enter(page: Page, name: str) -> None:
    """Sign in, in any language, and put the guidelines away."""
    page.locator("[name=rater]").fill(name)
    page.locator("[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("[data-kind]:visible").wait_for()
    if page.locator(".panel").is_visible():
        page.keyboard.press("g")


def open_settings(page: Page) -> None:
    page.locator("nav [data-do=settings]").click()


def wider_than_screen(page: Page) -> bool:
    width = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return bool(page.evaluate(width))


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return prepare(tmp_path, TasksConfig(binary_overlap=3, rankings_per_prompt=2, ranking_size=3))


def test_a_rater_works_in_german_and_another_one_in_english(
    browser: Browser, campaign: Campaign, tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        page = come(browser, server.url, locale="de-AT")
        expect(page.locator(".pictune")).to_have_attribute("lang", "de")
        page.locator("[name=rater]").fill("Ann")
        page.locator("[name=password]").fill("a guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").first).to_have_text("Name oder Passwort ist falsch.")
        enter(page, "Ann")
        while kind_of(page) != "binary":
            page.keyboard.press("s")
            page.keyboard.press("1")
        see(page)
        page.keyboard.press("3")
        page.get_by_role("button", name="Ich kann es nicht sagen").click()
        expect(page.locator(".saved")).to_have_text("Gespeichert ✓")
        # what is stored does not depend on the language
        wait_until(
            lambda: "I cannot tell" in [row.get("reason") for row in answers(campaign, "Ann")]
        )

        open_settings(page)
        page.get_by_label("Sprache", exact=True).last.select_option("en")
        page.get_by_role("button", name="Undo").wait_for()
        expect(page.locator(".pictune")).to_have_attribute("lang", "en")
        page.get_by_role("button", name="Sign out").click()
        enter(page, "Ben")
        open_settings(page)
        page.get_by_label("Language", exact=True).last.select_option("de")
        page.get_by_role("button", name="Abmelden").click()
        page.locator("[name=rater]").wait_for()
        enter(page, "Ann")  # she has chosen English in this browser
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.mark.usefixtures("campaign")
def test_a_lead_decides_which_language_comes_first(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text(json.dumps({"language": "en"}))
    with serving(tmp_path) as server:
        page = come(browser, server.url, locale="de-DE")
        expect(page.get_by_text("Your name")).to_be_visible()
        page.get_by_label("Language").first.select_option("de")
        expect(page.get_by_text("Dein Name")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Dein Name")).to_be_visible()


@pytest.mark.usefixtures("campaign")
def test_colors_follow_the_system_until_the_rater_decides(browser: Browser, tmp_path: Path) -> None:
    ground = {"light": LIGHT, "dark": DARK}
    system: Any = "dark"
    other: Any = "light"
    with serving(tmp_path) as server:
        page = come(browser, server.url, color_scheme=system, reduced_motion="reduce")
        shown = page.locator(".gradio-container").first
        expect(shown).to_have_css("background-color", ground[system])
        page.emulate_media(color_scheme=other)
        expect(shown).to_have_css("background-color", ground[other])
        page.emulate_media(color_scheme=system)
        enter(page, "Ann")
        open_settings(page)
        page.locator(f"[name=colors][value={other}]").check()
        expect(shown).to_have_css("background-color", ground[other])
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        page.reload()
        page.locator("[data-kind]:visible").wait_for()
        expect(shown).to_have_css("background-color", ground[other])
        assert "theme" not in page.url
        page.emulate_media(color_scheme=other)
        page.emulate_media(color_scheme=system)
        expect(shown).to_have_css("background-color", ground[other])
        open_settings(page)
        page.locator("[name=colors][value=system]").check()
        expect(shown).to_have_css("background-color", ground[system])
        page.emulate_media(color_scheme=other)
        expect(shown).to_have_css("background-color", ground[other])


@pytest.mark.usefixtures("campaign")
def test_no_layout_has_a_key_twice(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        page = come(browser, server.url)
        parts = page.evaluate("import('/ui/keys.js').then(({ PARTS }) => PARTS)")
    for layout in ("standard", "left"):
        by_part = {
            part: [key for action in facts["actions"].values() for key in action[layout]]
            for part, facts in parts.items()
        }
        everywhere = by_part.pop("always")
        for part, keys in by_part.items():
            assert len({*keys, *everywhere}) == len(keys) + len(everywhere), (layout, part)


def go_to_kind(page: Page, kind: str) -> None:
    """Skip with the mouse until a task of this kind comes."""
    while kind_of(page) != kind:
        see(page)
        page.locator("[data-kind]:visible").get_by_role("button", name="Skip").click()
        page.locator("[data-slot=choices] button").first.click()
        page.wait_for_timeout(100)
    see(page)


def test_the_left_hand_alone_answers_everything(
    browser: Browser, campaign: Campaign, tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        page = come(browser, server.url, PHONE)
        enter(page, "Ann")
        go_to_kind(page, "ranking")
        open_settings(page)
        page.locator("[name=layout][value=left]").check()
        assert not wider_than_screen(page)
        page.keyboard.press("Escape")
        expect(page.locator("[data-slot=settings]")).to_be_hidden()
        see(page)  # the button that opened the settings must not take the space bar
        for key in ("1", "q", "2", "r", "1", " "):  # a rank, can't judge, a rank taken back
            page.keyboard.press(key)
        wait_until(lambda: "ranks" in last_answer(campaign, "Ann"))
        ranks = last_answer(campaign, "Ann")["ranks"]
        assert sorted(ranks.values(), key=str) == [1, 1, None]
        assert last_answer(campaign, "Ann")["mode"] == "key"
        page.reload()  # the layout is kept in this browser
        go_to_kind(page, "binary")
        expect(page.locator("[data-slot=keys-of-all]")).to_contain_text("EUndo my last answer")
        page.keyboard.press("s")
        wait_until(lambda: last_answer(campaign, "Ann").get("verdict") == "bad")
