"""Small trainings by reward-weighted likelihood on made-up latents."""

from typing import Any

import torch
from torch import Tensor

from finetune.labels.weighted_batches import WeightedData
from finetune.learning.method import Training
from finetune.learning.reward_fn import RewardFn
from finetune.model.diffusion import DiffusionModel
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import seeded, training_of

SMALL = RewardWeightedConfig(
    updates=3,
    batch=4,
    report_every=2,
    warmup=0,
    validation=ValidationConfig(every=100, images_per_prompt=1),
)


def randn(*shape: int) -> Tensor:
    """Return noise that is the same each time."""
    return torch.randn(shape, generator=seeded())


def small_data(rewards: list[float]) -> WeightedData:
    """Return random latents of two prompts with these rewards."""
    prompts = ["a cat", "a dog"] * (len(rewards) // 2)
    return WeightedData(randn(len(rewards), 4, 8, 8), prompts, torch.tensor(rewards))


def brightness(images: Tensor, _: object) -> Tensor:
    """Reward light images."""
    return images.mean((1, 2, 3))


def reward_weighted(
    model: DiffusionModel,
    data: WeightedData,
    config: RewardWeightedConfig = SMALL,
    *,
    reward: RewardFn = brightness,
    pretraining: WeightedData | None = None,
    generator: torch.Generator | None = None,
) -> Training[Any]:
    """Return a training on the data with two sampler steps and seed 1."""
    return training_of(
        model,
        config,
        prompts=list(dict.fromkeys(data.prompts)),
        reward=reward,
        sampler=Sampler(steps=2),
        generator=generator or seeded(1),
        data=data,
        pretraining=pretraining,
    )
