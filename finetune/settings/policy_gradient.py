"""Settings of `finetune/methods/policy_gradient.py`."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from typing_extensions import override

from finetune.settings.method import DrawsImages
from finetune.settings.sampler import Sampler, SamplerOverrides

Surrogate = Literal["ppo", "hard_clamp"]


class RolloutSampler(SamplerOverrides, frozen=True, extra="forbid"):
    """Sampler settings of policy gradients that override the run's [sampler]."""

    stochastic_share: float | None = Field(default=0.6, gt=0, le=1)
    """Share of a trajectory's steps, from its start, that add noise and can be trained on. Later
    steps are deterministic, as when users draw: their noise would be so small that ratios become
    extreme. Paper: 1."""


class PolicyGradientConfig(DrawsImages, frozen=True, extra="forbid"):
    """Settings of the training loop that policy gradients share.

    The defaults are for the embedded model of 5 million parameters; "Paper" gives the values of
    DPOK's paper.
    """

    sampler: RolloutSampler = RolloutSampler()
    """Sampler settings for rollouts that override the run's [sampler]; eta must be above 0."""
    prompts_per_iteration: PositiveInt = 4
    """Number of distinct prompts per iteration; if there are more prompts, they are drawn at
    random."""
    images_per_prompt: PositiveInt = 16
    """Images of each prompt per iteration. DPOK's paper: 10 images for one prompt, 45 in all for
    many prompts."""
    timestep_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each trajectory's stochastic steps that is trained on, drawn at random. A smaller
    share is faster and noisier."""
    micro_batch: PositiveInt = 32
    """Rows of one network call (doubled with guidance), in rollout and training. Limits the memory.
    There is no padding if it divides the number of images."""
    iterations: PositiveInt = 30
    """Rounds of drawing and training. Paper: 2000 rounds of 10 images."""
    updates: PositiveInt = 2
    """Optimizer steps per iteration; the transitions are split among them. Paper: 5."""
    learning_rate: PositiveFloat = 5e-4
    """Learning rate of AdamW, for LoRA. Paper: 1e-5, also with AdamW."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value."""
    decay: bool = False
    """Whether the learning rate falls linearly to 0 over the iterations, which reaches the same
    reward in fewer iterations. Paper: no."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down. Paper: 0.1."""
    clip_range: PositiveFloat = 1e-3
    """Largest difference between 1 and the ratio of densities per dimension; multiplied by the
    number of dimensions, it is in nats. Paper: 1e-4 for 16384 dimensions, so 1.6 nats."""
    std_floor: PositiveFloat = 0.05
    """Smallest standard deviation that rewards are divided by, in the reward's units. It keeps
    prompts with nearly equal rewards from amplifying noise."""

    @override
    def trained_share(self, sampler: Sampler) -> float:
        return sampler.overridden(self.sampler).stochastic_share
