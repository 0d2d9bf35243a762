"""The admin page and its events, which come over HTTP as Gradio's front end sends them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data.schema import prompt_id
from data.store.feedback_store import FeedbackStore
from labeling_app.admin.board import EVERY_S, notice_html, zone_named
from labeling_app.admin.gate import EVENTS, FILES
from labeling_app.admin.page import PAUSE, build_admin_page
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.refusals import UNREADABLE
from tests.support.gradio_routes import gradio_config, gradio_routes
from tests.support.labeling_calls import submission
from tests.support.labeling_campaign import (
    HOSTILE,
    Campaign,
    add_admin,
    app_of,
    as_admin,
    as_rater,
    make_campaign,
)

INPUTS: list[object] = ["UTC", [], None, None, "Pause the campaign"]
STATUS = {"nobody": 401, "a rater": 403, "an admin": 200}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TestClient]]:
    """Clients of one app, for tests that leave no trace, by who is signed in."""
    folder = tmp_path_factory.mktemp("shared")
    made = make_campaign(folder, prompts=("a dog",), images=1, config=TasksConfig())
    with made.open_store() as store:
        add_admin(store)
        app = app_of(store, made.paths, on_export=lambda: None)
        yield {
            "nobody": TestClient(app),
            "a rater": as_rater(TestClient(app), "Ann"),
            "an admin": as_admin(TestClient(app)),
        }


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    config = TasksConfig(binary_overlap=3, rankings_per_prompt=0)
    return make_campaign(tmp_path, prompts=(HOSTILE,), images=3, config=config)


@pytest.fixture
def client(campaign: Campaign, store_with_admin: FeedbackStore) -> TestClient:
    app = app_of(
        store_with_admin,
        campaign.paths,
        on_export=lambda: None,
        categories={prompt_id(HOSTILE): "place"},
    )
    return TestClient(app)


def drawn_config(client: TestClient) -> dict[str, Any]:
    """Gradio's description of the page, which the page begins with."""
    return gradio_config(client.get("/admin").text)


def send(client: TestClient, name: str, *data: object, **more: object) -> dict[str, Any]:
    """Send an event as the page does; returns what each component shows then, by its title."""
    config = drawn_config(client)
    titles = {}
    for one in config["components"]:
        words = [one["props"].get(name) for name in ("label", "elem_id", "title", "value")]
        titles[one["id"]] = next((word for word in words if word), "")
    event = next(one for one in config["dependencies"] if one["api_name"] == name)
    answer = client.post(EVENTS, json={"fn_index": event["id"], "data": data, **more})
    assert answer.status_code == 200
    values = zip(event["outputs"], answer.json()["data"], strict=True)
    return {titles[number]: value for number, value in values}


PLACE = "http://testserver Europe/Berlin"


def look(client: TestClient, name: str = "update", *own: object, **more: object) -> dict[str, Any]:
    """Send an event that returns the figures, with the values of its own inputs."""
    return send(client, name, PLACE, [], None, None, {}, "a notice", *own, **more)


def cells(table: dict[str, Any]) -> list[list[object]]:
    """The texts of a table, row by row."""
    rows: list[list[object]] = table["metadata"]["display_value"]
    return rows


def report(client: TestClient, name: str) -> str:
    """Report an image as this rater; returns its id."""
    task = as_rater(client, name).post("/api/v1/claim", json={}).json()["task"]
    bad = {"kind": "binary", "verdict": "unsafe", "reason": "Hateful", "comment": "${1} {{2}} <b>"}
    assert client.post("/api/v1/submissions", json=submission(task, answer=bad)).status_code == 201
    return str(task["images"][0]["image_id"])


@pytest.mark.parametrize(("method", "path"), gradio_routes())
def test_no_route_of_gradio_is_reached_below_the_page(
    people: dict[str, TestClient], method: str, path: str
) -> None:
    for who, client in people.items():
        for address in (f"/admin{path}", f"/admin/{path}", f"/admin/admin{path}"):
            answer = client.request(method, address, headers={"X-Pictune": "1"})
            if (method, address) in {("GET", file) for file in FILES}:
                assert answer.status_code == STATUS[who]
            else:
                assert answer.status_code == 404
                assert answer.text in ('{"detail":"Not Found"}', "")


@pytest.mark.parametrize("who", ["nobody", "a rater", "an admin"])
def test_the_page_and_its_events_are_for_admins_alone(
    people: dict[str, TestClient], who: str
) -> None:
    page = people[who].get("/admin")
    assert page.status_code == STATUS[who]
    assert ("gradio_config" in page.text) is (who == "an admin")
    assert ('type="password"' in page.text) is (who != "an admin")
    for event in drawn_config(people["an admin"])["dependencies"]:
        values = [""] * len(event["inputs"])
        answer = people[who].post(EVENTS, json={"fn_index": event["id"], "data": values})
        only_in_the_browser = who == "an admin" and not event["backend_fn"]
        assert answer.status_code == (422 if only_in_the_browser else STATUS[who])


