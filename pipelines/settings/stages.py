"""Settings of rounds and of the evaluation."""

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from pipelines.run.image_plan import SEEDS_PER_ROUND
from reward.settings import RewardSource


class RoundsConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of rounds after the first."""

    images_per_prompt: int = Field(default=48, gt=0, le=SEEDS_PER_ROUND // 2)
    """Images of each training prompt in a later round. A quarter is drawn with the base, so that
    the reward stays valid for the base's images."""


class EvaluateConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the evaluation: prompts, images and samplers."""

    images_per_prompt: PositiveInt = 24
    """Images of each training prompt, for every model and sampler."""
    most_prompts: PositiveInt = 16
    """Largest number of training prompts that are evaluated, from every category; a message tells
    if there are more."""
    held_out_prompts: dict[str, tuple[str, ...]] = {}
    """Held-out prompts by category, in addition to the held-out prompts of `run.prompts_file`.
    Nothing is trained on them, and only the evaluation draws them."""
    held_out_per_family: NonNegativeInt = 0
    """Held-out prompts generated for each family of the embedded world, with content that neither
    its base nor the training prompts contain. There are none if its judge does not know the model's
    images."""
    images_per_held_out: PositiveInt = 4
    """Images of each held-out prompt."""
    best_of: PositiveInt = 4
    """Candidates of the base from which the reward picks one, a baseline without training; 1 omits
    it."""
    etas: tuple[float, ...] = Field(default=(0.0, 1.0), min_length=1)
    """Samplers: 0 is deterministic DDIM, which users draw with; 1 is ancestral sampling, whose
    first steps DPOK trains."""
    kl_images: PositiveInt = 16
    """Denoising chains of each tuned model to estimate its KL to the base."""
    scorers: tuple[RewardSource, ...] = ()
    """Rewards that only measure, each by itself: columns with intervals in table and report. Name
    ones that nothing is tuned on; a line warns of others."""
