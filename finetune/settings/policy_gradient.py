"""Settings of `finetune/methods/policy_gradient.py`."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from finetune.settings.method import DrawsImages
from finetune.settings.sampler import SamplerOverrides

Surrogate = Literal["ppo", "hard_clamp"]


class RolloutSampler(SamplerOverrides, frozen=True, extra="forbid"):
    """Settings in which the sampler differs from the run's [sampler]."""

    stochastic_share: float | None = Field(default=0.6, gt=0, le=1)
    """Share of a trajectory's steps, from its start, that draw noise and can be trained on. The
    later ones are deterministic: they finish the image as the sampler of users does, and their
    noise would be so small that ratios run away. Paper: 1."""


class PolicyGradientConfig(DrawsImages, frozen=True, extra="forbid"):
    """Settings of the loop that policy gradients share.

    DPOK's published ones stand beside ours, which are for the embedded model of 5 million
    parameters.
    """

    sampler: RolloutSampler = RolloutSampler()
    """Settings in which the rollouts' sampler differs from the run's [sampler]; its eta must be
    above 0. Steps after `stochastic_share` cannot be trained on: they finish the image as the
    sampler of users does, and their noise would be so small that ratios run away. Paper: 1."""
    prompts_per_iteration: PositiveInt = 4
    """Different prompts drawn for in one iteration, at random when there are more."""
    images_per_prompt: PositiveInt = 16
    """Images of each prompt in one iteration. DPOK's paper: 10 in all for one prompt, 45 for
    many."""
    timestep_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each trajectory's stochastic steps that is trained on, drawn at random. Less is
    quicker and noisier."""
    micro_batch: PositiveInt = 32
    """Rows of one network call (twice that with guidance), in rollout and training; bounds the
    memory. No padding if it divides the images."""
    iterations: PositiveInt = 30
    """Rounds of drawing and training. Paper: 2000 rounds of 10 images."""
    updates: PositiveInt = 2
    """Optimizer steps per iteration, which share its transitions. Paper: 5."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's, for LoRA. Paper: 1e-5, with AdamW too."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value."""
    decay: bool = False
    """Whether the learning rate falls linearly to 0 over the iterations, for as much gain in fewer
    of them. Paper: no."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm. Paper: 0.1."""
    clip_range: PositiveFloat = 1e-3
    """Largest difference to 1 of the ratio of densities per dimension; times the dimensions it is
    in nats. Paper: 1e-4 on 16384, so 1.6 nats."""
    replay_iterations: NonNegativeInt = 0
    """Earlier iterations whose transitions are trained on again, by their ratio to the policy that
    drew them; 0 is on policy. The code of DPOK's authors: 1 to 2, as its buffer holds 1000
    transitions."""
    std_floor: PositiveFloat = 0.05
    """Least standard deviation to divide rewards by, in the reward's units; keeps settled prompts
    from amplifying noise."""
