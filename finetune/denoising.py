"""The denoising objective of diffusion models, as pure functions."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor


def weighted_denoising_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the batch of weights [B] times squared errors.

    The squared error is the mean over the dimensions of prediction and target [B, ...].
    """
    return (weights * (prediction - target).square().flatten(1).mean(1)).mean()


def denoising_target(
    scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Return the target of the prediction from the noised latents [B, C, h, w].

    It is the noise, the velocity or the latents themselves, as the scheduler says.
    """
    if scheduler.config.prediction_type == "epsilon":
        return noise
    if scheduler.config.prediction_type == "sample":
        return latents
    velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps)
    return velocity


def timestep_weights(scheduler: DDIMScheduler, timesteps: Tensor, min_snr: float) -> Tensor:
    """Return min-SNR weights [B] (Hang et al. 2023, arXiv 2303.09556); ones when `min_snr` is 0.

    They are in the units of the scheduler's prediction type.
    """
    if min_snr == 0:
        return torch.ones(len(timesteps), device=timesteps.device)
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas / (1 - alphas)
    clipped = snr.clamp(max=min_snr)
    weights: dict[str, Tensor] = {
        "epsilon": clipped / snr,
        "v_prediction": clipped / (snr + 1),
        "sample": clipped,
    }
    return weights[scheduler.config.prediction_type]


def noised_pairs(
    images: int, noise_levels: int, timesteps: int, *, generator: torch.Generator
) -> Tensor:
    """Return (image, timestep) pairs [images * noise_levels, 2] in random order.

    Each image has one timestep from each of `noise_levels` equal parts of the schedule of so many
    `timesteps`.
    """
    places = torch.arange(noise_levels) + torch.rand(images, noise_levels, generator=generator)
    drawn = (places * (timesteps / noise_levels)).long().clamp(max=timesteps - 1)
    numbers = torch.arange(images).repeat_interleave(noise_levels)
    pairs = torch.stack([numbers, drawn.flatten()], dim=1)
    return pairs[torch.randperm(len(pairs), generator=generator)]
