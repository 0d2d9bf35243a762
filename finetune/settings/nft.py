"""Settings of `finetune/methods/nft.py`."""

from typing import ClassVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from finetune.settings.method import DrawsImages
from finetune.settings.sampler import SamplerOverrides


class NFTSampler(SamplerOverrides, frozen=True, extra="forbid"):
    """Sampler settings of DiffusionNFT that override the run's [sampler]."""

    eta: float | None = Field(default=0.0, ge=0, le=1)
    """Noise of each stochastic step. Any value works; 0 is deterministic, as in validation and in
    the paper."""


class NFTConfig(DrawsImages, frozen=True, extra="forbid"):
    """Settings of DiffusionNFT.

    The defaults are for the embedded model of 5 million parameters; "Paper" gives the published
    values, for Stable Diffusion 3.5.
    """

    takes_regions: ClassVar[bool] = True
    iterations: PositiveInt = 20
    """Rounds of drawing and training. Paper: up to about 1000."""
    prompts_per_iteration: PositiveInt = 4
    """Number of distinct prompts per iteration; if there are more prompts, they are taken in turn.
    Paper: 48."""
    images_per_prompt: int = Field(default=16, ge=2)
    """Images of each prompt per iteration, which are compared with each other. Paper: 24."""
    noise_levels: PositiveInt = 6
    """Training timesteps per image, one from each equal part of the schedule. Paper: 10."""
    updates: PositiveInt = 12
    """Optimizer steps per iteration; the pairs of image and timestep are split among them. Paper: 1
    or 2."""
    micro_batch: PositiveInt = 32
    """Rows of one network call (doubled when drawing with guidance). Limits the memory, and changes
    results only by rounding."""
    learning_rate: PositiveFloat = 4e-3
    """Learning rate of AdamW, for LoRA. Paper: 3e-4."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value. Paper: none."""
    decay: bool = True
    """Whether the learning rate falls linearly to 0 over the iterations. Paper: no."""
    sampler: NFTSampler = NFTSampler()
    """Sampler settings for training images that override the run's [sampler]. Paper: 10 steps,
    guidance 1."""
    advantage_clip: PositiveFloat = 1.0
    """Distance from the prompt's mean reward, in standard deviations, at which an image counts as
    fully good or bad.
    Paper: 5."""
    std_floor: PositiveFloat = 0.05
    """Smallest standard deviation that rewards are divided by, in the reward's units. It keeps
    prompts with nearly equal rewards from amplifying noise."""
    beta: PositiveFloat = 0.3
    """Strength of the pull to the old policy; smaller values train faster and less stably. Paper:
    1, or 0.1."""
    old_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the old policy, which draws the images: after an iteration, old <- old_decay * old +
    (1 - old_decay) * policy. Paper: rises from 0 to 0.5 by 0.001 an iteration."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the pull to the base (the mean squared difference to the base's predictions), in
    the units of `beta`. 0 switches it off and saves a network pass. Paper: 2e-5, if its loss is not
    multiplied by 5."""
