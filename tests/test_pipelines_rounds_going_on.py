"""`make rounds`: killed and gone on with, with people in place of a judge; and refused rounds."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from data.feedback import Submission
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.schema import IMAGES, read_table, write_table
from data.store.feedback_store import FeedbackStore
from finetune.model.lora import LORA_FILE
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from pipelines.evaluate.text import read_evaluation
from pipelines.run.record import STAMP, present_round
from tests.support.demo_run import command, sets
from tests.support.rounds_run import (
    SETTINGS,
    copy_of,
    files_of_first_round,
    rows_of,
)
from tests.support.tuned_run import Commands, change_adapter

pytestmark = pytest.mark.slow

SLOWLY = (*SETTINGS, *sets("rwl.updates=8", "finetune.checkpoints=8", "images.batch=2"))


def drawn_in_second(run: RunFolder) -> int:
    return len([path for path in run.images_dir.glob("*-20000*.png") if path.name[0] != "."])


def test_rounds_that_are_killed_go_on_where_they_were(
    ready: RunFolder, terminal: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path / "killed")
    words = ("rounds", "--rounds", "2", "--method", "rwl", *SLOWLY)
    apart = [words[0], "--runs", str(run.root.parent), "--run", run.root.name, *words[1:]]
    later, whole = run.in_round(2), copy_of(ready, tmp_path / "whole")
    terminal.kill_when(lambda: drawn_in_second(run) >= 2, apart)
    assert 2 <= drawn_in_second(run) < 16
    assert present_round(run) == 2
    assert not rows_of(run, 2)
    before = files_of_first_round(run)
    folder = later.finetune_dir("rwl")
    terminal.kill_when(lambda: any(folder.glob("checkpoints/*/manifest.json")), apart)
    assert not (folder / LORA_FILE).exists()
    capsys.readouterr()
    assert command(run, *words) == 0
    out = capsys.readouterr().out
    for line in (
        "images: done, round 2",
        "simulate: done",
        "reward: done",
        "finetune rwl: adapter",
    ):
        assert line in out, line
    assert files_of_first_round(run) == before
    assert {result.round for result in read_evaluation(run).results} == {None, 1, 2}
    # By hand, and never killed: the same images.
    settings = [one for one in SLOWLY if one != "--set"]
    assert command(whole, "finetune", "--method", "rwl", *sets(*settings)) == 0
    assert command(whole, "images", "--round", "2", "--method", "rwl") == 0
    ids = [[row["image_id"] for row in rows_of(one, 2)] for one in (run, whole)]
    assert ids[0] == ids[1]
    # Nothing is left to do, and a round that lies behind is refused.
    weights = (folder / LORA_FILE).read_bytes()
    assert command(run, *words) == 0
    assert (folder / LORA_FILE).read_bytes() == weights
    assert command(run, "rounds", "--rounds", "1", "--method", "rwl") == 2
    assert "ROUNDS=1: " in capsys.readouterr().err


def test_without_a_judge_rounds_stop_where_people_have_to_label(
    first_round: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(first_round, tmp_path)
    text = run.config_file.read_text()
    run.config_file.write_text(re.sub("(?m)^judge = .*\n", "", text))
    words = ("rounds", "--rounds", "2", "--method", "rwl", *SETTINGS)
    assert command(run, *words) == 0
    out = capsys.readouterr().out
    assert out.count("rounds: the images of round 2 want labels: run `make label RUN=ready`") == 1
    later = run.in_round(2)
    assert len(rows_of(run, 2)) == 16
    assert not later.reward_dir.exists()
    assert command(run, *words) == 0
    assert "want labels" in capsys.readouterr().out
    answer_new_tasks(run)
    assert command(run, *words) == 0
    assert (later.finetune_dir("rwl") / LORA_FILE).exists()
    evaluation = read_evaluation(run)
    assert (evaluation.judged, evaluation.round) == (False, 2)


def answer_new_tasks(run: RunFolder) -> None:
    """Let a person judge the new images, as `make label` would, and skip what is asked besides."""
    new = [ImageRow(str(row["image_id"]), str(row["prompt"]), 2) for row in rows_of(run, 2)]
    verdicts = dict(zip((image.image_id for image in new), cycle(("good", "bad"))))
    with FeedbackStore.open(run.store_url) as store:
        store.add_tasks(plan_tasks(new, TasksConfig(rankings_per_prompt=0)))
        rater = store.add_rater("ann")
        while (claim := store.claim(rater)) is not None:
            task = claim.task
            answer: Answer = RankingAnswer(ranks=dict.fromkeys(task.image_ids))
            if task.kind == "binary":
                answer = BinaryAnswer.model_validate(
                    {"verdict": verdicts.get(task.image_ids[0], "skip")}
                )
            submission = Submission(
                submission_id=f"ann-{task.task_id}",
                task_id=task.task_id,
                rater_id=rater,
                answer=answer,
                time_on_task_ms=1000,
            )
            store.submit(submission)


@dataclass(frozen=True)
class Refusal:
    """A command that is refused, after something was done to a run of two rounds."""

    words: tuple[str, ...]
    error: str
    spoil: Callable[[RunFolder], object] = lambda _: None


def without_labels(run: RunFolder, number: int) -> None:
    """Let the labels be of images that the round did not draw."""
    table = read_table(run.images_table, IMAGES)
    rows = table.to_pylist()
    for row in rows:
        row["round"] = 9 if (row["round"] or 1) == number else row["round"]
    write_table(table.from_pylist(rows, schema=IMAGES), IMAGES, run.images_table)


def other_base(run: RunFolder) -> None:
    """Give the run a base of other weights in the same place."""
    (row, *_) = rows_of(run, 1)
    model = run.root.parent / "model"
    shutil.copytree(str(row["model_id"]), model)
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    new_base(run, str(model))


def new_base(run: RunFolder, place: str) -> None:
    """Let the run's settings name a base in another place, as if they always had."""
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace(str(rows_of(run, 1)[0]["model_id"]), place))