@pytest.mark.parametrize(
    "body",
    [
        {"fn_index": 0, "data": ["UTC"]},
        {"fn_index": 0, "data": {}},
        {"fn_index": 99, "data": INPUTS},
        {"fn_index": 1e400, "data": INPUTS},
        {"fn_index": 0, "data": INPUTS, "session_hash": "../etc"},
        {"data": INPUTS},
        [],
    ],
)
def test_an_event_that_no_page_sends_is_refused_in_words(
    people: dict[str, TestClient], body: object
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = people["an admin"].post(EVENTS, content=json.dumps(body), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("no event of this page")


def test_no_event_is_queued_or_looks_at_files_that_an_input_names(
    people: dict[str, TestClient],
) -> None:
    state = people["nobody"].app.state.labeling  # type: ignore[attr-defined]

    async def build() -> list[Any]:
        return list(build_admin_page(state).fns.values())

    events = asyncio.run(build())
    assert events
    assert [event for event in events if event.queue or event.preprocess] == []


def test_the_page_shows_progress_labels_and_reports(client: TestClient) -> None:
    image_id = report(client, "Ann")
    page = look(as_admin(client))
    done, total = 1, 7
    assert f"<strong>{done} of {total} labels</strong>" in page["progress"]
    assert page[PAUSE] == PAUSE
    counts = [done, total, f"{done / total * 100:.0f} %"]
    assert cells(page["Labels by category"]) == [["place", "binary", *counts]]
    thumbnail = f"/api/v1/admin/thumbnails/{image_id}"
    (labeled,) = page["Labeled images"]["value"]
    assert labeled["image"]["url"] == f"http://testserver{thumbnail}#reported"
    assert labeled["caption"] == f"{HOSTILE}\nAnn: unsafe: Hateful: ${{1}} {{{{2}}}} <b>"
    ((*reported, _, _),) = cells(page["Reports of the image"])
    assert reported == ["Ann", "Hateful", "${1} {{2}} <b>"]
    (image,) = page["Images to decide about"]["value"]
    assert (image["image"]["url"], image["caption"]) == (f"http://testserver{thumbnail}", HOSTILE)


def test_the_work_left_is_told_once_enough_labels_tell_it(tmp_path: Path) -> None:
    config = TasksConfig(rankings_per_prompt=1)
    made = make_campaign(tmp_path, prompts=("a dog",), images=24, config=config)
    with made.open_store() as store:
        add_admin(store)
        app = app_of(store, made.paths)
        ann, boss = as_rater(TestClient(app), "Ann"), as_admin(TestClient(app))
        told = {}
        for done, kind in enumerate(("ranking", *["binary"] * 24), start=1):
            task = ann.post("/api/v1/claim", json={"kind": kind}).json()["task"]
            ann.post("/api/v1/submissions", json=submission(task, active_ms=120_000))
            if done in (20, 21, 25):
                told[done] = look(boss)["progress"]
    assert "<strong>20 of 25 labels</strong>" in told[20]
    assert "<strong>21 of 25 labels; about 8 min of work left</strong>" in told[21]
    assert "<strong>25 of 25 labels</strong>" in told[25]


def test_figures_that_have_not_changed_are_not_sent_again(client: TestClient) -> None:
    first = look(as_admin(client))
    again = send(client, "update", PLACE, first["Shown"], None, None, {}, "a notice")
    sent = {title for title, value in again.items() if set(value) - {"__type__", "props"}}
    assert sent == {"Place"}
    # a notice may have come after the browser had asked: it is not taken away
    assert set(again["notice"]) == {"__type__", "props"}
    trouble = notice_html(UNREADABLE, "alert")  # which has passed
    assert send(client, "update", PLACE, [], None, None, {}, trouble)["notice"] == ""
    assert send(client, "update", 7, ["nonsense"], 7, 7, {}, "")["progress"] == first["progress"]


@pytest.mark.parametrize(
    ("event", "own", "notice"),
    [
        ("pause", ["<b>"], "no rater is called &lt;b&gt;"),
        ("pause", [None], "rater: Input should be a valid string; nothing was changed"),
        ("pause", [""], "nothing was changed"),
        ("pause", [7], "nothing was changed"),
        ("add_rater", ["ann", "rater"], "already"),
        ("put_back", [None], "image_id: Input should be a valid string"),
        ("remove", ["x"], "no report of it is open"),
        ("decide_verdict", ["t", "", "Perhaps"], "verdict: Input should be"),
        ("decide_ranks", ["t", "", *[None] * 9], "task t: not known"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(
    people: dict[str, TestClient], event: str, own: list[object], notice: str
) -> None:
    page = look(people["an admin"], event, *own)
    assert notice in page["notice"]
    assert page[PAUSE] == PAUSE  # nobody else was paused in the place of nobody


def test_a_store_that_cannot_be_read_is_said_in_words(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    as_admin(client)
    with store_with_admin.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE tasks RENAME TO tasks_elsewhere")
    notice = look(client)["notice"]
    assert "the server could not save or read" in notice
    assert "tasks" not in notice


def test_an_open_page_asks_every_few_seconds_and_the_raters_page_never(client: TestClient) -> None:
    components = drawn_config(as_admin(client))["components"]
    assert [one["props"]["value"] for one in components if one["type"] == "timer"] == [EVERY_S]
    raters_page = client.get("/").text
    assert '"type":"timer"' not in raters_page
    assert '"dependencies":[]' in raters_page


@pytest.mark.parametrize("name", ["", "Nowhere/Land", "../../etc/passwd", "Europe", "\0"])
def test_a_time_zone_that_is_not_known_is_utc(name: str) -> None:
    assert str(zone_named(name)) == "UTC"
    assert str(zone_named("Europe/Berlin")) == "Europe/Berlin"
