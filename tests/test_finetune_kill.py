"""`kill -9` at any moment of `python -m pipelines finetune`: the same command again goes on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.runs import RunFolder
from finetune.model.lora import LORA_FILE
from pipelines.cli import main
from pipelines.settings.config import read_toml
from tests.support.tuned_run import (
    Commands,
    checkpoint_steps,
    copy_of,
    figures_of,
    weights_of,
    words,
)

pytestmark = pytest.mark.slow

SETTINGS = ("dpok.iterations=6", "finetune.checkpoints=6")


def test_dpok_killed_again_and_again_ends_as_uninterrupted(
    ready: RunFolder, terminal: Commands, tmp_path: Path
) -> None:
    run = copy_of(ready, tmp_path)
    command, folder = words(run, "dpok", SETTINGS), run.finetune_dir("dpok")
    terminal.kill_when((folder / "metrics.jsonl").exists, command)  # before the first checkpoint
    terminal.kill_when(lambda: 1 in checkpoint_steps(run, "dpok"), command)
    third = "checkpoints/step-0000003/*"
    terminal.kill_when(lambda: any(folder.glob(third)), command)  # while it is written
    terminal.kill_when(lambda: 5 in checkpoint_steps(run, "dpok"), command)
    last = checkpoint_steps(run, "dpok")[-1]
    newest = folder / "checkpoints" / f"step-{last:07d}" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    printed = terminal.run(command)
    assert f"{newest.parent}: unfinished or damaged checkpoint; taking the one before" in printed
    whole = copy_of(ready, tmp_path / "whole")
    assert main(words(whole, "dpok", SETTINGS)) == 0
    assert figures_of(run, "dpok") == figures_of(whole, "dpok")
    tuned, expected = weights_of(run, "dpok"), weights_of(whole, "dpok")
    assert tuned.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in tuned.items())
    adapters = {name: weight for name, weight in tuned.items() if name.startswith("adapter/")}
    assert any(weight.any() for name, weight in adapters.items() if "lora_B" in name)
    kept, same = (load_file(one.finetune_dir("dpok") / LORA_FILE) for one in (run, whole))
    assert all(torch.equal(weight, same[name]) for name, weight in kept.items())
    assert not list(run.root.rglob(".tmp-*"))


def test_a_training_that_diverges_names_the_step_and_the_last_good_checkpoint(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    diverging = (
        "ddpo.learning_rate=1e30",
        "ddpo.warmup=0",
        "ddpo.updates=1",
        "ddpo.iterations=4",
        "ddpo.validation.every=4",
        "finetune.checkpoints=4",
    )
    assert main(words(run, "ddpo", diverging)) == 2
    error = capsys.readouterr().err
    assert "not a finite number for an image of 'A " in error
    assert "step 2 failed, the last good checkpoint is" in error
    assert str(run.finetune_dir("ddpo") / "checkpoints" / "step-0000001") in error
    assert main(words(run, "ddpo", ("ddpo.learning_rate=1e-4",))) == 2
    assert "ddpo.learning_rate is 1e+30 there and 0.0001 now" in capsys.readouterr().err


def test_settings_that_failed_before_a_checkpoint_may_be_corrected_and_the_images_stay(
    ready: RunFolder, tmp_path: Path
) -> None:
    run = copy_of(ready, tmp_path)
    failing = (
        "rwl.learning_rate=1e30",
        "rwl.warmup=0",
        "rwl.updates=8",
        "finetune.checkpoints=1",
        "finetune.scored_per_prompt=2",
    )
    before = read_toml(run.config_file)
    assert main(words(run, "rwl", failing)) == 2
    assert read_toml(run.config_file) == before
    images = (run.finetune_dir("rwl") / "images").glob("*.png")
    drawn = {path: path.stat().st_mtime_ns for path in images}
    assert drawn
    assert main(words(run, "rwl", ("rwl.updates=2", "finetune.scored_per_prompt=2"))) == 0
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn


def test_a_reward_that_cannot_be_opened_costs_no_earlier_adapter(
    ready: RunFolder, tmp_path: Path
) -> None:
    run = copy_of(ready, tmp_path)
    assert main(words(run, "ddpo", ("ddpo.iterations=1",))) == 0
    weights = (run.finetune_dir("ddpo") / LORA_FILE).read_bytes()
    config = run.reward_dir / "config.json"
    config.write_text(config.read_text() + " ")  # another one, by its hash
    (run.reward_dir / "head.safetensors").unlink()
    assert main(words(run, "ddpo", ())) == 2
    assert (run.finetune_dir("ddpo") / LORA_FILE).read_bytes() == weights
