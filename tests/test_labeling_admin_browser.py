"""The admin page in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from data.feedback import Claim, Submission
from data.kinds.ranking import RankingAnswer
from data.kinds.registry import TaskKind
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.views.overview import latest_labels
from labeling_app.campaign.tasks import TasksConfig
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


def open_admin_page(browser: Browser, server: Server, **context: object) -> Page:
    page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    page.on("dialog", lambda _dialog: pytest.fail("a remark was run as a program"))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(f"{server.url}/admin")
    page.locator("[name=rater]").fill("Eve")
    page.locator("[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Among people.")).to_be_visible()
    expect(rater_row(page, "Eve")).to_be_visible()
    return page


def rater_row(page: Page, name: str) -> Locator:
    return page.locator("#by-rater tr").filter(has=page.get_by_label(f"Change {name}", exact=True))


def form(page: Page, title: str) -> Locator:
    return page.locator("form").filter(has=page.get_by_role("heading", name=title, exact=True))


def test_an_admin_pauses_raters_and_the_campaign_and_decides_about_images(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    rater_row(page, "Ben").get_by_label("Change Ben", exact=True).click()
    expect(page.get_by_label("Rater (or choose")).to_have_value("Ben")
    page.get_by_role("button", name="Pause rater").click()
    expect(rater_row(page, "Ben")).to_contain_text("paused")
    page.get_by_role("button", name="Resume rater").click()
    expect(rater_row(page, "Ben")).not_to_contain_text("paused")

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
    expect(page.locator("#trail")).to_contain_text("state: open → removed")
    page.context.close()


def test_an_admin_adds_a_rater_who_signs_in_with_the_password_that_is_shown_once(
    browser: Browser, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    add = form(page, "Add a rater")
    add.get_by_label("Name").fill("Zoe")
    add.get_by_role("button", name="Add rater").click()
    password = page.locator("#given code").inner_text()
    expect(rater_row(page, "Zoe")).to_contain_text("active")
    change = form(page, "Change a rater")
    change.get_by_label("Rater (or").fill("Zoe")
    change.get_by_label("Share of the labels").fill("5")
    change.get_by_role("button", name="Set share").click()
    expect(rater_row(page, "Zoe")).to_contain_text("at most 5 %")
    expect(page.locator("#given")).not_to_contain_text(password)
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
    disputed = page.locator("#disputes form[data-event=adjudicate]")
    expect(disputed).to_have_count(2)
    single = disputed.filter(has=page.get_by_role("button", name="Bad:"))
    expect(single).to_contain_text("Ann good")
    expect(single).to_contain_text("Ben bad")
    single.get_by_label("Comment on").fill("It is none.")
    single.get_by_role("button", name="Bad:").click()
    expect(disputed).to_have_count(1)
    ranks = disputed.locator("input[type=number]")
    for rank, field in zip(("2", "1", ""), ranks.all(), strict=True):
        field.fill(rank)
    page.evaluate("document.querySelector('#disputed [name=comment]').blur()")
    disputed.get_by_role("button", name="Decide").click()
    expect(disputed).to_have_count(0)
    expect(page.locator("#decided-count")).to_have_text("2 decided")
    with campaign.open_store() as store:
        given = latest_labels(store, source="adjudicator", limit=9)
    ranking, verdict = (label.answer for label in given)
    assert verdict == BinaryAnswer(verdict="bad", comment="It is none.")
    assert isinstance(ranking, RankingAnswer)
    assert list(ranking.ranks.values()) == [2, 1, None]
    page.locator("#decided-count").click()
    page.locator("#decided").get_by_role("button", name="Take back").first.click()
    expect(page.locator("#decided-count")).to_have_text("1 decided")
    expect(page.locator("#decided")).to_be_visible()  # what was opened stays open
    page.context.close()


def test_tables_sort_by_numbers_and_stay_sorted_when_figures_change(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)

    def column(number: int) -> list[str]:
        cells = page.locator(f"#by-rater tbody td:nth-child({number})")
        return [text.strip() for text in cells.all_inner_texts()]

    page.locator("#by-rater th button", has_text="Labels").click()
    labels = [int(text) for text in column(4)]
    assert labels == sorted(labels, reverse=True)
    assert len(set(labels)) > 1
    header = page.locator("#by-rater th").nth(3)
    expect(header).to_have_attribute("aria-sort", "descending")
    page.locator("#by-rater th button", has_text="Labels").click()
    with campaign.open_store() as store:
        store.add_rater("A late rater")
    expect(rater_row(page, "A late rater")).to_be_visible()  # with the next look
    labels = [int(text) for text in column(4)]
    assert labels == sorted(labels)
    page.context.close()


def test_a_half_typed_answer_outlives_new_figures(
    browser: Browser, campaign: Campaign, server: Server
) -> None:
    page = open_admin_page(browser, server, **DESK)
    field = page.get_by_label("People per binary task")
    field.fill("17")
    with campaign.open_store() as store:
        store.plan.set_overlap("ranking", 5, store.rater_id_of("human", "Eve"))
    expect(page.get_by_label("People per ranking task (now 5)")).to_be_visible()
    expect(field).to_have_value("17")
    expect(field).to_be_focused()
    page.get_by_role("button", name="Set overlap of binary tasks").click()
    expect(page.get_by_label("People per binary task (now 17)")).to_be_visible()
    page.context.close()


def test_gold_comes_from_a_file_and_tables_go_into_one(
    browser: Browser, campaign: Campaign, server: Server, tmp_path: Path
) -> None:
    page = open_admin_page(browser, server, **DESK)
    first, second, *_ = campaign.paths
    file = tmp_path / "known.csv"
    file.write_text(f"images,answer\n{first},good\nnothing,bad\n", encoding="utf-8")
    page.locator("#gold [name=file]").set_input_files(file)
    page.get_by_role("button", name="Add gold").click()
    expect(page.locator("#notice")).to_contain_text("known.csv:3: images: nothing not of this run")
    file.write_text(f"images,answer\n{first},good\n{second},bad\n", encoding="utf-8")
    page.locator("#gold [name=file]").set_input_files(file)
    page.get_by_role("button", name="Add gold").click()
    expect(page.locator("#notice")).to_contain_text("2 gold tasks added")
    page.locator("#gold [name=file]").set_input_files(
        {"name": "large.csv", "mimeType": "text/csv", "buffer": b"x" * 70_000}
    )
    page.get_by_role("button", name="Add gold").click()
    expect(page.locator("#gold .note")).to_contain_text("larger than 60 kB")
    page.context.close()


def test_what_raters_wrote_is_shown_as_text_on_a_desk_and_a_phone(
    browser: Browser, server: Server
) -> None:
    for context in (DESK, PHONE):
        page = open_admin_page(browser, server, **context, color_scheme="dark")
        for text in (HOSTILE, TEMPLATES):
            expect(page.get_by_text(text, exact=True).first).to_be_attached()
        assert page.locator("img[src=x]").count() == 0
        assert page.title() == "Pictune: admin"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= context["viewport"]["width"]
        surface = page.locator(".scroll").first
        expect(surface).to_have_css("background-color", "rgb(29, 32, 39)")
        page.context.close()


def test_a_phone_sorts_by_a_list_and_shows_every_figure_of_a_rater(
    browser: Browser, server: Server
) -> None:
    page = open_admin_page(browser, server, **PHONE)
    page.locator("[data-sorts=by-rater]").select_option("0 up")
    names = [name.strip() for name in page.locator("#by-rater td:first-child").all_inner_texts()]
    plain = [name for name in names if name[0].isalpha()]
    assert len(plain) >= 3
    assert plain == sorted(plain)
    boxes = [cell.bounding_box() for cell in rater_row(page, "Eve").locator("td:visible").all()]
    assert len(boxes) > 5
    for box in boxes:
        assert box is not None
        assert box["x"] + box["width"] <= PHONE["viewport"]["width"]
    page.context.close()


def test_a_page_whose_sign_in_has_ended_asks_for_another(browser: Browser, server: Server) -> None:
    page = open_admin_page(browser, server, **DESK)
    page.request.post(f"{server.url}/api/v1/logout", headers={"X-Pictune": "1"})
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()  # with the next look
    assert "gradio" not in page.content()
    page.context.close()
