"""The raters' page on a small phone: no scrolling, and answers by a swipe or by the last rank."""

from itertools import product
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.labeling_browser import IMAGES, PHONE, images_of, see
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import FOR_EVERYONE, answers, expect_saved, prepare, rater
from tests.support.labeling_screenshots import go_to

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 390, 664  # a small phone, less the browser's own bars
SMALL: dict[str, Any] = PHONE | {"viewport": {"width": WIDTH, "height": HEIGHT}}
SIZE = 4  # images of a ranking


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    config = FOR_EVERYONE.model_copy(update={"ranking_size": SIZE})
    return prepare(tmp_path_factory.mktemp("phone"), config)


def box_of(element: Locator) -> tuple[float, float, float, float]:
    box = element.bounding_box()
    assert box is not None
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def choose(page: Page, name: str) -> None:
    page.get_by_role("button", name="Settings").tap()
    page.get_by_label(name).check()
    page.keyboard.press("Escape")


@rater("Ann", SMALL)
def test_nothing_is_scrolled_or_hidden_for_one_image_or_a_ranking_of_four(page: Page) -> None:
    for kind, language in product(("binary", "ranking"), ("en", "de")):
        page.evaluate("tag => localStorage.setItem('pictune.language', tag)", language)
        page.reload()
        go_to(page, kind)
        if page.locator(".panel").is_visible():  # in a language for the first time
            page.keyboard.press("g")
        root = page.evaluate_handle("document.documentElement")
        assert root.evaluate("one => [one.scrollWidth, one.scrollHeight]") == [WIDTH, HEIGHT]
        images = page.locator(IMAGES).all()
        assert len(images) == (1 if kind == "binary" else SIZE)
        bar = box_of(page.locator(f".{kind} :is(.actions, .answers):visible").first)
        assert bar[3] == HEIGHT
        for left, top, right, bottom in map(box_of, images):
            assert right - left >= (WIDTH - 3 if kind == "binary" else 160)
            assert 0 <= top < bottom <= bar[1]
        for button in page.locator("button:visible, nav a:visible").all():
            left, top, right, bottom = box_of(button)
            assert min(right - left, bottom - top) >= 44, button.text_content()
            assert 0 <= left < right <= WIDTH, button.text_content()


@rater("Ben", SMALL)
def test_the_last_rank_sends_a_ranking_where_a_rater_has_chosen_that(
    page: Page, campaign: Campaign
) -> None:
    go_to(page, "ranking")
    done = len(answers(campaign, "Ben"))
    for chosen in (False, True):
        for place in range(SIZE):
            page.locator(".image").nth(place).tap()
        if not chosen:
            expect(page.get_by_role("button", name="Submit")).to_be_enabled()
            page.get_by_role("button", name="Clear").tap()
            choose(page, "Send a ranking with its last rank")
    expect_saved(page, done + 1)
    given = answers(campaign, "Ben")[-1]
    assert sorted(given["ranks"].values()) == [*range(1, SIZE + 1)]
    page.get_by_role("button", name="Undo").tap()
    expect(page.locator(".card.ranked")).to_have_count(SIZE)
    see(page)
    page.keyboard.press("1")  # a change of a whole ranking waits for Submit
    page.get_by_role("button", name="Submit").tap()
    expect_saved(page, done + 1)
    assert answers(campaign, "Ben")[-1]["row"].task_id == given["row"].task_id


def swipe(page: Page, x: int, y: int, end: str | None = "touchEnd") -> None:
    left, top, right, bottom = box_of(page.locator(".stage"))
    protocol = page.context.new_cdp_session(page)
    for step in range(9):
        at = {"x": (left + right) / 2 + x * step / 8, "y": (top + bottom) / 2 + y * step / 8}
        touch = {"type": "touchMove" if step else "touchStart", "touchPoints": [at]}
        protocol.send("Input.dispatchTouchEvent", touch)
    if end:
        protocol.send("Input.dispatchTouchEvent", {"type": end, "touchPoints": []})


@rater("Cleo", SMALL)
def test_a_swipe_answers_where_a_rater_has_chosen_that(page: Page, campaign: Campaign) -> None:
    go_to(page, "binary")
    before = images_of(page)
    stage = page.locator(".stage")
    swipe(page, 60, -160, end=None)  # off by default; to a side, the browser may go back
    expect(stage).not_to_have_attribute("data-swipe", "skip")
    swipe(page, 0, 0, end="touchCancel")
    choose(page, "Swipe an image")
    swipe(page, 40, 0)  # too short
    swipe(page, 0, 200)
    see(page)
    assert images_of(page) == before
    for way, verdict in ((160, "good"), (-160, "bad")):
        go_to(page, "binary")
        done = len(answers(campaign, "Cleo"))
        swipe(page, way, 0, end=None)
        expect(stage).to_have_attribute("data-said", verdict.capitalize())
        expect(stage).to_have_css("translate", f"{way * 3 // 4}px")
        swipe(page, way, 0)
        expect_saved(page, done + 1)
        given = answers(campaign, "Cleo")[-1]
        assert (given["verdict"], given["mode"]) == (verdict, "touch")
        page.get_by_role("button", name="Undo").tap()
        pressed = page.locator("[data-verdict][aria-pressed=true]")
        expect(pressed).to_have_attribute("data-verdict", verdict)
        see(page)
    swipe(page, 0, -200)
    expect(page.locator("[data-slot=reasons]")).to_be_visible()
    page.keyboard.press("Escape")
    page.emulate_media(reduced_motion="reduce")
    swipe(page, 200, 0, end=None)
    expect(stage).to_have_attribute("data-swipe", "good")
    expect(stage).to_have_css("translate", "none")
