"""Settings of rounds of labeling and tuning."""

from pydantic import BaseModel, Field

from pipelines.run.image_plan import SEEDS_PER_ROUND


class RoundsConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of rounds: images of each round after the first, and the limit of a stale reward."""

    images_per_prompt: int = Field(default=48, gt=0, le=SEEDS_PER_ROUND // 2)
    """Images of each training prompt in a later round. A quarter is drawn with the base, so that
    the reward stays valid for the base's images."""
    least_roc_auc: float = Field(default=0.7, ge=0, le=1)
    """Smallest mean ROC-AUC within prompts of the earlier reward on a round's labeled images; below
    it, `reward` advises to label more often."""
