"""Drawing of images and trajectories with a sampler (`finetune/settings/sampler.py`).

The same `Sampler` draws the run's images, rollouts, validation images, sample sheets and evaluation
images. So a model is trained, validated and evaluated with the same steps and guidance, unless the
settings differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import clean_latents, log_prob, step_distribution
from finetune.settings.sampler import Sampler


@dataclass(frozen=True)
class Trajectories:
    """N denoising chains of T steps."""

    latents: Tensor
    """[N, T + 1, C, h, w], from pure noise to the finished latents."""
    log_probs: Tensor
    """[N, T], log-probability of each step, a mean over dimensions; 0 if deterministic."""
    timesteps: Tensor
    """[T], the training timestep at the start of each step."""


@torch.no_grad()
def sample_trajectories(
    model: DiffusionModel,
    cond: Tensor,
    sampler: Sampler,
    *,
    generator: torch.Generator,
    batch: int = 32,
) -> Trajectories:
    """Draw one chain per prompt embedding in `cond` [N, L, D], shared among the processes.

    Every network call has exactly `batch` rows, padded with repeated rows. The rounding of GPU
    kernels depends on shapes; with the same shape in training, the first importance ratio is
    exactly 1.
    """
    schedule = model.schedule(sampler.steps)
    shape = (len(cond), sampler.steps + 1, *model.latent_shape)
    latents = cond.new_zeros(shape, dtype=torch.float32)
    log_probs = cond.new_zeros(len(cond), sampler.steps, dtype=torch.float32)
    uncond = model.encode_prompts([""]).expand(batch, -1, -1)
    batches = padded_batches(torch.arange(len(cond), device=cond.device), batch)
    for number, (rows, real) in enumerate(batches):
        kept, noise_shape = rows[:real], (real, *model.latent_shape)
        if not model.processes.has(number):
            for _ in range(1 + sampler.stochastic_steps):  # keeps generators in step
                _noise(noise_shape, generator, model.device)
            continue
        latents[kept, 0] = _noise(noise_shape, generator, model.device)
        for i, timestep in enumerate(schedule.timesteps):
            sample = latents[rows, i]
            at = timestep.expand(batch)
            with model.at_step(i, sampler.steps):
                output = model.predict(sample, at, cond[rows], uncond, sampler.guidance)[:real]
            noisy = i < sampler.stochastic_steps
            eta = sampler.eta if noisy else 0.0
            mean, std = step_distribution(schedule, output, timestep, sample[:real], eta=eta)
            drawn = mean + std * _noise(mean.shape, generator, model.device) if noisy else mean
            latents[kept, i + 1] = drawn
            log_probs[kept, i] = log_prob(latents[kept, i + 1], mean, std)
    total = model.processes.total
    return Trajectories(total(latents), total(log_probs), schedule.timesteps)


def padded_batches(rows: Tensor, batch: int) -> Iterator[tuple[Tensor, int]]:
    """Split rows [N, ...] into padded batches of `batch`, each with its number of real rows."""
    for part in rows.split(batch):
        missing = batch - len(part)
        filler = part[:1].expand(missing, *part.shape[1:])
        yield torch.cat([part, filler]) if missing else part, len(part)


def _noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Return standard normal noise, drawn on the generator's device: the same everywhere."""
    drawn = torch.randn(tuple(shape), generator=generator, device=generator.device)
    return drawn.to(device, non_blocking=True)


class GradientSpan(NamedTuple):
    """The steps of a denoising chain that have a gradient."""

    first: int
    """The first step with a gradient, from 0; all later steps have one too."""
    ends: bool = False
    """Whether the chain ends at this step, with the clean latents that the model predicts."""


@torch.no_grad()
def draw_latents(
    model: DiffusionModel,
    prompts: Sequence[str],
    sampler: Sampler,
    *,
    seeds: Sequence[int],
    batch: int = 16,
    span: GradientSpan | None = None,
) -> Iterator[Tensor]:
    """Yield the finished latents of `prompts` in order, float32 [<= batch, C, h, w].

    Each image has its own generator. So image i depends on its prompt, `seeds[i]` and the sampler,
    and not on other images (except for rounding by the batch size). With a `span`, the latents have
    a gradient.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    schedule = model.schedule(sampler.steps)
    for start in range(0, len(prompts), batch):
        cond = model.encode_prompts(prompts[start : start + batch])
        uncond = model.encode_prompts([""]).expand_as(cond)
        own_seeds = seeds[start : start + batch]
        generators = [torch.Generator().manual_seed(seed) for seed in own_seeds]
        choices = _choices(own_seeds, sampler.steps)

        def noise(generators: Sequence[torch.Generator] = generators) -> Tensor:
            drawn = [torch.randn(model.latent_shape, generator=own) for own in generators]
            return torch.stack(drawn).to(model.device, non_blocking=True)

        latents = noise()
        for i, timestep in enumerate(schedule.timesteps):
            is_noisy = sampler.eta > 0 and i < sampler.stochastic_steps
            has_gradient = span is not None and i >= span.first
            with torch.set_grad_enabled(has_gradient), model.at_step(i, sampler.steps):
                at = timestep.expand(len(cond))
                output = model.predict(
                    latents, at, cond, uncond, sampler.guidance, choices=choices[i]
                )
                if span is not None and span.ends and i == span.first:
                    latents = clean_latents(schedule, output, timestep, latents)
                    break
                eta = sampler.eta if is_noisy else 0.0
                latents, std = step_distribution(schedule, output, timestep, latents, eta=eta)
                if is_noisy:
                    latents = latents + std * noise()
        yield latents


def _choices(seeds: Sequence[int], steps: int) -> Tensor:
    """Return uniform numbers in [0, 1), [T, B], by which a mix chooses an adapter for each image.

    They have generators of their own, so that an image's noise is the same in a mix.
    """
    generators = [torch.Generator().manual_seed(~seed) for seed in seeds]
    drawn = [torch.rand(steps, generator=own, dtype=torch.double) for own in generators]
    return torch.stack(drawn, dim=1)


def draw_batches(
    model: DiffusionModel,
    prompts: Sequence[str],
    sampler: Sampler,
    *,
    seeds: Sequence[int],
    batch: int = 16,
) -> Iterator[Tensor]:
    """Yield the images of `draw_latents`, float32 [<= batch, 3, H, W] in [0, 1].

    Raises:
        PictuneError: an image is NaN, for example after an overflow in half precision.
    """
    for latents in draw_latents(model, prompts, sampler, seeds=seeds, batch=batch):
        images = model.decode(latents, batch=batch)
        if not images.isfinite().all():
            raise PictuneError("model: the image that it draws is NaN; use precision fp32")
        yield images


def draw(
    model: DiffusionModel,
    prompts: Sequence[str],
    sampler: Sampler,
    *,
    seeds: Sequence[int],
    batch: int = 16,
) -> Tensor:
    """Return all images of `draw_batches`, [N, 3, H, W] in [0, 1]."""
    return torch.cat(list(draw_batches(model, prompts, sampler, seeds=seeds, batch=batch)))
