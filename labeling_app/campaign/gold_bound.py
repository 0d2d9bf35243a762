"""Pauses raters who are surely less accurate on gold tasks than the campaign asks for."""

from scipy.stats import binomtest

from data.store.feedback_store import FeedbackStore
from data.store.views.overview import gold_record

FEWEST = 5
"""Fewest answers to gold that a rater is judged by."""

CONFIDENCE = 0.99
"""Confidence of the interval; high, as it is looked at after every answer."""


def pause_if_below(store: FeedbackStore, rater_id: str, bound: float) -> None:
    """Pause the rater when even the upper end of their accuracy's interval is below the bound.

    The interval is the exact one (Clopper and Pearson 1934).
    """
    record = gold_record(store, rater_id)
    if len(record) < FEWEST:
        return
    interval = binomtest(sum(record), len(record)).proportion_ci(CONFIDENCE, method="exact")
    if interval.high < bound:
        store.raters.set_status(rater_id, "paused")
