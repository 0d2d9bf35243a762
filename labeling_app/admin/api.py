"""The admins' part of the HTTP interface, for raters of the role `admin`."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from data.errors import PictuneError
from data.feedback import Role
from data.ids import Identifier
from data.kinds.registry import AnyAnswer, TaskKind
from data.store.plan.planning import LARGEST_OVERLAP
from labeling_app.admin import actions, figures
from labeling_app.admin.responses import (
    Adjudicated,
    AuditTrail,
    Decided,
    Disputes,
    Exported,
    GoldAdded,
    NewPassword,
    PauseState,
    Plan,
    PutBack,
    Quality,
    Reports,
    Summary,
    Tables,
)
from labeling_app.app_state import State
from labeling_app.rater.images import encoded, thumbnail
from labeling_app.refusals import may_refuse
from labeling_app.sign_in import Admin, Name

FILE = {"schema": {"type": "string", "format": "binary"}}
"""A file, in the words of OpenAPI."""

PARQUET = "application/vnd.apache.parquet"
"""Media type of the tables."""

NOT_KEPT = {"Cache-Control": "no-store"}

OF_A_BODY = may_refuse(400, 413, 422)
ABOUT_SOMETHING = may_refuse(400, 404, 413, 422)
ABOUT_SOMEBODY = may_refuse(400, 404, 409, 413, 422)

router = APIRouter(prefix="/api/v1/admin", responses=may_refuse(401, 403, 503))


class _Body(BaseModel, frozen=True, extra="forbid"):
    pass


class EmptyBody(_Body, frozen=True):
    """Body of an export: empty."""


class PauseBody(_Body, frozen=True):
    """Body of a pause or of its end."""

    rater: Name | None = None
    """One rater's name; without it, the whole campaign."""


class ImageBody(_Body, frozen=True):
    """Body of a decision about an image."""

    image_id: Identifier


class TaskBody(_Body, frozen=True):
    """Body of what concerns a task."""

    task_id: Identifier


class AdjudicationBody(TaskBody, frozen=True):
    """Body of an answer in the raters' place."""

    answer: AnyAnswer


class RaterBody(_Body, frozen=True):
    """Body of what concerns a rater."""

    rater: Name


class RoleBody(RaterBody, frozen=True):
    """Body of a new rater, or of another role."""

    role: Role = "rater"


class ShareBody(RaterBody, frozen=True):
    """Body of a limit to a share of the labels."""

    share: Annotated[float, Field(gt=0, le=1)] | None
    """Largest share of the wanted labels; null for any."""


class OverlapBody(_Body, frozen=True):
    """Body of another overlap."""

    kind: TaskKind
    overlap: Annotated[int, Field(ge=1, le=LARGEST_OVERLAP)]


class GoldBody(_Body, frozen=True):
    """Body of images whose right answers are known."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*$")]
    """Name of the CSV file, for errors."""
    csv: str
    """Its content, as of `tasks.gold`."""


@router.get("/summary")
def summary(state: State, _admin: Admin) -> Summary:
    """Return the progress, also by category, prompt and hour, and the latest labels."""
    return figures.summarize(state)


@router.get("/quality")
def quality(state: State, _admin: Admin) -> Quality:
    """Return agreement, each rater's figures and disputes; of many labels it takes seconds."""
    return figures.measure_quality(state)


@router.get("/reports")
def reports(state: State, _admin: Admin) -> Reports:
    """Return the reported images that wait for a decision, and those that are removed."""
    return figures.list_reports(state)


@router.get("/disputes")
def disputes(state: State, _admin: Admin) -> Disputes:
    """Return the tasks that raters disagree on with their answers, and those that were decided."""
    return figures.list_disputes(state)


@router.get("/plan")
def plan(state: State, _admin: Admin) -> Plan:
    """Return how many people are asked, by kind of task."""
    return figures.list_plan(state)


@router.get("/audit", responses=may_refuse(422))
def audit(
    state: State, _admin: Admin, limit: Annotated[int, Query(ge=1, le=1000)] = figures.AUDIT_SHOWN
) -> AuditTrail:
    """Return the latest actions of admins, newest first."""
    return figures.list_audit(state, limit)


