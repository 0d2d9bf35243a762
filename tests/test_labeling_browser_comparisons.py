"""Comparisons in a real browser: both images large, one key an answer, and nothing told or lost."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from data.comparisons import AXES
from tests.support.comparison_campaign import MODELS, PROMPTS, comparison_campaign
from tests.support.labeling_browser import PHONE, Server, add_accounts, see, serving
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import PASSWORD, answers, at_work, expect_saved, last_answer

pytestmark = pytest.mark.slow

NAMES = ("Ann", "Ben", "Cleo")
PAIR = "[data-slot=pair] img"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Comparisons of two models on all axes, for three people."""
    root = tmp_path_factory.mktemp("campaign")
    campaign = comparison_campaign(root, AXES, overlap=len(NAMES))
    add_accounts(campaign, NAMES, PASSWORD)
    return campaign


@pytest.fixture(scope="module")
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as served:
        yield served


def press(page: Page, *keys: str) -> None:
    see(page)
    for key in keys:
        page.keyboard.press(key)


def shown(page: Page) -> list[str]:
    """The ids of the images to compare, in the order shown."""
    addresses = [str(image.get_attribute("src")) for image in page.locator(PAIR).all()]
    return [address.rpartition("/")[2] for address in addresses]


def axis_of(page: Page) -> str:
    """The axis of the question on the screen, by its words."""
    words = page.locator("[data-slot=question]").inner_text()
    openings = {
        "overall": "Imagine you had",
        "alignment": "Which image shows better",
        "appeal": "Which image looks",
    }
    return next(axis for axis, text in openings.items() if words.startswith(text))


def test_a_rater_compares_by_keys_and_each_answer_is_what_was_on_the_screen(
    browser: Browser, server: Server, campaign: Campaign
) -> None:
    page = at_work(browser, server.url, "Ann")
    expected: list[dict[str, Any]] = []
    keys = iter(["ArrowLeft", "2", "ArrowUp", "ArrowDown", "1", "ArrowRight", "3", "4"] * 2)
    outcomes = {"ArrowUp": "tie", "3": "tie", "ArrowDown": "both_bad", "4": "both_bad"}
    for mine in range(1, len(campaign.tasks) + 1):
        see(page)
        axis, images = axis_of(page), shown(page)
        told = page.locator("body").inner_text()
        if axis == "appeal":
            expect(page.locator(".prompt")).to_be_hidden()
            assert not any(prompt in told for prompt in PROMPTS)
        else:
            expect(page.locator(".prompt")).to_be_visible()
        assert not any(model in page.content() for model in (f">{m}<" for m in MODELS))
        key = next(keys)
        press(page, key)
        side = 0 if key in ("ArrowLeft", "1") else 1
        preferred = {"kind": "comparison", "outcome": "preferred", "preferred": images[side]}
        expected.append(
            {"kind": "comparison", "outcome": outcomes[key]} if key in outcomes else preferred
        )
        expect_saved(page, mine)
    given = answers(campaign, "Ann")
    assert [{key: one[key] for key in want} for one, want in zip(given, expected, strict=True)] == (
        expected
    )
    assert all(one["mode"] == "key" and one["row"].wording for one in given)
    expect(page.get_by_role("heading", name="All done")).to_have_count(0)  # others are at work

    page.keyboard.press("h")
    newest = page.locator("[data-slot=labels] li").first
    expect(newest).to_contain_text("Which image looks")
    newest.get_by_role("button", name="Change").click()
    expect(page.locator("[aria-pressed=true]")).to_be_visible()
    see(page)
    page.get_by_role("button", name="Both are bad").click()
    page.locator("[data-show=rest]").wait_for()
    expect(page.locator(".saved")).to_have_text("Saved ✓")
    assert last_answer(campaign, "Ann")["outcome"] == "both_bad"
    page.keyboard.press("u")
    expect(page.locator(PAIR)).to_have_count(2)
    assert len(answers(campaign, "Ann")) == len(expected) - 1


def test_images_are_large_and_open_at_full_size_without_answering(
    browser: Browser, server: Server, campaign: Campaign
) -> None:
    page = at_work(browser, server.url, "Ben")
    boxes = [image.bounding_box() for image in page.locator(PAIR).all()]
    left, right = (box for box in boxes if box is not None)
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    assert left["width"] + right["width"] > 0.85 * 1280
    assert left["height"] > 0.5 * 800

    whole = page.locator("dialog[data-slot=full-size]")
    first = shown(page)
    press(page, "z")
    expect(whole.locator("img")).to_have_attribute("src", f"/api/v1/images/{first[0]}")
    page.keyboard.press("ArrowRight")
    expect(whole.locator("img")).to_have_attribute("src", f"/api/v1/images/{first[1]}")
    for key in ("2", "ArrowUp", "s", "u"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    expect(whole).to_be_hidden()
    page.locator(PAIR).nth(1).click()
    expect(whole.locator("img")).to_have_attribute("src", f"/api/v1/images/{first[1]}")
    whole.locator("img").click()
    expect(whole).to_be_hidden()
    assert (shown(page), answers(campaign, "Ben")) == (first, [])

    press(page, "c")
    page.keyboard.type("the sky is 1 color")
    page.keyboard.press("Enter")
    press(page, "ArrowLeft")
    expect_saved(page, 1)
    press(page, "s")
    page.get_by_role("button", name="I cannot tell").click()
    expect_saved(page, 2)
    first_answer, skipped = answers(campaign, "Ben")
    assert first_answer["comment"] == "the sky is 1 color"
    assert (skipped["outcome"], skipped["reason"]) == ("skip", "I cannot tell")


def test_a_phone_stacks_the_images_and_keeps_answers_while_the_server_is_down(
    browser: Browser, server: Server, campaign: Campaign
) -> None:
    page = at_work(browser, server.url, "Cleo", PHONE)
    boxes = [image.bounding_box() for image in page.locator(PAIR).all()]
    upper, lower = (box for box in boxes if box is not None)
    assert upper["y"] + upper["height"] <= lower["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    see(page)
    preferred = shown(page)[1]
    page.get_by_role("button", name="Bottom is better").tap()
    expect_saved(page, 1)
    server.end(signal.SIGKILL)
    see(page)
    page.get_by_role("button", name="Equally good").tap()
    expect(page.locator(".saved")).to_have_text("Not saved yet")
    server.start()
    expect_saved(page, 2)
    first, second = answers(campaign, "Cleo")
    assert (first["preferred"], first["mode"]) == (preferred, "touch")
    assert second["outcome"] == "tie"
