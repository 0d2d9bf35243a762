"""The raters' page without its server: it opens, takes answers, and loses and doubles none."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from labeling_app.campaign.tasks import TasksConfig
from tests.support import labeling_browser, labeling_rater
from tests.support.labeling_browser import IMAGES, PHONE, SETTINGS, Server, images_of, serving
from tests.support.labeling_campaign import Campaign
from tests.support.labeling_rater import answer_by_keys, answers, wait_until

pytestmark = pytest.mark.slow

KEPT = "JSON.parse(localStorage['pictune.kept'] ?? 'null')"
ALL_KEPT = f"""async () => {{
  const kept = {KEPT};
  if (!kept?.progress || kept.tasks.length !== kept.progress.hold) return false;
  const urls = kept.tasks.flatMap(({{ images }}) => images.map(({{ url }}) => url));
  const images = await caches.open("pictune.images");
  for (const url of urls) if (!await images.match(url)) return false;
  const names = (await caches.keys()).filter((name) => name.startsWith("pictune.page."));
  const files = await (await caches.open(names[0])).keys();
  return names.length === 1 && files.length > 10 && navigator.serviceWorker.controller !== null;
}}"""
"""JavaScript: whether the device has one version of the page, all tasks due and their images."""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return labeling_rater.prepare(
        tmp_path, TasksConfig(rankings_per_prompt=5, ranking_size=3), images=30
    )


@pytest.fixture
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Server) -> Page:
    page = labeling_rater.at_work(browser, server.url, "Ann", PHONE)
    wait_until(lambda: page.evaluate(ALL_KEPT))
    return page


def reload(page: Page) -> None:
    page.reload()
    page.locator(IMAGES).first.wait_for()
    drawn = "(images) => images.every(({ naturalWidth }) => naturalWidth > 0)"
    assert page.locator(IMAGES).evaluate_all(drawn)


def test_a_reload_without_a_server_goes_on_and_no_answer_is_lost_or_doubled(
    page: Page, server: Server, campaign: Campaign
) -> None:
    server.end(signal.SIGKILL)
    waiting = "n => Object.keys(localStorage).filter((key) => /answers/.test(key)).length === n"
    for given in range(6):
        before = images_of(page)
        reload(page)
        assert images_of(page) == before
        answer_by_keys(page)
        page.wait_for_function(waiting, arg=given + 1)
    expect(page.locator(".who")).to_have_text("Ann")
    expect(page.get_by_text("6 answers are kept in this browser")).to_be_visible()
    server.start()
    wait_until(lambda: len(answers(campaign, "Ann")) > 0)
    server.end(signal.SIGKILL)
    server.start()
    wait_until(lambda: len(answers(campaign, "Ann")) == 6)
    expect(page.locator(".saved")).to_have_text("Saved ✓")
    stored = [answer["row"] for answer in answers(campaign, "Ann")]
    assert len({row.task_id for row in stored}) == len(stored) == 6
    assert {row.revision for row in stored} == {1}


def test_nobody_sees_what_was_kept_of_the_rater_before(page: Page, server: Server) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Your name").wait_for()
    count = "async () => (await (await caches.open('pictune.images')).keys()).length"
    wait_until(lambda: page.evaluate(count) == 0)
    assert page.evaluate(KEPT) is None
    labeling_browser.sign_in(page, "Ben", labeling_rater.PASSWORD)
    wait_until(lambda: page.evaluate(ALL_KEPT))
    server.end(signal.SIGKILL)
    reload(page)
    expect(page.locator(".who")).to_have_text("Ben")
    # Cleo has signed in on the admin page, which says so in the same place
    page.evaluate("localStorage.setItem('pictune.rater', 'Cleo')")
    page.reload()
    expect(page.get_by_text("The server cannot be reached")).to_be_visible()
    assert not page.locator("[data-show=task]").is_visible()
    assert page.locator(".who").text_content() == ""


def test_a_new_version_is_told_and_never_forced(page: Page, server: Server, tmp_path: Path) -> None:
    told = page.get_by_text("A new version of this page is there")
    page.evaluate("document.documentElement.dataset.old = 'yes'")
    guidelines = tmp_path / "guidelines.md"
    guidelines.write_text("Other guidelines.")
    for settings in ({}, {"guidelines": str(guidelines)}):
        server.end(signal.SIGTERM)
        (tmp_path / SETTINGS).write_text(json.dumps(settings))
        server.start()
        page.evaluate("navigator.serviceWorker.getRegistration().then((one) => one.update())")
        answer_by_keys(page)
        expect(page.locator(".saved")).to_have_text("Saved ✓")
        expect(told).to_be_visible(visible=bool(settings))
    assert page.locator("html[data-old]").count() == 1
    page.get_by_role("button", name="Reload").click()
    expect(page.get_by_text("Other guidelines.")).to_be_visible()
    wait_until(lambda: page.evaluate(ALL_KEPT))
    server.end(signal.SIGKILL)
    reload(page)
    expect(told).to_be_hidden()
    expect(page.locator("#guidelines")).to_contain_text("Other guidelines.")
