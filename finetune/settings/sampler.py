"""Settings of the run's sampler, and a method's overrides."""

from typing import Self

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveInt


class Sampler(BaseModel, frozen=True, extra="forbid"):
    """Settings of the sampler: DDIM (Song et al. 2020, arXiv 2010.02502), or Flow-CPS for flows."""

    steps: PositiveInt = 20
    """Denoising steps. Papers: 50."""
    guidance: NonNegativeFloat = 2.0
    """Scale of classifier-free guidance; 1 switches it off. DPOK's paper: 7.5."""
    eta: float = Field(default=1.0, ge=0, le=1)
    """Noise of each step: 0 is deterministic (DDIM, or Euler's method), 1 is ancestral sampling, as
    in DPOK's paper."""
    stochastic_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the steps, from the first step on, that have this eta; later steps have eta 0."""

    @property
    def stochastic_steps(self) -> int:
        """Number of steps that have `eta`; at least 1."""
        return share_of_steps(self.steps, self.stochastic_share)

    def deterministic(self) -> Self:
        """Return the same sampler with eta 0, which most users draw with."""
        return self.model_copy(update={"eta": 0.0})

    def overridden(self, by: "SamplerOverrides") -> "Sampler":
        """Return the sampler with the settings of `by` that are not None."""
        return Sampler(**(self.model_dump() | by.model_dump(exclude_none=True)))


class SamplerOverrides(BaseModel, frozen=True, extra="forbid"):
    """Sampler settings that override the run's `[sampler]`."""

    steps: PositiveInt | None = None
    """Denoising steps."""
    guidance: NonNegativeFloat | None = None
    """Scale of classifier-free guidance."""
    eta: float | None = Field(default=None, ge=0, le=1)
    """Noise of each stochastic step."""
    stochastic_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the steps, from the first step on, that have this eta."""


def share_of_steps(steps: int, share: float) -> int:
    """Return a share of the number of steps, rounded, but at least 1."""
    return max(1, round(share * steps))
