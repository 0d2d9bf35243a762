"""Settings that all fine-tuning methods share."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from finetune.settings.model import AdapterSettings
from finetune.settings.validation import Measure, ValidationRules
from pipelines.run.trackers import Tracker
from reward.settings import Combination, RewardSource


class SharedValidation(ValidationRules, frozen=True, extra="forbid"):
    """Validation settings of all methods; a method's own table can override them."""

    every: PositiveInt | None = None
    """Steps between two validations (iterations for methods that draw their images); omitted, the
    method's default. The untuned and the final model are always validated."""
    images_per_prompt: PositiveInt | None = None
    """Images of each validation prompt, drawn with eta 0 and on seeds never trained on; omitted, 8.
    The weights with the best mean reward are kept."""
    stop_on: tuple[Measure, ...] | None = None
    """Measures that end the training when they leave the bounds in `finetune.validation.limits`;
    omitted, no measures, or for `reward_gradient` all of them."""


class FinetuneConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings that the methods share; further settings are in each method's table."""

    gradient_checkpointing: bool = False
    """Recompute activations of the network (and of the VAE, if a gradient passes through it) in the
    backward pass: this needs less memory and one more forward pass."""
    train_on: Literal["focus", "all"] = "focus"
    """Prompts to train on: `run.focus_prompts`, or all prompts of the run, which helps unseen
    prompts. With "all", a method that learns from labels takes all prompts with labels."""
    validation_prompts: tuple[str, ...] = ()
    """Held-out prompts for validation and guards; empty means the training prompts, with seeds that
    training does not use."""
    adapter: AdapterSettings = AdapterSettings()
    """Trained weights beside the frozen model, for every method. A method's own table, such
    as `[dpok.adapter]`, overrides it."""
    validation: SharedValidation = SharedValidation()
    """Validation, which chooses the best weights and can end the training early, for every method.
    A method's own table, such as `[dpok.validation]`, overrides it."""
    regions: Literal["off", "marks", "predicted"] = "off"
    """Parts of images to learn in. "marks": RWL skips the parts that raters marked as wrong, and
    preference those of better images; NFT and reward_gradient, which draw their images, learn
    where an image of the same prompt was marked, and pull the rest to the base. "predicted": the
    same with the places of each image that the reward's predictor of maps finds, also in images
    that nobody saw. Other methods refuse it."""
    region_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With predicted regions, least predicted share of raters who would mark a place."""
    outside_weight: NonNegativeFloat = 1.0
    """With regions, weight of changes outside of them, for NFT (mean squared difference to the
    base's predictions, in units of its `beta`) and reward_gradient (root mean square difference to
    the base's image of the same noise, in the reward's units)."""
    scored_per_prompt: NonNegativeInt = 0
    """For methods that learn from images: number of further images of each prompt, which are drawn
    in addition to the run's images and scored by the reward alone."""
    checkpoints: PositiveInt = 10
    """Number of checkpoints, evenly over the steps; an interrupted training continues from the last
    one."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Programs that show the figures of `metrics.jsonl` while a method trains: "tensorboard",
    "wandb". Weights & Biases is offline unless it finds your key or WANDB_MODE."""
    rewards: tuple[RewardSource, ...] = ()
    """Rewards to tune on instead of the run's reward; see `reward/sources.py`. The evaluation still
    shows the run's reward."""
    combine: Combination = "sum"
    """Joint value of several rewards: their weighted sum, or the least of weight * (reward - mean)
    / spread, over the run's images of a prompt, which is above 0 only where all of them rise."""
    strengths: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = (1.0,)
    """Strengths of the tuned adapter, factors of its update: 0.5, 0.75, 1 is a usual choice. The
    validation after training chooses one of them, and the evaluation draws at each. 0 (the base)
    and 1 (as trained) are always included. More strengths can be added at any time."""

    @property
    def other_strengths(self) -> list[float]:
        """The strengths other than 0 and 1, from weak to strong."""
        return sorted({*self.strengths} - {0.0, 1.0})
