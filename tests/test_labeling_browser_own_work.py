"""A rater's own work at the page: tasks put aside, and the whole history."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from labeling_app.app_state import image_url
from labeling_app.campaign.tasks import TasksConfig
from tests.support.data_campaign import answer_all, claimed
from tests.support.labeling_browser import (
    Server,
    images_of,
    kind_of,
    see,
    serving,
)
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import (
    answer_by_keys,
    answers,
    at_work,
    expect_saved,
    prepare,
    wait_until,
)

pytestmark = pytest.mark.slow

ASIDE_COUNT = "[data-slot=aside-count]"
LABELS = "[data-slot=labels] li"


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """Ten verdicts and five rankings, for everyone."""
    config = TasksConfig(rankings_per_prompt=5, ranking_size=3)
    return prepare(tmp_path, config)


@pytest.fixture
def server(campaign: Campaign, tmp_path: Path) -> Iterator[Server]:
    assert campaign.paths
    with serving(tmp_path) as served:
        yield served


def later(page: Page) -> list[str]:
    """Puts the task on the screen aside by its key; returns its images."""
    kind_of(page)
    see(page)
    there = images_of(page)
    page.keyboard.press("l")
    wait_until(
        lambda: page.locator("[data-kind]:visible").count() == 1 and images_of(page) != there
    )
    return there


def open_history(page: Page) -> None:
    page.keyboard.press("h")
    page.locator("dialog.history[open]").wait_for()


def test_a_task_put_aside_comes_after_the_others(
    browser: Browser, server: Server, campaign: Campaign
) -> None:
    page = at_work(browser, server.url, "Ann")
    aside = later(page)
    expect(page.locator(ASIDE_COUNT)).to_have_text("1 put aside")
    shown = []
    for mine in range(1, 15):
        kind_of(page)
        shown.append(images_of(page))
        answer_by_keys(page)
        expect_saved(page, mine)
    assert aside not in shown
    expect(page.locator(".banner")).to_have_text(re.compile("You put this task aside earlier."))
    assert images_of(page) == aside
    answer_by_keys(page)
    expect(page.get_by_role("heading", name="All done")).to_be_visible()
    expect(page.locator(ASIDE_COUNT)).to_be_hidden()
    assert len(answers(campaign, "Ann")) == 15


def test_a_task_put_aside_is_answered_from_the_list_with_the_ranks_that_it_had(
    browser: Browser, server: Server
) -> None:
    page = at_work(browser, server.url, "Ann")
    mine = 0
    while kind_of(page) != "ranking":
        answer_by_keys(page)
        mine += 1
        expect_saved(page, mine)
    see(page)
    page.keyboard.press("2")
    aside = later(page)
    expect(page.locator(ASIDE_COUNT)).to_have_text("1 put aside")
    page.locator(ASIDE_COUNT).click()
    page.get_by_role("region", name="Put aside").get_by_role("button", name="Answer").click()
    expect(page.locator(".banner")).to_contain_text("put this task aside")
    assert images_of(page) == aside
    expect(page.locator(".rank[data-rank='2'] img")).to_have_count(1)
    expect(page.locator(ASIDE_COUNT)).to_be_hidden()
    see(page)
    for key in ("1", "1", "Enter"):
        page.keyboard.press(key)
    expect_saved(page, mine + 1)


def test_later_works_without_the_server_and_outlives_its_end(
    browser: Browser, server: Server, campaign: Campaign
) -> None:
    page = at_work(browser, server.url, "Ann")
    kind_of(page)
    first = later(page)
    expect(page.locator(ASIDE_COUNT)).to_have_text("1 put aside")
    server.end(signal.SIGKILL)
    second = later(page)
    assert second != first
    server.start()
    page.reload()
    kind_of(page)
    with campaign.open_store() as store:
        ann = store.rater_id_of("human", "Ann")
        assert store.own_work.aside(ann)
    seen = []
    for mine in range(1, 16):
        kind_of(page)
        seen.append(images_of(page))
        answer_by_keys(page)
        expect_saved(page, mine)
    assert first in seen
    assert second in seen
    assert all(images not in seen[:place] for place, images in enumerate(seen))


def test_the_history_goes_back_to_the_first_label_and_is_searched(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=0), images=45)
    with campaign.open_store() as store:
        ann = store.rater_id_of("human", "Ann")
        first = claimed(store, ann).task.image_ids
        assert len(answer_all(store, ann)) == 45
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann")
        open_history(page)
        expect(page.locator(LABELS)).to_have_count(20)
        older = page.get_by_role("button", name="Show older ones")
        older.click()
        expect(page.locator(LABELS)).to_have_count(40)
        older.click()
        expect(page.locator(LABELS)).to_have_count(45)
        expect(older).to_be_hidden()
        assert page.locator(LABELS).last.locator("img").get_attribute("src") == image_url(first[0])

        search = page.get_by_label("Words of the prompt")
        search.fill("zebra")
        expect(page.get_by_text("No label matches.")).to_be_visible()
        expect(page.locator(LABELS)).to_have_count(0)
        search.fill("ONERROR src")
        expect(page.locator(LABELS)).to_have_count(20)
        page.get_by_label("Answer", exact=True).select_option("skipped")
        expect(page.get_by_text("No label matches.")).to_be_visible()
        page.get_by_label("Answer", exact=True).select_option("")
        page.get_by_label("Kind of task").select_option("ranking")
        expect(page.get_by_text("No label matches.")).to_be_visible()
        page.get_by_label("Kind of task").select_option("binary")
        expect(page.locator(LABELS)).to_have_count(20)
        page.route("**/api/v1/history*", lambda route: route.abort())
        page.get_by_label("Answer", exact=True).select_option("bad")
        expect(page.get_by_text("The server cannot be reached right now.")).to_be_visible()
        expect(page.locator(LABELS)).to_have_count(20)
        page.unroute("**/api/v1/history*")
        page.get_by_label("Answer", exact=True).select_option("good")
        expect(page.locator(LABELS)).to_have_count(20)
        expect(page.locator("[data-slot=found]")).to_be_hidden()
