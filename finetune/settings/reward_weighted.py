"""Settings of `finetune/methods/reward_weighted.py` and of its image weights."""

from typing import Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from finetune.settings.method import LearnsFromImages
from finetune.settings.validation import ValidationConfig


class WeightingConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of image weights; `finetune/labels/weighting.py` explains their theory."""

    weighting: Literal["raw", "exp", "softmax", "top"] = "softmax"
    """Function that turns a reward into a weight. Paper: raw."""
    kl_budget: PositiveFloat = 0.5
    """For "exp": largest KL of the weighted images to the drawn images, in nats. Keeping the better
    half of the images has a KL of ln 2."""
    temperature: PositiveFloat = 0.2
    """For "softmax": temperature in the reward's units. A lower value prefers high rewards more and
    uses fewer images."""
    top_share: float = Field(default=0.25, gt=0, le=1)
    """For "top": share of each prompt's images that is used."""
    kl: Literal["none", "kl-d", "kl-o"] = "none"
    """DPOK's penalty for the distance to the base: "kl-d" in the weights, "kl-o" in the loss."""
    gamma: PositiveFloat = 1.0
    """Weight of `kl`; ignored if `kl` is "none". DPOK's paper tries 0.1, 1, 2 and 5."""


class RewardWeightedConfig(LearnsFromImages, WeightingConfig, frozen=True, extra="forbid"):
    """Settings of reward-weighted likelihood.

    The defaults are for the embedded model; "Paper" gives the published values.
    """

    updates: PositiveInt = 600
    """Optimizer steps. Paper: 10,000."""
    batch: int = Field(default=32, ge=2)
    """Images per step; half of them are for pretraining unless `pretraining_weight` is 0. Paper:
    512, half pretraining."""
    micro_batch: PositiveInt = 32
    """Images of one network call in training. Limits the memory, and changes results only by
    rounding."""
    pretraining_weight: NonNegativeFloat = 0.1
    """beta, the pull to the pretraining data; 0 switches it off. Not stated in the paper."""
    learning_rate: PositiveFloat = 5e-4
    """Learning rate of AdamW, for LoRA; falls linearly to 0 over the run. Not stated in the paper;
    file names in its authors' code say 2e-5 for all weights."""
    warmup: NonNegativeInt = 20
    """Steps over which the learning rate rises to its full value."""
    timestep_power: NonNegativeFloat = 0.0
    """Power k of the density (k + 1) u^k from which timesteps are drawn, with u from 0 at no noise
    to 1 at pure noise. 0 draws uniformly, as the papers do; 2 trains most on the noisy timesteps,
    where the sampler decides the content of the image."""
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of prompts that are replaced by the empty prompt."""
    report_every: PositiveInt = 20
    """Steps between two reports of metrics."""
    validation: ValidationConfig = ValidationConfig(every=100)
    """Validation, which chooses the best weights."""
