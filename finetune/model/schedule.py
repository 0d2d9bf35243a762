"""Noise schedules: the share of noise at each timestep, and the kind of prediction.

    x_t = signal x_0 + spread noise

Stable Diffusion 1.x, 2.x and XL have a `DiffusionSchedule` (Ho et al. 2020, arXiv 2006.11239),
where signal^2 + spread^2 = 1. SD3 and FLUX have a `FlowSchedule` (Lipman et al. 2022, arXiv
2210.02747; Liu et al. 2022, arXiv 2209.03003), where signal + spread = 1.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor
from typing_extensions import override

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
"""Kind of prediction: the noise, the velocity of a diffusion (signal noise - spread x_0), x_0
itself, or the velocity of a flow (noise - x_0)."""

FLOW_TIMESTEPS = 1000
"""Timestep of pure noise in a flow."""


class NoiseLevel(NamedTuple):
    """Shares of image and noise in M noised images, each [M, 1, 1, 1]."""

    signal: Tensor
    spread: Tensor
    variance: Tensor
    """Square of the spread, without the rounding of a square root."""


@dataclass(frozen=True)
class NoiseSchedule(ABC):
    """Noise levels for training and for a sampler's steps."""

    prediction_type: Prediction
    timesteps: Tensor
    """[T], timestep at the start of each sampler step, from pure noise on."""
    training_timesteps: Tensor
    """[N], timesteps for training, by rising noise; on the CPU."""

    @abstractmethod
    def level(self, timesteps: Tensor) -> NoiseLevel:
        """Return the noise levels at timesteps [M]."""

    @abstractmethod
    def next_level(self, timesteps: Tensor) -> NoiseLevel:
        """Return the noise levels one sampler step after timesteps [M]."""

    @abstractmethod
    def step_std(self, timesteps: Tensor, eta: float) -> Tensor:
        """Return the standard deviation [M, 1, 1, 1] of the sampler's step from timesteps [M]."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noised latents [M, C, h, w] at timesteps [M]."""
        at = self.level(timesteps)
        return at.signal * latents + at.spread * noise


@dataclass(frozen=True)
class DiffusionSchedule(NoiseSchedule):
    """Schedule of a diffusion, with the steps of DDIM (Song et al. 2020, arXiv 2010.02502)."""

    alphas: Tensor
    """Cumulative alphas [N]: the squares of the signal."""
    final_alpha: Tensor
    """Cumulative alpha [] at the end of the last step."""
    stride: int
    """Number of timesteps from one step to the next."""

    @classmethod
    def of(cls, scheduler: DDIMScheduler, device: str | torch.device = "cpu") -> Self:
        """Return the schedule of a diffusers sampler after its `set_timesteps`."""
        trained = scheduler.config.num_train_timesteps
        return cls(
            prediction_type=scheduler.config.prediction_type,
            timesteps=scheduler.timesteps.to(device, non_blocking=True),
            training_timesteps=torch.arange(trained),
            alphas=scheduler.alphas_cumprod.to(device, non_blocking=True),
            final_alpha=scheduler.final_alpha_cumprod.to(device, non_blocking=True),
            stride=trained // scheduler.num_inference_steps,
        )

    @override
    def level(self, timesteps: Tensor) -> NoiseLevel:
        return _level_of(_as_column(self.alphas[timesteps]))

    @override
    def next_level(self, timesteps: Tensor) -> NoiseLevel:
        return _level_of(self._next_alphas(timesteps))

    @override
    def step_std(self, timesteps: Tensor, eta: float) -> Tensor:
        at, after = _as_column(self.alphas[timesteps]), self._next_alphas(timesteps)
        return eta * ((1 - after) / (1 - at) * (1 - at / after)).sqrt()

    def _next_alphas(self, timesteps: Tensor) -> Tensor:
        later = timesteps - self.stride
        return _as_column(
            torch.where(later >= 0, self.alphas[later.clamp(min=0)], self.final_alpha)
        )


@dataclass(frozen=True)
class FlowSchedule(NoiseSchedule):
    """Schedule of a flow, with the steps of Flow-CPS (Wang & Yu 2025, arXiv 2509.05952).

    A timestep is 1,000 times the share of noise. eta 0 is the Euler step of the stock pipelines.
    """

    sigmas: Tensor
    """[T + 1], shares of noise before each step and after the last step."""

    @classmethod
    def of(
        cls,
        scheduler: FlowMatchEulerDiscreteScheduler,
        training_sigmas: Tensor,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Return a sampler's schedule; training uses the rising `training_sigmas` [N]."""
        return cls(
            prediction_type="flow_prediction",
            timesteps=scheduler.timesteps.to(device, non_blocking=True),
            training_timesteps=FLOW_TIMESTEPS * training_sigmas.float().cpu(),
            sigmas=scheduler.sigmas.to(device, non_blocking=True),
        )

    @override
    def level(self, timesteps: Tensor) -> NoiseLevel:
        return _flow_level(timesteps / FLOW_TIMESTEPS)

    @override
    def next_level(self, timesteps: Tensor) -> NoiseLevel:
        step = (self.timesteps == timesteps[:, None]).int().argmax(1)
        return _flow_level(self.sigmas[step + 1])

    @override
    def step_std(self, timesteps: Tensor, eta: float) -> Tensor:
        return self.next_level(timesteps).spread * math.sin(eta * math.pi / 2)


def _level_of(alphas: Tensor) -> NoiseLevel:
    return NoiseLevel(alphas.sqrt(), (1 - alphas).sqrt(), 1 - alphas)


def _flow_level(sigmas: Tensor) -> NoiseLevel:
    spread = _as_column(sigmas)
    return NoiseLevel(1 - spread, spread, spread.square())


def _as_column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
