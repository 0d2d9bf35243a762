"""Reports in a real browser: what one rater reports, no other is shown, and an admin decides."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect

from data.tables import leases, task_images
from labeling_app.tasks import TasksConfig
from tests.labeling_browser import (
    CHROMIUM,
    DESK,
    PATIENCE_S,
    PICTURES,
    add_accounts,
    chromium,
    kind_of,
    open_page,
    pictures_of,
    serving,
    sign_in,
)
from tests.labeling_campaign import HOSTILE, Campaign, make_campaign

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing; `make test` installs it"
)

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def prepare(root: Path, config: TasksConfig, images: int) -> Campaign:
    campaign = make_campaign(root, prompts=(HOSTILE,), images=images, config=config)
    add_accounts(campaign, ["Ann", "Ben", "Eve"], PASSWORD)
    with campaign.open_store() as store:
        store.raters.set_role(store.rater_id_of("human", "Eve"), "admin")
    return campaign


def enter(browser: Browser, url: str, name: str) -> Page:
    page = open_page(browser, url, **DESK)
    sign_in(page, name, PASSWORD)
    page.get_by_label("Close the guidelines").click()
    return page


def handed_out(campaign: Campaign, name: str) -> list[str]:
    """The images that a rater was given, one a task, in that order."""
    with campaign.open_store() as store, store.database.read() as connection:
        mine = sa.select(task_images.c.image_id).join(
            leases, leases.c.task_id == task_images.c.task_id
        )
        mine = mine.where(leases.c.rater_id == store.rater_id_of("human", name)).order_by(
            leases.c.shown_at
        )
        return list(connection.scalars(mine))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def url_of(image_id: str) -> str:
    return f"/api/v1/images/{image_id}"


def press(page: Page, *keys: str) -> None:
    """Presses keys once the task has been on the screen for long enough to be looked at."""
    page.wait_for_timeout(400)
    for key in keys:
        page.keyboard.press(key)


def answer_all(page: Page) -> None:
    """Calls all images good that are left."""
    while page.locator("[data-show=rest]").is_hidden():
        press(page, "1")


def report_when_shown(page: Page, image_id: str) -> None:
    """Calls all images good until this one comes, and reports that."""
    while (shown := pictures_of(page)) != [url_of(image_id)]:
        press(page, "1")
        expect(page.locator(PICTURES).first).not_to_have_attribute("src", shown[0])
    press(page, "4", "2")
    expect(page.locator(".saved")).to_have_text("Saved ✓")


def test_nobody_else_is_shown_what_was_reported_until_an_admin_puts_it_back(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(binary_overlap=2, rankings_per_prompt=0), images=6)
    with serving(tmp_path) as server:
        ben = enter(browser, server.url, "Ben")
        kind_of(ben)
        ben.evaluate(
            """() => {
                window.seen = [];
                const stage = document.querySelector(".stage");
                const note = () => window.seen.push(...[...stage.children].map((image) => image.getAttribute("src")));
                new MutationObserver(note).observe(stage, { childList: true });
            }"""
        )
        wait_until(lambda: len(handed_out(campaign, "Ben")) == 3)
        first, second, third = handed_out(campaign, "Ben")
        assert pictures_of(ben) == [url_of(first)]

        ann = enter(browser, server.url, "Ann")
        report_when_shown(ann, second)
        wait_until(
            lambda: len(handed_out(campaign, "Ben")) == 4
        )  # the page has heard of it and asked for another
        press(ben, "1")
        expect(ben.locator(PICTURES)).to_have_attribute("src", url_of(third))

        report_when_shown(ann, third)  # while Ben looks at it
        expect(ben.locator(PICTURES)).not_to_have_attribute("src", url_of(third))
        answer_all(ben)
        ann.keyboard.press("h")
        expect(ann.locator("[data-slot=labels] li").first).to_contain_text(
            "Reported as unsafe: Violent or cruel"
        )
        assert (
            ann.locator("[data-slot=labels] img").count()
            == ann.locator("[data-slot=labels] li").count() - 2
        )

        eve = enter(browser, server.url, "Eve")
        eve.goto(f"{server.url}/admin")
        thumbs = eve.locator("#open .thumb")
        expect(thumbs).to_have_count(2)
        expect(thumbs.first.locator("img")).to_have_attribute("src", url_of(second))
        expect(thumbs.first.locator("img")).to_have_css("filter", "blur(14px)")
        thumbs.first.focus()
        expect(thumbs.first.locator("img")).to_have_css("filter", "none")
        eve.wait_for_function(
            "[...document.querySelectorAll('.thumb img')].every((image) => image.naturalWidth === 64)"
        )
        expect(eve.locator("#open tr").nth(1)).to_contain_text("Ann: Violent or cruel")
        eve.locator("#open tr").nth(1).get_by_role("button", name="Put back").click()
        expect(thumbs).to_have_count(1)
        eve.get_by_role("button", name="Remove the image").click()
        expect(thumbs).to_have_count(0)
        expect(eve.locator("#removed-count")).to_have_text("1 removed")

        assert url_of(second) not in ben.evaluate("window.seen")
        ben.keyboard.press("Enter")  # looks again
        expect(ben.locator(PICTURES)).to_have_attribute("src", url_of(second))
        answer_all(ben)
        for page in (ann, ben, eve):
            page.context.close()


def test_a_ranking_skipped_as_unsafe_asks_which_image_and_undo_takes_it_back(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(
        tmp_path, TasksConfig(binary_overlap=0, rankings_per_prompt=1, ranking_size=4), images=4
    )
    with serving(tmp_path) as server:
        page = enter(browser, server.url, "Ann")
        assert kind_of(page) == "ranking"
        shown = pictures_of(page)
        press(page, "s", "4")
        expect(page.get_by_role("heading", name="Which image should nobody see?")).to_be_visible()
        page.keyboard.press("Enter")  # none is named yet
        press(page, "1", "3", "1", "2", "Enter")  # the second 1 takes the first back
        expect(page.get_by_role("heading", name="All done")).to_be_visible()
        with campaign.open_store() as store:
            images = store.reports.images()
            assert {url_of(image.image_id) for image in images} == {shown[1], shown[2]}
            assert [image.reports[0].reason for image in images] == ["A picture is unsafe"] * 2
            page.keyboard.press("u")
            expect(page.locator(PICTURES)).to_have_count(4)
            assert pictures_of(page) == shown
            assert store.reports.images() == []
        page.context.close()
