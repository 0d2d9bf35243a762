"""Claims, answers, undo, history and progress over HTTP."""

import json

import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from data.store.feedback_store import FeedbackStore
from labeling_app.rater.api import router
from labeling_app.rater.own_work import router as own_work_router
from tests.support.labeling_calls import FINISHED, claim, live_labels, sign_in, submission

OPEN_TO_ALL = {"settings", "words", "login", "logout"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, route.path.format(image_id="x"))
        for route in (*router.routes, *own_work_router.routes)
        if isinstance(route, APIRoute) and route.path.startswith("/api/v1/")
        for method in route.methods or ()
        if route.path.removeprefix("/api/v1/") not in OPEN_TO_ALL
    ],
)
def test_nothing_works_before_signing_in(visitor: TestClient, method: str, path: str) -> None:
    assert visitor.request(method, path, json={}).status_code == 401


def test_a_forged_cookie_signs_nobody_in(visitor: TestClient) -> None:
    sign_in(visitor)
    ((name, genuine),) = visitor.cookies.items()
    visitor.cookies.clear()
    visitor.cookies.set(name, "x" + genuine[1:])
    assert visitor.get("/api/v1/me").status_code == 401


def test_an_answer_is_in_the_store_when_it_is_acknowledged(
    client: TestClient, open_store: FeedbackStore
) -> None:
    rater = sign_in(client)
    task = claim(client, "binary")["task"]
    body = submission(task, time_on_task_ms=1234, active_ms=1000, input_mode="key")
    answer, again = (client.post("/api/v1/submissions", json=body) for _ in range(2))
    assert (answer.status_code, again.status_code) == (201, 200)
    assert answer.json() == again.json()
    (label,) = live_labels(open_store)
    assert (label.label_id, label.revision) == (
        answer.json()["label_id"],
        answer.json()["revision"],
    )
    assert (label.time_on_task_ms, label.active_ms, label.input_mode) == (1234, 1000, "key")
    assert label.session_id == rater["session_id"]
    assert label.app_version
    assert label.guideline_version


def test_progress_counts_to_the_end_and_then_says_so(client: TestClient) -> None:
    sign_in(client)
    for done in range(4):
        answer = claim(client)
        counted = {"mine": done, "done": done, "total": 4}
        assert answer["progress"] == counted | {"hold": 2}
        client.post("/api/v1/submissions", json=submission(answer["task"]))
    none_left = {"task": None, "code": "all_labeled", "reason": "everything is labeled"}
    assert claim(client) == none_left | {"progress": FINISHED}
    assert client.get("/api/v1/progress").json()["done"] == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"answer": {"kind": "binary", "verdict": "great"}}, "answer.binary.verdict"),
        ({"answer": {}}, "answer"),
        ({"answer": {"verdict": "good"}}, "answer"),  # the kind is never guessed
        ({"answer": {"kind": "ranking", "ranks": {"x": 0}}}, "answer.ranking.ranks"),
        ({"answer": {"kind": "ranking", "ranks": {"x": "first"}}}, "answer.ranking.ranks.x"),
        ({"answer": []}, "answer"),
        (
            {"answer": {"kind": "binary", "verdict": "skip", "reason": "\ud800"}},
            "answer.binary.reason",
        ),
        ({"time_on_task_ms": -1}, "time_on_task_ms"),
        ({"time_on_task_ms": float("nan")}, "time_on_task_ms"),
        ({"time_on_task_ms": 2**40}, "time_on_task_ms"),
        ({"active_ms": -1}, "active_ms"),
        ({"input_mode": "mind"}, "input_mode"),
        ({"task_id": "a\x00b"}, "task_id"),
        (
            {"answer": {"kind": "binary", "verdict": "skip", "comment": "a\x00b"}},
            "answer.binary.comment",
        ),
        ({"submission_id": ""}, "submission_id"),
        ({"submission_id": "x" * 10_000}, "submission_id"),
        ({"rater_id": "someone else"}, "rater_id"),
    ],
)
def test_a_bad_body_is_refused_with_field_and_reason(
    visitor: TestClient, changes: dict[str, object], field: str
) -> None:
    sign_in(visitor)
    body = json.dumps(submission(claim(visitor, "binary")["task"], **changes))
    answer = visitor.post(
        "/api/v1/submissions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["field"].startswith(field)
    assert detail["reason"]


def test_a_rater_that_the_store_does_not_know_is_signed_out(
    client: TestClient, open_store: FeedbackStore
) -> None:
    sign_in(client)
    with open_store.database.write() as connection:
        connection.execute(sa.text("DELETE FROM raters"))
    assert client.post("/api/v1/claim", json={}).status_code == 401


def test_a_store_that_cannot_write_says_so_and_is_counted(
    client: TestClient, open_store: FeedbackStore
) -> None:
    sign_in(client)
    task = claim(client)["task"]
    with open_store.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE labels RENAME TO labels_elsewhere"))
    answer = client.post("/api/v1/submissions", json=submission(task))
    assert answer.status_code == 503
    assert "sqlite" not in answer.text
    assert client.get("/health").json()["writes_failed"] == 1


def test_a_claim_and_a_submission_are_one_transaction_each(
    client: TestClient, open_store: FeedbackStore
) -> None:
    sign_in(client)
    begun: list[sa.Connection] = []
    sa.event.listen(open_store.database.engine, "begin", begun.append)
    task = claim(client)["task"]
    assert len(begun) == 1
    client.post("/api/v1/submissions", json=submission(task)).raise_for_status()
    assert len(begun) == 2
