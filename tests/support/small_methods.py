"""Every method, ready to train on a tiny model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.labels.weighted_batches import WeightedData
from finetune.learning.method import Method
from finetune.learning.reward_fn import RewardFn
from finetune.learning.training import TrainState
from finetune.methods import ddpo, dpok, nft, preference, reward_gradient, reward_weighted
from finetune.model.diffusion import DiffusionModel
from finetune.settings.ddpo import DDPOConfig
from finetune.settings.dpok import DPOKConfig
from finetune.settings.method import MethodConfig
from finetune.settings.nft import NFTConfig
from finetune.settings.reward_gradient import RewardGradientConfig
from finetune.settings.reward_weighted import RewardWeightedConfig
from finetune.settings.validation import ValidationConfig
from tests.support.small_labels import SMALL as SMALL_LABELS
from tests.support.small_labels import small_labels
from tests.support.small_training import open_with_adapter, seeded, training_of

VALIDATION = ValidationConfig(every=2, images_per_prompt=2)
SMALL = {
    "iterations": 4,
    "images_per_prompt": 3,
    "micro_batch": 4,
    "prompts_per_iteration": 1,
    "validation": VALIDATION,
}
RWL = RewardWeightedConfig(
    updates=4,
    batch=4,
    report_every=1,
    validation=VALIDATION,
)
METHODS: dict[str, tuple[Method[Any], MethodConfig]] = {
    "dpok": (dpok.METHOD, DPOKConfig.model_validate(SMALL)),
    "ddpo": (ddpo.METHOD, DDPOConfig.model_validate(SMALL)),
    "rwl": (reward_weighted.METHOD, RWL),
    "preference": (preference.METHOD, SMALL_LABELS.model_copy(update={"verdicts": "kto"})),
    "nft": (nft.METHOD, NFTConfig.model_validate(SMALL | {"std_floor": 1e-4, "old_decay": 0.5})),
    "reward_gradient": (
        reward_gradient.METHOD,
        RewardGradientConfig.model_validate(
            SMALL
            | {
                "truncation": "random",
                "steps_back": 3,
                "pretraining_weight": 0.1,
                "validation": VALIDATION.model_dump(),
            }
        ),
    ),
}


def contrast(images: Tensor, _: object) -> Tensor:
    """Reward light beside dark."""
    return images.flatten(1).std(1)


def constant(images: Tensor, _: object) -> Tensor:
    """Reward all images alike."""
    return torch.ones(len(images))


class Run:
    """One method on a model, or on a fresh one, whose state can be saved and loaded."""

    def __init__(
        self,
        model: Path | DiffusionModel,
        name: str,
        reward: RewardFn = contrast,
        *,
        parts: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Start the method with these parts of its training and changes of its settings."""
        self.method, config = METHODS[name]
        self.generator = seeded()
        if isinstance(model, Path):
            model = open_with_adapter(model, changes.get("adapter"), generator=self.generator)
        self.model = model
        latents = torch.randn(12, *self.model.latent_shape, generator=seeded(3))
        data = WeightedData(latents[:6], ["a cat", "a dog"] * 3, torch.linspace(0, 1, 6))
        given: dict[str, Any] = {
            "data": small_labels(latents=latents) if name == "preference" else data,
            "reward": reward,
        }
        given |= {"generator": self.generator, **(parts or {})}
        self.training = training_of(self.model, config.model_copy(update=changes), **given)
        self.state: TrainState = self.method.start(self.training)

    def steps(self) -> Iterator[Any]:
        """Train to the end, and yield metrics."""
        return self.method.train(self.training, self.state)
