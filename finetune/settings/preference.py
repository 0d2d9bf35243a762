"""Settings of `finetune/methods/preference.py` and of its batches."""

from typing import Literal

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from finetune.settings.method import LearnsFromLabels
from finetune.settings.validation import ValidationConfig


class LabelBatchConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of batches of rankings and verdicts."""

    batch: int = Field(default=32, ge=2)
    """Images per step, split between rankings and verdicts in proportion to their labeled images.
    Paper: 4,096; KTO: 8."""
    ranking_weight: NonNegativeFloat = 1.0
    """Weight of each ranked image; 0 excludes rankings."""
    verdict_weight: NonNegativeFloat = 1.0
    """Weight of each verdict; 0 excludes verdicts."""
    verdicts: Literal["pairs", "kto"] = "pairs"
    """Loss of verdicts: "pairs" is DPO on a good and a bad image of the same prompt, "kto" is KTO
    on single images, for prompts whose images are all good or all bad."""


class PreferenceConfig(LearnsFromLabels, LabelBatchConfig, frozen=True, extra="forbid"):
    """Settings of learning from labels.

    The defaults are for the embedded model. "Paper" gives the values of Diffusion-DPO for Stable
    Diffusion 1.5, unless another source is named.
    """

    updates: PositiveInt = 300
    """Optimizer steps. Paper: 2,000; KTO: 20,000."""
    micro_batch: PositiveInt = 32
    """Images of one network call, but at least one ranking or pair. Limits the memory, and changes
    results only by rounding."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate of AdamW, for LoRA; falls linearly to 0. Paper: about 2e-5 for all weights; the
    example of diffusers for LoRA: 1e-5."""
    warmup: NonNegativeInt = 10
    """Steps over which the learning rate rises to its full value. Paper: 500."""
    beta: PositiveFloat = 10.0
    """Strength of the pull to the base, a factor of differences of errors. A smaller value moves
    further from the base. It is proportional to the number of latent dimensions. Paper: 2500 for
    16,384, so 40 for the embedded model; KTO: 1000."""
    safeguard: bool = True
    """Scale down the worse images' gradient where it would raise the better images' error."""
    report_every: PositiveInt = 20
    """Steps between two reports of metrics."""
    validation: ValidationConfig = ValidationConfig(every=100)
    """Validation, which chooses the best weights by the reward, or without a reward by the accuracy
    on held-out labels. If validations would take more than a fifth of the network passes, they use
    fewer images of each prompt, then fewer prompts, and fewer held-out labels."""