NEXT = ("images", "--round", "3")
FINETUNE = ("finetune", "--method", "rwl")
REFUSALS = {
    "a round that is not next": Refusal(
        ("images", "--round", "4"), "is in round 2; give 2 to go on with it, or 3 for the next"
    ),
    "a round that is over": Refusal(("images", "--round", "1"), "ROUND=1: "),
    "another setting than the round's": Refusal(
        ("images", *sets("rounds.images_per_prompt=9")),
        "rounds.images_per_prompt is 8 there and 9 now",
    ),
    "another method than the round's": Refusal(
        ("images", "--method", "dpok"),
        "METHOD=dpok: round 2 was begun with the model of rwl; go on with it",
    ),
    "no labels of the round before": Refusal(
        NEXT,
        "no image of round 2 has a label yet; run `make label` or `make simulate` first",
        lambda run: without_labels(run, 2),
    ),
    "a reward without labels of its round": Refusal(
        ("reward",), "no image of round 2 has a label yet", lambda run: without_labels(run, 2)
    ),
    "no adapter of the method": Refusal(
        (*NEXT, "--method", "dpok"),
        "round 2 has no adapter of dpok; run `make finetune METHOD=dpok` first",
    ),
    "no adapter at all": Refusal(
        NEXT,
        "METHOD=: no method tuned a model in round 2; run `make finetune` first",
        lambda run: shutil.rmtree(run.finetune_dir("rwl")),
    ),
    "the adapter that drew the round is gone": Refusal(
        ("images",),
        "round 1 has no adapter of rwl; put it back",
        lambda run: (run.in_round(1).finetune_dir("rwl") / LORA_FILE).unlink(),
    ),
    "an adapter that is not the one that was tuned": Refusal(
        NEXT,
        f"{LORA_FILE}: is not the adapter that round 2 tuned; put that one back",
        lambda run: change_adapter(run, "rwl", is_stamped=False),
    ),
    "tuning on from a changed adapter": Refusal(
        FINETUNE,
        f"{LORA_FILE}: is not the adapter that round 1 tuned",
        lambda run: change_adapter(run.in_round(1), "rwl", is_stamped=False),
    ),
    "tuning on from an adapter that is gone": Refusal(
        FINETUNE,
        "round 1 has no adapter of rwl; put it back",
        lambda run: shutil.rmtree(run.in_round(1).finetune_dir("rwl")),
    ),
    "images by another adapter": Refusal(
        ("images",),
        "round 2 was begun with another model, adapter or prompts",
        lambda run: change_adapter(run.in_round(1), "rwl"),
    ),
    "another base": Refusal(
        (*NEXT, *sets("run.model=models/emoji-sd")), "and 'models/emoji-sd' now, but "
    ),
    "a base that is gone": Refusal(NEXT, "gone: no such folder", lambda run: new_base(run, "gone")),
    "tuning without the round's reward": Refusal(
        FINETUNE,
        "rounds/2/reward: no trained reward model; run `make reward` first",
        lambda run: shutil.rmtree(run.reward_dir),
    ),
    "images of another base": Refusal(
        NEXT,
        "earlier rounds were drawn by other weights than the model has now, and one run cannot mix",
        other_base,
    ),
    "an adapter of another base": Refusal(
        FINETUNE,
        "was tuned from other weights than the model has now, and one run cannot mix two",
        other_base,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_round_that_cannot_go_on_is_refused_in_one_line(
    second_round: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    case, run = REFUSALS[name], copy_of(second_round, tmp_path)
    case.spoil(run)
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    assert command(run, *case.words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert case.error in line
    after = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    exported = {path for path in (*before, *after) if run.labels_dir in path.parents}
    assert {p: t for p, t in before.items() if p not in exported} == {
        p: t for p, t in after.items() if p not in exported
    }
    assert not (run.in_round(3).round_dir / STAMP).exists()
    assert present_round(run) == 2


def test_people_do_not_start_with_a_later_round(
    demo_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "new")
    assert command(run, "images", "--config", str(demo_models), "--round", "2") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no images yet; run `make images` without ROUND= first" in line
