"""Marks in answers: what each setting takes, and that they are stored as they were sent."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError

from labeling_app.campaign.known_answers import TrainingItem, read_training
from labeling_app.campaign.tasks import ImageRow, TasksConfig
from labeling_app.rater.images import thumbnail
from labeling_app.settings import LabelConfig
from tests.support.labeling_calls import claim, live_labels, sign_in, submission
from tests.support.labeling_campaign import Campaign, app_of, make_campaign

PROMPT = "A dog, on the moon."
POINT = {"kind": "point", "aspect": "artifact", "x0": 0.25, "y0": 0.5}
BOX = {
    "kind": "box",
    "aspect": "misaligned",
    "x0": 0.1,
    "y0": 0.2,
    "x1": 1 / 3,
    "y1": 1.0,
    "severity": 3,
    "word_indexes": [1, 4],
    "comment": "no moon",
}
UNSAID: dict[str, Any] = {**dict.fromkeys(("x1", "y1", "severity", "comment")), "word_indexes": []}
Start = Callable[..., TestClient]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    one = TasksConfig(rankings_per_prompt=0)
    return make_campaign(tmp_path, prompts=(PROMPT,), images=3, config=one)


@pytest.fixture
def start(campaign: Campaign) -> Start:
    """Return a client, signed in, of an app with these settings of marks."""

    def start(training: tuple[TrainingItem, ...] = (), **tasks: Any) -> TestClient:
        config = TasksConfig(**tasks)
        label = LabelConfig(open=True)
        app = app_of(campaign.open_store(), campaign.paths, label, training=training, tasks=config)
        client = TestClient(app, base_url="http://127.0.0.1")
        sign_in(client)
        return client

    return start


def binary(verdict: str, *marks: dict[str, Any], **more: Any) -> dict[str, Any]:
    reason = {"reason": "Something else"} if verdict in ("skip", "unsafe") else {}
    return {"kind": "binary", "verdict": verdict, "marks": list(marks)} | reason | more


NOT_ASKED = {"kind": "binary", "verdict": "bad"}
TEXT = POINT | {"aspect": "text"}


@pytest.mark.parametrize(
    ("settings", "answer", "says"),
    [
        ({}, NOT_ASKED, None),
        ({}, binary("bad", POINT), "this campaign asks for none"),
        ({}, binary("bad"), "this campaign asks for none"),
        ({"marks": "optional"}, NOT_ASKED, None),
        ({"marks": "optional"}, binary("bad"), None),
        ({"marks": "optional"}, binary("bad", POINT, BOX), None),
        ({"marks": "optional"}, binary("unsafe", BOX), None),
        ({"marks": "optional"}, binary("good", POINT), None),
        ({"marks": "optional"}, binary("skip", POINT), "a skip has none"),
        ({"marks": "optional"}, binary("bad", TEXT), "aspect 'text' is not of this campaign"),
        ({"marks": "optional", "mark_aspects": ["text"]}, binary("bad", TEXT), None),
        ({"marks": "optional"}, binary("bad", BOX | {"word_indexes": [5]}), "none at place 5"),
        ({"marks": "optional"}, binary("bad", BOX | {"x1": 1.01}), "less than or equal to 1"),
        ({"marks": "optional"}, binary("bad", *[POINT] * 51), "at most 50"),
        ({"marks": "required"}, NOT_ASKED, "a bad verdict without any"),
        ({"marks": "required"}, binary("bad"), None),
        ({"marks": "required"}, binary("bad", POINT), None),
        ({"marks": "required"}, {"kind": "binary", "verdict": "good"}, None),
        ({"marks": "required"}, {**binary("unsafe"), "marks": None}, None),
    ],
)
def test_each_setting_takes_its_marks_and_refuses_others_in_one_line(
    start: Start, settings: dict[str, Any], answer: dict[str, Any], says: str | None
) -> None:
    client = start(**settings)
    reply = client.post(
        "/api/v1/submissions", json=submission(claim(client)["task"], answer=answer)
    )
    stored = live_labels(client.app.state.labeling.store)  # type: ignore[attr-defined]
    if says is None:
        assert reply.status_code == 201
        given = answer.get("marks")
        expected = None if given is None else [UNSAID | mark for mark in given]
        assert json.loads(stored[0].answer_json).get("marks") == expected
        assert ("marks" in json.loads(stored[0].answer_json)) == (given is not None)
        return
    assert (reply.status_code, stored) == (422, [])
    detail = reply.json()["detail"]
    message = detail if isinstance(detail, str) else detail[0]["reason"]
    assert says in message
    assert "\n" not in message


def test_an_answer_sent_again_is_acknowledged_whatever_is_asked_for_by_then(start: Start) -> None:
    client = start()
    body = submission(claim(client)["task"], answer=NOT_ASKED)
    first = client.post("/api/v1/submissions", json=body)
    state = client.app.state.labeling  # type: ignore[attr-defined]
    state.tasks = TasksConfig(marks="required")
    again = client.post("/api/v1/submissions", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    fresh = submission(claim(client)["task"], answer=NOT_ASKED)
    assert client.post("/api/v1/submissions", json=fresh).status_code == 422
    assert len(live_labels(state.store)) == 1


def test_admins_see_marks_over_a_thumbnail(campaign: Campaign) -> None:
    *_, path = campaign.paths.values()  # the blue one
    edges = (0.25, 0.5, 0.5, 0.75, 0.75, 0.25, 0.75, 0.25)  # a box and a point
    plain, marked = (
        np.asarray(Image.open(io.BytesIO(thumbnail(path, given))), int) for given in ((), edges)
    )
    down, across = np.nonzero(np.abs(plain - marked).max(-1) > 90)
    box = across < 36
    assert (down[box].min(), down[box].max()) == pytest.approx((32, 48), abs=2)
    assert (across[box].min(), across[box].max()) == pytest.approx((16, 32), abs=2)
    assert (down[~box].mean(), across[~box].mean()) == pytest.approx((16, 48), abs=2)


def test_training_and_gold_ignore_marks(campaign: Campaign, start: Start, tmp_path: Path) -> None:
    first = next(iter(campaign.paths))
    file = tmp_path / "training.csv"
    file.write_text(f"images,answer,explanation\n{first},bad,See?\n", "utf-8")
    training = read_training(file, {first: ImageRow(first, PROMPT)})
    client = start(training, marks="required")
    for answer in (NOT_ASKED, binary("bad", POINT)):
        body = {"item_id": training[0].task.task_id, "answer": answer}
        assert client.post("/api/v1/training", json=body).json()["correct"] is True


@pytest.mark.parametrize(
    ("aspects", "says"),
    [
        (["artifact"], "'artifact' is there already"),
        (["text", "text"], "'text' is there already"),
        ([""], "at least 1 character"),
        ([str(number) for number in range(8)], "at most 7"),
    ],
)
def test_names_that_no_key_could_choose_are_refused(aspects: list[str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TasksConfig.model_validate({"mark_aspects": aspects})
