"""Every method raises a simple reward, the amount of red, on a tiny random model."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from finetune.labels.weighted_batches import WeightedData
from finetune.learning.method import Method
from finetune.methods import ddpo, dpok, reward_weighted
from finetune.model.sampler import sample_trajectories
from finetune.settings.model import AdapterSettings
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import open_with_adapter, redness, seeded, training_of

pytestmark = pytest.mark.slow

PROMPT = "red"
SPREAD = 0.0165
"""Standard deviation of the untuned model's rewards."""
SAMPLER = Sampler(steps=4, guidance=1.0)
ONLINE = {
    "iterations": 10,
    "images_per_prompt": 64,
    "micro_batch": 64,
    "sampler": {"stochastic_share": 1.0},
    "updates": 1,
    "learning_rate": 5e-3,
    "clip_range": 0.05,
    "std_floor": 1e-3,
    "validation": ValidationConfig(every=10, images_per_prompt=64),
}


@pytest.mark.parametrize(("method", "settings"), [
    (dpok.METHOD, {"kl_weight": 0.003, "baseline": "prompt_mean"}),
    (ddpo.METHOD, {}),
], ids=["dpok", "ddpo"])  # fmt: skip
def test_policy_gradients_raise_the_reward_of_training_and_of_validation(
    velocity_folder: Path, method: Method[Any], settings: dict[str, Any]
) -> None:
    generator = seeded()
    model = open_with_adapter(velocity_folder, AdapterSettings(), generator=generator)
    config = method.config.model_validate(ONLINE | settings)
    training = training_of(model, config, prompts=[PROMPT], sampler=SAMPLER, generator=generator)
    state = method.start(training)
    rewards = [metrics.reward for metrics in method.train(training, state)]
    assert mean(rewards[-3:]) - rewards[0] > 0.4 * SPREAD
    assert state.validation[-1][1] - state.validation[0][1] > 0.25 * SPREAD


def test_reward_weighted_training_raises_the_reward_above_unweighted_training(
    velocity_folder: Path,
) -> None:
    model, prompts = open_with_adapter(velocity_folder, AdapterSettings()), [PROMPT] * 256
    cond = model.encode_prompts(prompts)
    chains = sample_trajectories(model, cond, SAMPLER, generator=seeded(), batch=128)
    latents = chains.latents[:, -1]
    data = WeightedData(latents, prompts, redness(model.decode(latents), prompts))
    after = {share: _train_on_the_best(velocity_folder, data, share) for share in (0.1, 1.0)}
    assert float(data.rewards.std()) == pytest.approx(SPREAD, rel=0.2)
    assert after[0.1] - after[1.0] > 0.3 * SPREAD
    assert after[0.1] - float(data.rewards.mean()) > 0.2 * SPREAD


def _train_on_the_best(folder: Path, data: WeightedData, share: float) -> float:
    """Train on this share of each prompt's images; return the last validation reward."""
    generator = seeded()
    model = open_with_adapter(folder, AdapterSettings(), generator=generator)
    config = RewardWeightedConfig(
        updates=60,
        weighting="top",
        top_share=share,
        pretraining_weight=0.0,
        learning_rate=1e-2,
        validation=ValidationConfig(every=60, images_per_prompt=64),
    )
    training = training_of(
        model, config, prompts=[PROMPT], sampler=SAMPLER, generator=generator, data=data
    )
    method = reward_weighted.METHOD
    state = method.start(training)
    list(method.train(training, state))
    return state.validation[-1][1]
