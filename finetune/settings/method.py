"""Settings that fine-tuning methods have in common."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat

from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import SamplerOverrides
from finetune.settings.validation import ValidationConfig


class MethodConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings that every method has."""

    learning_rate: PositiveFloat = 5e-4
    """AdamW's, for LoRA."""
    warmup: NonNegativeInt = 0
    """Steps over which the learning rate rises to its full value."""
    adapter: AdapterSettings = AdapterSettings()
    """Trained weights beside the frozen model: a LoRA."""
    validation: ValidationConfig = ValidationConfig()
    """Validation, which chooses the best weights and can end the training early."""


class DrawsImages(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from images that it draws."""

    sampler: SamplerOverrides = SamplerOverrides()
    """Settings in which the method's sampler differs from the run's [sampler]."""


class LearnsFromImages(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from existing images."""

    images: Literal["labeled", "scored", "both"] = "both"
    """The run's images that raters labeled; its other ones and `finetune.scored_per_prompt` drawn
    beside them, which only the reward has scored; or both. The weights come from the reward either
    way. Paper of RWL: fidelity was lowest with labeled ones alone."""
    pretraining_pairs: Path | None = None
    """Folder of images and texts to stay close to, whose `metadata.jsonl` has a line such as
    {"file_name": "a.png", "text": "A cat."} for each; omitted, the base's own images serve."""


class LearnsFromLabels(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from the labels themselves and needs no reward."""

    label_weights: Literal["equal", "skill", "consensus"] = "equal"
    """Weight of raters, as in `reward.label_weights`: all alike, by how far their skill is above
    chance, or verdicts replaced by the consensus of their task."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of each prompt's labeled images that nothing is learned from, to measure accuracy on.
    With the value of `reward.split.test_images` the reward was not trained on them either."""
