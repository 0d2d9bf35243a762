"""Settings that fine-tuning methods share."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat

from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import SamplerOverrides
from finetune.settings.validation import ValidationConfig


class MethodConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of every method."""

    takes_regions: ClassVar[bool] = False
    """Whether the method can learn in parts of images alone."""
    learning_rate: PositiveFloat = 5e-4
    """Learning rate of AdamW, for LoRA."""
    warmup: NonNegativeInt = 0
    """Steps over which the learning rate rises to its full value."""
    adapter: AdapterSettings = AdapterSettings()
    """The trained weights beside the frozen model: a LoRA."""
    validation: ValidationConfig = ValidationConfig()
    """Validation, which chooses the best weights and can end the training early."""


class DrawsImages(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from images that it draws."""

    sampler: SamplerOverrides = SamplerOverrides()
    """Sampler settings of the method that override the run's [sampler]."""


class LearnsFromImages(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from existing images."""

    takes_regions: ClassVar[bool] = True
    images: Literal["labeled", "scored", "both"] = "both"
    """Training images. "labeled": the run's images with labels. "scored": its other images, and
    `finetune.scored_per_prompt` further images of each prompt, scored by the reward alone. In each
    case the weights come from the reward. Paper of RWL: fidelity was lowest with labeled images
    alone."""
    pretraining_pairs: Path | None = None
    """Folder of pretraining images with texts. Its `metadata.jsonl` has a line such as
    {"file_name": "a.png", "text": "A cat."} for each image. Omitted, images of the base are
    used."""


class LearnsFromLabels(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns directly from labels and needs no reward."""

    takes_regions: ClassVar[bool] = True
    label_weights: Literal["equal", "skill", "consensus"] = "equal"
    """Weights of raters, as in `reward.label_weights`: all equal, or by their skill above chance,
    or verdicts replaced by the consensus on their task."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of each prompt's labeled images that are held out of training, to measure accuracy.
    With the value of `reward.split.test_images`, the reward was not trained on these images
    either."""
