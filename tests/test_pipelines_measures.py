"""The evaluation's measures against what can be worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.intervals import wilson_interval
from finetune.diffusion import DiffusionModel, LoraSettings
from pipelines.comparison import (
    EvaluationPrompt,
    Measured,
    Verdicts,
    best_of,
    by_family,
    by_prompt,
    gains,
    overall,
)
from pipelines.images import Planned
from pipelines.measures import chain_kl, frechet_distance, vendi_score
from tests.tiny_diffusion import write_tiny_diffusion


def test_wilson_interval_equals_the_textbook_formula() -> None:
    n, p, z = 20, 0.25, 1.959964
    center, spread = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n),
    )
    assert wilson_interval(5, n) == pytest.approx((center - spread, center + spread), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 1)[1] == pytest.approx(0.793, abs=1e-3)
    assert wilson_interval(8, 10)[1] == pytest.approx(0.943, abs=1e-3)


def test_frechet_distance_of_diagonal_gaussians_is_the_sum_over_axes() -> None:
    mean, other = np.array([0.0, 1.0]), np.array([2.0, 1.0])
    distance = frechet_distance(mean, np.diag([1.0, 4.0]), other, np.diag([9.0, 4.0]))
    assert distance == pytest.approx(2**2 + (3 - 1) ** 2)
    assert frechet_distance(mean, np.eye(2), mean, np.eye(2)) == pytest.approx(0)


def test_vendi_score_counts_different_pictures() -> None:
    assert vendi_score(np.ones((5, 3))) == pytest.approx(1)
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    assert vendi_score(np.repeat(np.eye(2), 3, axis=0)) == pytest.approx(2)


def test_chain_kl_is_zero_untuned_and_positive_after(tmp_path: Path) -> None:
    model = DiffusionModel.from_pretrained(write_tiny_diffusion(tmp_path / "sd"))
    model.add_lora(LoraSettings(rank=2), generator=torch.Generator().manual_seed(0))

    def nats() -> torch.Tensor:
        return chain_kl(
            model,
            ["A cat."] * 3,
            steps=3,
            stochastic_steps=2,
            guidance=2.0,
            batch=2,
            generator=torch.Generator().manual_seed(0),
        )

    assert nats().abs().max() < 1e-6
    for weight in model.lora_parameters().values():
        weight.data += 0.1
    assert nats().min() > 0


def judged(prompts: list[str], met: list[bool], rewards: list[float]) -> Measured:
    planned, n = [Planned(prompt, seed) for seed, prompt in enumerate(prompts)], len(prompts)
    verdicts = Verdicts(met, [True] * n, np.eye(n, 3))
    return Measured(
        planned, [Path(str(i)) for i in range(n)], rewards, None, [0.3] * n, np.eye(n, 4), verdicts
    )


def test_best_of_takes_the_highest_reward_and_keeps_the_first_seed() -> None:
    best = best_of(judged(["a"] * 4, [True, False, False, True], [0.1, 0.9, 0.8, 0.2]), 2)
    assert [one.seed for one in best.planned] == [0, 2]
    assert best.rewards == [0.9, 0.8]
    assert best.verdicts is not None
    assert best.verdicts.met == [False, False]


def test_families_pool_the_pictures_of_their_prompts() -> None:
    prompts = [
        EvaluationPrompt(prompt=text, family="color", group="held out") for text in ("a", "b")
    ]
    drawn = judged(["a", "b", "b"], [True, False, True], [0.0, 0.5, 1.0])
    rows = by_prompt(drawn, prompts)
    assert [row["alignment"] for row in rows] == [1.0, 0.5]
    assert rows[1]["reward"] == 0.75
    (family,) = by_family(drawn, prompts)
    assert (family["met"], family["n"], family["reward"]) == (2, 3, 0.5)


def test_a_single_image_has_no_diversity() -> None:
    prompts = [
        EvaluationPrompt(prompt=text, family="color", group="trained") for text in ("a", "b")
    ]
    drawn = judged(["a", "b", "b"], [True, False, True], [0.0, 0.5, 1.0])
    rows = by_prompt(drawn, prompts)
    assert rows[0]["diversity"] is None
    assert rows[1]["diversity"] == pytest.approx(2)  # their embeddings are at right angles
    assert overall(drawn, rows, "trained", None)["diversity"] == pytest.approx(2)
    assert overall(drawn.chosen([0]), rows[:1], "trained", None)["diversity"] is None


def test_gains_are_of_the_same_seeds() -> None:
    base = judged(["a"] * 3, [False, False, True], [0.1, 0.2, 0.6])
    tuned = judged(["a"] * 3, [True, False, True], [0.3, 0.4, 0.8])
    found = gains(tuned, base, {"a"})
    assert found["reward_gain"]["mean"] == pytest.approx(0.2)
    assert found["reward_gain"]["interval"] == pytest.approx(
        (0.2, 0.2)
    )  # every image gains as much
    assert found["gain"]["mean"] == pytest.approx(1 / 3)


def test_without_a_judge_there_are_no_verdicts_among_the_figures() -> None:
    drawn = replace(judged(["a"] * 3, [True] * 3, [0.0, 0.5, 1.0]), verdicts=None)
    (row,) = by_prompt(drawn, [EvaluationPrompt(prompt="a", family="color", group="trained")])
    assert not {"met", "alignment", "interval", "readable", "frechet"} & set(row)
    half = 4.3027 * 0.5 / math.sqrt(3)  # Student's t for three values
    assert row["reward_interval"] == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)
