"""Fine-tuning through the command line, beyond the demo: other methods, rewards and starts."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import torch

from data.files import sha256_of
from data.runs import RunFolder
from finetune.learning.reward_fn import score_with_gradient
from finetune.model.lora import LORA_FILE
from finetune.settings.validation import Measure
from pipelines.run.metrics_log import read_metrics
from pipelines.run.model_hashes import content_hash
from pipelines.run.models import as_reward_fn
from pipelines.run.prompts import prompts_of
from pipelines.run.record import STAMP, read_stamp
from pipelines.settings.config import read_toml
from pipelines.settings.run import RunConfig
from reward.model import RewardModel
from tests.support.demo_run import command, copy_without, metrics_of, sets
from tests.support.rounds_run import rows_of
from tests.support.tuned_run import change_adapter

pytestmark = pytest.mark.slow


@pytest.fixture
def run(demo_run: RunFolder) -> RunFolder:
    return demo_run


def test_an_adapter_of_another_reward_is_told(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(run, tmp_path, "evaluation")
    shutil.rmtree(copy.finetune_dir("dpok"))
    stamp = copy.finetune_dir("rwl") / STAMP
    stamp.write_text(re.sub(r'"reward": "\w+"', '"reward": "another"', stamp.read_text()))
    assert command(copy, "evaluate", *sets("evaluate.etas=[0]", "evaluate.best_of=1")) == 0
    lines = capsys.readouterr().err.splitlines()
    (told,) = [line for line in lines if "tuned on another reward" in line]
    assert "make finetune METHOD=rwl" in told
    metrics = metrics_of(copy.evaluation_dir)
    assert metrics["outdated"] == {"rwl": ["reward"]}
    assert "RWL was tuned on another reward" in (copy.evaluation_dir / "report.html").read_text()


def test_ddpo_is_tuned_and_logs_where_the_time_went(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(run, tmp_path, "evaluation")
    assert command(copy, "finetune", "--method", "ddpo") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"finetune ddpo: 0:\d\d:\d\d in all(, [a-z]+ \d+%)+", last)
    lines = read_metrics(copy.finetune_dir("ddpo"))
    assert len(lines) == 3
    validated = [line["step"] for line in lines if line["validation_reward"] is not None]
    sheets = (copy.finetune_dir("ddpo") / "samples").iterdir()
    assert sorted(path.name for path in sheets) == [f"step-{step:07d}.png" for step in validated]
    assert lines[1]["kl"] is None
    assert set(get_args(Measure)) == set(lines[1]["monitors"])
    assert lines[1]["peak_memory_gb"] > 0.1
    for line in lines[1:]:
        parts = line["share_of_time"]
        assert {"drawing", "decoding", "reward", "training"} < parts.keys()
        assert "waiting" not in parts
        assert sum(parts.values()) == pytest.approx(1)
        assert line["seconds_in_all"] > 0


def test_a_guard_ends_the_training_early_on_held_out_prompts(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(run, tmp_path, "evaluation")
    settings = sets(
        'finetune.validation_prompts=["Two dogs."]',
        "ddpo.iterations=50",
        "ddpo.validation.images_per_prompt=2",
        "finetune.validation.limits.sharpness=1.0000001",
        'ddpo.validation.stop_on=["sharpness"]',
    )
    for method in ("rwl", "dpok"):
        shutil.rmtree(copy.finetune_dir(method))  # they were made without held-out prompts
    assert command(copy, "finetune", "--method", "ddpo", *settings) == 0
    printed = capsys.readouterr().out
    steps = read_metrics(copy.finetune_dir("ddpo"))[-1]["step"]
    assert steps < 50
    assert f"finetune ddpo: stopped at step {steps}: sharpness is" in printed
    assert (copy.finetune_dir("ddpo") / "pytorch_lora_weights.safetensors").is_file()


def test_a_sum_of_rewards_from_elsewhere_is_tuned_on(run: RunFolder, tmp_path: Path) -> None:
    copy = copy_without(run, tmp_path, "evaluation", "finetune", "reward")
    redness = "tests.support.small_training:redness"
    rewards = f'finetune.rewards=[{{kind="python", path="{redness}", weight=2.0}}]'
    assert command(copy, "finetune", "--method", "ddpo", "--set", rewards) == 0
    stamp = read_stamp(copy.finetune_dir("ddpo") / STAMP)
    assert stamp is not None
    hashed = content_hash("tests/support/small_training.py")
    assert stamp.inputs[f"reward {redness}"] == hashed
    mean = read_metrics(copy.finetune_dir("ddpo"))[1]["reward"]
    # twice the mean red of noise: no probability of the run's own reward, which is not there
    assert 0.2 < mean < 1.8
    clip = re.search(r'backbone = "(.*)"', (copy.root / "config.toml").read_text())
    assert clip
    both = rewards.removesuffix("]") + f', {{kind="clip_score", path="{clip[1]}", weight=-1.0}}]'
    # another reward, another run
    assert command(copy, "finetune", "--method", "ddpo", "--set", both) == 2
    shutil.rmtree(copy.finetune_dir("ddpo"))
    assert command(copy, "finetune", "--method", "ddpo", "--set", both) == 0
    assert read_metrics(copy.finetune_dir("ddpo"))[1]["reward"] != mean
    card = (copy.finetune_dir("ddpo") / "README.md").read_text()
    reward = (
        f"2 * python of `tests.support.small_training:redness` + -1 * clip_score of `{clip[1]}`"
    )
    assert f"for {reward}." in card
    assert str(copy.reward_dir) not in card


def test_dpok_goes_on_where_rwl_ended(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(run, tmp_path, "evaluation", "finetune")
    rwl, dpok = copy.finetune_dir("rwl"), copy.finetune_dir("dpok")
    assert command(copy, "finetune", "--method", "dpok", "--set", f"dpok.adapter.start={rwl}") == 2
    assert f"{rwl}: no {LORA_FILE} or side_network.safetensors in it" in capsys.readouterr().err
    circle = sets("dpok.adapter.start=rwl", "rwl.adapter.start=dpok")
    assert command(copy, "finetune", "--method", "dpok", *circle) == 2
    told = "rwl.adapter.start: dpok starts from rwl starts from dpok; set one of them"
    assert told in capsys.readouterr().err
    assert not rwl.exists()
    chain = sets("dpok.adapter.start=rwl")
    assert command(copy, "finetune", "--method", "dpok", *chain) == 0
    order = "finetune rwl: adapter in .*\n(.*\n)*finetune dpok: adapter in"
    assert re.search(order, capsys.readouterr().out)
    assert f"training started: `{rwl}`" in (dpok / "README.md").read_text()
    stamp = read_stamp(dpok / STAMP)
    assert stamp is not None
    assert stamp.inputs["start"] == sha256_of(rwl / LORA_FILE)
    change_adapter(copy, "rwl")  # the best of two steps on a tiny model might be none
    shutil.rmtree(dpok)
    assert command(copy, "finetune", "--method", "dpok") == 0
    fresh, warm = (read_metrics(one.finetune_dir("dpok"))[1]["kl"] for one in (run, copy))
    assert warm > 10 * fresh  # nats to the pretrained model, which an untuned start has hardly left
    shutil.copy(run.finetune_dir("dpok") / LORA_FILE, rwl / LORA_FILE)
    assert command(copy, "evaluate", *sets("evaluate.etas=[0]", "evaluate.best_of=1")) == 0
    printed = capsys.readouterr()
    assert f"{dpok}: tuned on another start than the run has now" in printed.err
    assert "RWL, then DPOK" in printed.out
    page = (copy.evaluation_dir / "report.html").read_text()
    assert "on that reward by RWL and by RWL, then DPOK." in page


def test_rater_types_are_trained_by_settings(run: RunFolder, tmp_path: Path) -> None:
    copy = copy_without(run, tmp_path, "evaluation", "finetune", "reward")
    page = run.reward_dir / "report.html"
    assert "Do raters want different things?" not in page.read_text()
    assert command(copy, "reward", *sets("reward.rater_types=2")) == 0
    assert (copy.reward_dir / "types").is_dir()
    assert "rater_types" in metrics_of(copy.reward_dir)
    page = copy.reward_dir / "report.html"
    assert "Do raters want different things?" in page.read_text()


def test_all_prompts_of_the_run_are_trained_on_when_told_so(
    ready: RunFolder, tmp_path: Path
) -> None:
    given = sets("nft.iterations=1", "nft.images_per_prompt=2", "nft.prompts_per_iteration=99")
    trained = {}
    for name in ("focus", "all"):
        copy = copy_without(ready, tmp_path / name)
        told = sets(f"finetune.train_on={name}")
        assert command(copy, "finetune", "--method", "nft", *given, *told) == 0
        line = read_metrics(copy.finetune_dir("nft"))[1]
        trained[name] = set(line["reward_by_prompt"])
    config = RunConfig.model_validate(read_toml(ready.config_file)["run"])
    assert trained["focus"] == set(config.focus_prompts)
    assert trained["all"] == set(prompts_of(config)) > trained["focus"]


def test_a_later_round_draws_all_prompts_that_are_trained_on(
    ready: RunFolder, tmp_path: Path
) -> None:
    copy = copy_without(ready, tmp_path)
    given = sets("finetune.train_on=all", "rounds.images_per_prompt=2")
    assert command(copy, "finetune", "--method", "rwl", *given) == 0
    assert command(copy, "images", "--round", "2", *given) == 0
    config = RunConfig.model_validate(read_toml(ready.config_file)["run"])
    drawn = Counter(str(row["prompt"]) for row in rows_of(copy, 2))
    assert drawn == dict.fromkeys(prompts_of(config), 2)


def test_the_reward_has_the_same_values_with_a_gradient_and_its_own_weights_get_none(
    ready: RunFolder,
) -> None:
    model = RewardModel.from_pretrained(ready.reward_dir)
    reward, prompts = as_reward_fn(model), ["A penguin.", "A monkey."]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = reward(images, prompts)
    assert not plain.requires_grad
    found, gradient = score_with_gradient(reward, images, prompts, lambda pixels: pixels)
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-7)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert all(weight.grad is None for weight in model.parameters())
    step = 1e-2 * gradient / gradient.norm()
    rise = (reward(images + step, prompts) - reward(images - step, prompts)).sum()
    torch.testing.assert_close(rise, 2 * (gradient * step).sum(), rtol=0.02, atol=0)
