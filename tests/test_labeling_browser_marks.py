"""Marks on images in a real browser: by mouse, touch and keys, with trouble between; none is lost.

Each mark must lie within one pixel of the original of where it was set.
"""

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from tests.support.labeling_browser import (
    DESK,
    PHONE,
    SETTINGS,
    TASKS,
    Server,
    add_accounts,
    see,
    serving,
)
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import (
    PASSWORD,
    RATERS,
    answers,
    at_work,
    expect_saved,
    last_answer,
    wait_until,
)

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 640, 400
"""Pixels of the images, whose shape no screen has."""
PROMPT = "A cat, and a dog."
IMAGES = 14
OPEN = "dialog.marking[open]"
MARKS = f"{OPEN} [data-slot=marks] button"
Spot = tuple[float, float]
Place = tuple[float, ...]
"""Pixels of the original: of a point, or of a box's two corners."""
KEPT: list[Place] = [(160, 100), (320, 148, 384, 248), (64, 380), (480, 40, 608, 88), (576, 300)]
"""Marks of each image, at hundredths of its sides."""


def prepare(root: Path, marks: str = "required", images: int = IMAGES) -> Campaign:
    """A campaign about large images that are not square, with accounts."""
    paths: dict[str, Path] = {}
    for number in range(images):
        path = root / f"{number}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (15 * number, 120, 90)).save(path)
        paths[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    config = TasksConfig(binary_overlap=len(RATERS), rankings_per_prompt=0)
    tasks = plan_tasks([ImageRow(image_id, PROMPT) for image_id in paths], config)
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, tasks)
    with campaign.open_store() as store:
        store.add_tasks(tasks)
    add_accounts(campaign, RATERS, PASSWORD)
    settings = {"marks": marks, "mark_aspects": ["text"]}
    (root / SETTINGS).write_text(json.dumps({TASKS: settings}), "utf-8")
    return campaign


def on_screen(page: Page, x: float, y: float) -> Spot:
    """Return the place on the screen of a pixel of the original."""
    box = page.locator("[data-slot=sheet] img").bounding_box()
    assert box is not None
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left = box["x"] + (box["width"] - scale * WIDTH) / 2
    top = box["y"] + (box["height"] - scale * HEIGHT) / 2
    return left + scale * x, top + scale * y


def call_bad(page: Page) -> None:
    page.locator("[data-kind]:visible").wait_for()
    see(page)
    page.get_by_role("button", name="Bad").click()
    page.locator(OPEN).wait_for()
    page.wait_for_timeout(350)  # the second half of a double click sets no mark


def send(page: Page) -> None:
    page.keyboard.press("Space")
    expect(page.locator(OPEN)).to_be_hidden()


def by_mouse(page: Page, place: Place, _begun: Place = ()) -> None:
    page.mouse.move(*on_screen(page, *place[:2]))
    page.mouse.down()
    page.mouse.move(*on_screen(page, *place[-2:]), steps=3)
    page.mouse.up()


def by_touch(page: Page, place: Place, _begun: Place = ()) -> None:
    corners = [on_screen(page, *place[at : at + 2]) for at in range(0, len(place), 2)]
    touch(page, [*([corner] for corner in corners), []])


