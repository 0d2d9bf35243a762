"""Batches of images that are drawn by their weight, beside pretraining images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.labels.weighting import effective_sample_size, sample_weights
from finetune.learning.regions import balanced
from finetune.model.schedule import NoiseSchedule
from finetune.settings.reward_weighted import RewardWeightedConfig, WeightingConfig

_logger = logging.getLogger(__name__)
LEAST_SAMPLE_SIZE = 0.1
"""Effective sample size below which the training rests on too few images."""


@dataclass(frozen=True)
class WeightedData:
    """Images that exist, as latents."""

    latents: Tensor
    """[N, C, h, w], from `DiffusionModel.encode_images`."""
    prompts: Sequence[str]
    """The prompt of each image."""
    rewards: Tensor
    """[N]; not read of pretraining images."""
    wrong: Tensor | None = None
    """Masks [N, 1, h, w] of what not to learn from; None without masks."""

    def __post_init__(self) -> None:
        """Refuse data that do not belong together."""
        if not len(self.latents) == len(self.prompts) == len(self.rewards) > 0:
            counts = (
                f"{len(self.latents)} latents, {len(self.prompts)} prompts, "
                f"{len(self.rewards)} rewards"
            )
            raise PictuneError(f"finetune: {counts}; give the same number, at least one, of each")


@dataclass(frozen=True)
class WeightedImages:
    """The images that batches are drawn from: rewarded ones, then pretraining ones."""

    latents: Tensor
    """[N + P, C, h, w]."""
    prompts: Sequence[str]
    probabilities: Tensor
    """[N], on the CPU: of each rewarded image to be drawn, proportional to its weight."""
    mean_weight: float
    """Mean weight of the rewarded images."""
    reward: float
    """Mean reward of the rewarded images."""
    effective_sample_size: float
    places: Tensor
    """Weights [N + P, 1, h, w] of the places of each image, of mean 1."""

    @property
    def rewarded(self) -> int:
        """Number N of rewarded images."""
        return len(self.probabilities)


class Batch(NamedTuple):
    """Images of one optimizer step, with noise and timesteps."""

    latents: Tensor
    """[B, C, h, w]: the rewarded ones first."""
    noise: Tensor
    """[B, C, h, w]."""
    timesteps: Tensor
    """[B]."""
    texts: list[str]
    """Prompts; empty where they are dropped."""
    rewarded: int
    """Number of rewarded images."""
    places: Tensor
    """Weights [B, 1, h, w] of the places of each image."""


def weighted_images(
    data: WeightedData,
    pretraining: WeightedData | None,
    weighting: WeightingConfig,
    *,
    device: torch.device,
) -> WeightedImages:
    """Return rewarded images with their weights, and the pretraining images, if any.

    Raises:
        PictuneError: no image has a positive weight.
    """
    weights = sample_weights(data.rewards, data.prompts, weighting)
    if not float(weights.sum()) > 0:
        raise PictuneError(
            "finetune: no image has a reward above 0, so nothing can be learned; "
            "use weighting 'softmax' or 'top'"
        )
    sample_size = effective_sample_size(weights)
    if sample_size < LEAST_SAMPLE_SIZE:
        _logger.warning(
            "finetune: only %.0f %% of %d images really count (effective sample size); draw more, "
            "or follow the reward less: a higher temperature, top_share or gamma, "
            "a smaller kl_budget",
            100 * sample_size,
            len(weights),
        )
    both = (data,) if pretraining is None else (data, pretraining)
    return WeightedImages(
        latents=torch.cat([part.latents.to(device) for part in both]),
        prompts=[prompt for part in both for prompt in part.prompts],
        probabilities=(weights / weights.sum()).cpu(),
        mean_weight=float(weights.mean()),
        reward=float(data.rewards.mean()),
        effective_sample_size=sample_size,
        places=torch.cat([_places(part).to(device) for part in both]),
    )


def _places(data: WeightedData) -> Tensor:
    whole = torch.ones_like(data.latents[:, :1])
    return whole if data.wrong is None else balanced(1 - data.wrong)


def draw_batch(
    images: WeightedImages,
    config: RewardWeightedConfig,
    schedule: NoiseSchedule,
    *,
    generator: torch.Generator,
) -> Batch:
    """Draw a batch: rewarded images by their weight, pretraining images evenly.

    The pretraining images, if any, are half of it.
    """
    others = len(images.prompts) - images.rewarded
    half = config.batch // 2 if others else 0
    n = config.batch - half
    chosen = torch.multinomial(images.probabilities, n, replacement=True, generator=generator)
    if half:
        even = images.rewarded + torch.randint(others, (half,), generator=generator)
        chosen = torch.cat([chosen, even])
    device = images.latents.device
    rows = chosen.to(device, non_blocking=True)
    latents = images.latents[rows]
    noise = torch.randn(latents.shape, generator=generator).to(device, non_blocking=True)
    count = len(schedule.training_timesteps)
    places = torch.rand(config.batch, generator=generator) ** (1 / (config.timestep_power + 1))
    drawn = (count * places).long().clamp(max=count - 1)
    timesteps = schedule.training_timesteps[drawn].to(device, non_blocking=True)
    is_dropped = torch.rand(config.batch, generator=generator) < config.caption_dropout
    numbers = zip(chosen.tolist(), is_dropped.tolist(), strict=True)
    texts = ["" if drop else images.prompts[i] for i, drop in numbers]
    return Batch(latents, noise, timesteps, texts, rewarded=n, places=images.places[rows])
