"""The labeling page in a real browser when things go wrong: no answer is dropped or misattributed.

Connections are lost, other tabs answer or sign in, and the server refuses an answer.
"""

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.labeling_browser import Server, images_of, kind_of, sign_in
from tests.support.labeling_campaign import HOSTILE, Campaign
from tests.support.labeling_rater import (
    PASSWORD,
    answer_by_keys,
    answers,
    expect_saved,
    leases_of,
    rater,
    wait_until,
)

pytestmark = pytest.mark.slow


def hold_all(page: Page, campaign: Campaign, name: str) -> int:
    """Waits until the page holds as many tasks as it may; returns how many."""
    asked = "fetch('/api/v1/progress').then((answer) => answer.json()).then(({ hold }) => hold)"
    hold = int(page.evaluate(asked))
    wait_until(lambda: leases_of(campaign, name) == hold)
    # The last call of a page that has all its tasks, which the server must have answered as well.
    answered = (
        "performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/aside'))"
    )
    page.wait_for_function(answered)
    return hold


@rater("Gil")
def test_a_task_that_another_tab_answers_is_taken_away(page: Page, server: Server) -> None:
    other = page.context.new_page()
    other.goto(server.url)
    kind_of(other)
    shown = images_of(page)
    assert images_of(other) == shown
    answer_by_keys(page)
    expect_saved(page, 1)
    # All images, since the next task may begin with the same one.
    wait_until(lambda: images_of(other) != shown)


@rater("Hal")
def test_an_answer_after_the_sign_in_ran_out_is_sent_at_the_next_sign_in(
    page: Page, campaign: Campaign
) -> None:
    # Or a task that is still being fetched would end the sign-in before there is an answer.
    hold_all(page, campaign, "Hal")
    page.context.clear_cookies()
    answer_by_keys(page)
    expect_signed_out(page)
    sign_in(page, "Hal", PASSWORD)
    expect_saved(page, 1)


@rater("Cleo")
def test_a_refused_answer_is_shown_until_the_rater_discards_it(
    page: Page, campaign: Campaign
) -> None:
    kind_of(page)
    put_aside_an_answer(page, task_id="of another campaign")
    answer_by_keys(page)
    page.get_by_role("button", name="See why").click()
    expect(page.locator("[data-slot=refusals] li")).to_contain_text("of another campaign")
    page.get_by_role("button", name="Discard").click()
    expect(page.locator("[data-slot=refusals]")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_text("not accepted by the server")).to_be_hidden()
    assert len(answers(campaign, "Cleo")) == 1


@rater("Eve")
def test_a_pause_of_the_campaign_ends_the_work_after_the_tasks_in_hand(
    page: Page, campaign: Campaign
) -> None:
    held = hold_all(page, campaign, "Eve")
    with campaign.open_store() as store:
        store.set_paused(True)
    try:
        for _ in range(held):
            answer_by_keys(page)  # what was handed out may still be answered
        expect(page.get_by_role("heading", name="Paused for now")).to_be_visible()
    finally:
        with campaign.open_store() as store:
            store.set_paused(False)
    page.keyboard.press("Enter")
    kind_of(page)
    assert len(answers(campaign, "Eve")) == held


def expect_signed_out(page: Page) -> None:
    told = "You are signed out. Your last answers are kept"
    expect(page.get_by_role("alert").first).to_contain_text(told)


def put_aside_an_answer(page: Page, task_id: str) -> None:
    """Puts an answer into the page's outbox, in the browser's storage."""
    answer = {
        "submission_id": "stray",
        "task_id": task_id,
        "answer": {"kind": "binary", "verdict": "good"},
    }
    entry = {"submission": answer, "prompt": HOSTILE, "at": 1}
    keys: list[str] = page.evaluate("Object.keys(localStorage)")
    current = next(key for key in keys if key.startswith("pictune.current."))
    key = current.replace("current", "answers") + ".stray"
    page.evaluate("([key, entry]) => localStorage.setItem(key, entry)", [key, json.dumps(entry)])


@rater("Fay")
def test_tabs_follow_the_rater_who_signed_in_last(page: Page, server: Server) -> None:
    other = page.context.new_page()
    other.goto(server.url)
    other.get_by_role("button", name="Sign out").click()
    sign_in(other, "Ben", PASSWORD)
    expect(page.locator(".who")).to_have_text("Ben")
    kind_of(page)
    other.goto(f"{server.url}/admin")
    other.locator("[name=rater]").fill("Cleo")
    other.locator("[name=password]").fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(page.locator(".who")).to_have_text("Cleo")


@rater("Fay")
def test_what_the_rater_before_asked_for_cannot_sign_out_the_next(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:  # Playwright cannot call a method of a list
        held.append(route)

    page.route("**/claim", hold, times=1)
    with page.expect_request("**/claim"):
        answer_by_keys(page)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Your name").fill("Ben")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".who")).to_have_text("Ben")
    held[0].fulfill(status=401, json={"detail": "You are signed out."})
    kind_of(page)


@rater("Fay")
def test_an_answer_is_never_saved_for_somebody_who_signed_in_unseen(
    page: Page, campaign: Campaign, server: Server
) -> None:
    before = {name: len(answers(campaign, name)) for name in ("Ben", "Fay")}
    hold_all(page, campaign, "Fay")  # or a task that is still being fetched would hear of it first
    page.wait_for_load_state("networkidle")
    ben = {"rater": "Ben", "password": PASSWORD}
    assert page.request.post(f"{server.url}/api/v1/login", data=ben).ok  # the page is not called
    answer_by_keys(page)
    expect_signed_out(page)
    sign_in(page, "Fay", PASSWORD)
    expect(page.locator(".saved")).to_have_text("Saved ✓")
    after = {name: len(answers(campaign, name)) for name in before}
    assert after == before | {"Fay": before["Fay"] + 1}
