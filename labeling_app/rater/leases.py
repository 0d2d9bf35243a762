"""HTTP interface to the leases of tasks that a page holds."""

from fastapi import APIRouter
from pydantic import BaseModel

from data.ids import Identifier
from labeling_app.app_state import State
from labeling_app.rater.responses import Lease
from labeling_app.refusals import may_refuse
from labeling_app.sign_in import Present

router = APIRouter(responses=may_refuse(400, 401, 404, 413, 422))


class LeaseBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a renewal, or of a release."""

    task_id: Identifier


@router.post("/api/v1/leases")
def renew(body: LeaseBody, state: State, account: Present) -> Lease:
    """Renew the lease of a task; 404 when it has ended (an answer is accepted all the same)."""
    return Lease(lease_expires_at=state.store.renew(account.rater_id, body.task_id))


@router.post("/api/v1/release", status_code=204)
def release(body: LeaseBody, state: State, account: Present) -> None:
    """End the lease of a task, for others to be given it; an answer is accepted all the same."""
    state.store.release(account.rater_id, body.task_id)
