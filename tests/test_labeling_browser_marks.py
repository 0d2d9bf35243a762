"""Marks on images in a real browser: by mouse, touch and keys, with trouble between; none is lost.

Each mark must lie within one pixel of the original of where it was set.
"""

import hashlib
import json
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from data.store.plan.planning import task_id_of
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from tests.support.labeling_browser import (
    DESK,
    PHONE,
    SETTINGS,
    TASKS,
    Server,
    add_accounts,
    images_of,
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
Spot = tuple[float, float]
Place = tuple[float, ...]
"""Pixels of the original: of a point, or of a box's two corners."""
KEPT = [(160, 100), (320, 150, 400, 250), (16, 380), (480, 40, 620, 90), (600, 300)]
"""Marks of each image."""


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
    """Where a pixel of the original is on the screen."""
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


def by_mouse(page: Page, place: Place) -> Place:
    corners = [on_screen(page, *place[:2]), on_screen(page, *place[-2:])]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=3)
    page.mouse.up()
    return place


def by_touch(page: Page, place: Place) -> Place:
    corners = [on_screen(page, *place[:2]), on_screen(page, *place[-2:])]
    touch(page, [[corners[0]], *[[corners[1]]] * (len(place) > 2), []])
    return place


def touch(page: Page, frames: list[list[Spot]]) -> None:
    """Put fingers on the screen, move them, and lift them, which Playwright alone cannot."""
    protocol = page.context.new_cdp_session(page)
    for number, spots in enumerate(frames):
        kind = "touchMove" if number and spots else "touchStart" if spots else "touchEnd"
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(spots)]
        protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


