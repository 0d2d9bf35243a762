"""Stages after an interruption, a lost file or a changed input: they go on, or start again."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.files import write_json
from data.runs import RunFolder
from data.schema import IMAGES, read_table, write_table
from data.store.feedback_store import FeedbackStore
from finetune.model.lora import LORA_FILE
from pipelines.run.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from pipelines.run.record import STAMP, read_stamp
from tests.support.demo_run import command, copy_without, metrics_of, sets
from tests.support.interruption import abandons_open_files, interrupted_when

pytestmark = pytest.mark.slow


@pytest.fixture
def run(demo_run: RunFolder) -> RunFolder:
    return demo_run


def stored_labels(run: RunFolder) -> int:
    """Return the number of labels in the store, while another process may write to it."""
    try:
        with closing(sqlite3.connect(f"file:{run.store_file}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM labels").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


@dataclass(frozen=True)
class Interruption:
    """A stage, the folders that it and later stages make, and a check that it is under way."""

    words: tuple[str, ...]
    made: tuple[str, ...]
    under_way: Callable[[RunFolder], bool]
    result: str


INTERRUPTIONS = {
    "simulate": Interruption(
        ("simulate",),
        ("labels", "reward", "finetune", "evaluation"),
        lambda run: stored_labels(run) >= 5,
        "labels/latest/_manifest.json",
    ),
    "reward": Interruption(
        ("reward", *sets("reward.epochs=400")),
        ("reward", "finetune", "evaluation"),
        lambda run: (
            (run.reward_dir / METRICS_FILE).exists()
            and (run.reward_dir / METRICS_FILE).stat().st_size > 0
        ),
        "reward/metrics.json",
    ),
    "evaluate": Interruption(
        ("evaluate",),
        ("evaluation",),
        lambda run: any(run.evaluation_dir.rglob("[!.]*.png")),
        "evaluation/report.html",
    ),
}


@abandons_open_files
@pytest.mark.parametrize("stage", INTERRUPTIONS)
def test_an_interrupted_stage_leaves_nothing_half_written_and_goes_on(
    run: RunFolder, tmp_path: Path, stage: str
) -> None:
    case = INTERRUPTIONS[stage]
    copy = copy_without(run, tmp_path, *case.made)
    with interrupted_when(lambda: case.under_way(copy)):
        assert command(copy, *case.words) == 130
    assert not (copy.root / case.result).exists()
    assert not list(copy.root.rglob(".tmp-*"))
    kept = stored_labels(copy)
    assert command(copy, *case.words) == 0
    assert (copy.root / case.result).exists()
    assert stored_labels(copy) >= kept > 0
    with FeedbackStore.open(copy.store_url) as store:
        progress = store.progress(source="simulated")
    assert progress.done == progress.total


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (["images"], "images.parquet"),
        (["simulate"], "labels/latest"),
        (["reward"], "reward/head.safetensors"),
        (["finetune", "--method", "rwl"], f"finetune/rwl/{LORA_FILE}"),
        (["evaluate"], "evaluation/metrics.json"),
    ],
)
def test_a_stage_writes_again_what_was_removed(
    run: RunFolder, tmp_path: Path, words: list[str], lost: str
) -> None:
    copy = copy_without(run, tmp_path, symlinks=True)
    before = (copy.root / lost).stat().st_size
    (copy.root / lost).unlink()
    assert command(copy, *words) == 0
    assert (copy.root / lost).stat().st_size == pytest.approx(before, rel=0.1)
    assert command(copy, "images") == 0


def test_an_edited_prompt_file_is_evaluated_again(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, prompts = copy_without(run, tmp_path, "finetune", "evaluation"), tmp_path / "prompts.txt"
    prompts.write_text("A red cat.\n")
    for stamp in copy.root.glob(f"*/{STAMP}"):
        stamp.unlink()  # of stages with other prompts
    assert command(copy, "evaluate", "--prompts", str(prompts)) == 0
    assert command(copy, "evaluate") == 0
    assert "evaluate: done" in capsys.readouterr().out
    prompts.write_text("Two dogs.\n")
    assert command(copy, "evaluate") == 0
    metrics = metrics_of(copy.evaluation_dir)
    assert metrics["results"][0]["prompts"][0]["prompt"] == "Two dogs."


def test_other_images_and_prompts_make_a_fine_tuning_start_again(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(run, tmp_path)
    for method in ("rwl", "dpok"):
        assert command(copy, "finetune", "--method", method) == 0
        assert f"finetune {method}: done" in capsys.readouterr().out
        stamp = read_stamp(copy.finetune_dir(method) / STAMP)
        assert stamp is not None
        others = {"inputs": stamp.inputs | {"prompts": "others"}}
        write_json(copy.finetune_dir(method) / STAMP, stamp.model_dump(mode="json") | others)
        assert command(copy, "finetune", "--method", method) == 0
        assert f"finetune {method}: adapter in" in capsys.readouterr().out
    write_table(read_table(copy.images_table, IMAGES).slice(1), IMAGES, copy.images_table)
    assert command(copy, "finetune", "--method", "dpok") == 0
    assert "finetune dpok: done" in capsys.readouterr().out
    assert command(copy, "finetune", "--method", "rwl") == 0
    assert "finetune rwl: adapter in" in capsys.readouterr().out


def test_new_labels_make_the_reward_train_again(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(run, tmp_path, symlinks=True)
    assert command(copy, "reward") == 0
    assert "reward: done" in capsys.readouterr().out
    with FeedbackStore.open(copy.store_url) as store:
        rater = store.add_rater("simulated rater 1", source="simulated")
        assert store.undo(rater) is not None
    assert command(copy, "reward") == 0
    assert "reward: model in" in capsys.readouterr().out


def test_metrics_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step, "by_prompt": {"A cat.": 1.0}, "nothing": None})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsLog(tmp_path, step=2) as log:
        log.write(3, {"loss": 30})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1, 2, 30]
