"""Rounds: what a later round draws, labels, trains and tunes, and what it leaves as it was."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from data.files import sha256_of
from data.runs import RunFolder
from finetune.model.diffusion import DiffusionModel
from finetune.model.lora import LORA_FILE
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler
from pipelines.evaluate.text import read_evaluation
from pipelines.run.image_io import load_image
from pipelines.run.image_plan import round_seeds
from pipelines.run.metrics_log import read_metrics
from pipelines.run.record import STAMP, read_stamp
from pipelines.run.rounds import labeled_images
from tests.support.demo_run import command, sets
from tests.support.rounds_run import (
    SETTINGS,
    copy_of,
    files_of_first_round,
    rows_of,
)

pytestmark = pytest.mark.slow

FOCUS = ["A green colored rabbit.", "A dog on the moon."]


@pytest.fixture(scope="module")
def evaluated(second_round: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run with its evaluation."""
    run = copy_of(second_round, tmp_path_factory.mktemp("evaluated"))
    assert command(run, "evaluate") == 0
    return run


def table(run: RunFolder, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run.latest / f"{name}.parquet").to_pylist()
    return rows


def test_new_images_say_which_round_adapter_and_sampler_drew_them(
    first_round: RunFolder, second_round: RunFolder
) -> None:
    rows, lora = rows_of(second_round, 2), sha256_of(first_round.finetune_dir("rwl") / LORA_FILE)
    drawn_by = Counter((row["prompt"], row["adapter_hash"]) for row in rows)
    assert drawn_by == {(p, h): n for p in FOCUS for h, n in ((lora, 6), (None, 2))}
    assert {row["seed"] for row in rows} == {round_seeds(2) + i for i in range(8)}
    for row in rows:
        assert sha256_of(second_round.root / str(row["path"])) == row["image_id"]
        sampler = (row["steps"], row["guidance"], row["eta"], row["stochastic_share"])
        assert sampler == (2, 2, 1, 1)
    assert (
        len({row["path"] for number in (1, 2) for row in rows_of(second_round, number)}) == 24 + 16
    )
    assert [row["adapter_hash"] for row in rows_of(second_round, 1)] == [None] * 24


def test_the_tuned_model_drew_its_images_and_the_base_drew_the_others(
    first_round: RunFolder, second_round: RunFolder
) -> None:
    model = DiffusionModel.from_pretrained(str(rows_of(second_round, 2)[0]["model_id"]))
    model.load_adapter(first_round.finetune_dir("rwl"))
    for lora, chosen in ((True, 0), (False, -1)):
        row = rows_of(second_round, 2)[chosen]
        assert (row["adapter_hash"] is not None) == lora
        drawn = load_image(second_round.root / str(row["path"]))
        prompt, seed = str(row["prompt"]), int(str(row["seed"]))

        def again() -> torch.Tensor:
            sampler = Sampler(steps=2, guidance=2.0, eta=1.0)
            return draw(model, [prompt], sampler, seeds=[seed], batch=1)[0]  # noqa: B023 - called at once

        with model.adapter_off():
            by_base = again()
        own, other = (again(), by_base) if lora else (by_base, again())
        assert (own - drawn).abs().max() < 0.02
        assert (other - drawn).abs().max() > 0.05


def test_nothing_of_the_first_round_is_rewritten(
    first_round: RunFolder, second_round: RunFolder, evaluated: RunFolder
) -> None:
    before = files_of_first_round(first_round)
    assert len(before) > 40
    for later in (second_round, evaluated):
        assert files_of_first_round(later) == before
        assert rows_of(later, 1) == rows_of(first_round, 1)
        there = {row["label_id"]: row for row in table(later, "labels_binary")}
        assert all(there[row["label_id"]] == row for row in table(first_round, "labels_binary"))
        tasks = {row["task_id"]: row for row in table(later, "tasks")}
        assert all(tasks[row["task_id"]] == row for row in table(first_round, "tasks"))


def test_new_images_get_tasks_of_their_own_and_answered_ones_are_not_asked_again(
    first_round: RunFolder, second_round: RunFolder
) -> None:
    known = {row["task_id"] for row in table(first_round, "tasks")}
    new = [row for row in table(second_round, "tasks") if row["task_id"] not in known]
    ids = {row["image_id"] for row in rows_of(second_round, 2)}
    assert Counter(row["kind"] for row in new) == {"binary": 16, "ranking": 2}
    assert all(set(row["image_ids"]) <= ids for row in new)
    counts = Counter(
        (row["task_id"], row["rater_id"]) for row in table(second_round, "labels_binary")
    )
    assert set(counts.values()) == {1}
    assert labeled_images(second_round) <= ids
    assert len(labeled_images(second_round)) > 12


def test_tuning_goes_on_from_the_adapter_of_the_round_before(
    first_round: RunFolder, second_round: RunFolder
) -> None:
    stamp = read_stamp(second_round.finetune_dir("rwl") / STAMP)
    assert stamp is not None
    assert stamp.stage == "finetune rwl, round 2"
    assert stamp.inputs["start"] == sha256_of(first_round.finetune_dir("rwl") / LORA_FILE)
    assert stamp.files == {LORA_FILE: sha256_of(second_round.finetune_dir("rwl") / LORA_FILE)}
    start = read_metrics(second_round.finetune_dir("rwl"))[0]["validation_reward"]
    fresh = read_metrics(first_round.finetune_dir("rwl"))[0]["validation_reward"]
    assert start != pytest.approx(fresh, abs=1e-6)  # another reward, and a tuned model
    card = (second_round.finetune_dir("rwl") / "README.md").read_text()
    started = f"where training started: `{second_round.in_round(1).finetune_dir('rwl')}`"
    assert started in " ".join(card.split())


def test_a_method_that_starts_from_another_goes_on_from_itself_later(
    first_round: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(first_round, tmp_path)
    kept = rows_of(copy, 1)
    words = sets("dpok.adapter.start=rwl", "dpok.validation.images_per_prompt=2")
    assert command(copy, "finetune", "--method", "dpok", *words) == 0
    capsys.readouterr()
    assert command(copy, "images", "--round", "2") == 2
    assert "METHOD=: rwl, dpok tuned models in round 1; name one" in capsys.readouterr().err
    assert command(copy, "images", "--round", "2", "--method", "dpok", *SETTINGS) == 0
    assert rows_of(copy, 1) == kept
    assert command(copy, "simulate") == 0
    assert command(copy, "reward") == 0
    assert command(copy, "finetune", "--method", "dpok") == 0
    later = copy.in_round(2)
    assert not later.finetune_dir("rwl").exists()
    stamp = read_stamp(later.finetune_dir("dpok") / STAMP)
    assert stamp is not None
    assert stamp.inputs["start"] == sha256_of(copy.finetune_dir("dpok") / LORA_FILE)


def test_every_model_of_every_round_is_evaluated_and_in_the_report(evaluated: RunFolder) -> None:
    evaluation = read_evaluation(evaluated)
    models = {result.model: result.round for result in evaluation.results}
    assert models == {"base": None, "best of n": None, "rwl": 1, "rwl, round 2": 2}
    assert evaluation.round == 2
    page = (evaluated.evaluation_dir / "report.html").read_text()
    assert "images of 2 rounds" in page
    assert "How it goes on" not in page
    assert "RWL, round 2" in page
    assert "finetune rwl, round 2" in page
