"""Images of the playground that raters are asked about: they join the run and change nothing."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pyarrow as pa
import pytest

from data.errors import PictuneError
from data.feedback import Submission
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.schema import (
    IMAGES,
    LABELS_BINARY,
    LABELS_COMPARISONS,
    LABELS_RANKING,
    TASKS,
    read_table,
    write_table,
)
from data.tables.parquet import export
from data.tables.verification import verify
from finetune.settings.adapter_kinds import BASE
from pipelines.cli import main
from pipelines.compare.arena.campaign import Campaign
from pipelines.play.asking import ask_raters
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


def ask(studio: Studio, prompt: str = "A cat and a dog.") -> list[str]:
    """Send two seeds of both models; return the ids of the images that are new."""
    before = set(read_table(studio.run.images_table, IMAGES)["image_id"].to_pylist())
    wanted = request(studio, prompt, strength=0.5)
    columns = [drawn(studio, name, wanted) for name in (BASE, TUNED)]
    added = ask_raters(studio.run, studio.settings, list(zip(*columns, strict=True)), HERE)
    after = read_table(studio.run.images_table, IMAGES)["image_id"].to_pylist()
    assert added.feedback.tasks == 6  # two rankings, four verdicts
    assert added.images == 4
    return [image_id for image_id in after if image_id not in before]


def test_they_are_added_with_their_origin_and_no_earlier_row_changes(
    run: RunFolder, studio: Studio
) -> None:
    before = read_table(run.images_table, IMAGES).to_pylist()
    sent = ask(studio, "A prompt that the run did not have.")
    after = read_table(run.images_table, IMAGES).to_pylist()
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert [row["image_id"] for row in new] == sent
    assert {row["origin"] for row in new} == {"playground"}
    assert {(row["adapter_strength"], row["adapter_hash"] is None) for row in new} == {
        (None, True),
        (0.5, False),
    }
    assert {(row["seed"], row["steps"], row["eta"], row["round"]) for row in new} == {
        (7, 2, 0.0, 1),
        (8, 2, 0.0, 1),
    }


def test_sending_them_again_adds_nothing(run: RunFolder, studio: Studio) -> None:
    rows = [[one] for one in drawn(studio, BASE, request(studio))]
    ask_raters(run, studio.settings, rows, HERE)
    before = run.images_table.read_bytes()
    again = ask_raters(run, studio.settings, rows, HERE)
    assert (again.images, again.feedback.tasks) == (0, 0)
    assert run.images_table.read_bytes() == before


def answer_all(run: RunFolder) -> list[set[str]]:
    """Let somebody answer six tasks, then export; return the images of each."""
    asked = []
    with open_store(run) as store:
        rater = store.add_rater("anna")
        for number in range(6):
            claim = store.claim(rater)
            assert claim is not None
            asked.append(set(claim.task.image_ids))
            answer = (
                BinaryAnswer(verdict="good")
                if claim.task.kind == "binary"
                else RankingAnswer(ranks=dict.fromkeys(claim.task.image_ids, 1))
            )
            store.submit(
                Submission(
                    submission_id=f"own {number}",
                    task_id=claim.task.task_id,
                    rater_id=rater,
                    answer=answer,
                )
            )
        export(store, run)
        assert verify(store, run) == []
    return asked


def test_raters_see_them_first_and_their_labels_are_exported_and_whole(
    run: RunFolder, studio: Studio
) -> None:
    with open_store(run) as store:
        planned = add_planned_tasks(store, run, studio.settings)
    assert planned > 6
    sent = set(ask(studio, "An astronaut."))
    asked = answer_all(run)
    assert all(images <= sent for images in asked)
    verdicts = read_table(run.latest / "labels_binary.parquet", LABELS_BINARY)
    assert set(verdicts["image_id"].to_pylist()) == sent
    rankings = read_table(run.latest / "labels_ranking.parquet", LABELS_RANKING)
    assert sorted(map(len, rankings["image_ids"].to_pylist())) == [2, 2]
    assert labeled_images(run) == set()  # they are no sample of what the round draws


def test_planning_leaves_them_to_their_own_tasks(run: RunFolder, studio: Studio) -> None:
    def planned() -> tuple[int, set[tuple[object, ...]]]:
        with open_store(run) as store:
            added = add_planned_tasks(store, run, settings_of(run))
            export(store, run)
        rows = read_table(run.latest / "tasks.parquet", TASKS).to_pylist()
        return added, {(row["task_id"], row["overlap"], row["priority"]) for row in rows}

    _, before = planned()
    ask(studio)
    added, after = planned()
    assert added == 0
    assert before < after
    assert len(after) == len(before) + 6


def test_drawing_the_runs_images_again_keeps_them(run: RunFolder, studio: Studio) -> None:
    sent = ask(studio)
    next(run.images_dir.glob("*-*.png")).unlink()
    assert main(["images", "--runs", str(run.root.parent), "--run", run.root.name]) == 0
    kept = read_table(run.images_table, IMAGES)["image_id"].to_pylist()
    assert set(sent) <= set(kept)
    assert len(kept) == len(set(kept))


def test_equal_images_are_asked_about_once(run: RunFolder, studio: Studio) -> None:
    wanted = request(studio, strength=0.0, images=1)
    columns = [drawn(studio, name, wanted) for name in (BASE, TUNED)]
    added = ask_raters(run, studio.settings, list(zip(*columns, strict=True)), HERE)
    assert (added.images, added.feedback.tasks) == (1, 1)


def test_one_visitor_asks_ten_times_an_hour_and_keeps_nobody_else_from_it(
    run: RunFolder, studio: Studio
) -> None:
    wanted = request(studio, images=1)
    rows = [[one] for one in drawn(studio, BASE, wanted)]
    for _ in range(10):
        ask_raters(run, studio.settings, rows, HERE)
    with pytest.raises(VisitorError, match=r"asked 10 times .* an hour: ask again in 60 min\."):
        ask_raters(run, studio.settings, rows, HERE)
    ask_raters(run, studio.settings, rows, "192.168.1.20")


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
    rows = [[one] for one in drawn(studio, BASE, request(studio, images=1))]
    with pytest.raises(gr.Error) as shown, visible_errors():
        ask_raters(elsewhere, studio.settings, rows, HERE)
    assert shown.value.message == FAILED
    (line,) = caplog.messages
    assert str(tmp_path) in line
    assert "secret" not in line
