"""The labeling page in a real browser: everything that raters do, and nothing they give is lost."""

import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, Route, expect
from playwright.sync_api import TimeoutError as TookTooLong

from data.store.plan.planning import task_id_of
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    DESK,
    PHONE,
    Server,
    add_training,
    images_of,
    kind_of,
    open_page,
    see,
    serving,
    sign_in,
)
from tests.support.labeling_campaign import HOSTILE, Campaign
from tests.support.labeling_rater import (
    PASSWORD,
    answer_by_keys,
    answer_by_mouse,
    answers,
    expect_saved,
    forbid_dialogs,
    keys_for,
    last_answer,
    prepare,
    rater,
)

pytestmark = pytest.mark.slow

BY_TURNS = (answer_by_keys, answer_by_mouse)


def test_a_rater_works_through_a_campaign_and_loses_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=5, ranking_size=3))
    add_training(campaign)
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        forbid_dialogs(page)
        sign_in_at_the_second_try(page)
        go_through_training(page)
        assert answers(campaign, "Ann") == []
        expect(page.locator(".prompt")).to_have_text(HOSTILE)

        answer_and_undo(page)
        assert answers(campaign, "Ann") == []
        for mine in range(1, 8):
            BY_TURNS[mine % 2](page)
            expect_saved(page, mine)

        there = images_of(page)
        page.reload()
        page.locator("[data-kind]:visible").wait_for()
        assert images_of(page) == there
        expect(page.locator(".who")).to_have_text("Ann")

        answer_while_the_server_is_down(page, server)
        for mine in range(9, 16):
            BY_TURNS[mine % 2](page)
            expect_saved(page, mine)
        expect(page.get_by_role("heading", name="All done")).to_be_visible()

        check_what_is_stored(answers(campaign, "Ann"), campaign)
        (tmp_path / "exported").unlink(missing_ok=True)
        assert server.end(signal.SIGINT) == 0
        assert (tmp_path / "exported").exists()


def sign_in_at_the_second_try(page: Page) -> None:
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Password").fill("a guess")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_be_visible()
    sign_in(page, "Ann", PASSWORD)
    expect(page.locator(".panel")).to_contain_text("Judge how well the image fits the prompt")
    page.keyboard.press("g")
    expect(page.locator(".panel")).to_be_hidden()


def go_through_training(page: Page) -> None:
    """Answers the first question wrong and the second one right."""
    expect(page.locator(".banner")).to_contain_text("Training, 1 of 2")
    see(page)
    page.keyboard.press("2")
    expect(page.locator("[data-slot=mark]")).to_have_text("Not quite")
    page.keyboard.press("Enter")
    expect(page.locator(".banner")).to_contain_text("Training, 2 of 2")
    answer_by_keys(page)
    expect(page.locator("[data-slot=mark]")).to_have_text("That is right")
    page.keyboard.press("Enter")
    expect(page.locator(".banner")).to_be_hidden()


def answer_and_undo(page: Page) -> None:
    page.keyboard.press("Control+1")  # a shortcut of the browser, not an answer
    first = images_of(page)
    answer_by_keys(page)
    expect_saved(page, 1)
    page.keyboard.press("u")
    expect(page.locator(".count")).to_contain_text("0 mine")
    see(page)
    assert images_of(page) == first


def answer_while_the_server_is_down(page: Page, server: Server) -> None:
    """Gives the eighth answer; it is sent when the server is back."""
    there, banner = images_of(page), page.get_by_text("The server cannot be reached")
    server.end(signal.SIGKILL)
    answer_by_keys(page)
    assert images_of(page) != there  # the next one had been fetched ahead
    expect(page.locator(".saved")).to_have_text("Not saved yet")
    expect(banner).to_be_visible()
    spot = page.locator(".prompt").bounding_box()
    server.start()
    expect_saved(page, 8)
    expect(banner).to_be_hidden()
    assert page.locator(".prompt").bounding_box() == spot  # nothing moves under the hand


