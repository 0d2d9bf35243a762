"""Reports over HTTP: raters are shown a reported image no more, and admins decide about it."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data.feedback import Task
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from labeling_app.campaign.known_answers import TrainingItem
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_campaign import (
    HOSTILE,
    Campaign,
    as_admin,
    as_rater,
    client_of,
    make_campaign,
)

UNSAFE = {"kind": "binary", "verdict": "unsafe", "reason": "Hateful", "comment": HOSTILE}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    config = TasksConfig(binary_overlap=3, rankings_per_prompt=1, ranking_size=3, ranking_overlap=3)
    return make_campaign(tmp_path, prompts=(HOSTILE,), images=3, config=config)


@pytest.fixture
def client(campaign: Campaign, store_with_admin: FeedbackStore) -> TestClient:
    return client_of(store_with_admin, campaign.paths)


def claim(client: TestClient, *held: str, kind: str | None = None) -> dict[str, Any]:
    claimed: dict[str, Any] = client.post(
        "/api/v1/claim", json={"except": held, "kind": kind}
    ).json()
    return claimed


def answer(client: TestClient, task_id: str, given: dict[str, Any]) -> Any:
    return client.post(
        "/api/v1/submissions",
        json={"submission_id": str(uuid.uuid4()), "task_id": task_id, "answer": given},
    )


def report(client: TestClient, name: str = "Ann") -> str:
    """Report an image as this rater; return its id."""
    task = claim(as_rater(client, name), kind="binary")["task"]
    assert answer(client, task["task_id"], UNSAFE).status_code == 201
    return str(task["images"][0]["image_id"])


def test_a_ranking_skipped_as_unsafe_must_say_which_image(
    client: TestClient, store_with_admin: FeedbackStore
) -> None:
    task = claim(as_rater(client, "Ann"), kind="ranking")["task"]
    first, second, third = (image["image_id"] for image in task["images"])
    skip: dict[str, Any] = {
        "kind": "ranking",
        "ranks": dict.fromkeys((first, second, third)),
        "reason": "Unsafe!",
    }
    refused = answer(client, task["task_id"], skip)
    assert refused.status_code == 422
    (detail,) = refused.json()["detail"]
    assert detail["field"] == "answer"
    assert detail["reason"].endswith(
        "says that an image is unsafe but not which; give the ids of such images as `unsafe`"
    )
    for wrong in (
        {"unsafe": ["elsewhere"]},
        {"unsafe": [first], "ranks": {first: 1, second: 2, third: None}},
    ):
        (detail,) = answer(client, task["task_id"], skip | wrong).json()["detail"]
        assert detail["field"] == "answer.ranking.unsafe"
    assert answer(client, task["task_id"], skip | {"unsafe": [second]}).status_code == 201
    assert store_with_admin.reports.withheld_images([first, second, third]) == {second}
    (label,) = client.get("/api/v1/history").json()["labels"]
    assert label["answer"]["unsafe"] == [second]


def test_a_reported_image_is_served_to_admins_alone(client: TestClient) -> None:
    image_id = report(client)
    refused = client.get(f"/api/v1/images/{image_id}")
    assert (refused.status_code, refused.headers["Cache-Control"]) == (410, "no-store")
    (label,) = client.get("/api/v1/history").json()["labels"]
    assert label["images"] == [{"image_id": image_id, "url": None}]
    as_admin(client)
    assert client.get(f"/api/v1/images/{image_id}").status_code == 200
    assert client.post("/api/v1/admin/put-back", json={"image_id": image_id}).json() == {
        "decision": "kept"
    }
    assert as_rater(client, "Ann").get(f"/api/v1/images/{image_id}").status_code == 200
    assert client.get("/api/v1/history").json()["labels"][0]["images"][0]["url"]


def test_the_training_leaves_out_what_was_reported(
    campaign: Campaign, store_with_admin: FeedbackStore
) -> None:
    first, second, _ = campaign.paths
    items = tuple(
        TrainingItem(
            Task(image_id, "binary", HOSTILE, (image_id,)), BinaryAnswer(verdict="good"), ""
        )
        for image_id in (first, second)
    )
    client = as_rater(client_of(store_with_admin, campaign.paths, items), "Ann")
    for item in items:
        client.post(
            "/api/v1/training",
            json={"item_id": item.task.task_id, "answer": {"kind": "binary", "verdict": "good"}},
        )
    reported = report(client)
    left = [
        item["item_id"] for item in as_rater(client, "Ben").get("/api/v1/training").json()["items"]
    ]
    assert left == [image_id for image_id in (first, second) if image_id != reported]
    for item_id in left:
        client.post(
            "/api/v1/training",
            json={"item_id": item_id, "answer": {"kind": "binary", "verdict": "good"}},
        )
    assert client.get("/api/v1/me").json()["trained"]
