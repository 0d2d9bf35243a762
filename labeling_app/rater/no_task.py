"""Reasons why a rater gets no task."""

from collections.abc import Mapping

from data.feedback import Account, Progress
from labeling_app.app_state import AppState
from labeling_app.rater.responses import NoTask

NO_TASK: Mapping[NoTask, str] = {
    "campaign_paused": "the campaign is paused; your answers are kept, come back later",
    "rater_paused": "you have been paused; ask the people who run this campaign",
    "training_first": "the training comes first",
    "all_labeled": "everything is labeled",
    "share_given": "you have given your share of the labels; thank you",
    "taken": "others have answered that task meanwhile, or an image of it was reported",
    "not_for_you": "the tasks that are left are not for you or with others",
}
"""Reasons why there is no task, in words."""


def reason_to_wait(state: AppState, account: Account) -> NoTask | None:
    """Return why this rater may not be given a task now; None where nothing is in the way."""
    if state.store.is_paused:
        return "campaign_paused"
    if account.status == "paused":
        return "rater_paused"
    return "training_first" if training_left(state, account) else None


def reason_for_none(state: AppState, account: Account, progress: Progress) -> NoTask:
    """Return why the store has no task for this rater."""
    if progress.done >= progress.total:
        return "all_labeled"
    if account.share is not None and state.store.has_given_share(account.rater_id, account.share):
        return "share_given"
    return "not_for_you"


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
