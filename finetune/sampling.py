"""Gaussian steps of DDIM sampling with their densities (Song et al. 2020, arXiv 2010.02502).

    x_{t-1} ~ N(mean, std^2),  std = eta * sqrt((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev))
    mean = sqrt(a_prev) * x0 + sqrt(1 - a_prev - std^2) * eps

A step whose std is zero (eta = 0, or the last step of a schedule that ends at zero noise) is
deterministic: it has no density, and `log_prob` returns 0 for it, so that it carries neither a
ratio nor a gradient.
"""

import math
from typing import Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor


def step_distribution(
    scheduler: DDIMScheduler,
    model_output: Tensor,
    timestep: int | Tensor,
    sample: Tensor,
    *,
    eta: float,
) -> tuple[Tensor, Tensor]:
    """Return the mean [B, C, h, w] and standard deviation [B, 1, 1, 1] of the next sample.

    Both are in float32. Equals `DDIMScheduler.step` (without `use_clipped_model_output`) for
    epsilon, v_prediction and sample prediction: like there, the step goes down by
    num_train_timesteps // num_inference_steps.

    Args:
        scheduler: with `set_timesteps` done.
        model_output: [B, C, h, w].
        timestep: one for all, or [B].
        sample: x_t [B, C, h, w].
        eta: 0 deterministic, 1 ancestral (DDPM) sampling.
    """
    at, before = _alphas(scheduler, timestep, sample)
    original, noise = _clean_and_noise(scheduler, model_output.float(), at, sample.float())
    std = eta * ((1 - before) / (1 - at) * (1 - at / before)).sqrt()
    # Rounding may push an exact zero below zero.
    direction = (1 - before - std.square()).clamp(min=0).sqrt()
    return before.sqrt() * original + direction * noise, std


def clean_latents(
    scheduler: DDIMScheduler, model_output: Tensor, timestep: int | Tensor, sample: Tensor
) -> Tensor:
    """Return the finished sample E[x_0 | x_t] [B, C, h, w], in float32.

    Arguments as for `step_distribution`.
    """
    at, _ = _alphas(scheduler, timestep, sample)
    return _clean_and_noise(scheduler, model_output.float(), at, sample.float())[0]


def _clean_and_noise(
    scheduler: DDIMScheduler, output: Tensor, at: Tensor, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the finished sample E[x_0 | x_t] and the noise that the model sees in x_t.

    Both are [B, C, h, w]; `at` are the cumulative alphas, [B, 1, 1, 1].
    """
    config, signal, spread = scheduler.config, at.sqrt(), (1 - at).sqrt()
    if config.prediction_type == "epsilon":
        original, noise = (sample - spread * output) / signal, output
    elif config.prediction_type == "sample":
        original, noise = output, (sample - signal * output) / spread
    elif config.prediction_type == "v_prediction":
        original, noise = signal * sample - spread * output, signal * output + spread * sample
    else:
        known = "epsilon, sample, v_prediction"
        raise ValueError(f"prediction type {config.prediction_type!r}; known are {known}")
    if config.thresholding:
        raise ValueError("dynamic thresholding suits pixels only; switch it off for latents")
    if config.clip_sample:
        original = original.clamp(-config.clip_sample_range, config.clip_sample_range)
    return original, noise


def _alphas(
    scheduler: DDIMScheduler, timestep: int | Tensor, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the cumulative alphas at each timestep and one step later, each [B, 1, 1, 1]."""
    if scheduler.num_inference_steps is None:
        raise ValueError("call scheduler.set_timesteps first")
    table = scheduler.alphas_cumprod.to(sample.device)
    at = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
    before = at - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    final = scheduler.final_alpha_cumprod.to(sample.device)
    shape = (-1, *[1] * (sample.dim() - 1))
    after = torch.where(before >= 0, table[before.clamp(min=0)], final)
    return table[at].view(shape), after.view(shape)


def log_prob(sample: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-density [B] in nats per dimension, in float32; 0 where std is 0.

    Args:
        sample: [B, ...].
        mean: [B, ...].
        std: broadcastable to them, constant over the averaged dimensions.
    """
    safe = torch.where(std > 0, std, 1).float()
    squared = ((sample.float() - mean.float()) / safe).square()
    value = -squared / 2 - safe.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(std > 0, value, 0).flatten(1).mean(1)


def gaussian_kl(
    mean: Tensor, ref_mean: Tensor, std: Tensor, *, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """Return KL(N(mean, std^2) || N(ref_mean, std^2)) [B] of means [B, ...].

    In nats ("sum") or nats per dimension ("mean"). 0 where std is 0: a deterministic step has no
    finite KL, and takes no part in training either.
    """
    safe = torch.where(std > 0, std, 1)
    terms = torch.where(std > 0, ((mean - ref_mean) / safe).square() / 2, 0).flatten(1)
    return terms.sum(1) if reduction == "sum" else terms.mean(1)


def noise_per_output(scheduler: DDIMScheduler, timesteps: Tensor) -> Tensor:
    """Return the factor [M, 1, 1, 1] from a difference of UNet outputs to one of predicted noise.

    `timesteps` [M] are those of the outputs.
    """
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    factors: dict[str, Tensor] = {
        "epsilon": torch.ones_like(alphas),
        "v_prediction": alphas.sqrt(),
        "sample": -(alphas / (1 - alphas)).sqrt(),
    }
    return factors[scheduler.config.prediction_type]


def velocity_per_output(scheduler: DDIMScheduler, timesteps: Tensor) -> Tensor:
    """Return the factor [M, 1, 1, 1] from a difference of UNet outputs to one of velocities.

    `timesteps` [M] are those of the outputs.
    """
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    factor: Tensor = noise_per_output(scheduler, timesteps) / alphas.sqrt()
    return factor
