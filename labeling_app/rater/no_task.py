"""Reasons why a rater gets no task, and the pause of raters with too many wrong answers."""

from scipy.stats import binomtest

from data.feedback import Account, Progress
from data.store.feedback_store import FeedbackStore
from data.store.views.overview import gold_record
from labeling_app.app_state import AppState

FEWEST = 5
"""Fewest answers to gold tasks from which a rater's accuracy is estimated."""

CONFIDENCE = 0.99
"""Confidence of the interval; high, because it is checked after every answer."""


def reason_to_wait(state: AppState, account: Account) -> str | None:
    """Return the code of `NO_TASK` for which this rater must wait; None if there is no reason."""
    if state.store.is_paused:
        return "campaign_paused"
    if account.status != "active":
        return "rater_paused"
    return "training_first" if training_left(state, account) else None


def reason_for_none(progress: Progress) -> str:
    """Return the code of `NO_TASK` that explains why the store has no task for a rater."""
    return "all_labeled" if progress.done >= progress.total else "not_for_you"


def training_left(state: AppState, account: Account) -> set[str]:
    """Return the ids of the training items that the rater has not answered yet."""
    if not state.training:
        return set()
    withheld = state.store.reports.withheld_images(
        {image_id for item in state.training for image_id in item.task.image_ids}
    )
    items = {
        item.task.task_id for item in state.training if withheld.isdisjoint(item.task.image_ids)
    }
    return items - state.store.raters.trained(account.rater_id)


def pause_if_below(store: FeedbackStore, rater_id: str, least_accuracy: float) -> None:
    """Pause the rater if the upper end of their accuracy's interval is below `least_accuracy`.

    The interval is exact (Clopper and Pearson 1934).
    """
    record = gold_record(store, rater_id)
    if len(record) < FEWEST:
        return
    interval = binomtest(sum(record), len(record)).proportion_ci(CONFIDENCE, method="exact")
    if interval.high < least_accuracy:
        store.raters.set_status(rater_id, "paused")
