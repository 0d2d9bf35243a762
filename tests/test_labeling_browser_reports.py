"""Reports in a real browser: what one rater reports, no other is shown, and an admin decides."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, Request, expect

from data.store.plan.planning import task_id_of
from data.store.tables import leases, task_images
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import IMAGES, images_of, kind_of, see, serving
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import at_work, prepare, wait_until

pytestmark = pytest.mark.slow

NOTE_WHAT_IS_SHOWN = """
() => {
  window.seen = [];
  const stage = document.querySelector(".stage");
  const note = () => {
    for (const image of stage.querySelectorAll("img")) window.seen.push(image.getAttribute("src"));
  };
  new MutationObserver(note).observe(stage, { childList: true });
}
"""


def handed_out(campaign: Campaign, name: str) -> list[str]:
    """The images that a rater was given, one a task, in that order."""
    with campaign.open_store() as store, store.database.read() as connection:
        of_task = leases.c.task_id == task_images.c.task_id
        mine = leases.c.rater_id == store.rater_id_of("human", name)
        images = sa.select(task_images.c.image_id).join(leases, of_task).where(mine)
        return list(connection.scalars(images.order_by(leases.c.shown_at)))


def url_of(image_id: str) -> str:
    return f"/api/v1/images/{image_id}"


def press(page: Page, *keys: str) -> None:
    """Presses keys once the task has been on the screen for long enough to be looked at."""
    see(page)
    for key in keys:
        page.keyboard.press(key)


def answer_all(page: Page) -> None:
    """Calls all images good that are left."""
    while page.locator("[data-show=rest]").is_hidden():
        press(page, "1")


def report_when_shown(page: Page, image_id: str) -> None:
    """Calls all images good until this one comes, and reports that."""
    while (shown := images_of(page)) != [url_of(image_id)]:
        press(page, "1")
        expect(page.locator(IMAGES).first).not_to_have_attribute("src", shown[0])
    press(page, "4", "2")
    expect(page.locator(".saved")).to_have_text("Saved ✓")


def test_nobody_else_is_shown_what_was_reported_until_an_admin_puts_it_back(
    browser: Browser, tmp_path: Path
) -> None:
    config = TasksConfig(binary_overlap=2, rankings_per_prompt=0)
    campaign = prepare(tmp_path, config, images=6)
    with serving(tmp_path) as server:
        ben = at_work(browser, server.url, "Ben")
        kind_of(ben)
        ben.evaluate(NOTE_WHAT_IS_SHOWN)
        wait_until(lambda: len(handed_out(campaign, "Ben")) == 6)
        first, second, third, *_ = handed_out(campaign, "Ben")
        assert images_of(ben) == [url_of(first)]

        ann = at_work(browser, server.url, "Ann")
        task = next(task_id_of(task) for task in campaign.tasks if task.image_ids == (second,))

        def has_learned(request: Request) -> bool:
            return "/progress?" in request.url and task not in request.url

        with ben.expect_request(has_learned):
            report_when_shown(ann, second)
        press(ben, "1")
        expect(ben.locator(IMAGES)).to_have_attribute("src", url_of(third))

        report_when_shown(ann, third)  # while Ben looks at it
        expect(ben.locator(IMAGES)).not_to_have_attribute("src", url_of(third))
        answer_all(ben)
        ann.keyboard.press("h")
        labels = ann.locator("[data-slot=labels] li")
        expect(labels.first).to_contain_text("Reported as unsafe: Violent or cruel")
        assert ann.locator("[data-slot=labels] img").count() == labels.count() - 2

        with campaign.open_store() as store:  # the admin page has tests of its own
            by = store.rater_id_of("human", "Ann")
            store.reports.decide(second, "kept", by)
            store.reports.decide(third, "removed", by)
        assert url_of(second) not in ben.evaluate("window.seen")
        ben.keyboard.press("Enter")  # looks again
        expect(ben.locator(IMAGES)).to_have_attribute("src", url_of(second))
        answer_all(ben)


def test_a_ranking_skipped_as_unsafe_asks_which_image_and_undo_takes_it_back(
    browser: Browser, tmp_path: Path
) -> None:
    config = TasksConfig(binary_overlap=0, rankings_per_prompt=1, ranking_size=4)
    campaign = prepare(tmp_path, config, images=4)
    with serving(tmp_path) as server:
        page = at_work(browser, server.url, "Ann")
        assert kind_of(page) == "ranking"
        shown = images_of(page)
        press(page, "s", "4")
        expect(page.get_by_role("heading", name="Which image should nobody see?")).to_be_visible()
        page.keyboard.press("Enter")  # none is named yet
        press(page, "1", "3", "1", "2", "Enter")  # the second 1 takes the first back
        expect(page.get_by_role("heading", name="All done")).to_be_visible()
        with campaign.open_store() as store:
            images = store.reports.images()
            assert {url_of(image.image_id) for image in images} == {shown[1], shown[2]}
            assert [image.reports[0].reason for image in images] == ["An image is unsafe"] * 2
            page.keyboard.press("u")
            expect(page.locator(IMAGES)).to_have_count(4)
            assert images_of(page) == shown
            assert store.reports.images() == []
