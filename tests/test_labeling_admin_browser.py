"""The admin page in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from data.feedback import BinaryAnswer, Submission
from labeling_app.tasks import TasksConfig
from tests.support.labeling_browser import (
    CHROMIUM,
    DESK,
    PHONE,
    Server,
    add_accounts,
    chromium,
    serving,
)
from tests.support.labeling_campaign import HOSTILE, Campaign, make_campaign

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing; `make test` installs it"
)

PASSWORD = "correct horse"
TEMPLATES = "${document.title = 'hacked'} {{value}} `"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign whose prompts, names and remarks want to be programs."""
    config = TasksConfig(binary_overlap=3, rankings_per_prompt=0)
    root = tmp_path_factory.mktemp("campaign")
    made = make_campaign(root, prompts=(HOSTILE, TEMPLATES), images=3, config=config)
    add_accounts(made, ["Eve", "Ben", HOSTILE, TEMPLATES], PASSWORD)
    with made.open_store() as store:
        store.raters.set_role(store.rater_id_of("human", "Eve"), "admin")
        for name in (HOSTILE, TEMPLATES):
            rater_id = store.rater_id_of("human", name)
            for number in range(3):
                claim = store.claim(rater_id)
                assert claim is not None
                unsafe = BinaryAnswer(verdict="unsafe", reason=HOSTILE, comment=TEMPLATES)
                answer = unsafe if number == 1 else BinaryAnswer(verdict="good", comment=name)
                store.submit(
                    Submission(
                        submission_id=f"{name} {number}",
                        task_id=claim.task.task_id,
                        rater_id=rater_id,
                        answer=answer,
                    )
                )
    return made


@pytest.fixture(scope="module")
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def open_admin_page(browser: Browser, server: Server, **context: object) -> Page:
    page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    page.on("dialog", lambda _dialog: pytest.fail("a remark was run as a program"))
    page.goto(f"{server.url}/admin")
    page.locator("[name=rater]").fill("Eve")
    page.locator("[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Among people.")).to_be_visible()
    expect(page.get_by_role("gridcell", name="Eve", exact=True)).to_be_visible()
    return page


def test_an_admin_pauses_raters_and_the_campaign_and_decides_about_images(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    page.get_by_role("gridcell", name="Ben", exact=True).click()
    expect(page.get_by_label("Rater (or choose")).to_have_value("Ben")
    page.get_by_role("button", name="Pause rater").click()
    expect(page.get_by_role("gridcell", name="paused", exact=True)).to_be_visible()
    page.get_by_role("button", name="Resume rater").click()
    expect(page.get_by_role("gridcell", name="paused", exact=True)).to_have_count(0)

    page.get_by_role("button", name="Pause the campaign").click()
    expect(page.locator("#progress")).to_contain_text("paused")
    page.get_by_role("button", name="Resume the campaign").click()
    expect(page.locator("#progress")).not_to_contain_text("paused")
    page.get_by_role("button", name="Export now").click()
    expect(page.locator("#exported")).to_contain_text("last export")

    thumbs = page.locator("#open .thumb")
    expect(thumbs).to_have_count(2)
    expect(thumbs.first.locator("img")).to_have_css("filter", "blur(14px)")
    thumbs.first.focus()
    expect(thumbs.first.locator("img")).to_have_css("filter", "none")
    page.locator("#open li").first.get_by_role("button", name="Put back").click()
    expect(thumbs).to_have_count(1)
    page.get_by_role("button", name="Remove the image").click()
    expect(thumbs).to_have_count(0)
    expect(page.locator("#removed-count")).to_have_text("1 removed")
    with campaign.open_store() as store:
        assert store.reports.count() == (0, 1)
    page.context.close()


def test_what_raters_wrote_is_shown_as_text_on_a_desk_and_a_phone(
    browser: Browser, server: Server
) -> None:
    for context in (DESK, PHONE):
        page = open_admin_page(browser, server, **context)
        for text in (HOSTILE, TEMPLATES):
            expect(page.get_by_role("gridcell", name=text, exact=True).first).to_be_attached()
        assert page.locator("img[src=x]").count() == 0
        assert page.title() == "Pictune: admin"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= context["viewport"]["width"]
        page.context.close()


def test_a_page_whose_sign_in_has_ended_asks_for_another(browser: Browser, server: Server) -> None:
    page = open_admin_page(browser, server, **DESK)
    page.request.post(f"{server.url}/api/v1/logout", headers={"X-Pictune": "1"})
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()  # with the next look
    assert "gradio" not in page.content()
    page.context.close()