def touch(page: Page, frames: list[list[Spot]]) -> None:
    """Put fingers on the screen, move them, and lift them, which Playwright alone cannot.

    Two fingers rest before they are lifted: a view that still glides takes the next tap as a stop.
    """
    protocol = page.context.new_cdp_session(page)
    for number, spots in enumerate(frames):
        kind = "touchMove" if number and spots else "touchStart" if spots else "touchEnd"
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(spots)]
        if not spots and len(frames[0]) > 1:
            page.wait_for_timeout(300)
        protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def by_keys(page: Page, place: Place, begun: Place) -> None:
    """Move the cursor, from where it begins, by arrows of a hundredth of a side."""
    for at, shift in ((0, ""), (2, "Shift+"))[: len(place) // 2]:
        x, y = ((place[at + axis] - begun[axis]) / (WIDTH, HEIGHT)[axis] for axis in (0, 1))
        for share, names in ((x, ("Left", "Right")), (y, ("Up", "Down"))):
            for _ in range(abs(round(100 * share))):
                page.keyboard.press(f"{shift}Arrow{names[share > 0]}")
        begun = place[at : at + 2]
    page.keyboard.press("Enter")


def place_of(mark: dict[str, Any]) -> Place:
    edges = zip((mark[edge] for edge in ("x0", "y0", "x1", "y1")), (WIDTH, HEIGHT) * 2, strict=True)
    return tuple(edge * side for edge, side in edges if edge is not None)


WAYS: dict[str, tuple[dict[str, Any], Callable[[Page, Place, Place], None]]] = {
    "Ann": (DESK, by_mouse),
    "Ben": (PHONE, by_touch),
    "Cleo": (DESK, by_keys),
}


def test_no_mark_is_lost_or_doubled_and_each_lies_where_it_was_set(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path)
    with serving(tmp_path) as server:
        for name in WAYS:
            work(browser, server, campaign, name)
    marked = []
    for name in WAYS:
        stored = answers(campaign, name)
        assert {answer["row"].revision for answer in stored} == {1}
        assert len({answer["row"].task_id for answer in stored}) == len(stored) == IMAGES
        for answer in stored:
            marked += answer["marks"]
            for mark, place in zip(answer["marks"], KEPT, strict=True):
                assert place_of(mark) == pytest.approx(place, abs=1)
    assert len(marked) == 210


def work(browser: Browser, server: Server, campaign: Campaign, name: str) -> None:
    """Mark all images, with trouble at some."""
    context, mark = WAYS[name]
    page = at_work(browser, server.url, name, context)
    for number in range(IMAGES):
        call_bad(page)
        begun: Place = (WIDTH / 2, HEIGHT / 2)
        for count, place in enumerate(KEPT):
            if (number % 4, count) == (1, 3):
                page.reload()
                expect(page.locator(MARKS)).to_have_count(count)
                page.wait_for_timeout(350)
                begun = (WIDTH / 2, HEIGHT / 2)
            mark(page, place, begun)
            begun = place[-2:]
        if number == 6:
            page.context.set_offline(True)
        if number == 10:
            server.end(signal.SIGKILL)
        send(page)
        if number == 8:
            assert len(answers(campaign, name)) == 6
            page.context.set_offline(False)
        if number == 11:
            server.start()
    wait_until(lambda: len(answers(campaign, name)) == IMAGES)
    page.context.close()


def test_two_fingers_zoom_and_one_marks_the_same_place(browser: Browser, tmp_path: Path) -> None:
    campaign = prepare(tmp_path, images=1)
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann", PHONE)
        call_bad(page)
        x, y = on_screen(page, 320, 200)
        apart = [[(x + side * (10 + 15 * step), y) for side in (-1, 1)] for step in range(9)]
        touch(page, [*apart, []])
        page.wait_for_function("visualViewport.scale > 2")
        expect(page.locator(MARKS)).to_have_count(0)
        by_touch(page, (320, 200))
        expect(page.locator(MARKS)).to_have_count(1)
        send(page)
        wait_until(lambda: last_answer(campaign, "Ann") != {})
    assert place_of(last_answer(campaign, "Ann")["marks"][0]) == pytest.approx((320, 200), abs=1)


def test_marks_are_moved_resized_described_undone_and_changed_later(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, images=2)
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann")
        listed = page.locator(MARKS)
        call_bad(page)
        expect(page.get_by_role("button", name="Send")).to_be_disabled()
        by_mouse(page, (320, 100, 400, 200))
        by_mouse(page, (400, 150, 500, 250))  # by its right edge: it moves
        by_mouse(page, (500, 300, 540, 320))  # by its lower right corner: it grows
        by_mouse(page, (60, 60))
        for key in ("3", "s", "s", "w", "Enter", "Escape"):
            page.keyboard.press(key)
            if key == "Enter":
                page.keyboard.press("Tab")
                page.keyboard.press("Space")
                page.get_by_label("Note on the mark").fill("a word")
        by_mouse(page, (10, 390))
        page.keyboard.press("u")
        expect(listed).to_have_count(2)
        page.keyboard.press("x")
        expect(page.locator(f"{OPEN} .grip")).to_have_count(0)
        page.keyboard.press("x")
        send(page)
        expect_saved(page, 1)
        first, second = last_answer(campaign, "Ann")["marks"]
        assert place_of(first) == pytest.approx((420, 200, 540, 320), abs=1)
        assert place_of(second) == pytest.approx((60, 60), abs=1)
        told = {"aspect": "text", "severity": 2, "word_indexes": [0, 1], "comment": "a word"}
        assert {key: second[key] for key in told} == told

        page.keyboard.press("h")
        expect(page.locator("[data-slot=labels] li")).to_contain_text("2 marks")
        page.get_by_role("button", name="Change").click()
        expect(page.locator(".stage .marks g")).to_have_count(2)
        see(page)
        page.keyboard.press("z")
        expect(page.locator("dialog[data-slot=full-size][open] .marks g")).to_have_count(2)
        page.keyboard.press("z")
        call_bad(page)
        expect(listed).to_have_count(2)
        for key in ("n", "m", "ArrowRight", "Shift+ArrowDown", "m", "n", "Backspace"):
            page.keyboard.press(key)
        send(page)
        wait_until(lambda: last_answer(campaign, "Ann")["row"].revision == 2)
        (kept,) = last_answer(campaign, "Ann")["marks"]
        page.keyboard.press("u")
        expect(page.locator(".stage .marks g")).to_have_count(1)
        assert answers(campaign, "Ann") == []
    assert place_of(kept) == pytest.approx((426.4, 200, 546.4, 324), abs=1)


@pytest.mark.parametrize(("colors", "context"), [("light", DESK), ("dark", PHONE)])
def test_axe_finds_nothing_and_nothing_to_mark_is_an_answer(
    browser: Browser, tmp_path: Path, colors: str, context: dict[str, Any]
) -> None:
    campaign = prepare(tmp_path, images=2)
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann", context | {"color_scheme": colors})
        call_bad(page)
        found = Axe().run(page).response["violations"]
        by_touch(page, KEPT[1]) if context is PHONE else by_mouse(page, KEPT[1])
        found += Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
        page.keyboard.press("Backspace")
        page.keyboard.press("0")
        wait_until(lambda: last_answer(campaign, "Ann").get("marks") == [])
        assert last_answer(campaign, "Ann")["verdict"] == "bad"
