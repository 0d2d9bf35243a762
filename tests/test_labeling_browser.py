"""The labeling page in a real browser: everything that raters do, and nothing that they gave is lost."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect
from playwright.sync_api import TimeoutError as TookTooLong

from data.store import task_id_of
from data.tables import labels
from labeling_app.tasks import TasksConfig
from tests.labeling_browser import (
    CHROMIUM,
    DESK,
    PHONE,
    PICTURES,
    Server,
    add_accounts,
    add_training,
    chromium,
    drag,
    kind_of,
    open_page,
    pictures_of,
    see,
    serving,
    sign_in,
)
from tests.labeling_campaign import HOSTILE, Campaign, make_campaign

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing; `make test` installs it"
)

PASSWORD = "correct horse"
RATERS = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Fay", "Gil", "Hal")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Enough for everyone: each test signs in as somebody else."""
    config = TasksConfig(
        binary_overlap=len(RATERS),
        rankings_per_prompt=5,
        ranking_size=3,
        ranking_overlap=len(RATERS),
    )
    return prepare(tmp_path_factory.mktemp("shared"), config)


@pytest.fixture(scope="module")
def server(campaign: Campaign) -> Iterator[Server]:
    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


def prepare(root: Path, config: TasksConfig, images: int = 10) -> Campaign:
    campaign = make_campaign(root, prompts=(HOSTILE,), images=images, config=config)
    add_accounts(campaign, RATERS, PASSWORD)
    return campaign


