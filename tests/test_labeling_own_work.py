"""A rater's own work over HTTP: tasks put aside, and a history that is searched and paged."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data.feedback import NewTask
from data.kinds.registry import is_skip
from data.store.feedback_store import FeedbackStore
from data.store.views.overview import latest_labels
from tests.support.data_campaign import Clock
from tests.support.labeling_calls import answer_to, claim, sign_in, submission
from tests.support.labeling_campaign import client_of

PROMPTS = ("A cat and a dog.", "Vier WÖLFE im Park", "100% of it_all")
IMAGES = [f"image{number}" for number in range(6)]


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[FeedbackStore]:
    """Verdicts, rankings and comparisons of three prompts, for two people."""
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    with FeedbackStore.open(url, clock=clock, rng=random.Random(0)) as opened:
        opened.add_tasks(planned())
        opened.comparisons.add(comparisons())
        opened.comparisons.set_wordings({"appeal": "Which?"})
        yield opened


def planned() -> list[NewTask]:
    single = [
        NewTask(kind="binary", prompt=PROMPTS[place % 3], image_ids=(image_id,), overlap=2)
        for place, image_id in enumerate(IMAGES)
    ]
    ranked = [
        NewTask(kind="ranking", prompt=PROMPTS[place], image_ids=tuple(IMAGES[place:][:3]))
        for place in range(2)
    ]
    return single + ranked


def comparisons() -> list[NewTask]:
    asked: dict[str, Any] = {"kind": "comparison", "prompt": PROMPTS[0]}
    pair = {"image_ids": IMAGES[:2], "models": ("a", "b")}
    facts: list[dict[str, Any]] = [
        {"axis": "overall", **pair},
        {"axis": "appeal", **pair},
    ]
    return [NewTask.model_validate(asked | one) for one in facts]


@pytest.fixture
def client(store: FeedbackStore) -> TestClient:
    client = client_of(store)
    sign_in(client)
    return client


def give(client: TestClient, task: dict[str, Any], **changes: Any) -> None:
    assert client.post("/api/v1/submissions", json=submission(task, **changes)).is_success


def put_aside(client: TestClient, task: dict[str, Any]) -> None:
    put = client.post("/api/v1/aside", json={"task_id": task["task_id"]})
    assert put.status_code == 204


def aside(client: TestClient) -> list[str]:
    return [task["task_id"] for task in client.get("/api/v1/aside").json()["tasks"]]


def history(client: TestClient, **query: Any) -> dict[str, Any]:
    answer = client.get("/api/v1/history", params=query)
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_task_put_aside_goes_to_others_when_its_hold_has_ended(
    client: TestClient, store: FeedbackStore, clock: Clock
) -> None:
    """The hold lasts as any lease, from when it is put aside; then the task has its place again."""
    mine = claim(client, "ranking")["task"]  # one person is wanted
    clock.pass_seconds(200)
    put_aside(client, mine)
    ben = store.add_rater("Ben")
    clock.pass_seconds(299)
    assert mine["task_id"] not in _claimable(store, ben)
    clock.pass_seconds(2)
    assert aside(client) == [mine["task_id"]]  # nobody has taken it
    assert mine["task_id"] in _claimable(store, ben)
    assert aside(client) == []
    assert client.post("/api/v1/claim", json={"aside": mine["task_id"]}).json()["task"] is None
    give(client, mine)  # from a tab that shows it still: late, and never refused
    assert len(history(client)["labels"]) == 1


def _claimable(store: FeedbackStore, rater_id: str) -> set[str]:
    """The rankings that a rater is given."""
    seen: list[str] = []
    while (given := store.claim(rater_id, kind="ranking", excluding=seen)) is not None:
        seen.append(given.task.task_id)
    return set(seen)


def test_only_a_task_that_is_held_can_be_put_aside(client: TestClient) -> None:
    task = claim(client)["task"]
    give(client, task)
    for task_id in (task["task_id"], "nowhere"):
        assert client.post("/api/v1/aside", json={"task_id": task_id}).status_code == 404


def test_a_reported_image_is_in_no_list_of_tasks_put_aside(
    client: TestClient, store: FeedbackStore
) -> None:
    task = claim(client, "binary")["task"]
    put_aside(client, task)
    ben = client_of(store)
    sign_in(ben, "Ben")
    while task["task_id"] != (other := claim(ben, "binary")["task"])["task_id"]:
        give(ben, other)
    give(ben, other, answer={"kind": "binary", "verdict": "unsafe", "reason": "Hateful"})
    assert aside(client) == []
    assert client.post("/api/v1/claim", json={"aside": task["task_id"]}).json()["task"] is None


def test_the_history_goes_on_to_the_first_label(client: TestClient) -> None:
    given = []
    while (task := claim(client)["task"]) is not None:
        give(client, task)
        given.append(task["task_id"])
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 4}
    sizes = []
    while True:
        page = history(client, **query)
        sizes.append(len(page["labels"]))
        seen += [label["task_id"] for label in page["labels"]]
        if page["older"] is None:
            break
        query["before"] = page["older"]
        if len(seen) == 4:  # an edit meanwhile shows no label twice and hides none
            give(client, next(label for label in page["labels"][:1]))
    assert sizes == [4, 4, 2]
    assert seen == given[::-1]


@pytest.mark.parametrize(
    ("words", "prompts"),
    [
        ("CAT dog", {PROMPTS[0]}),
        ("wölfe", {PROMPTS[1]}),
        ("wölfe park", {PROMPTS[1]}),
        ("100% it_", {PROMPTS[2]}),
        ("%", {PROMPTS[2]}),
        ("it%all", set()),
        ("zebra", set()),
    ],
)
def test_the_history_is_searched_by_the_words_that_raters_were_told(
    client: TestClient, words: str, prompts: set[str]
) -> None:
    while (task := claim(client)["task"]) is not None:
        give(client, task)
    found = history(client, words=words, limit=100)["labels"]
    assert {label["prompt"] for label in found} == prompts
    assert all(label.get("question", {}).get("axis") != "appeal" for label in found)


def test_the_history_is_narrowed_by_kind_and_answer(
    client: TestClient, store: FeedbackStore
) -> None:
    remark = '":1,"verdict":"skip","outcome":"skip","unsafe":["a"],"a":1}\\'  # is no answer
    number = 0
    while (task := claim(client)["task"]) is not None:
        number += 1
        answer = answer_to(task, skip=number % 2 == 0) | {"comment": remark}
        give(client, task, answer=answer)
    last = history(client, kind="ranking")["labels"][0]
    ids = [image["image_id"] for image in last["images"]]
    unsafe = {"kind": "ranking", "ranks": dict.fromkeys(ids), "unsafe": ids[:1], "reason": "unsafe"}
    give(client, last, answer=unsafe)

    ann = store.rater_id_of("human", "Ann")
    every = latest_labels(store, rater_id=ann, limit=100)
    assert len(every) == 10
    skipped = {label.task.task_id for label in every if is_skip(label.answer)}
    reported = {last["task_id"]}
    assert {
        group: {label["task_id"] for label in history(client, answer=group, limit=100)["labels"]}
        for group in ("skipped", "reported", "commented", "bad")
    } == {
        "skipped": skipped - reported,
        "reported": reported,
        "commented": {label.task.task_id for label in every} - reported,
        "bad": set(),
    }
    for kind in ("binary", "ranking", "comparison"):
        kinds = {label["kind"] for label in history(client, kind=kind, limit=100)["labels"]}
        assert kinds == {kind}
    for query in ({"kind": "none"}, {"answer": "none"}, {"before": -1}, {"more": 1}):
        assert client.get("/api/v1/history", params=query).status_code == 422
