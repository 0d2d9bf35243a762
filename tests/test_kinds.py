"""A kind of task is one entry: a new one takes nothing but its own file."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data.feedback import NewTask
from data.kinds.kind import InvalidAnswer
from data.kinds.registry import KINDS
from data.tables.parquet import export
from data.tables.verification import verify
from pipelines.cli import main
from tests.support.best_of_three import BestAnswer, BestOfThree
from tests.support.data_campaign import Campaign
from tests.support.labeling_calls import claim, sign_in, submission
from tests.support.labeling_campaign import client_of


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """Three images: the middle one is known to be the best."""
    monkeypatch.setitem(KINDS, "best", BestOfThree())
    campaign = Campaign(tmp_path / "mine")
    task = NewTask(
        kind="best",
        prompt="a cat",
        image_ids=tuple(campaign.image_ids),
        gold=BestAnswer(best=campaign.image_ids[1]),
        overlap=2,
    )
    assert campaign.store.add_tasks([task]) == 1
    return campaign


def answer_over_http(campaign: Campaign) -> None:
    """Ann picks the right one at her second try, Ben skips."""
    client = client_of(campaign.store)
    sign_in(client)
    task = claim(client, "best")["task"]
    assert (task["kind"], len(task["images"])) == ("best", 3)
    for wrong in ({"best": task["images"][0]["image_id"]}, {"kind": "best", "best": "stranger"}):
        refused = client.post("/api/v1/submissions", json=submission(task, answer=wrong))
        assert refused.status_code == 422
    for image_id in (campaign.image_ids[0], campaign.image_ids[1]):
        answer = {"kind": "best", "best": image_id, "reason": None, "comment": None}
        sent = client.post("/api/v1/submissions", json=submission(task, answer=answer))
        assert sent.status_code == 201
        (label,) = client.get("/api/v1/history", params={"kind": "best"}).json()["labels"]
        assert label["answer"] == answer
        if image_id == campaign.image_ids[0]:
            undone = client.post("/api/v1/undo", json={}).json()
            assert (undone["task"]["task_id"], undone["answer"]) == (task["task_id"], answer)
            assert claim(client, "best")["task"]["task_id"] == task["task_id"]
    sign_in(client, "Ben")
    task = claim(client, "best")["task"]
    skip = {"kind": "best", "best": None}
    refused = client.post("/api/v1/submissions", json=submission(task, answer=skip))
    assert "without a reason" in refused.json()["detail"][0]["reason"]
    skip["reason"] = "I cannot tell"
    client.post("/api/v1/submissions", json=submission(task, answer=skip)).raise_for_status()
    (label,) = client.get("/api/v1/history", params={"answer": "skipped"}).json()["labels"]
    assert label["answer"]["best"] is None


def test_a_new_kind_goes_from_the_plan_to_the_tables(
    campaign: Campaign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_over_http(campaign)
    store, run = campaign.store, campaign.run
    export(store, run)
    rows = pq.read_table(run.latest / "labels_best.parquet").to_pylist()
    assert [row["pick"] for row in rows] == [campaign.image_ids[1], "none"]
    assert [row["gold_correct"] for row in rows] == [True, None]
    assert verify(store, run) == []
    raters = pq.read_table(run.latest / "raters.parquet").to_pylist()
    assert sorted((r["n"], r["n_skipped"], r["gold_n"]) for r in raters) == [(1, 0, 1), (1, 1, 0)]

    assert main(["inspect", "--runs", str(tmp_path), "--run", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "3 binary, 1 ranking and 1 best tasks" in printed
    assert "0 verdicts, 0 rankings and 2 picks by 2 raters" in printed


def test_the_description_of_the_interface_has_the_new_kind(campaign: Campaign) -> None:
    schemas = client_of(campaign.store).get("/api/v1/openapi.json").json()["components"]["schemas"]
    assert "BestAnswer" in schemas
    kind = schemas["ClaimBody"]["properties"]["kind"]["anyOf"][0]
    assert kind["enum"] == ["binary", "ranking", "comparison", "best"]


def test_a_kind_that_is_not_registered_is_no_task() -> None:
    with pytest.raises(ValidationError, match="'binary', 'ranking' or 'comparison'"):
        NewTask(kind="best", prompt="a cat", image_ids=("a", "b", "c"))


def test_a_known_answer_of_a_new_kind_fits_its_task(campaign: Campaign) -> None:
    ids = tuple(campaign.image_ids)
    with pytest.raises(InvalidAnswer, match="is not of this task"):
        NewTask(kind="best", prompt="a cat", image_ids=ids, gold=BestAnswer(best="stranger"))
    with pytest.raises(ValidationError, match="takes 3 to 3 images"):
        NewTask(kind="best", prompt="a cat", image_ids=ids[:2])
