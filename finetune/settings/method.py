"""Settings that fine-tuning methods share."""

from typing import ClassVar, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat

from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler, SamplerOverrides
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

    def trained_share(self, sampler: Sampler) -> float:  # noqa: ARG002
        """Return the share of the steps, from the first on, in which the adapter must draw.

        `sampler` is the run's. Methods that train single timesteps need no step at all.
        """
        return 0.0


class DrawsImages(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from images that it draws."""

    sampler: SamplerOverrides = SamplerOverrides()
    """Sampler settings of the method that override the run's [sampler]."""


class LearnsFromImages(MethodConfig, frozen=True, extra="forbid"):
    """Settings of a method that learns from existing images: the run's, and scored ones."""

    takes_regions: ClassVar[bool] = True


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
