"""The admin page and its events, which come over HTTP as Gradio's front end sends them."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from gradio.routes import App

from data.schema import prompt_id
from data.store.feedback_store import FeedbackStore
from labeling_app.admin_gate import EVENTS, FILES
from labeling_app.admin_page import EVERY_S, PAUSE, RESUME, build_admin_page
from labeling_app.admin_view import zone_named
from labeling_app.server import LabelConfig, create_app
from labeling_app.tasks import TasksConfig
from tests.support.labeling_campaign import (
    ADMIN,
    HOSTILE,
    SECRET,
    Campaign,
    add_admin,
    as_admin,
    as_rater,
    make_campaign,
)

STATUS = {"nobody": 401, "a rater": 403, "an admin": 200}


async def plain_gradio_app() -> App:
    with gr.Blocks() as blocks:
        gr.Markdown("anything")
    blocks.config = blocks.get_config_file()
    return App.create_app(blocks)


def gradio_routes() -> list[tuple[str, str]]:
    """Method and path of every route of a Gradio app, with something in the place of parameters."""
    routes = iter_route_contexts(asyncio.run(plain_gradio_app()).routes)
    filled = {
        (method, re.sub(r"{[^}]*}", "etc/passwd", route.path or ""))
        for route in routes
        for method in route.methods or ()
    }
    return sorted(filled)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TestClient]]:
    """Clients of one app, for tests that leave no trace, by who is signed in."""
    folder = tmp_path_factory.mktemp("shared")
    made = make_campaign(folder, prompts=("a dog",), images=1, config=TasksConfig())
    with made.open_store() as store:
        add_admin(store)
        config = LabelConfig(open=True)
        app = create_app(store, made.paths.get, config, secret=SECRET, on_export=lambda: None)
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
    app = create_app(
        store_with_admin,
        campaign.paths.get,
        LabelConfig(open=True),
        secret=SECRET,
        on_export=lambda: None,
        categories={prompt_id(HOSTILE): "place"},
    )
    return TestClient(app)


def drawn_config(client: TestClient) -> dict[str, Any]:
    """Gradio's description of the page, which the page begins with."""
    found = re.search(r"window\.gradio_config = (.*?);</script>", client.get("/admin").text)
    assert found is not None
    text = re.sub(r'location\.origin \+ "', '"', found[1]).replace("location.origin", '""')
    config: dict[str, Any] = json.loads(text)
    return config


def send(client: TestClient, name: str, *data: object, **more: object) -> Any:
    """Send an event as the page does; returns the answer."""
    events = {event["api_name"]: event["id"] for event in drawn_config(client)["dependencies"]}
    return client.post(EVENTS, json={"fn_index": events[name], "data": data, **more})


def look(client: TestClient, name: str = "look", *data: object, **more: object) -> list[Any]:
    answer = send(client, name, "UTC", {}, *data, **more)
    assert answer.status_code == 200
    values: list[Any] = answer.json()["data"]
    return values


def report(client: TestClient, name: str) -> str:
    """Report an image as this rater; returns its id."""
    task = as_rater(client, name).post("/api/v1/claim", json={}).json()["task"]
    unsafe = {"verdict": "unsafe", "reason": "Hateful", "comment": "${1} {{2}} <b>"}
    body = {"submission_id": name, "task_id": task["task_id"], "answer": unsafe}
    assert client.post("/api/v1/submissions", json=body).status_code == 201
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
        values = ["UTC", {}, ""][: len(event["inputs"])]
        answer = people[who].post(EVENTS, json={"fn_index": event["id"], "data": values})
        assert answer.status_code == STATUS[who] or event["collects_event_data"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "application/json", "Sec-Fetch-Site": "same-site"},
        {"Content-Type": "application/json", "Origin": "http://testserver:8000"},
        {"Content-Type": "application/json", "Origin": "null"},
    ],
)
def test_a_page_of_another_site_sends_no_event(
    people: dict[str, TestClient], headers: dict[str, str]
) -> None:
    answer = people["an admin"].post(EVENTS, content=b"{}", headers=headers)
    assert answer.status_code == 403


