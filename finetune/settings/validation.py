"""Settings of validation, and the limits of the measures that it watches."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field, PositiveInt

Measure = Literal["saturation", "sharpness", "diversity", "disagreement", "stale_reward"]

STALE_REWARD: Measure = "stale_reward"


class Limits(BaseModel, frozen=True, extra="forbid"):
    """Bounds of the measures, relative to the untuned model's; the last one is absolute."""

    saturation: float = Field(default=1.5, gt=1)
    """Factor by which the colors' mean saturation may grow or fall."""
    sharpness: float = Field(default=2.0, gt=1)
    """Factor by which the mean sharpness may grow or fall."""
    diversity: float = Field(default=0.6, gt=0, lt=1)
    """Least share of the untuned model's diversity; with the demo's settings and three seeds RWL,
    NFT and preference kept 0.54 to 0.96 of it."""
    disagreement: float = Field(default=2.0, gt=1)
    """Factor by which the reward ensemble's disagreement may grow."""
    stale_reward: float = Field(default=0.1, ge=0, lt=1)
    """Least effective sample size of a prompt's labeled images, as a share of them, when they are
    reweighted to the mean reward of the tuned model's; below it is time to label."""

    def exceeded(
        self, present: Mapping[str, float], untuned: Mapping[str, float]
    ) -> dict[Measure, str]:
        """Return the measures beyond their limits, each with a sentence.

        A measure that the untuned model does not have is not judged, nor is the staleness of a
        reward that the untuned model's images exceed as well.
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
        share, before = (one.get(STALE_REWARD, 1.0) for one in (present, untuned))
        if share < self.stale_reward <= before:
            found[STALE_REWARD] = (
                "label now: hardly any labeled image scores as high as the model's, an effective "
                f"share of {share:.2g} (stale_reward, at least {self.stale_reward:.2g})"
            )
        return found


class ValidationRules(BaseModel, frozen=True, extra="forbid"):
    """Rules of validation that hold for every method."""

    patience: PositiveInt | None = None
    """Validations in a row without a better reward after which training ends; omitted, it goes
    on."""
    limits: Limits = Limits()
    """Bounds of saturation, sharpness, diversity, the reward ensemble's disagreement and the
    reward's staleness, beyond which there is a warning."""


class ValidationConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of validation, on images of eta 0, as users draw, and on seeds never trained on."""

    every: PositiveInt = 5
    """Steps between two validations, or iterations for methods that draw their images. The untuned
    model and the last one are always validated."""
    images_per_prompt: PositiveInt = 8
    """Images of each validation prompt; the weights with the best mean reward over them are
    kept."""
    stop_on: tuple[Measure, ...] = ()
    """Measures that end the training when they leave the bounds in `finetune.validation.limits`."""
