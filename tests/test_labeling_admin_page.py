"""The admin page and its events, which come over HTTP as Gradio's front end sends them."""

import asyncio
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from data.kinds.ranking import RankingAnswer
from data.schema import prompt_id
from data.store.feedback_store import FeedbackStore
from labeling_app.admin.forms import AdjudicationForm
from labeling_app.admin.gate import EVENTS, FILES
from labeling_app.admin.layout import PAUSE
from labeling_app.admin.page import EVERY_S, build_admin_page
from labeling_app.admin.view import zone_named
from labeling_app.campaign.tasks import ImageRow, TasksConfig
from labeling_app.server import create_app
from labeling_app.settings import LabelConfig
from tests.support.gradio_routes import gradio_config, gradio_routes
from tests.support.labeling_calls import submission
from tests.support.labeling_campaign import (
    HOSTILE,
    SECRET,
    Campaign,
    add_admin,
    as_admin,
    as_rater,
    make_campaign,
)

STATUS = {"nobody": 401, "a rater": 403, "an admin": 200}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TestClient]]:
    """Clients of one app, for tests that leave no trace, by who is signed in."""
    folder = tmp_path_factory.mktemp("shared")
    made = make_campaign(folder, prompts=("a dog",), images=1, config=TasksConfig())
    with made.open_store() as store:
        add_admin(store)
        config = LabelConfig(open=True)
        app = create_app(
            store, made.paths.get, config, secret=SECRET, on_export=lambda: None, images=dict
        )
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
        images=lambda: {one: ImageRow(one, HOSTILE) for one in campaign.paths},
    )
    return TestClient(app)


def drawn_config(client: TestClient) -> dict[str, Any]:
    """Gradio's description of the page, which the page begins with."""
    return gradio_config(client.get("/admin").text)


def send(client: TestClient, name: str, *data: object, **more: object) -> Any:
    """Send an event as the page does; returns the answer."""
    events = {event["api_name"]: event["id"] for event in drawn_config(client)["dependencies"]}
    return client.post(EVENTS, json={"fn_index": events[name], "data": data, **more})


FIGURES = (
    "progress",
    "pause",
    "reports",
    "plot",
    "hours",
    "categories",
    "prompts",
    "stream",
    "plan",
    "tables",
    "audit",
)
"""Figures that an event returns, before their digests and the notice."""

JUDGED = ("agreement", "source", "flags", "raters", "names", "disputes")
"""Figures that take longer, likewise."""


def look(client: TestClient, name: str = "look", *data: object, **more: object) -> dict[str, Any]:
    """Send an event that returns the figures, and some of a component's own after them."""
    answer = send(client, name, "UTC", {}, *data, **more)
    assert answer.status_code == 200
    values = answer.json()["data"]
    return dict(zip((*FIGURES, "shown", "notice", "own"), values, strict=False))


def judge(client: TestClient) -> dict[str, Any]:
    answer = send(client, "judge", {})
    return dict(zip((*JUDGED, "judged", "notice"), answer.json()["data"], strict=True))


def cells(html: str) -> list[str]:
    """The texts of a table's cells, row by row."""
    body = html.partition("<tbody>")[2]
    found = re.findall(r"<td[^>]*>(.*?)</td>", body, re.DOTALL)
    return [unescape(re.sub(r"<[^>]*>", "", text)).strip() for text in found]


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
        values = ["UTC", {}, ""][: len(event["inputs"])]
        answer = people[who].post(EVENTS, json={"fn_index": event["id"], "data": values})
        assert answer.status_code == STATUS[who]


