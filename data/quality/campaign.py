"""Quality of a running campaign, read from its feedback store."""

from collections.abc import Mapping
from typing import Any

from data.kinds.registry import KINDS
from data.quality.agreement import agreement_of, disputes_of
from data.quality.habits import habits_of
from data.quality.judgments import Judgments
from data.quality.rater_table import rater_quality
from data.store.feedback_store import FeedbackStore
from data.store.views.rows import RaterFacts, label_table, rater_facts, task_facts, task_table


def campaign_quality(
    store: FeedbackStore, categories: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compute the figures that the admin page shows of a campaign.

    Returns:
        `raters`: one row per rater, by when they joined, with the columns of `data.schema.RATERS`
        `flags` of `habits_of`, `name` and `role`; `rater_id` is the store's own id,
        and the exported one is `public_id`. Adjudicators are no raters.
        `agreement`: see `agreement_of`.
        `disputes`: see `disputes_of`.
    """
    judgments, everyone = _read_store(store)
    raters = [rater for rater in everyone if rater.source != "adjudicator"]
    rows = rater_quality(judgments, raters).to_pylist()
    habits = habits_of(judgments)
    named = [
        row
        | {"flags": habits.get((rater.source, rater.public_id), ())}
        | {"rater_id": rater.rater_id, "public_id": rater.public_id, "name": rater.name}
        | {"role": rater.role}
        for row, rater in zip(rows, raters, strict=True)
    ]
    return {
        "raters": named,
        "agreement": agreement_of(judgments, categories),
        "disputes": disputes_of(judgments),
    }


def _read_store(store: FeedbackStore) -> tuple[Judgments, list[RaterFacts]]:
    with store.database.read() as connection:
        tasks, raters = task_table(connection), rater_facts(connection, store.public_rater_id)
        facts = task_facts(tasks)
        labels = {kind: label_table(connection, kind, facts, raters) for kind in KINDS}
    return Judgments.from_tables(tasks, labels), list(raters.values())