def test_no_event_is_queued_or_looks_at_files_that_an_input_names(
    people: dict[str, TestClient],
) -> None:
    state = people["nobody"].app.state.labeling  # type: ignore[attr-defined]

    async def build() -> list[Any]:
        return list(build_admin_page(state).fns.values())

    events = asyncio.run(build())
    assert events
    assert [event for event in events if event.queue or event.preprocess] == []


def test_an_admin_who_is_none_any_more_is_let_in_no_more(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    config = drawn_config(as_admin(client))
    assert config["title"] == "Pictune: admin"
    store_with_admin.raters.set_role(store_with_admin.rater_id_of("human", ADMIN), "rater")
    event = {"fn_index": 0, "data": ["UTC", {}]}
    assert client.post(EVENTS, json=event).status_code == 403
    assert client.get("/admin").status_code == 403


def test_the_figures_are_those_of_the_json_routes(client: TestClient) -> None:
    report(client, "Ann")
    progress, pause, reports, plot, categories, stream, shown, notice = look(as_admin(client))
    summary = client.get("/api/v1/admin/summary").json()
    done, total = summary["progress"]["done"], summary["progress"]["total"]
    assert f"<strong>{done}</strong> of {total} labels" in progress
    assert (pause, notice) == (PAUSE, "")
    assert categories["data"] == [["place", "binary", done, total]]
    assert {tuple(row) for row in plot["data"]} == {
        ("place", done, "done"),
        ("place", total - done, "still wanted"),
    }
    assert stream["data"][0][1:] == ["Ann", HOSTILE, "unsafe: Hateful: ${1} {{2}} <b>"]
    assert "${1} {{2}} &lt;b&gt;" in reports
    assert "<img src=x" not in reports
    assert set(shown) == {"progress", "pause", "reports", "plot", "categories", "stream"}


def test_figures_that_have_not_changed_are_not_sent_again(client: TestClient) -> None:
    first = look(as_admin(client))
    assert send(client, "look", "UTC", first[6]).status_code == 200
    again = send(client, "look", "UTC", first[6]).json()["data"]
    assert [value for value in again[:7] if set(value) - {"__type__", "props"}] == []
    assert send(client, "look", 7, ["nonsense"]).json()["data"][0] == first[0]


def test_an_admin_pauses_and_resumes_the_campaign_and_a_rater(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    as_admin(client)
    store_with_admin.add_rater("Ann")
    assert look(client, "pause_campaign", PAUSE)[1] == RESUME
    assert store_with_admin.is_paused
    assert look(client, "pause_campaign", RESUME)[1] == PAUSE
    assert not store_with_admin.is_paused
    look(client, "pause_rater", "Ann")
    rows = send(client, "judge", {}).json()["data"][2]["data"]
    assert [row[:2] for row in rows] == [[ADMIN, "active"], ["Ann", "paused"]]
    look(client, "resume_rater", "Ann")
    ann = store_with_admin.raters.find("Ann")
    assert ann is not None
    assert ann.status == "active"
    assert "no rater is called &lt;b&gt;" in look(client, "pause_rater", "<b>")[-1]
    for nobody in ("", None, {"path": "/etc/passwd"}):
        assert "choose a rater first" in look(client, "pause_rater", nobody)[-1]


def test_an_admin_puts_an_image_back_and_removes_one(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    first, second = report(client, "Ann"), report(client, "Ben")
    as_admin(client)
    for image_id, decision in ((first, "kept"), (second, "removed")):
        event = {"decision": decision, "image_id": image_id}
        assert look(client, "decide", event_data=event)[-1] == ""
    assert store_with_admin.reports.withheld_images([first, second]) == {second}
    again = {"decision": "kept", "image_id": first}
    assert "no report of it is open" in look(client, "decide", event_data=again)[-1]
    wrong = {"decision": "burned", "image_id": second}
    assert "is no decision" in look(client, "decide", event_data=wrong)[-1]


def test_a_store_that_cannot_be_read_is_said_in_words(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    as_admin(client)
    with store_with_admin.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE tasks RENAME TO tasks_elsewhere")
    notice = look(client)[-1]
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