@router.get("/tables")
def tables(state: State, _admin: Admin) -> Tables:
    """Return the files of the last export; none before the first."""
    return figures.list_tables(state)


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
    responses=may_refuse(404) | {200: {"content": {"image/webp": FILE}}},
)
async def thumbnail_of(image_id: str, state: State, _admin: Admin) -> Response:
    """Return one image of the campaign, small and without metadata, also a reported one."""
    content = await asyncio.get_running_loop().run_in_executor(
        state.decoding, encoded, state.image_path(image_id), thumbnail
    )
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(content, media_type="image/webp", headers=kept)


@router.post("/put-back", responses=ABOUT_SOMETHING)
def put_back(body: ImageBody, state: State, account: Admin) -> Decided:
    """Put a reported or removed image back into circulation, until it is reported again."""
    return actions.decide(state, account.rater_id, body.image_id, "kept")


@router.post("/put-back-all", responses=ABOUT_SOMETHING)
def put_back_all(body: RaterBody, state: State, account: Admin) -> PutBack:
    """Put all images back that this rater alone reported and nobody has decided about."""
    return actions.put_back_all(state, account.rater_id, body.rater)


@router.post("/remove", responses=ABOUT_SOMETHING)
def remove(body: ImageBody, state: State, account: Admin) -> Decided:
    """Keep a reported image out of circulation for good; no label is lost."""
    return actions.decide(state, account.rater_id, body.image_id, "removed")


@router.post("/adjudicate", responses=ABOUT_SOMETHING)
def adjudicate(body: AdjudicationBody, state: State, account: Admin) -> Adjudicated:
    """Answer a task in the raters' place: this label decides; theirs stay."""
    return actions.adjudicate(state, account.rater_id, body.task_id, body.answer)


@router.post("/withdraw", status_code=204, responses=ABOUT_SOMETHING)
def withdraw(body: TaskBody, state: State, account: Admin) -> None:
    """Take the answer in the raters' place back; it stays in the log."""
    actions.withdraw(state, account.rater_id, body.task_id)


@router.post("/export", responses=OF_A_BODY)
def export(_body: EmptyBody, state: State, account: Admin) -> Exported:
    """Export to Parquet now."""
    try:
        return actions.export(state, account.rater_id)
    except PictuneError as error:
        raise HTTPException(503, str(error)) from error


@router.post("/pause", responses=ABOUT_SOMETHING)
def pause(body: PauseBody, state: State, account: Admin) -> PauseState:
    """Hand out no more tasks, to one rater or to anyone; answers are still accepted."""
    return actions.set_paused(state, account.rater_id, body.rater, paused=True)


@router.post("/resume", responses=ABOUT_SOMETHING)
def resume(body: PauseBody, state: State, account: Admin) -> PauseState:
    """Hand out tasks again."""
    return actions.set_paused(state, account.rater_id, body.rater, paused=False)


@router.post("/raters", status_code=201, responses=ABOUT_SOMEBODY)
def add_rater(body: RoleBody, state: State, account: Admin) -> NewPassword:
    """Add a rater; the answer has their password, which nobody can read again."""
    return actions.add_rater(state, account.rater_id, body.rater, body.role)


@router.post("/password", responses=ABOUT_SOMEBODY)
def password(body: RaterBody, state: State, account: Admin) -> NewPassword:
    """Give a rater a new password, which ends their earlier sign-ins."""
    return actions.new_password(state, account.rater_id, body.rater)


@router.post("/role", status_code=204, responses=ABOUT_SOMEBODY)
def role(body: RoleBody, state: State, account: Admin) -> None:
    """Make a rater an admin, or an admin a rater."""
    actions.set_role(state, account.rater_id, body.rater, body.role)


@router.post("/share", status_code=204, responses=ABOUT_SOMEBODY)
def share(body: ShareBody, state: State, account: Admin) -> None:
    """Limit a rater to a share of the wanted labels."""
    actions.set_share(state, account.rater_id, body.rater, body.share)


@router.post("/overlap", status_code=204, responses=OF_A_BODY)
def overlap(body: OverlapBody, state: State, account: Admin) -> None:
    """Ask so many people about each task of this kind, also after the next start."""
    actions.set_overlap(state, account.rater_id, body.kind, body.overlap)


@router.post("/gold", responses=OF_A_BODY)
def gold(body: GoldBody, state: State, account: Admin) -> GoldAdded:
    """Add images whose right answers are known, all or none."""
    return actions.add_gold(state, account.rater_id, body.name, body.csv)
