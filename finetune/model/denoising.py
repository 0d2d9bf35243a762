"""The denoising objective of diffusion models.

Errors are means over dimensions. `velocity_per_output` converts outputs to units of the velocity;
`finetune/methods/nft.py` explains why.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import velocity_per_output
from finetune.model.schedule import NoiseSchedule


class NoiseLevels(NamedTuple):
    """Noise and timestep of each of N images, on the CPU."""

    timesteps: Tensor
    """[N]."""
    noise: Tensor
    """[N, C, h, w]."""

    def rows(self, rows: Tensor) -> "NoiseLevels":
        """Return the noise levels of rows [M]."""
        return NoiseLevels(self.timesteps[rows], self.noise[rows])


class NoisedImages(NamedTuple):
    """M noised images, for the predictions of denoising losses."""

    noisy: Tensor
    """[M, C, h, w]."""
    timesteps: Tensor
    """[M]."""
    cond: Tensor
    """[M, L, D]."""
    target: Tensor
    """[M, C, h, w], target of the network's prediction."""
    per_output: Tensor
    """Factor [M, 1, 1, 1] from the network's output to units of the velocity."""

    def output(self, model: DiffusionModel) -> Tensor:
        """Return the output of `DiffusionModel.predict_denoising`, [M, C, h, w]."""
        return model.predict_denoising(self.noisy, self.timesteps, self.cond)


def noise_images(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    latents: Tensor,
    prompts: Sequence[str],
    at: NoiseLevels,
) -> NoisedImages:
    """Add noise to latents [M, C, h, w]; the result is on the model's device."""
    timesteps, noise = (part.to(model.device, non_blocking=True) for part in at)
    return NoisedImages(
        noisy=schedule.add_noise(latents, noise, timesteps),
        timesteps=timesteps,
        cond=model.encode_prompts(prompts),
        target=denoising_target(schedule, latents, noise, timesteps),
        per_output=velocity_per_output(schedule, timesteps),
    )


def weighted_denoising_loss(
    prediction: Tensor, target: Tensor, weights: Tensor, places: Tensor | None = None
) -> Tensor:
    """Return the mean of weights [B] times mean squared errors of predictions [B, ...].

    `places` are weights [B, 1, h, w] of the squared errors at each place; None means 1.
    """
    errors = (prediction - target).square()
    if places is not None:
        errors = errors * places
    return (weights * errors.flatten(1).mean(1)).mean()


def denoising_target(
    schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Return the prediction target: noise, velocity or latents, by the schedule."""
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "sample":
        return latents
    if schedule.prediction_type == "flow_prediction":
        return noise - latents
    at = schedule.level(timesteps)
    return at.signal * noise - at.spread * latents


def spread_timesteps(schedule: NoiseSchedule, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw a timestep from each of `count` equal parts of the schedule, in random order."""
    drawn = noised_pairs(1, count, schedule, generator=generator)[:, 1]
    return schedule.training_timesteps[drawn]


def noised_pairs(
    images: int, noise_levels: int, schedule: NoiseSchedule, *, generator: torch.Generator
) -> Tensor:
    """Return (image, timestep index) pairs [images * noise_levels, 2] in random order.

    Each image has one timestep from each of `noise_levels` equal parts of the schedule.
    """
    timesteps = len(schedule.training_timesteps)
    places = torch.arange(noise_levels) + torch.rand(images, noise_levels, generator=generator)
    drawn = (places * (timesteps / noise_levels)).long().clamp(max=timesteps - 1)
    numbers = torch.arange(images).repeat_interleave(noise_levels)
    pairs = torch.stack([numbers, drawn.flatten()], dim=1)
    return pairs[torch.randperm(len(pairs), generator=generator)]
