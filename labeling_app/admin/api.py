"""The admins' part of the HTTP interface, for raters of the role `admin`.

The buttons of the admin page call its functions. Each action is in the trail of the store
(`data.store.people.audit`) with the admin who did it.
"""

import asyncio
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel

from data.errors import PictuneError
from data.feedback import Account, Decision, Receipt, Role, Status
from data.ids import Identifier
from data.kinds.registry import AnyAnswer
from data.regions import Fraction
from labeling_app.admin import figures
from labeling_app.app_state import AppState, State
from labeling_app.passwords import draw_password, hash_password
from labeling_app.rater.images import encoded, thumbnail
from labeling_app.refusals import may_refuse
from labeling_app.sign_in import Admin, Name

FILE = {"schema": {"type": "string", "format": "binary"}}
"""OpenAPI schema of a file."""

PARQUET = "application/vnd.apache.parquet"
"""Media type of the tables."""

NOT_KEPT = {"Cache-Control": "no-store"}

OF_A_BODY = may_refuse(400, 413, 422)
ABOUT_SOMETHING = may_refuse(400, 404, 413, 422)
ABOUT_SOMEBODY = may_refuse(400, 404, 409, 413, 422)

router = APIRouter(prefix="/api/v1/admin", responses=may_refuse(401, 403, 503))


class _Body(BaseModel, frozen=True, extra="forbid"):
    pass


class PauseBody(_Body, frozen=True):
    """Body of a pause or of its end."""

    rater: Name | None = None
    """Name of one rater; without it, the pause is for the whole campaign."""


class ImageBody(_Body, frozen=True):
    """Body of a decision about an image."""

    image_id: Identifier


class TaskBody(_Body, frozen=True):
    """Body of a call about a task."""

    task_id: Identifier


class AdjudicationBody(TaskBody, frozen=True):
    """Body of an answer in the raters' place."""

    answer: AnyAnswer


class RaterBody(PauseBody, frozen=True):
    """Body of a call about a rater."""

    rater: Name


class RoleBody(RaterBody, frozen=True):
    """Body of a new rater, or of another role."""

    role: Role = "rater"


class NewPassword(BaseModel, frozen=True):
    """A rater's new password, which nobody can read again."""

    rater: str
    role: Role
    password: str


@router.get(
    "/tables/{name}",
    response_class=FileResponse,
    responses=may_refuse(404) | {200: {"content": {PARQUET: FILE}}},
)
def table(name: str, state: State, account: Admin) -> FileResponse:
    """Return one Parquet file of the last export."""
    path = figures.table_file(state, name)
    state.store.audit.note("download", account.rater_id, after={"table": name})
    return FileResponse(path, media_type=PARQUET, filename=name, headers=NOT_KEPT)


@router.get(
    "/thumbnails/{image_id}",
    response_class=Response,
    responses=may_refuse(404, 422) | {200: {"content": {"image/webp": FILE}}},
)
async def thumbnail_of(
    image_id: str,
    state: State,
    _admin: Admin,
    edges: Annotated[tuple[Fraction, ...], Query()] = (),
) -> Response:
    """Return one image of the campaign, small and without metadata, also a reported one.

    Marks are outlined whose left, upper, right and lower edges stand in `edges`, one after another.
    """
    content = await asyncio.get_running_loop().run_in_executor(
        state.decoding, encoded, state.image_path(image_id), partial(thumbnail, edges=edges)
    )
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(content, media_type="image/webp", headers=kept)


@router.post("/put-back", responses=ABOUT_SOMETHING)
def put_back(body: ImageBody, state: State, account: Admin) -> dict[str, Decision]:
    """Put a reported or removed image back into circulation, until it is reported again."""
    state.store.reports.decide(body.image_id, "kept", account.rater_id)
    return {"decision": "kept"}


@router.post("/remove", responses=ABOUT_SOMETHING)
def remove(body: ImageBody, state: State, account: Admin) -> dict[str, Decision]:
    """Keep a reported image out of circulation for good; no label is lost."""
    state.store.reports.decide(body.image_id, "removed", account.rater_id)
    return {"decision": "removed"}


