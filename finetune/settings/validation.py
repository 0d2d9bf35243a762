"""Settings of validation, and limits of its measures."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field, PositiveInt

Measure = Literal["saturation", "sharpness", "diversity", "disagreement"]


class Limits(BaseModel, frozen=True, extra="forbid"):
    """Limits of the measures relative to the untuned model."""

    saturation: float = Field(default=1.5, gt=1)
    """Largest factor by which the mean color saturation may grow or fall."""
    sharpness: float = Field(default=2.0, gt=1)
    """Largest factor by which the mean sharpness may grow or fall."""
    diversity: float = Field(default=0.6, gt=0, lt=1)
    """Smallest diversity, as a share of the untuned model's. With the demo's settings and three
    seeds, RWL, NFT and preference had 0.54 to 0.96."""
    disagreement: float = Field(default=2.0, gt=1)
    """Largest factor by which the reward ensemble's disagreement may grow."""

    def exceeded(
        self, present: Mapping[str, float], untuned: Mapping[str, float]
    ) -> dict[Measure, str]:
        """Return the measures beyond their limits, each with a sentence.

        A measure without a value for the untuned model is skipped.
        """
        bounds: dict[Measure, tuple[float, float]] = {
            "saturation": (1 / self.saturation, self.saturation),
            "sharpness": (1 / self.sharpness, self.sharpness),
            "diversity": (self.diversity, float("inf")),
            "disagreement": (0, self.disagreement),
        }
        found: dict[Measure, str] = {}
        for name, (least, most) in bounds.items():
            if name not in present or not untuned.get(name):
                continue
            ratio = present[name] / untuned[name]
            if not least <= ratio <= most:
                limit = f"at least {least:.2g}" if ratio < least else f"at most {most:.2g}"
                values = f"{present[name]:.3g} from {untuned[name]:.3g}, {limit}"
                found[name] = f"{name} is {ratio:.2f} times the untuned model's ({values})"
        return found


class ValidationRules(BaseModel, frozen=True, extra="forbid"):
    """Validation rules for every method."""

    patience: PositiveInt | None = None
    """Number of validations in a row without a better reward after which training ends; omitted,
    training does not end early."""
    limits: Limits = Limits()
    """Limits of saturation, sharpness, diversity and the reward ensemble's disagreement, beyond
    which a warning is given."""


class ValidationConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of validation, on deterministic images (eta 0) and on seeds never trained on."""

    every: PositiveInt = 5
    """Steps between two validations (iterations for methods that draw their images). The untuned
    and the final model are always validated."""
    images_per_prompt: PositiveInt = 8
    """Images of each validation prompt; the weights with the best mean reward are kept."""
    stop_on: tuple[Measure, ...] = ()
    """Measures that end the training when they leave the bounds in `finetune.validation.limits`."""