@pytest.fixture
def page(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A rater at work, with the guidelines closed."""
    name, context = request.param
    opened = open_page(browser, server.url, **context)
    opened.on("dialog", lambda _dialog: pytest.fail("the prompt ran as a script"))
    sign_in(opened, name, PASSWORD)
    opened.get_by_label("Close the guidelines").click()
    yield opened
    opened.context.close()


def rater(name: str, context: dict[str, Any] = DESK) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [(name, context)], indirect=True, ids=[name])


def answers(campaign: Campaign, name: str) -> list[dict[str, Any]]:
    """Live answers of a rater, the oldest first, from the store itself."""
    with campaign.open_store() as store, store.database.read() as connection:
        mine = sa.and_(labels.c.is_live, labels.c.rater_id == store.rater_id_of("human", name))
        rows = connection.execute(sa.select(labels).where(mine).order_by(labels.c.sequence)).all()
    return [json.loads(row.answer_json) | {"row": row, "mode": row.input_mode} for row in rows]


def answer_by_keys(page: Page) -> None:
    keys = ["1"] if kind_of(page) == "binary" else ["1", "1", "2", "Enter"]
    see(page)
    for key in keys:
        page.keyboard.press(key)


def answer_by_mouse(page: Page) -> None:
    kind = kind_of(page)
    see(page)
    if kind == "binary":
        page.get_by_role("button", name="Good").click()
        return
    for place, rank in enumerate("112"):
        drag(page, place, rank)
    page.get_by_role("button", name="Submit").click()


def expect_saved(page: Page, mine: int) -> None:
    expect(page.locator(".count")).to_contain_text(f"{mine} mine")
    expect(page.locator(".saved")).to_have_text("Saved ✓")


def test_a_rater_works_through_a_campaign_and_loses_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=5, ranking_size=3))
    add_training(campaign)
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        page.on("dialog", lambda _dialog: pytest.fail("the prompt ran as a script"))

        page.get_by_label("Your name").fill("Ann")
        page.get_by_label("Password").fill("a guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").first).to_be_visible()
        sign_in(page, "Ann", PASSWORD)
        expect(page.locator(".panel")).to_contain_text("Judge how well the picture fits the prompt")
        page.keyboard.press("g")
        expect(page.locator(".panel")).to_be_hidden()

        expect(page.locator(".banner")).to_contain_text("Training, 1 of 2")
        see(page)
        page.keyboard.press("2")
        expect(page.locator("[data-slot=mark]")).to_have_text("Not quite")
        page.keyboard.press("Enter")
        expect(page.locator(".banner")).to_contain_text("Training, 2 of 2")
        answer_by_keys(page)
        expect(page.locator("[data-slot=mark]")).to_have_text("That is right")
        page.keyboard.press("Enter")
        expect(page.locator(".banner")).to_be_hidden()
        assert answers(campaign, "Ann") == []
        expect(page.locator(".prompt")).to_have_text(HOSTILE)

        page.keyboard.press("Control+1")  # a shortcut of the browser, not an answer
        first = pictures_of(page)
        answer_by_keys(page)
        expect_saved(page, 1)
        page.keyboard.press("u")
        expect(page.locator(".count")).to_contain_text("0 mine")
        assert pictures_of(page) == first
        assert answers(campaign, "Ann") == []
        by_turns = [answer_by_keys, answer_by_mouse]
        for mine in range(1, 8):
            by_turns[mine % 2](page)
            expect_saved(page, mine)

        there = pictures_of(page)
        page.reload()
        page.locator("[data-kind]:visible").wait_for()
        assert pictures_of(page) == there
        expect(page.locator(".who")).to_have_text("Ann")

        server.end(signal.SIGKILL)
        answer_by_keys(page)
        assert pictures_of(page) != there  # the next one had been fetched ahead
        expect(page.locator(".saved")).to_have_text("Not saved yet")
        expect(page.get_by_text("The server cannot be reached")).to_be_visible()
        assert len(answers(campaign, "Ann")) == 7
        server.start()
        expect_saved(page, 8)
        expect(page.get_by_text("The server cannot be reached")).to_be_hidden()
        for mine in range(9, 16):
            by_turns[mine % 2](page)
            expect_saved(page, mine)
        expect(page.get_by_role("heading", name="All done")).to_be_visible()

        given = answers(campaign, "Ann")
        assert [answer["verdict"] for answer in given if "verdict" in answer] == ["good"] * 10
        images = {task_id_of(task): task.image_ids for task in campaign.tasks}
        rankings = [answer for answer in given if "ranks" in answer]
        for ranking in rankings:
            shown = dict(
                zip(ranking["row"].shown_order, images[ranking["row"].task_id], strict=True)
            )
            assert [ranking["ranks"][shown[place]] for place in range(3)] == [1, 1, 2]
        assert len(rankings) == 5
        assert {answer["mode"] for answer in given} == {"key", "mouse"}
        assert all(
            0 <= answer["row"].active_ms <= answer["row"].time_on_task_ms for answer in given
        )

        (tmp_path / "exported").unlink(missing_ok=True)
        assert server.end(signal.SIGINT) == 0
        assert (tmp_path / "exported").exists()
        page.context.close()


@rater("Ben", PHONE)
def test_the_page_fits_a_phone_and_is_worked_by_touch(page: Page, campaign: Campaign) -> None:
    seen: set[str] = set()
    mine = 0
    while seen != {"binary", "ranking"} or mine < 3:
        seen.add(kind := kind_of(page))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        heights = [button.bounding_box() for button in page.locator(".task button:visible").all()]
        assert all(box is not None and box["height"] >= 40 for box in heights)
        see(page)
        if kind == "binary":
            page.get_by_role("button", name="Bad").tap()
        else:
            tap(page.locator(".picture").nth(0), until=page.locator(".rank[data-rank='1'] img"))
            touch_drag(page, ".picture >> nth=1 >> .grip", ".rank[data-rank='1']")  # a tie
            expect(page.locator(".rank[data-rank='1'] img")).to_have_count(2)
            tap(
                page.locator(".rank[data-rank='0']"), until=page.locator(".rank[data-rank='0'] img")
            )
            page.get_by_role("button", name="Submit").tap()
        mine += 1
        expect_saved(page, mine)
    given = answers(campaign, "Ben")
    assert {answer["mode"] for answer in given} == {"touch"}
    assert all(
        sorted(a["ranks"].values(), key=str) == [1, 1, None]
        if "ranks" in a
        else a["verdict"] == "bad"
        for a in given
    )


def tap(spot: Locator, *, until: Locator) -> None:
    """On a busy machine a tap can take so long that the browser takes it for a long press."""
    for _ in range(5):
        spot.tap()
        try:
            until.wait_for(timeout=5000)
        except TookTooLong:
            continue
        return
    pytest.fail(f"{spot}: taps do nothing")


def touch_drag(page: Page, source: str, target: str) -> None:
    """Playwright has no touch drag of its own: the browser's protocol has."""
    boxes = [page.locator(place).bounding_box() for place in (source, target)]
    (x0, y0), (x1, y1) = (
        (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for box in boxes
        if box is not None
    )
    protocol = page.context.new_cdp_session(page)
    for share in (0.0, 0.5, 1.0):
        point = {"x": x0 + share * (x1 - x0), "y": y0 + share * (y1 - y0)}
        protocol.send(
            "Input.dispatchTouchEvent",
            {"type": "touchMove" if share else "touchStart", "touchPoints": [point]},
        )
    protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@rater("Cleo")
def test_typing_is_no_answer_and_history_is_editable(page: Page, campaign: Campaign) -> None:
    before = 0
    while kind_of(page) != "binary":
        answer_by_keys(page)
        before += 1
        expect_saved(page, before)
    see(page)
    page.keyboard.press("c")
    page.keyboard.type(f"1 2 u {HOSTILE}")
    page.keyboard.press("Enter")
    page.keyboard.press("3")
    page.keyboard.press("2")
    expect_saved(page, before + 1)
    skipped = answers(campaign, "Cleo")[-1]
    assert (skipped["verdict"], skipped["reason"], skipped["comment"]) == (
        "skip",
        "The prompt is unclear",
        f"1 2 u {HOSTILE}",
    )

    shown = pictures_of(page)
    page.keyboard.press("h")
    entry = page.locator("[data-slot=labels] li").first
    expect(entry).to_contain_text("Skipped: The prompt is unclear, “1 2 u <img")
    entry.get_by_role("button").click()
    expect(page.get_by_label("Comment")).to_have_value(f"1 2 u {HOSTILE}")
    see(page)
    page.get_by_role("button", name="Good").click()
    expect(page.locator(".banner")).to_be_hidden()
    assert pictures_of(page) == shown
    expect_saved(page, before + 1)
    changed = answers(campaign, "Cleo")[-1]
    assert (changed["verdict"], changed["row"].revision) == ("good", 2)


@rater("Dan")
def test_trouble_is_shown_and_no_answer_is_dropped(
    page: Page, campaign: Campaign, server: Server
) -> None:
    page.context.set_offline(True)
    answer_by_keys(page)
    expect(page.locator(".saved")).to_have_text("Not saved yet")
    page.context.set_offline(False)
    expect_saved(page, 1)

    other = page.context.new_page()
    other.goto(server.url)
    kind_of(other)
    shown = pictures_of(page)
    assert pictures_of(other) == shown
    answer_by_keys(page)
    expect_saved(page, 2)
    expect(other.locator(PICTURES).first).not_to_have_attribute("src", shown[0])
    other.close()

    page.context.clear_cookies()
    answer_by_keys(page)
    expect(page.get_by_role("alert").first).to_contain_text(
        "You are signed out. Your last answers are kept"
    )
    sign_in(page, "Dan", PASSWORD)
    expect_saved(page, 3)

    stray = {
        "submission": {
            "submission_id": "stray",
            "task_id": "of another campaign",
            "answer": {"verdict": "good"},
        },
        "prompt": HOSTILE,
        "at": 1,
    }
    key = page.evaluate(
        "Object.keys(localStorage).find((key) => key.startsWith('pictune.current.'))"
    )
    page.evaluate(
        "([key, entry]) => localStorage.setItem(key, entry)",
        [key.replace("current", "answers") + ".stray", json.dumps(stray)],
    )
    answer_by_keys(page)
    page.get_by_role("button", name="See why").click()
    expect(page.locator("[data-slot=refusals] li")).to_contain_text("of another campaign")
    page.get_by_role("button", name="Discard").click()
    expect(page.locator("[data-slot=refusals]")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_text("not accepted by the server")).to_be_hidden(timeout=20_000)
    assert len(answers(campaign, "Dan")) == 4

    with campaign.open_store() as store:
        store.set_paused(True)
    try:
        for _ in range(3):
            answer_by_keys(page)  # what was handed out may still be answered
        expect(page.get_by_role("heading", name="Paused for now")).to_be_visible()
    finally:
        with campaign.open_store() as store:
            store.set_paused(False)
    page.keyboard.press("Enter")
    kind_of(page)
    assert len(answers(campaign, "Dan")) == 7


@rater("Gil")
def test_nothing_is_answered_before_it_can_have_been_seen(page: Page, campaign: Campaign) -> None:
    kinds: set[str] = set()
    mine = 0
    while kinds != {"binary", "ranking"}:
        kinds.add(kind_of(page))
        see(page)
        shown = pictures_of(page)
        page.evaluate(HASTE, ["1"] if kind_of(page) == "binary" else ["1", "1", "2", "Enter"])
        mine += 1
        expect_saved(page, mine)
        assert len(answers(campaign, "Gil")) == mine
        assert pictures_of(page) != shown
        assert page.locator("dialog[open], .card.ranked >> visible=true").count() == 0
        page.keyboard.press("?")  # these are no answers
        expect(page.locator("[data-slot=help]")).to_be_visible()
        page.keyboard.press("?")
    answer_by_keys(page)
    expect_saved(page, mine + 1)


HASTE = """
(keys) => {
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  keys.forEach(press); // within the same moment, the next one is on the screen
  ["1", "1", "2", "3", "4", "s", "Enter"].forEach(press);
  for (const button of document.querySelectorAll("[data-kind]:not([hidden]) button")) button.click();
}
"""


@rater("Hal")
def test_an_answer_given_while_others_are_sent_is_not_asked_for_again(
    page: Page, campaign: Campaign
) -> None:
    held: list[Route] = []
    shown = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/api/v1/submissions", hold_the_first)
    for _ in range(2):  # the second answer waits for the first one's arrival
        kind_of(page)
        shown.append(pictures_of(page))
        answer_by_keys(page)
    held[0].continue_()
    expect_saved(page, 2)
    while len(shown) < 8:
        kind_of(page)
        shown.append(pictures_of(page))
        answer_by_keys(page)
    expect_saved(page, 8)
    assert all(pictures not in shown[:place] for place, pictures in enumerate(shown))
    assert {answer["row"].revision for answer in answers(campaign, "Hal")} == {1}


def test_on_a_slow_connection_every_task_is_shown_once(browser: Browser, tmp_path: Path) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=10, ranking_size=3), images=30)
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        sign_in(page, "Ann", PASSWORD)
        page.get_by_label("Close the guidelines").click()
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        slow = {"offline": False, "latency": 600, "downloadThroughput": -1, "uploadThroughput": -1}
        network.send("Network.emulateNetworkConditions", slow)
        shown = []
        for number in range(40):
            kind_of(page)
            shown.append(pictures_of(page))
            page.wait_for_timeout(700 + 400 * (number % 3))
            answer_by_keys(page)
        expect(page.get_by_role("heading", name="All done")).to_be_visible()
        page.context.close()
    assert all(pictures not in shown[:place] for place, pictures in enumerate(shown))
    assert [answer["row"].revision for answer in answers(campaign, "Ann")] == [1] * 40


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
def test_an_answer_is_never_saved_for_somebody_who_signed_in_unseen(
    page: Page, campaign: Campaign, server: Server
) -> None:
    before = {name: len(answers(campaign, name)) for name in ("Ben", "Fay")}
    kind_of(page)
    signed_in = page.request.post(
        f"{server.url}/api/v1/login", data={"rater": "Ben", "password": PASSWORD}
    )  # the page hears nothing of it
    assert signed_in.ok
    answer_by_keys(page)
    expect(page.get_by_role("alert").first).to_contain_text(
        "You are signed out. Your last answers are kept"
    )
    sign_in(page, "Fay", PASSWORD)
    expect(page.locator(".saved")).to_have_text("Saved ✓")
    assert {name: len(answers(campaign, name)) for name in before} == before | {
        "Fay": before["Fay"] + 1
    }


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Browser, server: Server, colors: str) -> None:
    page = open_page(browser, server.url, color_scheme=colors, reduced_motion="reduce", **DESK)
    found = [violations(page, "sign-in")]
    sign_in(page, "Eve", PASSWORD)
    found.append(violations(page, "guidelines"))
    page.keyboard.press("g")
    kinds: set[str] = set()
    while kinds != {"binary", "ranking"}:
        kinds.add(kind := kind_of(page))
        found.append(violations(page, kind))
        answer_by_keys(page)
        page.wait_for_timeout(50)
    kind_of(page)
    see(page)
    for key, view in (
        ("?", "help"),
        ("h", "history"),
        ("3" if kind_of(page) == "binary" else "s", "reasons"),
    ):
        page.keyboard.press(key)
        found.append(violations(page, view))
        page.keyboard.press("Escape")
    assert [line for lines in found for line in lines] == []
    page.context.close()


def test_axe_finds_no_serious_violation_in_training_and_on_the_admin_page(
    browser: Browser, tmp_path: Path
) -> None:
    campaign = prepare(tmp_path, TasksConfig(rankings_per_prompt=5, ranking_size=3))
    add_training(campaign)
    with campaign.open_store() as store:
        store.raters.set_role(store.rater_id_of("human", "Eve"), "admin")
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        sign_in(page, "Eve", PASSWORD)
        page.keyboard.press("g")
        see(page)
        page.keyboard.press("2")
        expect(page.locator("[data-slot=feedback]")).to_be_visible()
        found = violations(page, "feedback")
        page.goto(f"{server.url}/admin")
        expect(page.get_by_role("cell", name="Eve", exact=True)).to_be_visible()
        found += violations(page, "admin")
        assert found == []
        page.context.close()


def violations(page: Page, view: str) -> list[str]:
    page.wait_for_timeout(200)
    result = Axe().run(page).response["violations"]
    grave = [one for one in result if one["impact"] in ("serious", "critical")]
    return [
        f"{view}: {one['id']}: {node['html'][:200]}: {node['any'][:1]}"
        for one in grave
        for node in one["nodes"]
    ]