@router.post("/adjudicate", responses=ABOUT_SOMETHING)
def adjudicate(body: AdjudicationBody, state: State, account: Admin) -> Receipt:
    """Answer a task in the raters' place: this label decides; theirs stay."""
    return state.store.adjudications.decide(body.task_id, body.answer, account.rater_id)


@router.post("/withdraw", status_code=204, responses=ABOUT_SOMETHING)
def withdraw(body: TaskBody, state: State, account: Admin) -> None:
    """Withdraw the answer in the raters' place; it stays in the log."""
    state.store.adjudications.withdraw(body.task_id, account.rater_id)


@router.post("/export", responses=OF_A_BODY)
def export(state: State, account: Admin) -> dict[str, datetime | None]:
    """Export to Parquet now."""
    state.store.audit.note("export", account.rater_id)
    try:
        state.exports.export()
    except PictuneError as error:
        raise HTTPException(503, str(error)) from error
    return {"last_export": state.health.last_export}


@router.post("/leave-out", status_code=204, responses=ABOUT_SOMETHING)
def leave_out(body: RaterBody, state: State, account: Admin) -> None:
    """Let a rater's labels count for nothing, and ask others, until the rater is resumed.

    No label is lost: exports and training omit them.
    """
    rater_id = _named(state, body.rater).rater_id
    state.store.raters.set_status(rater_id, "left_out", by=account.rater_id)


@router.post("/pause", responses=ABOUT_SOMETHING)
def pause(body: PauseBody, state: State, account: Admin) -> dict[str, bool]:
    """Stop handing out tasks, to one rater or to all; answers are still accepted."""
    return _set_paused(state, account, body.rater, paused=True)


@router.post("/resume", responses=ABOUT_SOMETHING)
def resume(body: PauseBody, state: State, account: Admin) -> dict[str, bool]:
    """Hand out tasks again."""
    return _set_paused(state, account, body.rater, paused=False)


@router.post("/raters", status_code=201, responses=ABOUT_SOMEBODY)
def add_rater(body: RoleBody, state: State, account: Admin) -> NewPassword:
    """Add a rater; the answer has their password, which nobody can read again."""
    with state.store.database.write():
        known = state.store.raters.find(body.rater)
        if known is not None:
            raise HTTPException(409, f"{known.name} is there already; give them a new password")
        rater_id = state.store.add_rater(body.rater, by=account.rater_id)
        state.store.raters.set_role(rater_id, body.role, by=account.rater_id)
    return password(body, state, account)


@router.post("/password", responses=ABOUT_SOMEBODY)
def password(body: RaterBody, state: State, account: Admin) -> NewPassword:
    """Give a rater a new password, which ends their earlier sign-ins."""
    named = _named(state, body.rater)
    drawn = draw_password()
    # on the threads that check passwords, because a hash takes as much memory as a check
    password_hash = state.signing_in.submit(hash_password, drawn).result()
    state.store.raters.set_password(named.rater_id, password_hash, by=account.rater_id)
    return NewPassword(rater=named.name, role=named.role, password=drawn)


@router.post("/role", status_code=204, responses=ABOUT_SOMEBODY)
def role(body: RoleBody, state: State, account: Admin) -> None:
    """Make a rater an admin, or an admin a rater."""
    named = _named(state, body.rater)
    if named.rater_id == account.rater_id and body.role != "admin":
        raise HTTPException(409, "you cannot take your own role away; ask another admin")
    if body.role == "admin" and named.password_hash is None:
        raise HTTPException(409, f"{named.name} has no password; give them one first")
    state.store.raters.set_role(named.rater_id, body.role, by=account.rater_id)


def _set_paused(
    state: AppState, account: Account, rater: str | None, *, paused: bool
) -> dict[str, bool]:
    if rater is None:
        state.store.set_paused(paused, by=account.rater_id)
    else:
        status: Status = "paused" if paused else "active"
        rater_id = _named(state, rater).rater_id
        state.store.raters.set_status(rater_id, status, by=account.rater_id)
    return {"paused": paused}


def _named(state: AppState, rater: str) -> Account:
    account = state.store.raters.find(rater)
    if account is None:
        raise HTTPException(404, f"no rater is called {rater}")
    return account
