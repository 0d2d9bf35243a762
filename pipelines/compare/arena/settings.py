"""Settings of the judgment of models by comparisons."""

from typing import Annotated

from pydantic import BaseModel, Field, PositiveFloat

Several = Annotated[int, Field(ge=2)]


class ArenaConfig(BaseModel, frozen=True, extra="forbid"):
    """Judgment of models by comparisons: the plan, the stopping rule, and whose labels count."""

    difference: PositiveFloat = 70.0
    """Difference in Elo points that matters; 70 is 60 to 40. A campaign stops soonest on
    differences of about this size."""
    power: float = Field(default=0.8, gt=0.05, lt=1)
    """Probability with which `compare-plan` wants a difference to be found at 95 %."""
    raters: tuple[Several, ...] = Field(default=(5, 10, 20, 40), min_length=1)
    """Numbers of raters that `compare-plan` plans for."""
    prompts: tuple[Several, ...] = Field(default=(25, 50, 100, 200), min_length=1)
    """Numbers of prompts that it plans for."""
    rater_spread: float = Field(default=0.05, ge=0, le=0.4)
    """Standard deviation over raters of the share in which they prefer a model, as raters differ in
    taste."""
    prompt_spread: float = Field(default=0.15, ge=0, le=0.4)
    """The same over prompts: a model is better at some than at others."""
    ties: float = Field(default=0.1, ge=0, lt=1)
    """Share of votes that are ties."""
    omit_raters: bool = False
    """Whether raters who answer by chance, or in tenths of a second, are left out of
    `compare-report`. It names them in any case."""
