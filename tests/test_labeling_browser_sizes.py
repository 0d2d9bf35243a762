"""Large images in a real browser: they take the screen there is and open whole, pairs need one key.

Every rater is asked about one image, then rankings of two, three, four and six.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page, expect

from data.feedback import NewTask
from labeling_app.campaign.comparisons import CompareConfig, read_wordings
from labeling_app.campaign.tasks import ImageRow
from tests.support.comparison_campaign import PROMPTS, compared_images, planned
from tests.support.labeling_browser import PHONE, Server, add_accounts, images_of, see, serving
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import (
    PASSWORD,
    RATERS,
    answers,
    at_work,
    expect_saved,
    rater,
)

pytestmark = pytest.mark.slow

SIDE = 512
COUNTS = (2, 4, 6, 3, 1)
"""Images of the tasks, in the order in which they are asked."""
LAPTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 720}}
UPRIGHT: dict[str, Any] = {"viewport": {"width": 1080, "height": 1300}}
"""A screen that was turned on its side."""
SCREENS = (PHONE["viewport"], {"width": 768, "height": 1024}, {"width": 1280, "height": 800})
SEEN = "[data-kind]:visible :is(.image, .stage, .pair) img"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    root = tmp_path_factory.mktemp("large")
    rows: list[ImageRow] = []
    paths: dict[str, Path] = {}
    for number in range(max(COUNTS)):
        path = root / f"{number}.png"
        Image.new("RGB", (SIDE, SIDE), (40 * number, 120, 90)).save(path)
        rows.append(row := ImageRow(file_id(path), "Four wolves in the park."))
        paths[row.image_id] = path
    tasks = [
        NewTask(
            kind="binary" if count == 1 else "ranking",
            prompt=rows[0].prompt,
            image_ids=tuple(row.image_id for row in rows[:count]),
            overlap=len(RATERS),
            priority=-place,
        )
        for place, count in enumerate(COUNTS)
    ]
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, tasks)
    with campaign.open_store() as store:
        store.add_tasks(tasks)
    add_accounts(campaign, RATERS, PASSWORD)
    return campaign


@pytest.fixture(scope="module")
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


def file_id(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def boxes(page: Page) -> list[FloatRect]:
    """Places of the images on the screen."""
    found = [image.bounding_box() for image in page.locator(SEEN).all()]
    return [box for box in found if box is not None]


def go_to(page: Page, count: int) -> None:
    """Answers until a task with so many images is on the screen."""
    page.locator("[data-kind]:visible").wait_for()
    while (images := page.locator(SEEN).count()) != count:
        see(page)
        for key in ["1"] if images <= 2 else ["1"] * images + ["Enter"]:
            page.keyboard.press(key)
        expect_saved(page, COUNTS.index(images) + 1)
    see(page)


def scrolls(page: Page) -> bool:
    """Whether anything is below or beside the screen."""
    return bool(
        page.evaluate(
            """() => {
              const { scrollHeight, scrollWidth } = document.documentElement;
              return scrollHeight > innerHeight || scrollWidth > innerWidth;
            }"""
        )
    )


@rater("Dan", UPRIGHT)
def test_arrows_follow_the_drawn_columns_and_z_opens_the_framed_image(page: Page) -> None:
    go_to(page, 4)
    framed = page.locator(".card.framed img")
    places = images_of(page)
    page.keyboard.press("ArrowDown")
    expect(framed).to_have_attribute("src", places[2])
    page.set_viewport_size({"width": 1280, "height": 720})
    expect(page.locator(".cards")).to_have_css("--columns", "4")
    page.keyboard.press("ArrowLeft")
    expect(framed).to_have_attribute("src", places[1])

    whole = page.locator("dialog[data-slot=full-size]")
    page.keyboard.press("z")
    expect(whole.locator("img")).to_have_attribute("src", places[1])
    expect(whole).to_contain_text("Image 2, no rank")
    page.keyboard.press("4")
    expect(whole.locator("img")).to_have_attribute("src", places[3])
    box = whole.locator("img").bounding_box()
    assert box is not None
    assert box["height"] > 0.85 * 720
    page.keyboard.press("z")
    expect(whole).to_be_hidden()
    assert page.locator(".card.ranked").count() == 0
    page.get_by_role("button", name="Full size").click()
    expect(whole.locator("img")).to_have_attribute("src", places[1])
    page.keyboard.press("Escape")

    go_to(page, 1)
    page.keyboard.press("z")
    expect(whole.get_by_role("button", name="Change")).to_be_hidden()
    whole.locator("img").click()
    expect(whole).to_be_hidden()
    page.locator(".stage img").click()
    expect(whole).to_be_visible()
    page.keyboard.press("1")  # no answer
    page.keyboard.press("Escape")
    assert page.locator(SEEN).count() == 1


@rater("Gil", PHONE)
def test_two_fingers_zoom_and_a_tap_then_shows_the_next_at_the_same_place(page: Page) -> None:
    left, right = (str(image.get_attribute("src")) for image in page.locator(SEEN).all())
    see(page)
    page.locator("[data-do=full-size]:visible").tap()
    whole = page.locator("dialog[data-slot=full-size] img")
    expect(whole).to_have_attribute("src", left)
    spread_two_fingers(page)
    page.wait_for_function("visualViewport.scale > 2")
    page.touchscreen.tap(195, 400)
    expect(whole).to_have_attribute("src", right)
    assert page.evaluate("visualViewport.scale") > 2


def spread_two_fingers(page: Page) -> None:
    """Spread two fingers, which the browser's protocol has and Playwright has not.

    They rest before they are lifted: a view that is still gliding takes the next tap as a stop.
    """
    protocol = page.context.new_cdp_session(page)
    for step in range(9):
        apart = 20 + 15 * step
        points = [{"x": 195 + side * apart, "y": 400, "id": side + 1} for side in (-1, 1)]
        touch = {"type": "touchMove" if step else "touchStart", "touchPoints": points}
        protocol.send("Input.dispatchTouchEvent", touch)
    page.wait_for_timeout(300)
    protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@rater("Eve", LAPTOP)
def test_a_ranking_of_two_is_one_key_or_click(page: Page, campaign: Campaign) -> None:
    ranks = {"1": (1, 2), "ArrowRight": (2, 1), "ArrowUp": (1, 1), "4": (None, None)}
    expect(page.locator(".ranking")).to_be_hidden()
    expect(page.get_by_role("button", name="Both are bad")).to_be_hidden()
    assert not scrolls(page)
    for key, wanted in ranks.items():
        go_to(page, 2)
        left, right = (image_id(page, place) for place in range(2))
        page.keyboard.press(key)
        expect_saved(page, 1)
        (given,) = answers(campaign, "Eve")
        assert given["ranks"] == dict(zip((left, right), wanted, strict=True))
        go_to(page, 4)
        page.keyboard.press("u")
        expect(page.locator(".count")).to_contain_text("0 mine")
    go_to(page, 2)
    page.get_by_role("button", name="Right is better").click()
    expect_saved(page, 1)
    page.keyboard.press("h")
    page.get_by_role("button", name="Change").click()
    chosen = page.locator("[data-kind]:visible [aria-pressed=true]")
    expect(chosen).to_have_attribute("data-outcome", "right")
    see(page)
    page.keyboard.press("s")
    page.locator("[data-slot=choices] button").first.click()
    go_to(page, 4)
    expect(page.locator(".saved")).to_have_text("Saved ✓")
    (skipped,) = answers(campaign, "Eve")
    assert set(skipped["ranks"].values()) == {None}
    assert skipped["reason"]
    assert skipped["row"].revision == 10


def test_every_kind_of_task_is_drawn_large_at_three_widths(
    browser: Browser, tmp_path: Path
) -> None:
    campaign, least = campaign_of_small_images(tmp_path)
    add_accounts(campaign, ("Ann",), PASSWORD)
    with serving(tmp_path) as served:
        page = at_work(browser, served.url, "Ann", PHONE)
        for mine, sides in enumerate(least):
            page.locator("[data-kind]:visible").wait_for()
            for screen, side in zip(SCREENS, sides, strict=True):
                page.set_viewport_size(screen)
                see(page)
                drawn = boxes(page)
                assert min(min(box["width"], box["height"]) for box in drawn) >= side, mine
                if page.locator(".comparison").is_visible():
                    assert answers_are_on_the_screen(page, screen["height"]), mine
            keys = ["1"] * len(drawn) + ["Enter"] if page.locator(".card").count() > 2 else ["1"]
            for key in keys:
                page.keyboard.press(key)
            if mine < len(least) - 1:
                expect_saved(page, mine + 1)


def campaign_of_small_images(root: Path) -> tuple[Campaign, list[tuple[int, int, int]]]:
    """Tasks of every kind, of 64 x 64 px; and the least side, on each of the screens, of each."""
    images, paths = compared_images(root, seeds=2)
    ids = tuple(paths)
    first = images[:2]
    asked: list[tuple[list[NewTask], tuple[int, int, int]]] = [
        ([ranking_of(ids[:1])], (340, 690, 470)),
        *(([ranking_of(ids[:count])], (160, 290, 270)) for count in (3, 4)),
        ([ranking_of(ids[:6])], (160, 210, 220)),
        ([ranking_of(ids[:2])], (180, 330, 460)),
        *((planned(first, [axis]).tasks, (180, 330, 460)) for axis in ("overall", "appeal")),
        (planned(first, ["alignment"]).tasks, (180, 330, 460)),
    ]
    tasks = [
        task.model_copy(update={"priority": -place})
        for place, (new, _) in enumerate(asked)
        for task in new
    ]
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, tasks)
    with campaign.open_store() as store:
        store.comparisons.set_wordings(read_wordings(CompareConfig()))
        store.add_tasks(tasks)
    return campaign, [sides for _, sides in asked]


def ranking_of(image_ids: tuple[str, ...]) -> NewTask:
    """A ranking of these images; one is asked about by itself."""
    one = len(image_ids) == 1
    return NewTask(kind="binary" if one else "ranking", prompt=PROMPTS[0], image_ids=image_ids)


def answers_are_on_the_screen(page: Page, height: int) -> bool:
    """Whether all answers can be clicked without scrolling."""
    buttons = page.locator("[data-outcome]:visible").all()
    found = [box for button in buttons if (box := button.bounding_box()) is not None]
    return max(box["y"] + box["height"] for box in found) <= height


def image_id(page: Page, place: int) -> str:
    address = str(page.locator(SEEN).nth(place).get_attribute("src"))
    return address.rpartition("/")[2]
