"""Calls of the labeling app's HTTP interface, as raters' clients send them."""

import uuid
from typing import Any

import sqlalchemy as sa
from fastapi.testclient import TestClient

from data.store.feedback_store import FeedbackStore
from data.store.tables import labels

FINISHED = {"mine": 4, "done": 4, "total": 4, "seconds_left": None, "hold": 2}


def sign_in(client: TestClient, name: str = "Ann") -> dict[str, Any]:
    answer = client.post("/api/v1/login", json={"rater": name})
    assert answer.status_code == 200
    signed_in: dict[str, Any] = answer.json()
    return signed_in


def claim(client: TestClient, kind: str | None = None) -> dict[str, Any]:
    claimed: dict[str, Any] = client.post(
        "/api/v1/claim", json={} if kind is None else {"kind": kind}
    ).json()
    return claimed


def submission(task: dict[str, Any], **changes: object) -> dict[str, Any]:
    good: dict[str, object] = (
        {"kind": "ranking", "ranks": {image["image_id"]: 1 for image in task["images"]}}
        if task["kind"] == "ranking"
        else {"kind": "binary", "verdict": "good"}
    )
    return {
        "submission_id": str(uuid.uuid4()),
        "task_id": task["task_id"],
        "answer": good,
    } | changes


def live_labels(store: FeedbackStore) -> list[sa.Row[Any]]:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(labels).where(labels.c.is_live)))
