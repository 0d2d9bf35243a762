"""The HTTP interface of sessions: what each route takes, says and refuses."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from labeling_app.app_state import AppState
from labeling_app.passwords import hash_password
from labeling_app.settings import LabelConfig, ServerConfig
from pipelines.session.desk import Desk
from pipelines.session.server import SessionPage, create_app
from tests.support.data_campaign import open_store
from tests.support.session_turns import named_images, small_turns

SECRET = b"secret"
MINE = "0" * 32
HEADERS = {"X-Pictune": "1"}


def draw(
    prompts: Sequence[str], seeds: Sequence[Sequence[int]], _tell: object = None
) -> list[list[str]]:
    return named_images(prompts, seeds)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with open_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def page(store: FeedbackStore, tmp_path: Path) -> SessionPage:
    file = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(file)
    turns = small_turns(store.sessions)
    state = AppState(store, {"known": file}.get, LabelConfig(open=True))
    return SessionPage(state, turns, Desk(turns, draw), ("a red dog",), True, "mine")


@pytest.fixture
def client(page: SessionPage) -> TestClient:
    return person(page, "anna")


def person(page: SessionPage, name: str) -> TestClient:
    client = TestClient(create_app(page, ServerConfig(), SECRET), headers=HEADERS)
    assert client.post("/api/v1/login", json={"rater": name}).json()["name"] == name
    return client


def begun(client: TestClient, **more: object) -> Any:
    body = {"session_id": MINE, "prompt": "a dog"} | more
    return client.post("/api/v1/sessions", json=body)


def at(client: TestClient, path: str = "", body: object = None) -> Any:
    address = f"/api/v1/sessions/{MINE}{path}"
    return client.get(address) if body is None else client.post(address, json=body)


def drawn(client: TestClient, after: str = "") -> dict[str, Any]:
    at(client, f"/turns{after}", {})
    until = time.monotonic() + 60
    while time.monotonic() < until:
        view: dict[str, Any] = at(client).json()
        if view["drawing"] is None:
            return view
        time.sleep(0.01)
    raise TimeoutError


def answer(turn: int, chosen: int | None = None, name: str = "one", **more: object) -> object:
    return {"answer_id": name, "turn": turn, "answer": {"chosen": chosen} | more}


def test_nothing_is_told_before_a_sign_in(page: SessionPage) -> None:
    client = TestClient(create_app(page, ServerConfig(), SECRET), headers=HEADERS)
    assert client.get("/").status_code == 200
    assert [client.get(f"/api/v1/{name}").status_code for name in ("me", "images/known")] == [
        401
    ] * 2
    assert [begun(client).status_code, at(client).status_code] == [401, 401]
    assert [at(client, f"/{name}", {}).status_code for name in ("turns", "answers")] == [401, 401]


def test_where_passwords_are_asked_for_a_name_is_not_enough(
    page: SessionPage, store: FeedbackStore
) -> None:
    store.raters.set_password(store.add_rater("ben"), hash_password("long enough"))
    closed = replace(page, state=AppState(store, lambda _: None, LabelConfig()))
    client = TestClient(create_app(closed, ServerConfig(), SECRET), headers=HEADERS)
    assert client.post("/api/v1/login", json={"rater": "ben"}).status_code == 401
    assert '"needs_password": true' in client.get("/").text.replace('\\"', '"')
    right = {"rater": "ben", "password": "long enough"}
    assert client.post("/api/v1/login", json=right).status_code == 200
    assert client.get("/api/v1/me").json() == "ben"


def test_a_session_begins_once_and_is_its_persons_alone(
    client: TestClient, page: SessionPage
) -> None:
    first = begun(client, prompt=" a dog ", intent="a red dog")
    assert first.status_code == 200
    view = first.json()
    assert (view["prompt"], view["intent"], view["turns"]) == ("a dog", "a red dog", [])
    assert begun(client).json() == view
    other = person(page, "ben")
    assert begun(other).status_code == 409
    refused = at(other)
    assert (refused.status_code, refused.json()["detail"]) == (
        404,
        "no such session of yours; begin a new one",
    )


@pytest.mark.parametrize(
    "body",
    [
        {"session_id": "x"},
        {"prompt": "  "},
        {"prompt": "a\x07"},
        {"prompt": "a" * 1001},
        {"intent": "another"},
        {"more": 1},
    ],
)
def test_what_no_page_begins_is_refused(client: TestClient, body: dict[str, object]) -> None:
    assert begun(client, **body).status_code == 422
    assert at(client).status_code == 404


def test_a_turn_is_drawn_answered_once_and_followed(client: TestClient) -> None:
    begun(client)
    view = drawn(client)
    (turn,) = view["turns"]
    assert (turn["turn"], turn["prompt"], turn["answer"]) == (1, "a dog", None)
    assert [len(one["images"]) for one in turn["columns"]] == [2] * 4
    assert drawn(client) == view  # asked again, it is the same
    chosen = turn["columns"][1]["candidate"]
    sent = answer(1, chosen, critique=["wrong style"], comment="no")
    answered = at(client, "/answers", sent).json()
    assert answered["turns"][0]["answer"]["chosen"] == chosen
    assert at(client, "/answers", sent).json() == answered
    assert at(client, "/answers", answer(1, chosen, "two")).status_code == 409
    second = drawn(client)["turns"][1]
    assert second["prompt"] == turn["columns"][1]["prompt"]
    assert at(client, "/answers", answer(2, None, "three", stops=True)).json()["ended"]
    assert len(drawn(client)["turns"]) == 2


def test_what_no_page_answers_is_refused(client: TestClient) -> None:
    begun(client)
    turn = drawn(client)["turns"][0]
    chosen = turn["columns"][0]["candidate"]
    bad = [
        answer(1, 999),
        answer(2, chosen),
        answer(1, chosen, critique=["another"]),
        answer(1, chosen, progress="great"),
        answer(1, -1),
    ]
    assert [at(client, "/answers", one).status_code for one in bad] == [409, 409, 422, 422, 422]
    assert at(client, "/turns?after=3", {}).status_code == 422
    assert at(client).json()["turns"] == [turn]


def test_a_person_goes_back_to_an_earlier_turn(client: TestClient) -> None:
    begun(client)
    for number in (1, 2):
        turn = drawn(client)["turns"][-1]
        at(client, "/answers", answer(number, turn["columns"][0]["candidate"], f"a{number}"))
    turn = drawn(client, "?after=0")["turns"][-1]
    assert (turn["turn"], turn["after"], turn["prompt"]) == (3, 0, "a dog")


def test_prompts_are_hidden_where_the_lead_wants_it(page: SessionPage) -> None:
    client = person(replace(page, show_prompts=False), "anna")
    begun(client)
    turn = drawn(client)["turns"][0]
    assert {one["prompt"] for one in turn["columns"]} == {None}
    at(client, "/answers", answer(1, turn["columns"][0]["candidate"]))
    assert [one["prompt"] for one in drawn(client)["turns"]] == ["a dog", None]


def test_a_rater_who_is_paused_is_asked_nothing(client: TestClient, store: FeedbackStore) -> None:
    begun(client)
    store.raters.set_status(store.add_rater("anna"), "paused")
    assert [begun(client).status_code, at(client, "/turns", {}).status_code] == [403, 403]


def test_an_image_is_served_without_its_metadata(client: TestClient) -> None:
    assert client.get("/api/v1/images/known").content.startswith(b"\x89PNG")
    assert client.get("/api/v1/images/unknown").status_code == 404


def test_no_other_address_answers_and_no_other_site_may_send(client: TestClient) -> None:
    for path in ("/gradio_api/info", "/gradio_api/queue/join", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404
    foreign = {"Origin": "http://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    body = {"session_id": MINE, "prompt": "a dog"}
    assert client.post("/api/v1/sessions", json=body, headers=foreign).status_code == 403


def test_the_desk_tells_the_place_in_the_queue_and_why_a_turn_failed(
    page: SessionPage, store: FeedbackStore
) -> None:
    waiting, go_on = threading.Event(), threading.Event()

    def slow(prompts: Sequence[str], seeds: Sequence[Sequence[int]], tell: Any) -> list[list[str]]:
        tell(3, 8)
        waiting.set()
        assert go_on.wait(60)
        if prompts[0].startswith("broken"):
            raise PictuneError("no such file")
        return named_images(prompts, seeds)

    desk = Desk(page.turns, slow)
    rater = store.add_rater("anna")
    for name, prompt in (("first", "a dog"), ("second", "broken")):
        page.turns.store.begin(name, rater, prompt)
        desk.ask(name, None)
        desk.ask(name, None)  # asked again, it keeps its place
    assert waiting.wait(60)
    first, second = desk.find("first"), desk.find("second")
    assert first is not None
    assert second is not None
    assert (first[0].done, first[0].of, first[1]) == (3, 8, 0)
    assert (second[0].of, second[1]) == (0, 1)
    go_on.set()
    until = time.monotonic() + 60
    while second[0].error is None and time.monotonic() < until:
        time.sleep(0.01)
    desk.close()
    assert len(store.sessions.get("first").turns) == 1
    assert desk.find("first") is None
    assert second[0].error == "The program has failed; its terminal shows where."
    assert store.sessions.get("second").turns == ()
