"""Settings of model comparisons by people."""

from pydantic import BaseModel, PositiveFloat


class ArenaConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of model comparisons: the stopping rule, and the labels that are used."""

    difference: PositiveFloat = 70.0
    """Relevant difference in Elo points; 70 is a win rate of 60 to 40. Campaigns with differences
    of about this size stop earliest."""
    omit_raters: bool = False
    """Whether `compare-report` omits raters who answer at random, or within tenths of a second. It
    names them in any case."""
