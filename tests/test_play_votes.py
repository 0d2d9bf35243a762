"""Votes of visitors: their images join the run, and change nothing else."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pyarrow as pa
import pytest

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import (
    IMAGES,
    LABELS_COMPARISONS,
    read_table,
    write_table,
)
from data.tables.parquet import export
from data.tables.verification import verify
from finetune.settings.adapter_kinds import BASE
from pipelines.cli import main
from pipelines.compare.arena.campaign import Campaign
from pipelines.play.errors import FAILED, visible_errors
from pipelines.play.studio import DrawnImage, Studio, VisitorError
from pipelines.play.votes import save_vote
from pipelines.run.campaign import add_planned_tasks, open_store
from pipelines.run.rounds import labeled_images
from reward.dataset import read_labels
from tests.support.play_run import TUNED, copied, drawn, request, settings_of, studio_of

HERE = "127.0.0.1"


@pytest.fixture
def run(play_run: RunFolder, tmp_path: Path) -> RunFolder:
    return copied(play_run, tmp_path)


@pytest.fixture
def studio(run: RunFolder, tmp_path: Path) -> Studio:
    return studio_of(run, tmp_path / "studio")


def vote(studio: Studio, prompt: str = "A cat and a dog.") -> list[str]:
    """Vote on two seeds of both models; return the ids of the images that are new."""
    run = studio.run
    before = set(read_table(run.images_table, IMAGES)["image_id"].to_pylist())
    wanted = request(studio, prompt, strength=0.5)
    columns = [drawn(studio, name, wanted) for name in (BASE, TUNED)]
    for row in zip(*columns, strict=True):
        save_vote(run, studio.settings, row, row[0], visitor="Ann", address=HERE)
    after = read_table(run.images_table, IMAGES)["image_id"].to_pylist()
    return [image_id for image_id in after if image_id not in before]


def test_images_are_added_with_their_origin_and_no_earlier_row_changes(
    run: RunFolder, studio: Studio
) -> None:
    before = read_table(run.images_table, IMAGES).to_pylist()
    voted_on = vote(studio, "A prompt that the run did not have.")
    after = read_table(run.images_table, IMAGES).to_pylist()
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert [row["image_id"] for row in new] == voted_on
    assert len(new) == 4
    assert {row["origin"] for row in new} == {"playground"}
    assert {(row["adapter_strength"], row["adapter_hash"] is None) for row in new} == {
        (None, True),
        (0.5, False),
    }
    assert {(row["seed"], row["steps"], row["eta"], row["round"]) for row in new} == {
        (7, 2, 0.0, 1),
        (8, 2, 0.0, 1),
    }


def test_raters_are_not_asked_about_them(run: RunFolder, studio: Studio) -> None:
    def planned() -> int:
        with open_store(run) as store:
            return add_planned_tasks(store, run, settings_of(run))

    assert planned() > 0
    assert len(vote(studio)) == 4
    assert planned() == 0
    assert labeled_images(run) == set()


def test_drawing_the_runs_images_again_keeps_them(run: RunFolder, studio: Studio) -> None:
    voted_on = vote(studio)
    next(run.images_dir.glob("*-*.png")).unlink()
    assert main(["images", "--runs", str(run.root.parent), "--run", run.root.name]) == 0
    kept = read_table(run.images_table, IMAGES)["image_id"].to_pylist()
    assert set(voted_on) <= set(kept)
    assert len(kept) == len(set(kept))


def test_votes_are_marked_and_neither_rewards_nor_reports_learn_from_them(
    run: RunFolder, studio: Studio
) -> None:
    wanted = request(studio, "Two foxes.", images=1)
    base, tuned = row = [drawn(studio, name, wanted)[0] for name in (BASE, TUNED)]

    def vote(best: DrawnImage, name: str = "Ann") -> None:
        save_vote(run, studio.settings, row, best, visitor=name, address=HERE)

    vote(tuned)
    vote(base, "Bob")
    vote(base)
    with open_store(run) as store:
        export(store, run)
        assert verify(store, run) == []
    path = run.latest / "labels_comparisons.parquet"
    labels = read_table(path, LABELS_COMPARISONS).to_pylist()
    better = [one["models"][["first", "second"].index(one["answer"])] for one in labels]
    assert better == [BASE, BASE]  # Ann's second vote replaces her first one
    left = [one["models"][one["shown_order"].index(0)] for one in labels]
    assert left == [BASE, BASE]
    assert [one["revision"] for one in labels] == [1, 2]
    assert all(table.empty for table in read_labels(run.latest))
    with pytest.raises(PictuneError, match="no comparisons yet"):
        Campaign.read(run.latest, "mine")

    rows = read_table(run.images_table, IMAGES).to_pylist()
    compared = [row | {"origin": "comparison"} for row in rows]
    write_table(pa.Table.from_pylist(compared, schema=IMAGES), IMAGES, run.images_table)
    with pytest.raises(VisitorError, match="Raters compare these images already"):
        vote(tuned)


def test_equal_images_get_no_vote(run: RunFolder, studio: Studio) -> None:
    wanted = request(studio, strength=0.0, images=1)
    row = [drawn(studio, name, wanted)[0] for name in (BASE, TUNED)]
    with pytest.raises(VisitorError, match="All images of this seed are the same"):
        save_vote(run, studio.settings, row, row[0], visitor="Ann", address=HERE)


def test_a_visitor_is_not_told_where_the_labels_are(
    run: RunFolder, studio: Studio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"postgresql+psycopg://lead:secret@/labels?host={tmp_path}"
    elsewhere = replace(run, database_url=url)
    row = [drawn(studio, name, request(studio, images=1))[0] for name in (BASE, TUNED)]
    with pytest.raises(gr.Error) as shown, visible_errors():
        save_vote(elsewhere, studio.settings, row, row[0], visitor="Ann", address=HERE)
    assert shown.value.message == FAILED
    (line,) = caplog.messages
    assert str(tmp_path) in line
    assert "secret" not in line
