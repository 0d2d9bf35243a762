"""Settings of rounds of labeling and tuning."""

from pydantic import BaseModel, Field

from pipelines.run.image_plan import SEEDS_PER_ROUND


class RoundsConfig(BaseModel, frozen=True, extra="forbid"):
    """Images of each round after the first, and when the reward counts as stale."""

    images_per_prompt: int = Field(default=48, gt=0, le=SEEDS_PER_ROUND // 2)
    """Images of each training prompt that a later round draws, a quarter of them with the base, so
    that the reward keeps knowing what it does."""
    least_roc_auc: float = Field(default=0.7, ge=0, le=1)
    """Mean ROC-AUC within prompts, of the earlier reward on a round's labeled images, below which
    `reward` says to label more often."""
