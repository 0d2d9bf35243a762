"""Settings of `finetune/methods/preference.py` and of its batches."""

from typing import Literal

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from finetune.settings.method import LearnsFromLabels
from finetune.settings.validation import ValidationConfig


class LabelBatchConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of batches of rankings and verdicts."""

    batch: int = Field(default=32, ge=2)
    """Images per step; rankings and verdicts have their shares by the images that were labeled so.
    Paper: 4,096; KTO: 8."""
    ranking_weight: NonNegativeFloat = 1.0
    """Weight of an image that a rater ranked; 0 leaves rankings out."""
    verdict_weight: NonNegativeFloat = 1.0
    """Weight of a rater's verdict on an image; 0 leaves verdicts out."""
    verdicts: Literal["pairs", "kto"] = "pairs"
    """Loss of verdicts: DPO's of a good and a bad image of the same prompt, or KTO's of each image,
    for prompts whose images are all good or all bad."""


class PreferenceConfig(LearnsFromLabels, LabelBatchConfig, frozen=True, extra="forbid"):
    """Settings of learning from labels.

    The published ones, of Diffusion-DPO for Stable Diffusion 1.5 where nothing else is named, stand
    beside ours, which are for the embedded model.
    """

    updates: PositiveInt = 300
    """Optimizer steps. Paper: 2,000; KTO: 20,000."""
    micro_batch: PositiveInt = 32
    """Images of one network call, but at least one ranking or pair; bounds the memory, and changes
    nothing except rounding."""
    learning_rate: PositiveFloat = 2e-3
    """AdamW's, for LoRA; falls linearly to 0. Paper: about 2e-5 for all weights; diffusers' example
    for LoRA: 1e-5."""
    warmup: NonNegativeInt = 10
    """Steps over which the learning rate rises to its full value. Paper: 500."""
    beta: PositiveFloat = 10.0
    """Pull to the base: how much a difference of errors counts. Smaller goes further from the base.
    It goes with the number of dimensions of the latents. Paper: 2500 for 16,384, so 40 for the
    embedded model; KTO: 1000."""
    safeguard: bool = True
    """Hold the worse images' gradient back as far as it would raise the better ones' error."""
    report_every: PositiveInt = 20
    """Steps between two reports of metrics."""
    validation: ValidationConfig = ValidationConfig(every=100)
    """Validation, which chooses the best weights: by the reward, or without one by the accuracy on
    held-out labels. Where validations would take more than a fifth of the network's work, they draw
    fewer images of each prompt, then of fewer prompts, and compare fewer held-out labels."""
