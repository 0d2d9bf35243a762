"""Distance of the policy's predictions to the base's, or to images, at random noise levels.

Errors are means over dimensions, in units of the velocity whatever the network predicts, and
without guidance; see `finetune/methods/nft.py` for the reason.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.model.denoising import denoising_target, spread_timesteps
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import velocity_per_output


class NoiseLevels(NamedTuple):
    """A random noise level of each of N images, on the CPU."""

    timesteps: Tensor
    """[N]."""
    noise: Tensor
    """[N, C, h, w]."""

    def of(self, rows: Tensor) -> "NoiseLevels":
        """Return those of these rows [M]."""
        return NoiseLevels(self.timesteps[rows], self.noise[rows])


def draw_noise_levels(
    model: DiffusionModel, count: int, *, generator: torch.Generator
) -> NoiseLevels:
    """Return one from each of `count` equal parts of the schedule, in random order."""
    timesteps = spread_timesteps(model.schedule(1), count, generator=generator)
    return NoiseLevels(timesteps, torch.randn(count, *model.latent_shape, generator=generator))


def prediction_error(
    model: DiffusionModel,
    latents: Tensor,
    prompts: Sequence[str],
    at: NoiseLevels,
    *,
    to_base: bool,
) -> Tensor:
    """Return the mean squared error of the predictions from noised latents [N, C, h, w].

    It is to the base's predictions, or to what a perfect denoiser of these latents would predict.
    """
    schedule = model.schedule(1)
    timesteps, noise = (part.to(model.device) for part in at)
    noisy, cond = schedule.add_noise(latents, noise, timesteps), model.encode_prompts(prompts)

    def predict() -> Tensor:
        return model.predict(noisy, timesteps, cond, cond, guidance=1.0)

    if to_base:
        with torch.no_grad(), model.adapter_off():
            target = predict()
    else:
        target = denoising_target(schedule, latents, noise, timesteps)
    return (velocity_per_output(schedule, timesteps) * (predict() - target)).square().mean()