def check_what_is_stored(given: list[dict[str, Any]], campaign: Campaign) -> None:
    """All images are good, and in each ranking the third image that was shown is the worst."""
    assert [answer["verdict"] for answer in given if "verdict" in answer] == ["good"] * 10
    images = {task_id_of(task): task.image_ids for task in campaign.tasks}
    rankings = [answer for answer in given if "ranks" in answer]
    for ranking in rankings:
        row = ranking["row"]
        shown = dict(zip(row.shown_order, images[row.task_id], strict=True))
        assert [ranking["ranks"][shown[place]] for place in range(3)] == [1, 1, 2]
    assert len(rankings) == 5
    assert {answer["mode"] for answer in given} == {"key", "mouse"}
    rows = [answer["row"] for answer in given]
    assert all(0 <= row.active_ms <= row.time_on_task_ms for row in rows)


@rater("Ben", PHONE)
def test_the_page_fits_a_phone_and_is_worked_by_touch(page: Page, campaign: Campaign) -> None:
    seen: set[str] = set()
    mine = 0
    while seen != {"binary", "ranking"} or mine < 3:
        seen.add(kind := kind_of(page))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        heights = [button.bounding_box() for button in page.locator(".task button:visible").all()]
        assert all(box is not None and box["height"] >= 40 for box in heights)
        see(page)
        if kind == "binary":
            page.get_by_role("button", name="Bad").tap()
        else:
            tap(page.locator(".image").nth(0), until=page.locator(".rank[data-rank='1'] img"))
            touch_drag(page, ".image >> nth=1 >> .grip", ".rank[data-rank='1']")  # a tie
            expect(page.locator(".rank[data-rank='1'] img")).to_have_count(2)
            cannot_judge = page.locator(".rank[data-rank='0']")
            tap(cannot_judge, until=cannot_judge.locator("img"))
            page.get_by_role("button", name="Submit").tap()
        mine += 1
        expect_saved(page, mine)
    given = answers(campaign, "Ben")
    assert {answer["mode"] for answer in given} == {"touch"}
    rankings = [sorted(answer["ranks"].values(), key=str) for answer in given if "ranks" in answer]
    assert rankings == [[1, 1, None]] * len(rankings)
    assert {answer["verdict"] for answer in given if "ranks" not in answer} == {"bad"}


def tap(spot: Locator, *, until: Locator) -> None:
    """On a busy machine a tap can take so long that the browser takes it for a long press."""
    for _ in range(5):
        spot.tap()
        try:
            until.wait_for(timeout=5000)
        except TookTooLong:
            continue
        return
    pytest.fail(f"{spot}: taps do nothing")


def touch_drag(page: Page, source: str, target: str) -> None:
    """Playwright has no touch drag of its own: the browser's protocol has."""
    boxes = [page.locator(place).bounding_box() for place in (source, target)]
    (x0, y0), (x1, y1) = (middle(box) for box in boxes if box is not None)
    protocol = page.context.new_cdp_session(page)
    for share in (0.0, 0.5, 1.0):
        point = {"x": x0 + share * (x1 - x0), "y": y0 + share * (y1 - y0)}
        touch = {"type": "touchMove" if share else "touchStart", "touchPoints": [point]}
        protocol.send("Input.dispatchTouchEvent", touch)
    protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def middle(box: FloatRect) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@rater("Fay")
def test_enter_says_what_a_ranking_lacks(page: Page) -> None:
    before = 0
    while kind_of(page) != "ranking":
        answer_by_keys(page)
        before += 1
        expect_saved(page, before)
    see(page)
    line = page.locator("[data-slot=unfinished]")
    advice = "no rank yet. Give ? to an image that you cannot judge."
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(line).to_have_text(f"2 images have {advice}")
    page.keyboard.press("2")
    expect(line).to_be_hidden()
    page.keyboard.press("Enter")
    expect(line).to_have_text(f"1 image has {advice}")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    expect_saved(page, before + 1)


