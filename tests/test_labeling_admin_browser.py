"""The admin page in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from data.feedback import Claim, Submission
from data.kinds.ranking import RankingAnswer
from data.kinds.registry import TaskKind
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.views.overview import latest_labels
from labeling_app.campaign.tasks import TasksConfig
from tests.support.data_campaign import count_reported
from tests.support.labeling_admin import (
    PASSWORD,
    choose_rater,
    go_to,
    open_admin_page,
    rater_row,
)
from tests.support.labeling_browser import (
    CHROMIUM,
    DESK,
    PHONE,
    TABS,
    Server,
    add_accounts,
    chromium,
    serving,
)
from tests.support.labeling_campaign import HOSTILE, Campaign, make_campaign

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing; `make test` installs it"
)

TEMPLATES = "${document.title = 'hacked'} {{value}} `"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign whose prompts, names and remarks want to be programs."""
    config = TasksConfig(binary_overlap=4, rankings_per_prompt=1, ranking_size=3, ranking_overlap=2)
    root = tmp_path_factory.mktemp("campaign")
    made = make_campaign(root, prompts=(HOSTILE, TEMPLATES), images=3, config=config)
    add_accounts(made, ["Eve", "Ann", "Ben", HOSTILE, TEMPLATES], PASSWORD)
    with made.open_store() as store:
        store.raters.set_role(store.rater_id_of("human", "Eve"), "admin")
        for name in (HOSTILE, TEMPLATES):
            rater_id = store.rater_id_of("human", name)
            reported = False
            while (claim := store.claim(rater_id, kind="binary")) is not None:
                unsafe = BinaryAnswer(verdict="unsafe", reason=HOSTILE, comment=TEMPLATES)
                report = not reported and claim.task.prompt == HOSTILE
                store.submit(
                    Submission(
                        submission_id=f"{name} {claim.task.task_id}",
                        task_id=claim.task.task_id,
                        rater_id=rater_id,
                        answer=unsafe if report else BinaryAnswer(verdict="good", comment=name),
                    )
                )
                reported = reported or report
        disagree(store)
    return made


def disagree(store: FeedbackStore) -> None:
    """Let Ann and Ben disagree on one image and on one ranking."""
    for name, verdict, first in (("Ann", "good", 1), ("Ben", "bad", 3)):
        rater_id = store.rater_id_of("human", name)
        kinds: tuple[TaskKind, ...] = ("binary", "ranking")
        for kind in kinds:
            claim = first_of(store, rater_id, kind)
            ranks = {
                image_id: abs(first - number)
                for number, image_id in enumerate(claim.task.image_ids, start=1)
            }
            answer = (
                BinaryAnswer.model_validate({"verdict": verdict})
                if kind == "binary"
                else RankingAnswer(ranks={image_id: rank + 1 for image_id, rank in ranks.items()})
            )
            store.submit(
                Submission(
                    submission_id=f"{name} {kind}",
                    task_id=claim.task.task_id,
                    rater_id=rater_id,
                    answer=answer,
                )
            )


def first_of(store: FeedbackStore, rater_id: str, kind: TaskKind) -> Claim:
    """Claim tasks of a kind until the one of the smallest id that is not withheld comes."""
    held: list[Claim] = []
    while True:
        claim = store.claim(rater_id, kind=kind, excluding=[one.task.task_id for one in held])
        if claim is None:
            return min(held, key=lambda one: one.task.task_id)
        held.append(claim)


