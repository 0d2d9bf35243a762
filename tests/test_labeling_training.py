import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data.errors import PictuneError
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, tasks
from labeling_app.campaign.known_answers import GOLD_OVERLAP, read_gold, read_training
from labeling_app.campaign.tasks import ImageRow, TasksConfig
from tests.support.labeling_calls import answer_to, submission
from tests.support.labeling_campaign import Campaign, client_of, make_campaign

IMAGES = {name: ImageRow(f"id-{name}", "a cat") for name in ("one", "two", "three")} | {
    "other": ImageRow("id-other", "a dog")
}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return make_campaign(
        tmp_path,
        prompts=("a dog",),
        images=8,
        config=TasksConfig(rankings_per_prompt=1, ranking_size=3),
    )


@pytest.fixture
def store(campaign: Campaign) -> Iterator[FeedbackStore]:
    with campaign.open_store() as opened:
        yield opened


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["images,answer,explanation", *lines]), encoding="utf-8")
    return path


def test_training_and_gold_are_read_from_the_same_kind_of_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "known.csv",
        'one,good,"whiskers, and a tail"',
        "one|two|three,1|2|?,",
        "three,unsafe,",
    )
    first, second, third = read_training(path, IMAGES)
    assert (first.task.prompt, first.explanation, third.explanation) == (
        "a cat",
        "whiskers, and a tail",
        "",
    )
    assert third.is_correct(BinaryAnswer(verdict="unsafe", comment="shocking"))
    assert second.answer == RankingAnswer(ranks={"id-one": 1, "id-two": 2, "id-three": None})
    gold = read_gold(path, IMAGES)
    assert [task.kind for task in gold] == ["binary", "ranking", "binary"]
    assert (gold[0].gold_source, gold[0].overlap) == ("known.csv", GOLD_OVERLAP)
    assert gold[0].gold == BinaryAnswer(verdict="good")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("four,good,", r"known\.csv:2: images: four not of this run"),
        ("one,great,", r"known\.csv:2: answer: 'great' is not good, bad, skip or unsafe"),
        ("one|two,1,", r"known\.csv:2: answer: '1' is not 2 ranks"),
        ("one|two,1|best,", r"known\.csv:2: answer"),
        ("one|other,1|2,", r"known\.csv:2: images: not up to 9 different images of one prompt"),
        ("one|one,1|2,", r"known\.csv:2: images: not up to 9 different"),
        ("one", r"known\.csv:2: answer: '' is not"),
    ],
)
def test_a_row_that_cannot_be_understood_is_named(tmp_path: Path, line: str, fault: str) -> None:
    with pytest.raises(PictuneError, match=fault):
        read_training(write(tmp_path / "known.csv", line), IMAGES)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PictuneError, match="has no column answer, images"):
        read_gold(tmp_path / "known.csv", IMAGES)
    with pytest.raises(PictuneError, match="cannot be read"):
        read_gold(tmp_path / "none.csv", IMAGES)


def test_training_comes_first_gives_feedback_and_makes_no_labels(
    campaign: Campaign, store: FeedbackStore, tmp_path: Path
) -> None:
    rows = [ImageRow(image_id, "a dog") for image_id in campaign.paths]
    images = {str(number): row for number, row in enumerate(rows)}
    training = read_training(
        write(tmp_path / "training.csv", "0,good,four legs", "1|2,1|2,the first is whole"), images
    )
    client = client_of(store, campaign.paths, training)
    client.post("/api/v1/login", json={"rater": "Ann"})
    assert client.get("/api/v1/me").json()["trained"] is False
    assert client.post("/api/v1/claim", json={}).json()["reason"] == "the training comes first"
    single, pair = client.get("/api/v1/training").json()["items"]
    assert (pair["kind"], [image["image_id"] for image in pair["images"]]) == (
        "ranking",
        [rows[1].image_id, rows[2].image_id],
    )

    def answer(item: dict[str, Any], answer: dict[str, object]) -> dict[str, Any]:
        given: dict[str, Any] = client.post(
            "/api/v1/training", json={"item_id": item["item_id"], "answer": answer}
        ).json()
        return given

    assert "a ranking answer" in json.dumps(answer(single, {"kind": "ranking", "ranks": {}}))
    for verdict, is_right in (("bad", False), ("good", True)):
        said = {"correct": is_right, "explanation": "four legs", "left": 1}
        assert answer(single, {"kind": "binary", "verdict": verdict}) == said
    assert client.get("/api/v1/training").json() == {
        "items": [client.get("/api/v1/training").json()["items"][0]],
        "done": False,
    }
    right: dict[str, object] = {
        "kind": "ranking",
        "ranks": {rows[1].image_id: 1, rows[2].image_id: 2},
    }
    assert answer(pair, right)["left"] == 0
    assert client.get("/api/v1/me").json()["trained"] is True
    assert client.post("/api/v1/claim", json={}).json()["task"]
    assert (
        client.post(
            "/api/v1/training",
            json={"item_id": "none", "answer": {"kind": "binary", "verdict": "good"}},
        ).status_code
        == 404
    )
    with store.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(labels)) == 0


def test_a_rater_surely_below_the_bound_is_paused_and_an_admin_may_resume(
    campaign: Campaign, store: FeedbackStore
) -> None:
    with store.database.write() as connection:
        connection.execute(
            sa.update(tasks)
            .where(tasks.c.kind == "binary")
            .values(gold_json='{"kind": "binary", "verdict": "good"}')
        )
    client = client_of(store, campaign.paths, gold_bound=0.8)
    rater = client.post("/api/v1/login", json={"rater": "Ann"}).json()["rater_id"]

    def answer_wrongly(kind: str) -> None:
        task = client.post("/api/v1/claim", json={"kind": kind}).json()["task"]
        assert task is not None
        wrong = {"kind": kind, "verdict": "bad"} if kind == "binary" else answer_to(task)
        body = submission(task, answer=wrong)
        assert client.post("/api/v1/submissions", json=body).status_code == 201

    for _ in range(5):  # fewer misses may be chance
        answer_wrongly("binary")
    assert client.post("/api/v1/claim", json={}).json()["reason"].startswith("you have been paused")
    store.raters.set_status(rater, "active")
    answer_wrongly("ranking")  # no gold
    answer_wrongly("binary")
    assert client.post("/api/v1/claim", json={}).json()["task"]
