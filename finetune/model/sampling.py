"""Gaussian sampling steps and their densities.

    x_{t-1} ~ N(mean, std^2),  mean = signal_{t-1} x0 + sqrt(spread_{t-1}^2 - std^2) noise

where x0 and noise are the model's predictions from x_t. A diffusion uses the step of DDIM (Song et
al. 2020, arXiv 2010.02502), with std = eta * sqrt((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)); a
flow uses the step of Flow-CPS (Wang & Yu 2025, arXiv 2509.05952), with std = spread_{t-1} * sin(eta
* pi / 2).

A step whose std is zero (eta = 0, or the last step of a schedule that ends at zero noise) is
deterministic. It has no density; `log_prob` returns 0, so the step has no gradient.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from finetune.model.schedule import NoiseLevel, NoiseSchedule


def step_distribution(
    schedule: NoiseSchedule,
    model_output: Tensor,
    timestep: Tensor,
    sample: Tensor,
    *,
    eta: float,
) -> tuple[Tensor, Tensor]:
    """Return the mean [B, C, h, w] and standard deviation [B, 1, 1, 1] of the next sample.

    Both are float32. The step equals `DDIMScheduler.step` (without `use_clipped_model_output`), or
    for flows the published function of Flow-CPS.

    Args:
        schedule: the noise schedule with the sampler's steps.
        model_output: [B, C, h, w].
        timestep: one timestep for all samples, or [B].
        sample: x_t [B, C, h, w].
        eta: 0 is deterministic, 1 is ancestral (DDPM) sampling; for a flow, 1 replaces all noise.
    """
    timesteps = timestep.expand(len(sample))
    at, after = schedule.level(timesteps), schedule.next_level(timesteps)
    original, noise = _clean_and_noise(schedule, model_output.float(), at, sample.float())
    std = schedule.step_std(timesteps, eta)
    # Rounding may turn 0 into a negative number.
    direction = (after.variance - std.square()).clamp(min=0).sqrt()
    return after.signal * original + direction * noise, std


def clean_latents(
    schedule: NoiseSchedule, model_output: Tensor, timestep: Tensor, sample: Tensor
) -> Tensor:
    """Return the predicted clean sample E[x_0 | x_t] [B, C, h, w], in float32."""
    at = schedule.level(timestep.expand(len(sample)))
    return _clean_and_noise(schedule, model_output.float(), at, sample.float())[0]


def _clean_and_noise(
    schedule: NoiseSchedule, output: Tensor, at: NoiseLevel, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the predicted clean sample E[x_0 | x_t] and the predicted noise."""
    if schedule.prediction_type == "epsilon":
        return (sample - at.spread * output) / at.signal, output
    if schedule.prediction_type == "sample":
        return output, (sample - at.signal * output) / at.spread
    if schedule.prediction_type == "v_prediction":
        return at.signal * sample - at.spread * output, at.signal * output + at.spread * sample
    return sample - at.spread * output, sample + at.signal * output


def log_prob(sample: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-density [B] in nats per dimension of samples [B, ...]; 0 where std is 0."""
    safe = torch.where(std > 0, std, 1).float()
    squared = ((sample.float() - mean.float()) / safe).square()
    value = -squared / 2 - safe.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(std > 0, value, 0).flatten(1).mean(1)


def gaussian_kl(
    mean: Tensor, ref_mean: Tensor, std: Tensor, *, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """Return KL(N(mean, std^2) || N(ref_mean, std^2)) [B] of means [B, ...].

    The KL is in nats ("sum") or nats per dimension ("mean"). For a deterministic step (std 0) the
    KL is not finite, and 0 is returned.
    """
    safe = torch.where(std > 0, std, 1)
    terms = torch.where(std > 0, ((mean - ref_mean) / safe).square() / 2, 0).flatten(1)
    return terms.sum(1) if reduction == "sum" else terms.mean(1)


def noise_per_output(schedule: NoiseSchedule, timesteps: Tensor) -> Tensor:
    """Return factors [M, 1, 1, 1] that convert differences of outputs to differences of noise."""
    at = schedule.level(timesteps)
    factors: dict[str, Tensor] = {
        "epsilon": torch.ones_like(at.signal),
        "v_prediction": at.signal,
        "sample": -at.signal / at.spread,
        "flow_prediction": at.signal,
    }
    return factors[schedule.prediction_type]


def velocity_per_output(schedule: NoiseSchedule, timesteps: Tensor) -> Tensor:
    """Return factors [M, 1, 1, 1] that convert differences of outputs to velocity differences."""
    at = schedule.level(timesteps)
    if schedule.prediction_type in ("v_prediction", "flow_prediction"):
        return torch.ones_like(at.signal)
    return noise_per_output(schedule, timesteps) / at.signal
