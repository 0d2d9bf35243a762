"""The denoising objective of diffusion models, as pure functions."""

import torch
from torch import Tensor

from finetune.model.schedule import NoiseSchedule


def weighted_denoising_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the batch of weights [B] times squared errors.

    The squared error is the mean over the dimensions of prediction and target [B, ...].
    """
    return (weights * (prediction - target).square().flatten(1).mean(1)).mean()


def denoising_target(
    schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Return the target of the prediction from the noised latents [B, C, h, w].

    It is the noise, a velocity or the latents themselves, as the schedule says.
    """
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "sample":
        return latents
    if schedule.prediction_type == "flow_prediction":
        return noise - latents
    at = schedule.level(timesteps)
    return at.signal * noise - at.spread * latents


def timestep_weights(schedule: NoiseSchedule, timesteps: Tensor, min_snr: float) -> Tensor:
    """Return min-SNR weights [B] (Hang et al. 2023, arXiv 2303.09556); ones when `min_snr` is 0.

    They are in the units of the schedule's prediction.
    """
    if min_snr == 0:
        return torch.ones(len(timesteps), device=timesteps.device)
    at = schedule.level(timesteps)
    snr = at.signal.square() / at.variance
    clipped = snr.clamp(max=min_snr)
    weights: dict[str, Tensor] = {
        "epsilon": clipped / snr,
        "v_prediction": clipped * at.variance,
        "sample": clipped,
        "flow_prediction": clipped * at.variance,
    }
    return weights[schedule.prediction_type].flatten()


def spread_timesteps(schedule: NoiseSchedule, count: int, *, generator: torch.Generator) -> Tensor:
    """Return training timesteps [count] in random order, on the CPU.

    There is one from each of `count` equal parts of the schedule.
    """
    drawn = noised_pairs(1, count, schedule, generator=generator)[:, 1]
    return schedule.training_timesteps.cpu()[drawn]


def noised_pairs(
    images: int, noise_levels: int, schedule: NoiseSchedule, *, generator: torch.Generator
) -> Tensor:
    """Return (image, number of a training timestep) pairs [images * noise_levels, 2].

    They are in random order, and each image has one timestep from each of `noise_levels` equal
    parts of the schedule.
    """
    timesteps = len(schedule.training_timesteps)
    places = torch.arange(noise_levels) + torch.rand(images, noise_levels, generator=generator)
    drawn = (places * (timesteps / noise_levels)).long().clamp(max=timesteps - 1)
    numbers = torch.arange(images).repeat_interleave(noise_levels)
    pairs = torch.stack([numbers, drawn.flatten()], dim=1)
    return pairs[torch.randperm(len(pairs), generator=generator)]
