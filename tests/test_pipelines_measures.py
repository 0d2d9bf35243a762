"""The evaluation's measures against figures that are worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.method_run import vendi_of_subsets
from data.intervals import mean_interval, share_interval_over_groups, wilson_interval
from finetune.model.diffusion import DiffusionModel
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from pipelines.evaluate.figures import (
    EvaluationPrompt,
    Group,
    Measured,
    best_of,
    by_family,
    by_group,
    by_prompt,
)
from pipelines.evaluate.measures import vendi_score
from pipelines.evaluate.work import chain_kl
from pipelines.run.image_plan import Planned
from pipelines.run.judge import Verdict


def test_wilson_interval_equals_the_textbook_formula() -> None:
    n, p, z = 20, 0.25, 1.959964
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson_interval(5, n) == pytest.approx((center - spread, center + spread), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 1)[1] == pytest.approx(0.793, abs=1e-3)
    assert wilson_interval(8, 10)[1] == pytest.approx(0.943, abs=1e-3)


def test_vendi_score_counts_different_images() -> None:
    assert vendi_score(np.ones((5, 3))) == pytest.approx(1)
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    assert vendi_score(np.repeat(np.eye(2), 3, axis=0)) == pytest.approx(2)


def test_diversity_is_compared_at_equal_numbers() -> None:
    """Nine of one kind and one of another: two of them differ in one of five draws."""
    features = np.repeat(np.eye(2), [9, 1], axis=0)
    assert vendi_of_subsets(features, 10, subsets=3, seed=0) == pytest.approx(vendi_score(features))
    assert vendi_of_subsets(features, 1, subsets=3, seed=0) == pytest.approx(1)
    assert vendi_of_subsets(features, 2, subsets=2000, seed=0) == pytest.approx(1.2, abs=0.03)


def test_chain_kl_is_zero_untuned_and_positive_after(sd_folder: Path) -> None:
    model = DiffusionModel.from_pretrained(sd_folder)
    model.add_adapter(AdapterSettings(rank=2), generator=torch.Generator().manual_seed(0))
    sampler = Sampler(steps=3, stochastic_share=0.6)
    assert sampler.stochastic_steps == 2

    def nats() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return chain_kl(model, ["A cat."] * 3, sampler, batch=2, generator=generator)

    assert nats().abs().max() < 1e-6
    for weight in model.adapter.parameters().values():
        weight.data += 0.1
    whole = nats()
    assert whole.min() > 0
    model.adapter.steps_share = 1 / 3  # the second of the two steps is the base's
    assert (nats() < whole).all()
    assert nats().min() > 0


def judged(prompts: list[str], met: list[bool], rewards: list[float]) -> Measured:
    planned, n = [Planned(prompt, seed) for seed, prompt in enumerate(prompts)], len(prompts)
    paths = [Path(str(i)) for i in range(n)]
    verdicts = [Verdict(met=one, readable=True) for one in met]
    return Measured(planned, paths, rewards, None, [0.3] * n, np.eye(n, 4), verdicts)


def prompts_of(
    *texts: str, family: str = "color", group: Group = "trained"
) -> list[EvaluationPrompt]:
    return [EvaluationPrompt(prompt=text, family=family, group=group) for text in texts]


def test_best_of_takes_the_highest_reward_and_keeps_the_first_seed() -> None:
    best = best_of(judged(["a"] * 4, [True, False, False, True], [0.1, 0.9, 0.8, 0.2]), 2)
    assert [one.seed for one in best.planned] == [0, 2]
    assert best.rewards == [0.9, 0.8]
    assert best.verdicts is not None
    assert [verdict.met for verdict in best.verdicts] == [False, False]


def test_families_pool_the_images_of_their_prompts() -> None:
    drawn = judged(["a", "b", "b"], [True, False, True], [0.0, 0.5, 1.0])
    rows = by_prompt(drawn, prompts_of("a", "b"))
    assert [row.alignment for row in rows] == [1.0, 0.5]
    assert rows[1].reward == 0.75
    (family,) = by_family(drawn, prompts_of("a", "b"))
    assert (family.met, family.n, family.reward) == (2, 3, 0.5)


def test_a_single_image_has_no_diversity() -> None:
    drawn = judged(["a", "b", "b"], [True, False, True], [0.0, 0.5, 1.0])
    rows = by_prompt(drawn, prompts_of("a", "b"))
    assert rows[0].diversity is None
    assert rows[1].diversity == pytest.approx(2)  # their embeddings are at right angles
    assert by_group(drawn, rows, None)["trained"].diversity == pytest.approx(2)
    assert by_group(drawn.chosen([0]), rows[:1], None)["trained"].diversity is None


def test_gains_are_over_the_base_on_the_same_seeds() -> None:
    base = judged(["a"] * 3, [False, False, True], [0.1, 0.2, 0.6])
    tuned = judged(["a"] * 3, [True, False, True], [0.3, 0.4, 0.8])
    figures = by_group(tuned, by_prompt(tuned, prompts_of("a")), base)["trained"]
    assert figures.reward_gain is not None
    assert figures.reward_gain.mean == pytest.approx(0.2)
    # Every image gains as much.
    assert figures.reward_gain.interval == pytest.approx((0.2, 0.2))
    assert figures.gain is not None
    assert figures.gain.mean == pytest.approx(1 / 3)
    of_the_base = by_group(base, by_prompt(base, prompts_of("a")), None)["trained"]
    assert of_the_base.gain is None


def test_intervals_of_held_out_prompts_are_over_prompts() -> None:
    """Images of a prompt that are all alike say no more than one of them."""
    texts, met, rewards = ("a", "b", "c", "d"), [True, False, False, True], [0.1, 0.2, 0.3, 0.4]
    alone = judged([*texts], met, rewards)
    copies = alone.chosen([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    none = judged([text for text in texts for _ in range(3)], [False] * 12, [0.0] * 12)
    prompts = prompts_of(*texts, group="held out")
    figures = by_group(copies, by_prompt(copies, prompts), none)["held out"]
    assert figures.reward_interval == pytest.approx(mean_interval(rewards))
    assert figures.reward_gain is not None
    assert figures.reward_gain.interval == pytest.approx(mean_interval(rewards))
    assert figures.gain is not None
    assert figures.gain.interval == pytest.approx(mean_interval(met))
    assert figures.interval == pytest.approx(share_interval_over_groups(met, [1] * 4))
    (family,) = by_family(copies, prompts)
    assert family.interval == figures.interval
    here = by_group(copies, by_prompt(copies, prompts_of(*texts)), none)["trained"]
    assert here.interval == wilson_interval(6, 12)
    (one,) = by_family(copies.chosen([0, 1]), prompts[:1])
    assert (one.interval, one.reward_interval) == (None, None)


@pytest.mark.parametrize(("prompts", "images"), [(6, 4), (15, 4), (30, 2)])
def test_intervals_over_prompts_hold_for_other_prompts(prompts: int, images: int) -> None:
    rng, held, of_images = np.random.default_rng(0), 0, 0
    for _ in range(600):
        met = rng.binomial(images, rng.beta(0.7, 0.7, prompts))
        bounds = share_interval_over_groups(met.tolist(), [images] * prompts)
        assert bounds is not None
        held += bounds[0] <= 0.5 <= bounds[1]
        low, high = wilson_interval(int(met.sum()), prompts * images)
        of_images += low <= 0.5 <= high
    assert held / 600 > 0.925
    assert of_images < held - 20


def test_shares_of_groups_that_are_all_met_have_the_interval_of_as_many_answers() -> None:
    bounds = share_interval_over_groups([4] * 10, [4] * 10)
    assert bounds is not None
    assert bounds[1] == 1
    assert bounds[0] < wilson_interval(10, 10)[0]
    assert share_interval_over_groups([3], [4]) is None


def test_without_a_judge_there_are_no_verdicts_among_the_figures() -> None:
    drawn = replace(judged(["a"] * 3, [True] * 3, [0.0, 0.5, 1.0]), verdicts=None)
    (row,) = by_prompt(drawn, prompts_of("a"))
    known = row.model_dump(exclude_none=True)
    assert not {"met", "alignment", "interval", "readable"} & set(known)
    assert {"reward", "clip_score", "diversity"} <= set(known)
    half = 4.3027 * 0.5 / math.sqrt(3)  # Student's t for three values
    assert row.reward_interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)
