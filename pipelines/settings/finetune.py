"""Settings that all methods of fine-tuning share."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from finetune.settings.model import AdapterSettings
from finetune.settings.validation import Measure, ValidationRules
from reward.settings import RewardSource


class SharedValidation(ValidationRules, frozen=True, extra="forbid"):
    """Settings of validation by any method, which a method's own table may set otherwise."""

    every: PositiveInt | None = None
    """Steps between two validations, or iterations for methods that draw their images; omitted, the
    method's own number. The untuned model and the last one are always validated."""
    images_per_prompt: PositiveInt | None = None
    """Images of each validation prompt, drawn with eta 0 as users do and on seeds never trained on;
    omitted, 8. The weights with the best mean reward over them are kept."""
    stop_on: tuple[Measure, ...] | None = None
    """Measures that end the training when they leave the bounds in `finetune.validation.limits`;
    omitted, none, but for `reward_gradient` all except `stale_reward`."""


class FinetuneConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings that the methods share; each has its own in a table of its name."""

    gradient_checkpointing: bool = False
    """Compute the network's blocks, and the VAE's where a gradient goes through them, again in the
    backward pass rather than keep their activations: less memory, one more forward pass."""
    train_on: Literal["focus", "all"] = "focus"
    """Prompts to train on: `run.focus_prompts`, or all of the run's, for a model that is to do
    better on prompts that nobody thought of. A method that learns from labels then takes all
    prompts that have some."""
    validation_prompts: tuple[str, ...] = ()
    """Held-out prompts that choose the best weights and that the guards watch; none means the
    training prompts, on seeds of their own."""
    adapter: AdapterSettings = AdapterSettings()
    """Trained weights beside the frozen model, for every method: a LoRA. A method's own table, such
    as `[dpok.adapter]`, names what differs."""
    validation: SharedValidation = SharedValidation()
    """Validation, which chooses the best weights and can end the training early, for every method.
    A method's own table, such as `[dpok.validation]`, names what differs."""
    scored_per_prompt: NonNegativeInt = 0
    """For methods that learn from images: further images of each prompt, which are drawn beside the
    run's images and which only the reward scores."""
    checkpoints: PositiveInt = 10
    """Number of checkpoints, evenly over the steps; an interrupted training goes on from the
    last."""
    rewards: tuple[RewardSource, ...] = ()
    """Rewards to tune on in place of the run's own, which the evaluation still shows: a weighted
    sum, see `reward/sources.py`."""
    strengths: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = (1.0,)
    """Strengths of the tuned adapter, factors of its update: 0.5, 0.75, 1 is a usual choice. The
    validation after training chooses among them, and the evaluation draws at each; 0, the base, and
    1, as trained, always belong to them. Others can be asked for at any time."""

    @property
    def other_strengths(self) -> list[float]:
        """The strengths beside 0 and 1, from weak to strong; none means that none is asked for."""
        return sorted({*self.strengths} - {0.0, 1.0})
