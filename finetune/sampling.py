"""Stochastic DDIM sampling as a chain of Gaussian steps whose log-probabilities are known (Song et al. 2020, arXiv 2010.02502).

    x_{t-1} ~ N(mean, std^2),  std = eta * sqrt((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev))
    mean = sqrt(a_prev) * x0 + sqrt(1 - a_prev - std^2) * eps

A step whose std is zero (eta = 0, or the last step of a schedule that ends at zero noise) is deterministic: it has no density, and
`log_prob` gives 0 for it, so that it carries neither a ratio nor a gradient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from data.errors import PictuneError
from finetune.diffusion import DiffusionModel


@dataclass(frozen=True)
class Trajectories:
    """N denoising chains of T steps."""

    latents: Tensor
    """[N, T + 1, C, h, w]: pure noise first, the finished latents last."""
    log_probs: Tensor
    """[N, T]: log-probability of each step, mean over its dimensions; 0 where the step is deterministic."""
    timesteps: Tensor
    """[T]: the training timestep at which step i starts."""


def step_distribution(
    scheduler: DDIMScheduler,
    model_output: Tensor,
    timestep: int | Tensor,
    sample: Tensor,
    *,
    eta: float,
) -> tuple[Tensor, Tensor]:
    """Mean [B, C, h, w] and standard deviation [B, 1, 1, 1] of the next sample, in float32.

    Equals `DDIMScheduler.step` (without `use_clipped_model_output`) for epsilon, v_prediction and sample prediction: like there, the
    step goes down by num_train_timesteps // num_inference_steps.

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
    direction = (
        (1 - before - std.square()).clamp(min=0).sqrt()
    )  # rounding may push an exact zero below zero
    return before.sqrt() * original + direction * noise, std


