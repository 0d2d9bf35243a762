"""Staleness of a reward: weights by hand, and what a training makes of it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.learning.method import new_training
from finetune.learning.staleness import effective_sample_size, stalest_prompt, weights_of_mean
from finetune.methods import ddpo
from finetune.settings.ddpo import DDPOConfig
from finetune.settings.sampler import Sampler
from tests.support.small_training import open_with_adapter, redness, seeded


def test_weights_of_a_mean_are_those_by_hand() -> None:
    # Half good, half bad: mean 0.8 needs weights 0.8 and 0.2 on each half.
    found = weights_of_mean(torch.tensor([1.0, 0.0, 1.0, 0.0]), 0.8)
    torch.testing.assert_close(found, torch.tensor([0.4, 0.1, 0.4, 0.1]).double())
    assert effective_sample_size(found) == pytest.approx(1 / (4 * (2 * 0.16 + 2 * 0.01)))
    # w ~ (1, t, t^2) has mean 1.5 of rewards 0, 1, 2 where t^2 - t - 3 = 0.
    t = (1 + math.sqrt(13)) / 2
    expected = torch.tensor([1, t, t * t], dtype=torch.float64) / (1 + t + t * t)
    torch.testing.assert_close(weights_of_mean(torch.tensor([0.0, 1.0, 2.0]), 1.5), expected)


def test_the_weights_have_the_least_kl_of_those_with_their_mean() -> None:
    def kl(weights: Tensor) -> float:
        return float((weights * (6 * weights).log()).sum())

    rewards = torch.rand(6, generator=seeded()).double()
    found = weights_of_mean(rewards, float(rewards.mean()) + 0.2)
    # Directions that keep sum and mean reward.
    basis = torch.linalg.svd(torch.stack([torch.ones(6).double(), rewards]))[2][2:]
    for direction in basis:
        assert all(kl(found + step * direction) > kl(found) for step in (-1e-3, 1e-3))


@pytest.mark.parametrize(
    ("rewards", "mean", "share"),
    [
        ([0.25, 0.5, 0.75, 0.75], 0.76, 0),
        ([0.25, 0.5, 0.75, 0.75], 0.75, 0.5),
        ([0.25, 0.5, 0.75, 0.75], 0.1, 1),
        ([0.5] * 3, 0.5, 1),
        ([0.5], 0.6, 0),
    ],
)
def test_no_weights_reach_above_the_best_image_and_equal_ones_are_enough_below_the_mean(
    rewards: list[float], mean: float, share: float
) -> None:
    weights = weights_of_mean(torch.tensor(rewards), mean)
    assert effective_sample_size(weights) == pytest.approx(share)


@pytest.mark.parametrize("reward", [0.1, 0.45, 0.7])
def test_equal_rewards_are_not_stale_whatever_their_number(reward: float) -> None:
    for number in range(1, 65):
        equal = torch.full((number,), reward)
        found = stalest_prompt({"a": equal[:5]}, equal, ["a"] * number)
        assert found is not None
        assert found[1] == pytest.approx(1)


def test_each_prompt_counts_by_itself_and_the_worst_one_is_named() -> None:
    labeled = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([0.0, 1.0])}
    prompts = ["a", "b", "a", "b", "c"]
    rewards = torch.tensor([0.5, 0.7, 0.5, 0.9, 9.0])
    found = stalest_prompt(labeled, rewards, prompts)
    assert found is not None
    assert found[0] == "b"
    assert found[1] == pytest.approx(1 / (2 * (0.8**2 + 0.2**2)))
    assert stalest_prompt({}, rewards, prompts) is None
    assert stalest_prompt({"unasked": rewards}, rewards, prompts) is None


@pytest.mark.parametrize("stops", [True, False])
def test_a_training_that_leaves_the_labeled_images_says_label_now(
    sd_folder: Path, caplog: pytest.LogCaptureFixture, *, stops: bool
) -> None:
    prompts, calls = ["a cat"], 0

    def rising(images: Tensor, texts: Sequence[str]) -> Tensor:
        """Return redness, and more of it at each validation after the first."""
        nonlocal calls
        calls += len(images) == 1
        return redness(images, texts) + 0.4 * max(0, calls - 1) * (len(images) == 1)

    validation = {"every": 1, "images_per_prompt": 1, "stop_on": ["stale_reward"] * stops}
    config = DDPOConfig.model_validate(
        {"iterations": 3, "images_per_prompt": 2, "micro_batch": 2, "validation": validation}
        | {"prompts_per_iteration": 1, "adapter": {"rank": 2}}
    )
    training = new_training(
        open_with_adapter(sd_folder),
        prompts,
        rising,
        config,
        generator=seeded(),
        sampler=Sampler(steps=2),
        labeled={"a cat": torch.linspace(0, 1, 11)},
    )
    state = ddpo.METHOD.start(training)
    list(ddpo.METHOD.train(training, state))
    assert state.untuned["stale_reward"] > 0.5
    assert "label now: hardly any labeled image scores as high as the model's" in caplog.text
    assert "draw images with these weights, of 'a cat' above all" in caplog.text
    if stops:
        assert state.stopped.startswith("label now: ")
        assert state.step < 3
        assert state.best is not None
        assert state.best[0] < state.step
    else:
        assert (state.stopped, state.step) == ("", 3)
