import copy
from datetime import datetime
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from data.errors import PictuneError
from data.feedback import NotFound
from data.schema import prompt_id
from data.store.feedback_store import FeedbackStore
from data.store.views.overview import LabelCount
from labeling_app.admin.api import router as admin_router
from labeling_app.admin.figures import WantedLabels, find_labels, measure_quality, summarize
from labeling_app.admin.gate import EVENTS
from labeling_app.admin.tables import category_plot, hours_plot
from labeling_app.app_state import AppState
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_campaign import (
    HOSTILE,
    Campaign,
    app_of,
    as_admin,
    make_campaign,
)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return make_campaign(
        tmp_path,
        prompts=(HOSTILE,),
        images=3,
        config=TasksConfig(binary_overlap=2, rankings_per_prompt=0),
    )


class Exporter:
    """Counts exports, and fails when told to."""

    def __init__(self) -> None:
        self.exports = 0
        self.error: PictuneError | None = None

    def __call__(self) -> None:
        if self.error is not None:
            raise self.error
        self.exports += 1


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


@pytest.fixture
def client(campaign: Campaign, store_with_admin: FeedbackStore, exporter: Exporter) -> TestClient:
    categories = {prompt_id(HOSTILE): "place"}
    return TestClient(
        app_of(store_with_admin, campaign.paths, on_export=exporter, categories=categories)
    )


@pytest.fixture
def state(client: TestClient) -> AppState:
    labeling: AppState = cast("FastAPI", client.app).state.labeling
    return labeling


def label_as(client: TestClient, name: str, count: int) -> None:
    client.post("/api/v1/login", json={"rater": name})
    for number in range(count):
        task = client.post("/api/v1/claim", json={}).json()["task"]
        body = {
            "submission_id": f"{name}{number}",
            "task_id": task["task_id"],
            "answer": {"kind": "binary", "verdict": "good"},
            "time_on_task_ms": 1000,
        }
        assert client.post("/api/v1/submissions", json=body).status_code == 201


def test_raters_see_nothing_of_the_admins_part(client: TestClient) -> None:
    client.post("/api/v1/login", json={"rater": "Ann"})
    routes = [
        (method, route.path.format(name="tasks.parquet", image_id="x"))
        for route in admin_router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]
    assert len(routes) == 13
    for method, path in routes:
        assert client.request(method, path, json={}).status_code == 403
        nobody = TestClient(client.app)
        assert nobody.request(method, path, json={}).status_code == 401
    assert client.get("/admin").status_code == 403


def test_a_rater_who_was_an_admin_at_the_sign_in_is_none_afterwards(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    rater_id = as_admin(client).get("/api/v1/me").json()["rater_id"]
    store_with_admin.raters.set_role(rater_id, "rater")
    assert client.post("/api/v1/admin/pause", json={}).status_code == 403
    assert client.get("/admin").status_code == 403
    event = {"fn_index": 0, "data": ["", [], None, None]}
    assert client.post(EVENTS, json=event).status_code == 403


def test_the_summary_tells_how_the_campaign_goes(client: TestClient, state: AppState) -> None:
    label_as(client, "Ann", 3)
    label_as(client, "Ben", 1)
    summary, quality = summarize(state), measure_quality(state)
    progress = summary.progress
    assert (progress.done, progress.total) == (4, 6)
    by_hour = hours_plot(summary, ZoneInfo("Asia/Tokyo"))
    assert (by_hour["Labels"].sum(), by_hour["Hour"].nunique()) == (4, 24)
    assert by_hour["Hour"].iloc[-1] == f"{datetime.now(ZoneInfo('Asia/Tokyo')):%H}"
    bars = category_plot(summary).to_numpy().tolist()
    assert bars == [["place", 4, "done"], ["place", 2, "still wanted"]]
    assert summary.categories == [LabelCount("place", "binary", 4, 6)]
    counts = {
        rater["name"]: (rater["n"], rater["median_ms"], rater["status"])
        for rater in quality["raters"]
    }
    assert counts == {
        "Ann": (3, 1000, "active"),
        "Ben": (1, 1000, "active"),
        "Boss": (0, None, "active"),
    }
    assert quality["agreement"]["binary"]["n_tasks"] == 1
    assert summary.paused is False


def test_labels_are_looked_through_by_rater_answer_and_time(
    client: TestClient, state: AppState
) -> None:
    label_as(client, "Ann", 3)
    label_as(client, "Ben", 1)

    def found(**wanted: str | int) -> list[list[str]]:
        page = find_labels(state, WantedLabels.model_validate(wanted))
        return [[one.rater for one in task] for task in page.tasks]

    # the tasks of the newest labels first, each with all its answers, the oldest first
    assert found() == [["Ann", "Ben"], ["Ann"], ["Ann"]]
    assert found(rater="Ben") == [["Ann", "Ben"]]
    assert found(source="simulated") == found(words="no such word") == found(kind="ranking") == []
    assert found(answer="good", words=HOSTILE[:5]) == found(source="human") == found()
    assert found(until="2020-01-01T00:00:00Z") == []
    assert found(before=3) == [["Ann"], ["Ann", "Ben"]]
    with pytest.raises(NotFound, match="no rater is called Nobody"):
        found(rater="Nobody")


def test_a_reader_keeps_the_quality_that_it_began_with(client: TestClient, state: AppState) -> None:
    measure_quality(state)
    held = state.latest_quality
    before = copy.deepcopy(held)
    label_as(client, "Ann", 2)
    measure_quality(state)
    assert held == before != state.latest_quality


def test_an_admin_exports_now_and_hears_why_it_failed(
    client: TestClient, exporter: Exporter, state: AppState
) -> None:
    as_admin(client)
    assert client.post("/api/v1/admin/export", json={}).json()["last_export"]
    assert exporter.exports == 1
    exporter.error = PictuneError("labels/latest: no room left")
    answer = client.post("/api/v1/admin/export", json={})
    assert (answer.status_code, answer.json()["detail"]) == (503, "labels/latest: no room left")
    assert "no room left" in str(summarize(state).export_error)


def test_health_tells_of_the_disk_and_of_a_store_that_is_gone(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["writes_refused"], health["writes_failed"]) == ("ok", 0, 0)
    assert health["free_disk_bytes"] > 0
    with store_with_admin.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE tasks RENAME TO tasks_elsewhere")
    assert client.get("/health").status_code == 503