@pytest.fixture(scope="module")
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def test_an_admin_pauses_raters_and_the_campaign_and_decides_about_images(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    page.get_by_role("button", name="Pause the campaign").click()
    expect(page.locator("#progress")).to_contain_text("paused")
    page.get_by_role("button", name="Resume the campaign").click()
    expect(page.locator("#progress")).not_to_contain_text("paused")
    page.get_by_role("button", name="Export now").click()
    expect(page.locator("#progress")).to_contain_text("last export")

    reported = page.locator("#reported .grid-container button")
    expect(reported).to_have_count(2)
    expect(reported.first.locator("img")).to_have_css("filter", "blur(14px)")
    reported.first.focus()
    expect(reported.first.locator("img")).to_have_css("filter", "none")
    page.get_by_role("button", name="Put back", exact=True).click()
    expect(reported).to_have_count(1)
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_label("Reported image: 0 wait, 1 removed")).to_be_visible()
    expect(reported).to_have_count(0)
    with campaign.open_store() as store:
        assert count_reported(store) == (0, 1)
    go_to(page, "Audit")
    expect(page.get_by_role("grid", name="Audit")).to_contain_text("state: open → removed")

    go_to(page, "Raters")
    choose_rater(page, "Ben")
    page.get_by_role("button", name="Pause rater").click()
    expect(rater_row(page, "Ben")).to_contain_text("paused")
    page.get_by_role("button", name="Resume rater").click()
    expect(rater_row(page, "Ben")).not_to_contain_text("paused")
    page.context.close()


def test_an_admin_adds_a_rater_who_signs_in_with_the_password_that_is_shown_once(
    browser: Browser, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    go_to(page, "Raters")
    page.get_by_label("Name", exact=True).fill("Zoe")
    page.get_by_role("button", name="Add rater").click()
    shown = page.get_by_label("Password of Zoe (rater)")
    expect(shown).to_be_visible()
    password = shown.input_value()
    expect(rater_row(page, "Zoe")).to_contain_text("active")
    choose_rater(page, "Zoe")
    page.get_by_role("button", name="Set role").click()
    expect(shown).to_have_count(0)
    rater = browser.new_context().new_page()
    rater.set_default_timeout(60_000)
    rater.goto(server.url)
    rater.get_by_label("Your name").fill("Zoe")
    rater.get_by_label("Password").fill(password)
    rater.keyboard.press("Enter")
    rater.locator("[data-show=task]:visible, [data-show=rest]:visible").wait_for()
    rater.context.close()
    page.context.close()


def test_an_admin_decides_disputes_by_verdict_and_by_ranks(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    task = page.get_by_label("Disputed task")
    answers = page.get_by_role("grid", name="Answers")
    task.click()
    page.get_by_role("option", name="· binary ·").click()
    expect(answers).to_contain_text("bad")
    for name, word in (("Ann", "good"), ("Ben", "bad")):
        row = answers.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
        expect(row).to_contain_text(word)
    page.get_by_label("Comment", exact=True).fill("It is none.")
    page.get_by_role("button", name="Bad", exact=True).click()
    expect(page.get_by_label("Disputed task: 1 wait, 1 decided")).to_be_visible()
    for place, rank in enumerate(("2", "1"), start=1):
        page.get_by_label(f"Rank of image {place}").fill(rank)
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.get_by_label("Disputed task: 0 wait, 2 decided")).to_be_visible()
    with campaign.open_store() as store:
        given = latest_labels(store, source="adjudicator", limit=9)
    ranking, verdict = (label.answer for label in given)
    assert verdict == BinaryAnswer(verdict="bad", comment="It is none.")
    assert isinstance(ranking, RankingAnswer)
    assert [ranking.ranks[one] for one in given[0].task.image_ids] == [2, 1, None]
    task.click()
    page.get_by_role("option", name="decided: 1.").click()
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_label("Disputed task: 1 wait, 1 decided")).to_be_visible()
    page.context.close()


