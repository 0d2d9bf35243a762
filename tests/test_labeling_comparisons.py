"""Comparisons in the labeling app: plans, what raters are told, and simulated raters."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from data.comparisons import AXES
from data.errors import PictuneError
from data.store.feedback_store import FeedbackStore
from labeling_app.campaign.comparisons import (
    CompareConfig,
    ComparedImage,
    read_wordings,
)
from labeling_app.rater.responses import wording_html
from tests.support.comparison_campaign import (
    MODELS,
    PROMPTS,
    comparison_campaign,
    planned,
)
from tests.support.labeling_calls import claim, sign_in, submission
from tests.support.labeling_campaign import client_of

THREE = ("base", "rwl", "dpok")


def image(prompt: str, seed: int, model: str) -> ComparedImage:
    return ComparedImage(f"{prompt} {seed} {model}", prompt, seed, model)


def test_all_pairs_of_models_are_asked_on_each_axis_evenly_over_prompts() -> None:
    images = [image(p, s, m) for p in PROMPTS for s in range(4) for m in THREE]
    plan = planned(images, ("overall", "appeal"), THREE)
    pairs = Counter((t.axis, t.prompt, t.models) for t in plan.tasks)
    assert len(pairs) == 2 * 2 * 3
    assert set(pairs.values()) == {4}
    in_order = sorted(plan.tasks, key=lambda task: -task.priority)
    assert [t.axis for t in in_order] == ["overall"] * 24 + ["appeal"] * 24
    for first in range(0, 24, 6):  # each pass asks once of every prompt and pair
        one_pass = in_order[first : first + 6]
        assert len({(t.prompt, t.models) for t in one_pass}) == 6


def test_images_without_a_counterpart_and_equal_ones_are_left_out() -> None:
    images = [image(p, 0, m) for p in PROMPTS for m in THREE]
    images += [image(PROMPTS[0], 7, "base")]
    same = [ComparedImage("same", PROMPTS[1], 1, m) for m in ("base", "dpok")]
    same += [ComparedImage("other", PROMPTS[1], 1, "rwl")]
    plan = planned([*images, *same], ("overall",), THREE)
    assert (plan.same, plan.repeated) == (1, 1)
    assert len(plan.tasks) == 2 * 3 + 1


def test_a_plan_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        CompareConfig(axes=())


def test_planning_does_not_depend_on_the_order_of_images() -> None:
    images = [image(p, s, m) for p in PROMPTS for s in range(3) for m in THREE]
    shuffled = random.Random(1).sample(images, len(images))
    assert planned(shuffled, AXES, THREE) == planned(images, AXES, THREE)


def test_our_own_words_ask_each_axis_and_html_is_never_taken_from_words() -> None:
    assert set(read_wordings(CompareConfig())) == set(AXES)
    assert "<script>" not in wording_html("<script>alert(1)</script>")


@pytest.mark.parametrize(
    ("axis", "text", "reason"),
    [
        ("appeal", None, r"compare.wording.appeal: .*gone.md cannot be read .* name a Markdown"),
        ("appeal", "  \n", r"has no words for the axis appeal; write the question there"),
    ],
)
def test_an_axis_without_words_is_named(
    tmp_path: Path, axis: str, text: str | None, reason: str
) -> None:
    path = tmp_path / "gone.md"
    if text is not None:
        path.write_text(text)
    config = CompareConfig.model_validate({"wording": {axis: path}})
    with pytest.raises(PictuneError, match=reason):
        read_wordings(config)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    """Comparisons of two models on all axes."""
    campaign = comparison_campaign(tmp_path, AXES)
    with campaign.open_store() as opened:
        yield opened


@pytest.fixture
def client(store: FeedbackStore) -> TestClient:
    return client_of(store)


def answer_everything(client: TestClient) -> list[dict[str, Any]]:
    """Prefer what stands on the left; return the tasks as they were claimed."""
    tasks = []
    while (task := claim(client)["task"]) is not None:
        assert client.post("/api/v1/submissions", json=submission(task)).status_code == 201
        tasks.append(task)
    return tasks


def test_raters_are_told_neither_models_nor_prompts_that_they_must_not_know(
    client: TestClient,
) -> None:
    sign_in(client)
    tasks = answer_everything(client)
    history = client.get("/api/v1/history").json()["labels"]
    undone = client.post("/api/v1/undo", json={}).json()["task"]
    for shown in (*tasks, *history):
        axis = shown["question"]["axis"]
        assert (shown["prompt"] == "") == (axis == "appeal")
        assert len(shown["images"]) == 2
        assert "<p>" in shown["question"]["html"]
    assert undone["prompt"] == ""
    for told in (tasks, history, undone):
        assert not any(model in json.dumps(told) for model in MODELS)
    assert {task["question"]["axis"] for task in tasks} == set(AXES)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"kind": "comparison", "outcome": "skip"}, "without a reason; give why as `reason`"),
        (
            {"kind": "comparison", "outcome": "skip", "reason": "  "},
            "without a reason; give why as `reason`",
        ),
        (
            {"kind": "comparison", "outcome": "skip", "reason": "x" * 3000},
            "a reason of 3000 characters; give 200 at",
        ),
    ],
)
def test_an_answer_that_the_page_cannot_give_is_refused(
    client: TestClient, answer: dict[str, Any], reason: str
) -> None:
    sign_in(client)
    task = claim(client)["task"]
    send = {"submission_id": "odd", "task_id": task["task_id"], "answer": answer}
    refused = client.post("/api/v1/submissions", json=send)
    assert (refused.status_code, reason in refused.text) == (422, True), refused.text
    right = {"kind": "comparison", "outcome": "skip", "reason": "I cannot tell"}
    assert client.post("/api/v1/submissions", json=send | {"answer": right}).status_code == 201
