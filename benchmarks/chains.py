"""Denoising chains with interventions, such as steering by a reward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from finetune.learning.reward_fn import RewardFn
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import clean_latents, step_distribution
from finetune.settings.sampler import Sampler
from pipelines.progress import progress
from pipelines.run.image_io import save_png
from pipelines.run.image_plan import Planned, candidate_seeds

Draw = Callable[[Sequence[Planned]], Tensor]
"""Returns the images [N, 3, H, W] of a batch."""
Change = Callable[[int, Tensor, Tensor], Tensor]
"""(steps done, finished latents that the model sees, next latents) -> next latents."""


@torch.no_grad()
def chain(
    model: DiffusionModel,
    prompts: Sequence[str],
    sampler: Sampler,
    *,
    seeds: Sequence[int],
    change: Change | None = None,
) -> Tensor:
    """Return the images [N, 3, H, W] of one batch of chains.

    Args:
        model: with its adapter.
        prompts: the prompt of each image, [N].
        sampler: the steps.
        seeds: of each chain's noise, [N].
        change: changes the latents after each step, if given.
    """
    schedule = model.schedule(sampler.steps)
    cond = model.encode_prompts(prompts)
    uncond = model.encode_prompts([""]).expand_as(cond)
    own = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        return torch.stack([torch.randn(model.latent_shape, generator=one) for one in own])

    latents = noise().to(model.device)
    for i, timestep in enumerate(schedule.timesteps):
        at = timestep.expand(len(cond))
        with model.at_step(i, sampler.steps):
            output = model.predict(latents, at, cond, uncond, sampler.guidance)
        clean = clean_latents(schedule, output, timestep, latents)
        latents, std = step_distribution(schedule, output, timestep, latents, eta=sampler.eta)
        if sampler.eta > 0:
            latents = latents + std * noise().to(model.device)
        if change is not None:
            latents = change(i + 1, clean, latents)
    return model.decode(latents)


@dataclass
class Steering:
    """Feynman-Kac steering by a reward (Singhal et al. 2025, arXiv 2501.06848).

    A few particles are drawn for each image. After some steps the particles are resampled with
    probability proportional to exp(strength * (best reward so far - best reward before)). The
    reward scores the model's prediction of the finished image. The best particle is the image.
    """

    reward: RewardFn
    particles: int
    after: Sequence[int]
    """Numbers of steps after which particles are resampled."""
    strength: float

    @property
    def queries(self) -> int:
        """Number of reward queries for one image."""
        return self.particles * (len(self.after) + 1)

    def draw(
        self, model: DiffusionModel, prompts: Sequence[str], sampler: Sampler, seeds: Sequence[int]
    ) -> Tensor:
        """Return the images [N, 3, H, W] of prompts and seeds; needs a stochastic sampler."""
        many = [prompt for prompt in prompts for _ in range(self.particles)]
        own = [one for seed in seeds for one in candidate_seeds(seed, self.particles)]
        shape = (len(prompts), self.particles)
        first = torch.arange(len(prompts))[:, None] * self.particles
        generator = torch.Generator().manual_seed(seeds[0])
        best = torch.full(shape, -torch.inf)

        def resample(step: int, clean: Tensor, latents: Tensor) -> Tensor:
            nonlocal best
            if step not in self.after:
                return latents
            found = self.reward(model.decode(clean), many).cpu().view(shape)
            better = torch.maximum(best, found)
            gain = better - (best if step != min(self.after) else 0)
            drawn = torch.softmax(self.strength * gain, dim=1).multinomial(
                self.particles, replacement=True, generator=generator
            )
            best = better.gather(1, drawn)
            return latents[(first + drawn).flatten()]

        images = chain(model, many, sampler, seeds=own, change=resample)
        rewards = self.reward(images, many).cpu().view(shape)
        return images[(first[:, 0] + rewards.argmax(1))]


def draw_stock(
    model: DiffusionModel,
    planned: Sequence[Planned],
    folder: Path,
    sampler: Sampler,
    *,
    batch: int,
) -> None:
    """Draw missing images by the stock pipeline with DPM-Solver++ in float32, as users do."""
    config = model.pipeline.scheduler.config
    solver = DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++")
    parts = {**model.pipeline.components, "scheduler": solver}
    pipeline = type(model.pipeline)(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)

    def draw(some: Sequence[Planned]) -> Tensor:
        images: Tensor = pipeline(
            [one.prompt for one in some],
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=[torch.Generator().manual_seed(one.seed) for one in some],
            output_type="pt",
        ).images
        return images

    draw_missing(planned, folder, draw, batch=batch)


def draw_missing(planned: Sequence[Planned], folder: Path, draw: Draw, *, batch: int) -> None:
    """Draw the images that are not in `folder` yet, in batches."""
    missing = [one for one in planned if not (folder / one.file_name).exists()]
    for start in progress(range(0, len(missing), batch), folder.name, "batch"):
        some = missing[start : start + batch]
        for one, image in zip(some, draw(some), strict=True):
            save_png(image, folder / one.file_name)
