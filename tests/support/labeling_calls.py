"""Calls of the labeling app's HTTP interface, as raters' clients send them."""

import uuid
from typing import Any

import sqlalchemy as sa
from fastapi.testclient import TestClient

from data.store.feedback_store import FeedbackStore
from data.store.tables import labels

FINISHED = {"mine": 4, "done": 4, "total": 4, "hold": 2}


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


def answer_to(task: dict[str, Any], *, skip: bool = False) -> dict[str, Any]:
    """Return an answer of the task's kind: good, all equal, the left image, or a skip."""
    kind, ids = task["kind"], [image["image_id"] for image in task["images"]]
    if kind == "ranking":
        return {"kind": kind, "ranks": dict.fromkeys(ids, None if skip else 1)}
    if skip:
        name = "verdict" if kind == "binary" else "outcome"
        return {"kind": kind, name: "skip", "reason": "I cannot tell"}
    if kind == "binary":
        return {"kind": kind, "verdict": "good"}
    return {"kind": kind, "outcome": "preferred", "preferred": ids[0]}


def submission(task: dict[str, Any], **changes: object) -> dict[str, Any]:
    sent = {"submission_id": str(uuid.uuid4()), "task_id": task["task_id"]}
    return sent | (changes if "answer" in changes else {"answer": answer_to(task)} | changes)


def live_labels(store: FeedbackStore) -> list[sa.Row[Any]]:
    with store.database.read() as connection:
        return list(connection.execute(sa.select(labels).where(labels.c.is_live)))
