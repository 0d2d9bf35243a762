"""Pausing raters who are surely less accurate on gold tasks than the campaign asks for."""

from data.intervals import wilson_interval
from data.overview import gold_record
from data.store import FeedbackStore


def pause_if_below(store: FeedbackStore, rater_id: str, bound: float) -> None:
    """Pauses the rater when even the upper end of the interval of their accuracy is below the bound, so that chance is no reason."""
    record = gold_record(store, rater_id)
    if wilson_interval(sum(record), len(record))[1] < bound:
        store.raters.set_status(rater_id, "paused")