def test_tables_sort_by_numbers_and_stay_sorted_when_figures_change(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    go_to(page, "Raters")
    table = page.get_by_role("grid", name="Raters")

    cells = table.locator("[role=gridcell][aria-colindex='5']")
    expect(cells).not_to_have_count(0)

    def labels() -> list[int]:
        return [int(text) for text in cells.all_inner_texts()]

    header = table.get_by_role("columnheader").nth(4)
    header.hover()
    header.get_by_label("Open cell menu").click()
    page.get_by_text("Sort descending").click()
    expect(header.get_by_role("img").or_(header.locator("svg")).first).to_be_visible()
    assert labels() == sorted(labels(), reverse=True)
    assert len(set(labels())) > 1
    with campaign.open_store() as store:
        store.add_rater("A late rater")
    expect(rater_row(page, "A late rater")).to_be_visible()  # with the next look
    assert labels() == sorted(labels(), reverse=True)
    page.context.close()


def test_a_late_answer_takes_neither_the_choice_nor_the_typed_text(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    held: list[Route] = []

    def asks_for_figures(request: Request) -> bool:
        return '{"data":["http' in (request.post_data or "")

    def hold_first_tick(route: Route) -> None:
        if held or not asks_for_figures(route.request):
            route.continue_()
        else:
            held.append(route)

    page.route("**/run/predict", hold_first_tick)
    task = page.get_by_label("Disputed task")
    before = task.input_value()
    while not held:
        page.wait_for_timeout(200)
    with campaign.open_store() as store:
        store.add_rater("Another late rater")
    late = held[0].fetch()
    task.click()
    page.get_by_role("option", name="decided: 1.").click()
    expect(page.get_by_role("button", name="Take back")).to_be_visible()
    chosen = task.input_value()
    assert chosen != before
    comment = page.get_by_label("Comment", exact=True)
    comment.fill("Half a sentence")
    held[0].fulfill(response=late)
    for _ in range(2):
        with page.expect_response(lambda answer: asks_for_figures(answer.request)):
            pass  # the next tick sees what the late answer left behind
    expect(comment).to_have_value("Half a sentence")
    expect(task).to_have_value(chosen)
    page.context.close()


def test_what_raters_wrote_is_shown_as_text_on_a_desk_and_a_phone(
    browser: Browser, server: Server
) -> None:
    for context in (DESK, PHONE):
        page = open_admin_page(browser, server, **context, color_scheme="dark")
        for tab in TABS:
            go_to(page, tab)
            page.wait_for_timeout(500)
            assert page.locator("img[src=x]").count() == 0
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= context["viewport"]["width"]
        go_to(page, "Labels")
        for text in (HOSTILE, TEMPLATES):
            expect(page.locator("#labels").get_by_text(text).first).to_be_attached()
        assert page.title() == "Pictune: admin"
        expect(page.locator("body")).to_have_css("background-color", "rgb(20, 22, 27)")
        page.context.close()


def test_an_admin_looks_at_a_raters_labels_and_leaves_the_rater_out(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    go_to(page, "Labels")
    images = page.locator("#labels .grid-container button")
    expect(images).to_have_count(9)  # six verdicts and a ranking of three
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    go_to(page, "Raters")
    choose_rater(page, "Ben")
    page.get_by_role("button", name="Look at their labels").click()
    expect(images).to_have_count(4)
    # also what others said about the images that Ben saw
    expect(images.filter(has_text="Ben: bad")).to_contain_text("Ann: good")
    expect(images.filter(has_text="Ben: rank 1")).to_contain_text("Ann: rank")
    expect(page.get_by_role("combobox", name="Of the rater")).to_have_value("Ben")
    page.get_by_label("Words of the prompt").fill("no such word")
    page.keyboard.press("Enter")
    expect(images).to_have_count(0)
    page.get_by_label("Words of the prompt").fill("")
    page.keyboard.press("Enter")
    expect(images).to_have_count(4)
    page.get_by_label("Given until").fill("2020-01-31")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There are no such labels.")).to_be_visible()
    page.get_by_label("Given until").fill("2120-01-31 14:30")
    page.keyboard.press("Enter")
    expect(images).to_have_count(4)
    page.get_by_label("Given until").fill("tomorrow")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("until: ")

    with campaign.open_store() as store:
        before = store.progress().done
        go_to(page, "Raters")
        page.get_by_role("button", name="Leave out").click()
        expect(rater_row(page, "Ben")).to_contain_text("left out")
        assert store.progress().done < before
        page.get_by_role("button", name="Resume rater").click()
        expect(rater_row(page, "Ben")).not_to_contain_text("left out")
        assert store.progress().done == before
    page.context.close()


def test_a_page_whose_sign_in_has_ended_asks_for_another(browser: Browser, server: Server) -> None:
    page = open_admin_page(browser, server, **DESK)
    page.request.post(f"{server.url}/api/v1/logout", headers={"X-Pictune": "1"})
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()  # with the next look
    assert "gradio" not in page.content()
    page.context.close()
