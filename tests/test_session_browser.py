"""Sessions in a real browser: fifty of them, with every trouble that people have."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Response, expect

from data.runs import RunFolder
from data.schema import IMAGES, SESSION, read_table
from data.store.views.sessions import SESSION_TABLES
from data.tables.parquet import export
from data.tables.verification import verify
from pipelines.run.campaign import open_store
from tests.support.session_run import (
    INTENTS,
    PATIENCE_S,
    SessionServer,
    write_session_run,
)

pytestmark = pytest.mark.slow

SESSIONS = 50
KILLS = (8, 24, 40)
"""The sessions whose server is killed as soon as their first answer is sent."""
BACK, WAITING, SHOWN, OFFLINE, LONG = 1, 3, 5, 7, 9
"""Last digits of the numbers of sessions that go back, reload while they wait, reload while a slate
is shown, answer offline, or take all five turns."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_session_run(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(scope="module")
def server(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionServer]:
    server = SessionServer(run, tmp_path_factory.mktemp("log") / "log")
    server.start()
    yield server
    server.end()


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = request.post_data_json or {}
    return body


@dataclass
class Person:
    """Somebody at a page; `acknowledged` has the answers that the server said it has."""

    page: Page
    acknowledged: list[tuple[str, int, int | None]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.page.on("response", self._hear)
        self.page.on("request", self._see)

    def _see(self, request: Request) -> None:
        if request.url.endswith("/answers"):
            self.sent[body_of(request)["answer_id"]] += 1

    def _hear(self, response: Response) -> None:
        if response.url.endswith("/answers") and response.ok:
            body = body_of(response.request)
            session = response.url.split("/")[-2]
            self.acknowledged.append((session, body["turn"], body["answer"]["chosen"]))

    def begin(self, prompt: str, intent: str | None = None) -> None:
        self.page.get_by_label("How do you ask for it?").fill(prompt)
        if intent is not None:
            self.page.get_by_label(intent, exact=True).check()
        self.page.get_by_role("button", name="Begin").click()

    def await_turn(self, number: int) -> None:
        self.page.get_by_role("heading", name=f"Turn {number} of 5").wait_for()
        expect(self.page.locator(".candidate")).to_have_count(4)
        expect(self.page.locator("#answer")).to_be_visible()
        self.page.wait_for_function(
            "[...document.querySelectorAll('.candidate img')].every((one) => one.naturalWidth > 0)"
        )

    def prompts(self) -> list[str]:
        return self.page.locator(".candidate .caption").all_inner_texts()

    def go_on(self, column: int) -> None:
        self.page.keyboard.press(str(column + 1))
        expect(self.page.locator(".candidate").nth(column)).to_have_attribute(
            "aria-checked", "true"
        )
        self.page.keyboard.press("Enter")

    def stop(self) -> None:
        self.page.keyboard.press("0")
        self.page.get_by_role("button", name="Stop here").click()


@contextmanager
def somebody(browser: Browser, server: SessionServer, **more: object) -> Iterator[Person]:
    context = browser.new_context(**more)  # type: ignore[arg-type]
    person = Person(context.new_page())
    person.page.goto(server.url)
    person.page.get_by_role("button", name="Begin").wait_for()
    yield person
    context.close()


def one_session(person: Person, number: int, server: SessionServer) -> Iterator[None]:
    """Take a session; yield wherever the other person may take a step."""
    trouble, page = number % 10, person.page
    person.begin("A red dog.", INTENTS[0] if number % 2 else None)
    yield
    turns = 5 if trouble == LONG else 2
    for turn in range(1, turns + 1):
        person.await_turn(turn)
        if turn == turns != 5:
            break
        if trouble == SHOWN:
            before = person.prompts()
            page.reload()
            person.await_turn(turn)
            assert person.prompts() == before
        if trouble == OFFLINE:
            page.context.set_offline(True)
        person.go_on((number + turn) % 4)
        if trouble == OFFLINE:
            page.get_by_text("No connection. What you said is kept here").wait_for()
            page.context.set_offline(False)
        if trouble == WAITING:
            page.reload()
        if turn == 1 and number in KILLS:
            server.kill()
            server.start()
        yield
    if trouble == BACK:
        page.get_by_role("button", name="Go on from the beginning").click()
        person.await_turn(3)
    if turns != 5:
        person.stop()
    page.get_by_role("heading", name="Thank you.").wait_for()
    page.get_by_role("button", name="A new session").click()


def take_turns(*sessions: Iterator[None]) -> None:
    left = list(sessions)
    while left:
        left = [one for one in left if next(one, "over") != "over"]


def test_fifty_sessions_lose_no_acknowledged_turn_and_repeat_none(
    browser: Browser, server: SessionServer, run: RunFolder
) -> None:
    with somebody(browser, server) as first, somebody(browser, server) as second:
        for number in range(0, SESSIONS, 2):
            pairs = ((first, number), (second, number + 1))
            take_turns(*(one_session(person, n, server) for person, n in pairs))
    acknowledged = {*first.acknowledged, *second.acknowledged}
    again = sum(count - 1 for count in (first.sent + second.sent).values())
    with open_store(run) as store:
        export(store, run)
        assert verify(store, run) == []
    sessions, turns, candidates = (
        read_table(run.latest / f"{name}.parquet", schema).to_pylist()
        for name, schema in SESSION_TABLES.items()
    )
    answered = [(one["session_id"], one["turn"], one["chosen"]) for one in turns]
    assert len(sessions) == SESSIONS
    assert Counter(answered) == Counter(acknowledged)
    assert again > 0  # offline and killed: some were sent more than once
    assert all(one["ended_at"] and one["source"] == "human" for one in sessions)
    assert Counter(one["n_turns"] for one in sessions) == {2: 40, 5: 5, 3: 5}
    assert {one["intent"] for one in sessions} == {None, INTENTS[0]}
    assert sum(one["after"] == 0 and one["turn"] == 3 for one in turns) == 5
    shown = [one for one in candidates if one["place"] is not None]
    assert len(shown) == 4 * len(turns)
    images = {one["image_id"]: one for one in read_table(run.images_table, IMAGES).to_pylist()}
    for one in shown:
        (image_id,) = one["image_ids"]
        assert images[image_id]["prompt"] == one["prompt"]
        assert images[image_id]["origin"] == SESSION


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_the_page_fits_a_phone_and_can_be_used_by_everybody(
    browser: Browser, server: SessionServer, colors: str
) -> None:
    size = {"width": 390, "height": 664}
    with somebody(browser, server, viewport=size, color_scheme=colors) as person:
        grave = violations(person.page)
        person.begin("A red cat.", INTENTS[1])
        person.await_turn(1)
        person.page.locator(".candidate").nth(2).click()
        person.page.get_by_label("wrong colors").check()
        grave += violations(person.page)
        assert person.page.evaluate("document.documentElement.scrollWidth") <= 390
        person.page.get_by_role("button", name="Next turn").click()
        person.await_turn(2)
        grave += violations(person.page)
        person.stop()
        person.page.get_by_role("heading", name="Thank you.").wait_for()
        assert grave == []


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