class Keys:
    """Sets marks by keys alone; the cursor begins in the middle."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.at = [0.5, 0.5]

    def __call__(self, page: Page, place: Place) -> Place:
        self._go(page, *place[:2])
        begun = tuple(self.at)
        if len(place) > 2:
            self._go(page, *place[2:], shift="Shift+")
        page.keyboard.press("Enter")
        spots = [begun, self.at] if len(place) > 2 else [begun]
        return tuple(pixel for x, y in spots for pixel in (x * WIDTH, y * HEIGHT))

    def _go(self, page: Page, x: float, y: float, shift: str = "") -> None:
        sides = ((x / WIDTH, "Right", "Left"), (y / HEIGHT, "Down", "Up"))
        for axis, (to, more, less) in enumerate(sides):
            steps = round((to - self.at[axis]) * 100)
            for _ in range(abs(steps)):
                page.keyboard.press(f"{shift}Arrow{more if steps > 0 else less}")
            self.at[axis] += steps / 100


def place_of(mark: dict[str, Any]) -> Place:
    ends = (mark["x0"], mark["y0"], mark["x1"], mark["y1"])
    scaled = zip(ends, (WIDTH, HEIGHT) * 2, strict=True)
    return tuple(end * side for end, side in scaled if end is not None)


WAYS: dict[str, tuple[dict[str, Any], Callable[[Page, Place], Place]]] = {
    "Ann": (DESK, by_mouse),
    "Ben": (PHONE, by_touch),
    "Cleo": (DESK, Keys()),
}


def test_no_mark_is_lost_or_doubled_and_each_lies_where_it_was_set(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path)
    with serving(tmp_path) as server:
        given = {name: work(browser, server, campaign, name) for name in WAYS}
    images = {task_id_of(task): task.image_ids[0] for task in campaign.tasks}
    count = 0
    for name, expected in given.items():
        stored = answers(campaign, name)
        assert {answer["row"].revision for answer in stored} == {1}
        assert sorted(images[answer["row"].task_id] for answer in stored) == sorted(expected)
        for answer in stored:
            places = expected[images[answer["row"].task_id]]
            assert len(answer["marks"]) == len(places)
            for mark, place in zip(answer["marks"], places, strict=True):
                assert place_of(mark) == pytest.approx(place, abs=1)
                count += 1
    assert count == len(WAYS) * IMAGES * len(KEPT) == 210


def work(browser: Browser, server: Server, campaign: Campaign, name: str) -> dict[str, list[Place]]:
    """Mark all images, with trouble at some; return what was marked on each."""
    context, mark = WAYS[name]
    page = at_work(browser, server.url, name, context)
    given: dict[str, list[Place]] = {}
    for number in range(IMAGES):
        call_bad(page)
        (shown,) = images_of(page)
        if isinstance(mark, Keys):
            mark.begin()
        places = [mark(page, place) for place in KEPT[:3]]
        if number % 4 == 1:
            page.reload()
            expect(page.locator(f"{OPEN} [data-slot=marks] button")).to_have_count(3)
            page.wait_for_timeout(350)
            if isinstance(mark, Keys):
                mark.begin()
        if number == 6:
            page.context.set_offline(True)
        if number == 10:
            server.end(signal.SIGKILL)
        given[shown.rsplit("/", 1)[-1]] = places + [mark(page, place) for place in KEPT[3:]]
        send(page)
        if number == 8:
            assert len(answers(campaign, name)) == 6
            page.context.set_offline(False)
        if number == 11:
            server.start()
    wait_until(lambda: len(answers(campaign, name)) == IMAGES)
    page.context.close()
    return given


def test_two_fingers_zoom_and_one_marks_the_same_place(browser: Browser, tmp_path: Path) -> None:
    campaign = prepare(tmp_path, images=1)
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann", PHONE)
        call_bad(page)
        x, y = on_screen(page, 320, 200)
        apart = [[(x + side * (10 + 15 * step), y) for side in (-1, 1)] for step in range(9)]
        touch(page, [*apart, []])
        page.wait_for_function("visualViewport.scale > 2")
        page.wait_for_timeout(300)
        expect(page.locator(f"{OPEN} [data-slot=marks] button")).to_have_count(0)
        left, top, scale = page.evaluate(
            "[visualViewport.offsetLeft, visualViewport.offsetTop, visualViewport.scale]"
        )
        x, y = on_screen(page, 320, 200)
        touch(page, [[((x - left) * scale, (y - top) * scale)], []])
        expect(page.locator(f"{OPEN} [data-slot=marks] button")).to_have_count(1)
        page.get_by_role("button", name="Send").tap()
        wait_until(lambda: last_answer(campaign, "Ann") != {})
    assert place_of(last_answer(campaign, "Ann")["marks"][0]) == pytest.approx((320, 200), abs=1)


def test_marks_are_moved_resized_described_undone_and_changed_later(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, images=2)
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann")
        listed = page.locator(f"{OPEN} [data-slot=marks] button")
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
                page.get_by_label("Comment on the mark").fill("a word")
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
        expect(page.locator("dialog.whole[open] .marks g")).to_have_count(2)
        page.keyboard.press("z")
        call_bad(page)
        expect(listed).to_have_count(2)
        for key in ("n", "m", "ArrowRight", "Shift+ArrowDown", "m", "n", "Backspace"):
            page.keyboard.press(key)
        send(page)
        wait_until(lambda: last_answer(campaign, "Ann")["row"].revision == 2)
        (kept,) = last_answer(campaign, "Ann")["marks"]
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


def test_seconds_of_a_marked_image_by_keys(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = prepare(tmp_path, images=8)
    seconds = []
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann")
        for _ in range(8):
            page.locator("[data-kind]:visible").wait_for()
            see(page)
            begun = time.perf_counter()
            page.keyboard.press("2")
            Keys()(page, KEPT[0])
            for key in ("2", "s", "Space"):
                page.keyboard.press(key)
            expect(page.locator(OPEN)).to_be_hidden()
            seconds.append(time.perf_counter() - begun)
        wait_until(lambda: len(answers(campaign, "Ann")) == 8)
    with capsys.disabled():
        print(f"\nmedian of {statistics.median(seconds):.2f} s for a marked image by keys")
    told = [answer["marks"][0]["aspect"] for answer in answers(campaign, "Ann")]
    assert told == ["misaligned"] * 8
