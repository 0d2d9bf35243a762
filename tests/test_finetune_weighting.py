"""Weights against numeric optima of the objectives that they are said to solve."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from torch import Tensor

from finetune.labels.weighting import effective_sample_size, sample_weights
from finetune.settings.reward_weighted import WeightingConfig

REWARDS = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PROMPTS = ["a"] * 12
Values = NDArray[np.float64]


def normalized(rewards: Tensor = REWARDS, **settings: Any) -> Values:
    """Return the share of each image under the weights."""
    weights = sample_weights(rewards, ["a"] * len(rewards), WeightingConfig(**settings))
    shares: Values = (weights / weights.sum()).numpy()
    return shares


def best_shares(objective: Callable[[Values], float], *conditions: dict[str, Any]) -> Values:
    """Return the shares q of 12 images that maximize the objective."""
    whole = {"type": "eq", "fun": lambda q: q.sum() - 1}
    start = np.full(12, 1 / 12)
    found = minimize(
        lambda q: -objective(q),
        start,
        method="SLSQP",
        bounds=[(1e-12, 1)] * 12,
        constraints=[whole, *conditions],
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert found.success
    shares: Values = found.x
    return shares


def kl(q: Values) -> float:
    """Return the KL of shares to equal shares, in nats."""
    return float((q * np.log(q * len(q))).sum())


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_rewards_plus_gamma_are_the_optimum_under_a_chi_squared_penalty(gamma: float) -> None:
    rewards, price = REWARDS.numpy(), float(REWARDS.mean()) + gamma
    best = best_shares(lambda q: float(q @ rewards - price / 2 * ((12 * q - 1) ** 2).mean()))
    settings: dict[str, Any] = {"kl": "kl-d", "gamma": gamma} if gamma else {}
    ours = normalized(weighting="raw", **settings)
    np.testing.assert_allclose(ours, best, atol=1e-6)
    reached = (REWARDS * (REWARDS + gamma)).mean() / (REWARDS + gamma).mean()
    assert ours @ rewards == pytest.approx(float(reached))


@pytest.mark.parametrize("budget", [0.01, 0.3, 1.0])
def test_exp_weights_are_the_optimum_within_the_kl_budget(budget: float) -> None:
    ours, rewards = normalized(weighting="exp", kl_budget=budget), REWARDS.numpy()
    assert kl(ours) == pytest.approx(budget, rel=1e-6)
    within = {"type": "ineq", "fun": lambda q: budget - kl(q)}
    best = best_shares(lambda q: float(q @ rewards), within)
    np.testing.assert_allclose(ours, best, atol=1e-4)


def test_exp_weights_that_cannot_use_up_the_budget_rest_on_the_best() -> None:
    rewards = torch.tensor([0.1, 0.9, 0.9, 0.3])
    ours = normalized(rewards, weighting="exp", kl_budget=5.0)
    np.testing.assert_allclose(ours, [0, 0.5, 0.5, 0])
    assert normalized(torch.full((4,), 0.7), weighting="exp", kl_budget=1.0).tolist() == [0.25] * 4


def test_exp_weights_do_not_depend_on_the_scale_of_the_rewards() -> None:
    ours = normalized(weighting="exp", kl_budget=0.5)
    scaled = normalized(1000 * REWARDS - 5, weighting="exp", kl_budget=0.5)
    np.testing.assert_allclose(scaled, ours, rtol=1e-6)


def test_softmax_weights_are_the_optimum_under_a_kl_penalty() -> None:
    best = best_shares(lambda q: float(q @ REWARDS.numpy()) - 0.2 * kl(q))
    np.testing.assert_allclose(normalized(weighting="softmax", temperature=0.2), best, atol=1e-5)


def test_top_weights_are_the_optimum_under_a_bound_on_the_density() -> None:
    best = linprog(-REWARDS.numpy(), A_eq=np.ones((1, 12)), b_eq=[1], bounds=(0, 1 / (0.25 * 12)))
    np.testing.assert_allclose(normalized(weighting="top", top_share=0.25), best.x, atol=1e-9)


def test_raw_weights_are_the_rewards_above_zero_and_gamma_is_added_before_they_are_cut() -> None:
    rewards = torch.tensor([-1.0, 0.0, 0.5])
    plain = WeightingConfig(weighting="raw")
    kl_d = WeightingConfig(weighting="raw", kl="kl-d", gamma=0.5)
    kl_o = WeightingConfig(weighting="raw", kl="kl-o", gamma=0.5)
    assert sample_weights(rewards, ["a"] * 3, plain).tolist() == [0.0, 0.0, 0.5]
    assert sample_weights(rewards, ["a"] * 3, kl_d).tolist() == [0.0, 0.5, 1.0]
    assert sample_weights(rewards, ["a"] * 3, kl_o).tolist() == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("weighting", ["softmax", "top"])
def test_every_prompt_has_mean_weight_one(weighting: str) -> None:
    rewards = torch.tensor([0.9, 0.1, 0.5, 0.2, 0.8, 0.0])
    config = WeightingConfig.model_validate(
        {"weighting": weighting, "temperature": 0.3, "top_share": 0.5}
    )
    weights = sample_weights(rewards, ["a", "b"] * 3, config)
    torch.testing.assert_close(weights[0::2].mean(), torch.tensor(1.0))
    torch.testing.assert_close(weights[1::2].mean(), torch.tensor(1.0))
    assert weights[0] == weights[0::2].max()


def test_images_that_tie_for_the_last_places_share_them() -> None:
    rewards = torch.tensor([0.5, 0.9, 0.5, 0.1, 0.5])
    config = WeightingConfig(weighting="top", top_share=0.4)  # two of five
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        weights = sample_weights(rewards[order], ["a"] * 5, config)
        in_order = weights[torch.tensor(order).argsort()]
        expected = torch.tensor([1 / 3, 1.0, 1 / 3, 0.0, 1 / 3]) * 2.5
        torch.testing.assert_close(in_order, expected)
    assert sample_weights(torch.full((4,), 0.7), ["a"] * 4, config).tolist() == [1.0] * 4


def test_the_better_half_is_ln_2_away() -> None:
    half = normalized(weighting="top", top_share=0.5)
    assert kl(np.maximum(half, 1e-300)) == pytest.approx(math.log(2))


def test_effective_sample_size_counts_the_images_that_weigh() -> None:
    assert effective_sample_size(torch.ones(8)) == 1.0
    assert effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0])) == 0.5