@rater("Dan")
def test_undo_gives_back_the_answer_and_its_comment(page: Page, campaign: Campaign) -> None:
    earlier = {
        "binary": (["2"], "[data-verdict=bad][aria-pressed=true]", 1),
        "ranking": (["2", "1", "2", "Enter"], ".card.ranked .badge", 3),
    }
    mine = 0
    while earlier:
        kind = kind_of(page)
        if kind not in earlier:
            answer_by_keys(page)
            expect_saved(page, mine := mine + 1)
            continue
        keys, mark, count = earlier.pop(kind)
        see(page)
        page.get_by_label("Comment").fill(f"of a {kind}")
        page.get_by_label("Comment").press("Enter")
        for key in keys:
            page.keyboard.press(key)
        expect_saved(page, mine + 1)
        given = last_answer(campaign, "Dan")
        page.keyboard.press("u")
        expect(page.locator(".count")).to_contain_text(f"{mine} mine")
        expect(page.locator(mark)).to_have_count(count)
        page.reload()
        expect(page.locator(mark)).to_have_count(count)
        expect(page.get_by_label("Comment")).to_have_value(f"of a {kind}")
        see(page)
        page.keyboard.press(keys[-1])
        expect_saved(page, mine := mine + 1)
        again = last_answer(campaign, "Dan")
        assert again["row"].revision == 3
        assert again["row"].answer_json == given["row"].answer_json


@rater("Cleo")
def test_typing_is_no_answer_and_history_is_editable(page: Page, campaign: Campaign) -> None:
    before = 0
    while kind_of(page) != "binary":
        answer_by_keys(page)
        before += 1
        expect_saved(page, before)
    see(page)
    page.keyboard.press("c")
    page.keyboard.type(f"1 2 u {HOSTILE}")
    page.keyboard.press("Enter")
    page.keyboard.press("3")
    page.keyboard.press("2")
    expect_saved(page, before + 1)
    skipped = last_answer(campaign, "Cleo")
    assert (skipped["verdict"], skipped["reason"], skipped["comment"]) == (
        "skip",
        "The prompt is unclear",
        f"1 2 u {HOSTILE}",
    )

    shown = images_of(page)
    page.keyboard.press("h")
    entry = page.locator("[data-slot=labels] li").first
    expect(entry).to_contain_text("Skipped: The prompt is unclear, “1 2 u <img")
    entry.get_by_role("button").click()
    expect(page.get_by_label("Comment")).to_have_value(f"1 2 u {HOSTILE}")
    see(page)
    page.get_by_role("button", name="Good").click()
    expect(page.locator(".banner")).to_be_hidden()
    assert images_of(page) == shown
    expect_saved(page, before + 1)
    changed = last_answer(campaign, "Cleo")
    assert (changed["verdict"], changed["row"].revision) == ("good", 2)


@rater("Gil")
def test_nothing_is_answered_before_it_can_have_been_seen(page: Page, campaign: Campaign) -> None:
    kinds: set[str] = set()
    mine = 0
    while kinds != {"binary", "ranking"}:
        kinds.add(kind_of(page))
        see(page)
        shown = images_of(page)
        page.evaluate(HASTE, keys_for(page))
        mine += 1
        expect_saved(page, mine)
        assert len(answers(campaign, "Gil")) == mine
        assert images_of(page) != shown
        assert page.locator("dialog[open], .card.ranked >> visible=true").count() == 0
        page.keyboard.press("?")  # these are no answers
        expect(page.locator("[data-slot=help]")).to_be_visible()
        page.keyboard.press("?")
    answer_by_keys(page)
    expect_saved(page, mine + 1)


HASTE = """
(keys) => {
  const press = (key) =>
    document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  keys.forEach(press); // within the same moment, the next one is on the screen
  ["1", "1", "2", "3", "4", "s", "Enter"].forEach(press);
  const shown = document.querySelectorAll("[data-kind]:not([hidden]) button");
  for (const button of shown) button.click();
}
"""


@rater("Hal")
def test_an_answer_given_while_others_are_sent_is_not_asked_for_again(
    page: Page, campaign: Campaign
) -> None:
    held: list[Route] = []
    shown = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/api/v1/submissions", hold_the_first)
    for _ in range(2):  # the second answer waits for the first one's arrival
        kind_of(page)
        shown.append(images_of(page))
        answer_by_keys(page)
    held[0].continue_()
    expect_saved(page, 2)
    while len(shown) < 8:
        kind_of(page)
        shown.append(images_of(page))
        answer_by_keys(page)
    expect_saved(page, 8)
    assert all(images not in shown[:place] for place, images in enumerate(shown))
    assert {answer["row"].revision for answer in answers(campaign, "Hal")} == {1}