@pytest.mark.parametrize(
    "body",
    [
        {"fn_index": 0, "data": ["UTC"]},
        {"fn_index": 0, "data": ["UTC", {}, ""]},
        {"fn_index": 0, "data": {}},
        {"fn_index": 99, "data": ["UTC", {}]},
        {"fn_index": 1e400, "data": ["UTC", {}]},
        {"fn_index": 0, "data": ["UTC", {}], "session_hash": "../etc"},
        {"data": ["UTC", {}]},
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


def test_the_figures_are_those_of_the_json_routes(client: TestClient) -> None:
    report(client, "Ann")
    page = look(as_admin(client))
    summary = client.get("/api/v1/admin/summary").json()
    done, total = summary["progress"]["done"], summary["progress"]["total"]
    assert f"<strong>{done}</strong> of {total} labels" in page["progress"]
    assert (page["pause"], page["notice"]) == (PAUSE, "")
    counts = [str(done), str(total), f"{done / total * 100:.0f} %"]
    assert cells(page["categories"]) == ["place", "binary", *counts]
    assert cells(page["prompts"]) == [HOSTILE, "place", "binary", *counts]
    assert {tuple(row) for row in page["plot"]["data"]} == {
        ("place", done, "done"),
        ("place", total - done, "still wanted"),
    }
    assert cells(page["stream"])[1:] == ["Ann", HOSTILE, "", "unsafe: Hateful: ${1} {{2}} <b>"]
    assert "${1} {{2}} &lt;b&gt;" in page["reports"]
    for figure in FIGURES:
        assert "<img src=x" not in str(page[figure])
    assert set(page["shown"]) == set(FIGURES)


def test_figures_that_have_not_changed_are_not_sent_again(client: TestClient) -> None:
    first = look(as_admin(client))
    again = send(client, "look", "UTC", first["shown"]).json()["data"]
    assert [value for value in again[:-1] if set(value) - {"__type__", "props"}] == []
    assert send(client, "look", 7, ["nonsense"]).json()["data"][0] == first["progress"]


def test_one_button_puts_back_all_that_a_rater_reported(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    ids = [report(client, name) for name in ("Ann", "ANN")]  # one person
    page = look(as_admin(client))["reports"]
    assert "Put back all 2 images that Ann reported" in page
    assert "Still shown" not in page
    event = {"decision": "kept", "rater": "Ann"}
    assert "None waits" in look(client, "decide", event_data=event)["reports"]
    assert store_with_admin.reports.withheld_images(ids) == set()


def test_the_form_of_a_ranking_becomes_its_answer() -> None:
    form = {"task_id": "t", "kind": "ranking", "rank a": "2", "rank b": "1", "rank c": ""}
    answer = AdjudicationForm.model_validate(form | {"event": "adjudicate"}).answer
    assert answer == RankingAnswer(ranks={"a": 2, "b": 1, "c": None})
    with pytest.raises(ValidationError):
        _ = AdjudicationForm.model_validate(form | {"rank a": "first"}).answer


@pytest.mark.parametrize(
    ("event", "form", "notice"),
    [
        ("person", {"what": "pause", "rater": "<b>"}, "no rater is called &lt;b&gt;"),
        ("person", {"what": "pause", "rater": ""}, "nothing was changed"),
        ("person", {"what": "pause", "rater": 7}, "nothing was changed"),
        ("person", {"what": "add", "rater": "ann", "role": "rater", "share": ""}, "already"),
        ("person", {"what": "share", "rater": "Ann", "share": "120"}, "share"),
        ("decide", {"decision": "kept", "image_id": "x"}, "no report of it is open"),
        ("decide", {"decision": "burned", "image_id": "x"}, "decision: Input should be"),
        (
            "adjudicate",
            {"task_id": "t", "kind": "binary", "verdict": "perhaps"},
            "verdict: Input should be",
        ),
        ("overlap", {"kind": "binary", "overlap": "0"}, "overlap: Input should be greater"),
        (
            "gold",
            {"name": "gold.csv", "csv": "images,answer\n<b>,good\n"},
            "gold.csv:2: images: &lt;b&gt; not of this run",
        ),
    ],
)
def test_what_a_form_cannot_have_is_said_in_words(
    people: dict[str, TestClient], event: str, form: dict[str, object], notice: str
) -> None:
    assert notice in look(people["an admin"], event, event_data=form)["notice"]


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
