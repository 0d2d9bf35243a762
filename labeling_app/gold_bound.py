"""Pausing raters who are surely less accurate on gold tasks than the campaign asks for."""

from scipy.stats import binomtest

from data.overview import gold_record
from data.store import FeedbackStore

FEWEST = 5
"""Answers to gold; on fewer nobody is judged."""

CONFIDENCE = 0.99
"""Of the interval; high, as it is looked at after every answer."""


def pause_if_below(store: FeedbackStore, rater_id: str, bound: float) -> None:
    """Pauses the rater when even the upper end of the exact interval of their accuracy (Clopper and Pearson 1934) is below the bound."""
    record = gold_record(store, rater_id)
    if (
        len(record) >= FEWEST
        and binomtest(sum(record), len(record)).proportion_ci(CONFIDENCE, method="exact").high
        < bound
    ):
        store.raters.set_status(rater_id, "paused")
