"""Routes about a rater's own work: history, tasks put aside, and leases of the tasks in hand."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from data.ids import Identifier
from data.kinds.registry import TaskKind
from data.store.views.overview import AnswerGroup, latest_labels, matching
from labeling_app.app_state import State
from labeling_app.rater.responses import AsideEntry, History, HistoryEntry
from labeling_app.refusals import may_refuse
from labeling_app.sign_in import Present

router = APIRouter(responses=may_refuse(403, 503))

OF_A_TASK = may_refuse(400, 401, 404, 413, 422)
"""Refusals of a call about one task of the rater."""


class HistoryQuery(BaseModel, frozen=True, extra="forbid"):
    """Query of a history."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Only labels with a smaller number; `older` of the previous page."""
    words: Annotated[str, Field(max_length=200)] = ""
    """Only labels whose prompts contain all these words."""
    kind: TaskKind | None = None
    """Only labels of tasks of this kind."""
    answer: AnswerGroup | None = None
    """Only answers of this group."""


class TaskBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a call about one task of the rater."""

    task_id: Identifier


@router.get("/api/v1/history", responses=may_refuse(401, 422))
def history(state: State, account: Present, query: Annotated[HistoryQuery, Query()]) -> History:
    """Return the rater's labels, newest first; a new answer to one of their tasks is an edit."""
    among = matching(query.before, query.words, query.kind, query.answer)
    limit = query.limit + 1  # one more than needed, to see if there are older labels
    given = latest_labels(state.store, rater_id=account.rater_id, among=among, limit=limit)
    page = given[: query.limit]
    withheld = state.store.reports.withheld_images(
        {image_id for label in page for image_id in label.task.image_ids}
    )
    return History(
        labels=[HistoryEntry.of(label, withheld) for label in page],
        older=page[-1].sequence if len(given) > len(page) else None,
    )


@router.get("/api/v1/aside", responses=may_refuse(401))
def aside(state: State, account: Present) -> dict[str, list[AsideEntry]]:
    """Return the tasks that the rater has put aside and can still answer, oldest first."""
    return {"tasks": [AsideEntry.of(one) for one in state.store.own_work.aside(account.rater_id)]}


@router.post("/api/v1/aside", status_code=204, responses=OF_A_TASK)
def put_aside(body: TaskBody, state: State, account: Present) -> None:
    """Put a task aside: claims return it after all other tasks, as long as it has a free place.

    The rater's place is reserved for the length of a lease.
    """
    state.store.own_work.put_aside(account.rater_id, body.task_id)


@router.post("/api/v1/leases", responses=OF_A_TASK)
def renew(body: TaskBody, state: State, account: Present) -> dict[str, datetime]:
    """Renew the lease of a task; 404 if it has ended (an answer is still accepted)."""
    return {"lease_expires_at": state.store.renew(account.rater_id, body.task_id)}


@router.post("/api/v1/release", status_code=204, responses=OF_A_TASK)
def release(body: TaskBody, state: State, account: Present) -> None:
    """End the lease of a task, so that others get it; an answer is still accepted."""
    state.store.release(account.rater_id, body.task_id)
