"""Every method raises a simple reward, the amount of red, on a tiny random model."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import Tensor

from finetune import policy_gradient, reward_weighted
from finetune.ddpo import DDPOConfig
from finetune.diffusion import DiffusionModel, LoraSettings
from finetune.dpok import DPOKConfig
from finetune.policy_gradient import PolicyGradientConfig
from finetune.sampling import sample_trajectories
from finetune.training import ValidationConfig
from tests.tiny_diffusion import write_tiny_diffusion

PROMPT = "red"
SPREAD = 0.0165
"""Standard deviation of the untuned model's rewards."""


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    assert len(prompts) == len(images)
    return images[:, 0].mean((1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_diffusion(
        tmp_path_factory.mktemp("tiny") / "model", prediction="v_prediction"
    )


def open_model(folder: Path, generator: torch.Generator) -> DiffusionModel:
    model = DiffusionModel.from_pretrained(folder)
    model.add_lora(LoraSettings(), generator=generator)
    return model


ONLINE = {
    "iterations": 10,
    "images_per_prompt": 64,
    "micro_batch": 64,
    "steps": 4,
    "stochastic_share": 1.0,
    "guidance": 1.0,
    "updates": 1,
    "learning_rate": 5e-3,
    "clip_range": 0.05,
    "std_floor": 1e-3,
    "validation": ValidationConfig(every=10, images_per_prompt=64, batch=64),
}


@pytest.mark.parametrize("config", [
    DPOKConfig.model_validate(ONLINE | {"kl_weight": 0.003, "baseline": "prompt_mean"}),
    DDPOConfig.model_validate(ONLINE),
], ids=["dpok", "ddpo"])  # fmt: skip
def test_policy_gradients_raise_the_reward_of_training_and_of_validation(
    folder: Path, config: PolicyGradientConfig
) -> None:
    generator = torch.Generator().manual_seed(0)
    model = open_model(folder, generator)
    state = policy_gradient.start(model, config, generator=generator)
    rewards = [
        metrics.reward
        for metrics in policy_gradient.train(
            model, [PROMPT], redness, config, generator=generator, state=state
        )
    ]
    assert mean(rewards[-3:]) - rewards[0] > 0.4 * SPREAD
    assert state.validation[-1][1] - state.validation[0][1] > 0.25 * SPREAD


def test_reward_weighted_training_raises_the_reward_above_unweighted_training(folder: Path) -> None:
    model, generator = (
        open_model(folder, torch.Generator().manual_seed(0)),
        torch.Generator().manual_seed(0),
    )
    prompts = [PROMPT] * 256
    chains = sample_trajectories(
        model,
        model.encode_prompts(prompts),
        steps=4,
        guidance=1.0,
        eta=1.0,
        generator=generator,
        batch=128,
    )
    latents = chains.latents[:, -1]
    data = reward_weighted.WeightedData(latents, prompts, redness(model.decode(latents), prompts))
    after = {share: _train_on_the_best(folder, data, share) for share in (0.1, 1.0)}
    assert float(data.rewards.std()) == pytest.approx(SPREAD, rel=0.2)
    assert after[0.1] - after[1.0] > 0.3 * SPREAD
    assert after[0.1] - float(data.rewards.mean()) > 0.2 * SPREAD


def _train_on_the_best(folder: Path, data: reward_weighted.WeightedData, share: float) -> float:
    """The last validation reward."""
    generator = torch.Generator().manual_seed(0)
    model = open_model(folder, generator)
    config = reward_weighted.RewardWeightedConfig(
        updates=60,
        weighting="top",
        top_share=share,
        pretraining_weight=0.0,
        learning_rate=1e-2,
        steps=4,
        guidance=1.0,
        validation=ValidationConfig(every=60, images_per_prompt=64, batch=64),
    )
    state = reward_weighted.start(model, config)
    list(reward_weighted.train(model, data, redness, config, generator=generator, state=state))
    return state.validation[-1][1]