def _clean_and_noise(
    scheduler: DDIMScheduler, output: Tensor, at: Tensor, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """The finished sample E[x_0 | x_t] and the noise that the model sees in x_t, both [B, C, h, w], at cumulative alphas [B, 1, 1, 1]."""
    config = scheduler.config
    if config.prediction_type == "epsilon":
        original, noise = (sample - (1 - at).sqrt() * output) / at.sqrt(), output
    elif config.prediction_type == "sample":
        original, noise = output, (sample - at.sqrt() * output) / (1 - at).sqrt()
    elif config.prediction_type == "v_prediction":
        original, noise = (
            at.sqrt() * sample - (1 - at).sqrt() * output,
            at.sqrt() * output + (1 - at).sqrt() * sample,
        )
    else:
        raise ValueError(
            f"prediction type {config.prediction_type!r}; known are epsilon, sample, v_prediction"
        )
    if config.thresholding:
        raise ValueError("dynamic thresholding suits pixels only; switch it off for latents")
    if config.clip_sample:
        original = original.clamp(-config.clip_sample_range, config.clip_sample_range)
    return original, noise


def _alphas(
    scheduler: DDIMScheduler, timestep: int | Tensor, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """The schedule's cumulative alphas at each timestep and one step further, each [B, 1, 1, 1]."""
    if scheduler.num_inference_steps is None:
        raise ValueError("call scheduler.set_timesteps first")
    table = scheduler.alphas_cumprod.to(sample.device)
    at = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
    before = at - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    final = scheduler.final_alpha_cumprod.to(sample.device)
    shape = (-1, *[1] * (sample.dim() - 1))
    return table[at].view(shape), torch.where(before >= 0, table[before.clamp(min=0)], final).view(
        shape
    )


def log_prob(sample: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density [B] in nats per dimension: the mean over all dimensions but the first, in float32; 0 where std is 0.

    Args:
        sample: [B, ...].
        mean: [B, ...].
        std: broadcastable to them, constant over the averaged dimensions.
    """
    safe = torch.where(std > 0, std, 1).float()
    value = (
        -((sample.float() - mean.float()) / safe).square() / 2
        - safe.log()
        - 0.5 * math.log(2 * math.pi)
    )
    return torch.where(std > 0, value, 0).flatten(1).mean(1)


def part_of(steps: int, share: float) -> int:
    """How many steps a share of them is: rounded, at least one."""
    return max(1, round(share * steps))


@torch.no_grad()
def sample_trajectories(
    model: DiffusionModel,
    cond: Tensor,
    *,
    steps: int,
    guidance: float,
    eta: float,
    generator: torch.Generator,
    stochastic_steps: int | None = None,
    batch: int = 32,
) -> Trajectories:
    """Draws one chain per prompt embedding in `cond` [N, L, D].

    The first `stochastic_steps` (left out: all) have the given eta, the later ones eta 0.

    Every UNet call has exactly `batch` rows (the last chunk is filled up with repeats): kernels depend on the shape, and training
    with the same shape gives bit-equal predictions, so that the first importance ratio is exactly 1.
    """
    scheduler = model.scheduler(steps)
    latents = cond.new_empty(len(cond), steps + 1, *model.latent_shape, dtype=torch.float32)
    log_probs = cond.new_zeros(len(cond), steps, dtype=torch.float32)
    stochastic_steps = steps if stochastic_steps is None else stochastic_steps
    uncond = model.encode_prompts([""]).expand(batch, -1, -1)
    for rows, real in padded_batches(torch.arange(len(cond), device=cond.device), batch):
        kept = rows[:real]
        latents[kept, 0] = _noise((real, *model.latent_shape), generator, model.device)
        for i, timestep in enumerate(scheduler.timesteps):
            sample = latents[rows, i]
            output = model.predict(sample, timestep.expand(batch), cond[rows], uncond, guidance)[
                :real
            ]
            noisy = i < stochastic_steps
            mean, std = step_distribution(
                scheduler, output, timestep, sample[:real], eta=eta if noisy else 0.0
            )
            latents[kept, i + 1] = (
                mean + std * _noise(mean.shape, generator, model.device) if noisy else mean
            )
            log_probs[kept, i] = log_prob(latents[kept, i + 1], mean, std)
    return Trajectories(latents, log_probs, scheduler.timesteps)


def padded_batches(rows: Tensor, batch: int) -> Iterator[tuple[Tensor, int]]:
    """Splits rows [N, ...] into parts of exactly `batch`, the last one filled up with its first row; with each, how many are real."""
    for part in rows.split(batch):
        missing = batch - len(part)
        yield (
            torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part,
            len(part),
        )


def _noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal noise, drawn where the generator lives so that every device draws the same."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device).to(device)


@torch.no_grad()
def draw_latents(
    model: DiffusionModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    eta: float = 0.0,
    stochastic_steps: int | None = None,
    batch: int = 16,
) -> Iterator[Tensor]:
    """Yields the finished latents of `prompts` in order, float32 [<= batch, C, h, w], as they get ready.

    The first `stochastic_steps` (left out: all) have the given eta, the later ones eta 0.
    Image i depends on its prompt, `seeds[i]` and the settings, and not on its neighbours (but for rounding, which may differ with the
    size of the batch): its starting noise and every step's noise come from a generator of its own.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    scheduler = model.scheduler(steps)
    for start in range(0, len(prompts), batch):
        cond = model.encode_prompts(prompts[start : start + batch])
        uncond = model.encode_prompts([""]).expand_as(cond)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        latents = torch.stack([_noise(model.latent_shape, g, model.device) for g in generators])
        for i, timestep in enumerate(scheduler.timesteps):
            is_noisy = eta > 0 and (stochastic_steps is None or i < stochastic_steps)
            output = model.predict(latents, timestep.expand(len(cond)), cond, uncond, guidance)
            latents, std = step_distribution(
                scheduler, output, timestep, latents, eta=eta if is_noisy else 0.0
            )
            if is_noisy:
                latents = latents + std * torch.stack(
                    [_noise(model.latent_shape, g, model.device) for g in generators]
                )
        yield latents


def draw_batches(
    model: DiffusionModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    eta: float = 0.0,
    stochastic_steps: int | None = None,
    batch: int = 16,
) -> Iterator[Tensor]:
    """The images of `draw_latents`, float32 [<= batch, 3, H, W] in [0, 1], as they get ready.

    Raises:
        PictuneError: an image is NaN, as where half precision overflows.
    """
    chains = draw_latents(
        model,
        prompts,
        seeds=seeds,
        steps=steps,
        guidance=guidance,
        eta=eta,
        stochastic_steps=stochastic_steps,
        batch=batch,
    )
    for latents in chains:
        images = model.decode(latents, batch=batch)
        if not images.isfinite().all():
            raise PictuneError("model: the image that it draws is NaN; use precision fp32")
        yield images


def draw(
    model: DiffusionModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    eta: float = 0.0,
    batch: int = 16,
) -> Tensor:
    """All images of `draw_batches` together, [N, 3, H, W] in [0, 1]."""
    return torch.cat(
        list(
            draw_batches(
                model, prompts, seeds=seeds, steps=steps, guidance=guidance, eta=eta, batch=batch
            )
        )
    )
