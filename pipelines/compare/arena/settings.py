"""Settings of the judgment of models by comparisons."""

from pydantic import BaseModel, PositiveFloat


class ArenaConfig(BaseModel, frozen=True, extra="forbid"):
    """Judgment of models by comparisons: the stopping rule, and whose labels count."""

    difference: PositiveFloat = 70.0
    """Difference in Elo points that matters; 70 is 60 to 40. A campaign stops soonest on
    differences of about this size."""
    omit_raters: bool = False
    """Whether raters who answer by chance, or in tenths of a second, are left out of
    `compare-report`. It names them in any case."""
