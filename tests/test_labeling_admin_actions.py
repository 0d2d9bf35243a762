"""Actions of admins over HTTP: disputes, raters, plan, tables, and the trail of all of it."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from data.tables.parquet import export
from labeling_app.admin.figures import list_disputes, list_tables
from labeling_app.app_state import AppState
from labeling_app.settings import LabelConfig
from pipelines.run.campaign import image_files
from tests.support.data_campaign import Campaign, submission
from tests.support.labeling_campaign import (
    add_admin,
    app_of,
    as_admin,
)

BOSS, ANN = "Boss", "Ann"


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    """Three images with a binary task of overlap 2 each, and a ranking of all."""
    campaign = Campaign(tmp_path)
    campaign.clock.now = pd.Timestamp.now(tz="UTC").to_pydatetime()
    add_admin(campaign.store)
    yield campaign
    campaign.store.close()


@pytest.fixture
def store(campaign: Campaign) -> FeedbackStore:
    return campaign.store


@pytest.fixture
def client(campaign: Campaign) -> TestClient:
    run: RunFolder = campaign.run
    app = app_of(
        campaign.store,
        image_files(run),
        LabelConfig(),
        on_export=lambda: export(campaign.store, run),
        tables=run.latest,
    )
    return as_admin(TestClient(app))


def post(client: TestClient, call: str, **body: object) -> object:
    answer = client.post(f"/api/v1/admin/{call}", json=body)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def state_of(client: TestClient) -> AppState:
    state: AppState = cast("FastAPI", client.app).state.labeling
    return state


def trail(store: FeedbackStore) -> list[tuple[object, ...]]:
    return [(one.actor, one.action, one.subject, one.after) for one in store.audit.latest(100)]


def disagree(store: FeedbackStore) -> str:
    """Let Ann and Ben disagree on one image; return the task."""
    for name, verdict in (("Ann", "good"), ("Ben", "bad")):
        rater_id = store.add_rater(name)
        claim = store.claim(rater_id, kind="binary")
        assert claim is not None
        answer = BinaryAnswer.model_validate({"verdict": verdict})
        store.submit(submission(claim, rater_id, name, answer))
    assert claim is not None
    return claim.task.task_id


def test_a_dispute_has_all_answers_and_can_be_opened_again(
    client: TestClient, store: FeedbackStore
) -> None:
    task_id = disagree(store)
    post(client, "adjudicate", task_id=task_id, answer={"kind": "binary", "verdict": "bad"})
    (decided,) = list_disputes(state_of(client)).decided
    assert [(one.source, getattr(one.answer, "verdict", None)) for one in decided.answers] == [
        ("human", "good"),
        ("human", "bad"),
        ("adjudicator", "bad"),
    ]
    post(client, "withdraw", task_id=task_id)
    assert trail(store)[0][:3] == (BOSS, "withdraw_adjudication", task_id)


def test_the_decision_decides_the_consensus_and_every_row_says_whose_it_is(
    client: TestClient, store: FeedbackStore, campaign: Campaign
) -> None:
    task_id = disagree(store)
    post(client, "adjudicate", task_id=task_id, answer={"kind": "binary", "verdict": "bad"})
    post(client, "export")
    latest = campaign.run.latest
    binary = pd.read_parquet(latest / "labels_binary.parquet")
    assert sorted(binary["source"]) == ["adjudicator", "human", "human"]
    consensus = pd.read_parquet(latest / "consensus.parquet").query("method == 'mv'")
    consensus = consensus.set_index("source")
    assert consensus["value"].to_dict() == {"human": 0.5, "adjudicator": 0.0}
    assert consensus["n_raters"].to_dict() == {"human": 2, "adjudicator": 1}
    done = [(BOSS, "export"), (BOSS, "adjudicate"), (None, "set_role"), (None, "set_password")]
    assert [one[:2] for one in trail(store)] == done


def test_roles_are_given_and_nobody_locks_the_last_admin_out(
    client: TestClient, store: FeedbackStore
) -> None:
    store.add_rater(ANN)
    refused = client.post("/api/v1/admin/role", json={"rater": ANN, "role": "admin"})
    assert (refused.status_code, "no password" in refused.json()["detail"]) == (409, True)
    post(client, "password", rater=ANN)
    post(client, "role", rater=ANN, role="admin")
    account = store.raters.find(ANN)
    assert account is not None
    assert account.role == "admin"
    own = client.post("/api/v1/admin/role", json={"rater": BOSS, "role": "rater"})
    assert own.status_code == 409
    missing = client.post("/api/v1/admin/role", json={"rater": "Nobody", "role": "admin"})
    assert missing.status_code == 404


def test_the_tables_of_the_last_export_can_be_downloaded_and_nothing_else(
    client: TestClient, store: FeedbackStore
) -> None:
    assert list_tables(state_of(client)) == []
    post(client, "export")
    tables = {one.name: one.rows for one in list_tables(state_of(client))}
    assert tables["tasks.parquet"] == 4
    answer = client.get("/api/v1/admin/tables/tasks.parquet")
    assert "tasks.parquet" in answer.headers["Content-Disposition"]
    assert len(pd.read_parquet(io.BytesIO(answer.content))) == 4
    assert trail(store)[0] == (BOSS, "download", None, {"table": "tasks.parquet"})
    for name in ("nothing.parquet", "_manifest.json", "..%2Ffeedback.db", "%2Fetc%2Fpasswd"):
        assert client.get(f"/api/v1/admin/tables/{name}").status_code == 404


def test_thumbnails_are_small_and_bare_and_for_admins_alone(
    client: TestClient, campaign: Campaign
) -> None:
    path = campaign.run.images_dir / "large.png"
    exif = Image.Exif()
    exif[0x010E] = "drawn by a secret model"
    Image.new("RGB", (1024, 512), "teal").save(path, exif=exif)
    image_id = campaign.image_ids[0]
    path.replace(image_files(campaign.run)[image_id])
    answer = client.get(f"/api/v1/admin/thumbnails/{image_id}")
    image = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["Content-Type"], image.size) == ("image/webp", (320, 160))
    assert b"secret" not in answer.content
    assert client.get("/api/v1/admin/thumbnails/nothing").status_code == 404
