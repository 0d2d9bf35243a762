"""The admins' part of the HTTP interface, for raters of the role `admin`."""

from collections import Counter

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from data.comparisons import ComparisonAnswer
from data.errors import PictuneError
from data.feedback import Answer, Decision, RankingAnswer, Status, TaskKind
from data.ids import Identifier
from data.store.overview import GivenLabel, counts_by_prompt, latest_labels
from labeling_app.admin_responses import (
    CampaignProgress,
    CategoryCount,
    Decided,
    Exported,
    PauseState,
    Quality,
    ReportedImageView,
    Reports,
    StreamEntry,
    StreamRanks,
    Summary,
)
from labeling_app.app_state import AppState, State, image_url
from labeling_app.refusals import may_refuse
from labeling_app.responses import GivenComparison, GivenVerdict
from labeling_app.sign_in import Admin, Name

STREAM = 30
"""Labels in the stream of the page."""

router = APIRouter(responses=may_refuse(401, 403, 503))


class EmptyBody(BaseModel, frozen=True, extra="forbid"):
    """Body of an export: empty."""


class PauseBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a pause or of its end."""

    rater: Name | None = None
    """One rater's name; without it, the whole campaign."""


class ImageBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a decision about an image."""

    image_id: Identifier


@router.get("/api/v1/admin/summary")
def summary(state: State, _admin: Admin) -> Summary:
    """Return the progress, also by category, and the latest labels."""
    return summarize(state)


@router.get("/api/v1/admin/quality")
def quality(state: State, _admin: Admin) -> Quality:
    """Return agreement and each rater's figures; of many labels it takes seconds."""
    return measure_quality(state)


@router.get("/api/v1/admin/reports")
def reports(state: State, _admin: Admin) -> Reports:
    """Return the images that wait for a decision, and those that are removed."""
    return list_reports(state)


@router.post("/api/v1/admin/put-back", responses=may_refuse(400, 404, 413, 422))
def put_back(body: ImageBody, state: State, account: Admin) -> Decided:
    """Put a reported or removed image back into circulation, until it is reported again."""
    return decide(state, account.rater_id, body.image_id, "kept")


@router.post("/api/v1/admin/remove", responses=may_refuse(400, 404, 413, 422))
def remove(body: ImageBody, state: State, account: Admin) -> Decided:
    """Keep a reported image out of circulation for good; no label is lost."""
    return decide(state, account.rater_id, body.image_id, "removed")


@router.post("/api/v1/admin/export", responses=may_refuse(400, 413, 422))
def export(_body: EmptyBody, state: State, _admin: Admin) -> Exported:
    """Export to Parquet now."""
    try:
        state.exports.export()
    except PictuneError as error:
        raise HTTPException(503, str(error)) from error
    return Exported(last_export=state.health.last_export)


@router.post("/api/v1/admin/pause", responses=may_refuse(400, 404, 413, 422))
def pause(body: PauseBody, state: State, _admin: Admin) -> PauseState:
    """Hand out no more tasks, to one rater or to anyone; answers are still accepted."""
    return set_paused(state, body.rater, paused=True)


@router.post("/api/v1/admin/resume", responses=may_refuse(400, 404, 413, 422))
def resume(body: PauseBody, state: State, _admin: Admin) -> PauseState:
    """Hand out tasks again."""
    return set_paused(state, body.rater, paused=False)


def summarize(state: AppState) -> Summary:
    """Return how the campaign goes."""
    progress = state.store.progress()
    return Summary(
        paused=state.store.is_paused,
        progress=CampaignProgress(
            done=progress.done, total=progress.total, seconds_left=progress.seconds_left
        ),
        categories=_by_category(state),
        stream=[_stream_entry(label) for label in latest_labels(state.store, limit=STREAM)],
        last_export=state.health.last_export,
        export_error=state.health.export_error,
    )


def measure_quality(state: AppState) -> Quality:
    """Return agreement and each rater's figures; of many labels it takes seconds."""
    return Quality.model_validate(state.quality(state.categories))


def list_reports(state: AppState) -> Reports:
    """Return the images that are out of circulation."""
    views: dict[bool, list[ReportedImageView]] = {False: [], True: []}
    for image in state.store.reports.images():
        view = ReportedImageView(
            image_id=image.image_id,
            prompt=image.prompt,
            reports=image.reports,
            url=image_url(image.image_id),
        )
        views[image.removed].append(view)
    return Reports(open=views[False], removed=views[True])


def decide(state: AppState, admin_id: str, image_id: str, decision: Decision) -> Decided:
    """Record an admin's decision about a reported image.

    Raises:
        NotFound: no report of the image is open.
    """
    state.store.reports.decide(image_id, decision, admin_id)
    return Decided(decision=decision)


def set_paused(state: AppState, rater: str | None, *, paused: bool) -> PauseState:
    """Pause or resume the rater of this name, or the campaign where `rater` is None.

    Raises:
        HTTPException: 404, nobody is called so.
    """
    if rater is None:
        state.store.set_paused(paused)
        return PauseState(paused=paused)
    account = state.store.raters.find(rater)
    if account is None:
        raise HTTPException(404, f"no rater is called {rater}")
    status: Status = "paused" if paused else "active"
    state.store.raters.set_status(account.rater_id, status)
    return PauseState(paused=paused)


def _by_category(state: AppState) -> list[CategoryCount]:
    done: Counter[tuple[str, TaskKind]] = Counter()
    total: Counter[tuple[str, TaskKind]] = Counter()
    for count in counts_by_prompt(state.store):
        key = (state.categories.get(count.prompt_id, "other"), count.kind)
        done[key] += count.done
        total[key] += count.total
    return [
        CategoryCount(category=key[0], kind=key[1], done=done[key], total=total[key])
        for key in sorted(total)
    ]


def _stream_entry(label: GivenLabel) -> StreamEntry:
    return StreamEntry(
        rater=label.rater,
        kind=label.task.kind,
        prompt=label.task.prompt,
        answer=_answer(label.answer),
        submitted_at=label.submitted_at,
        revision=label.revision,
    )


def _answer(answer: Answer) -> GivenVerdict | StreamRanks | GivenComparison:
    facts = answer.model_dump(exclude={"kind"})
    if isinstance(answer, RankingAnswer):
        return StreamRanks.model_validate(facts)
    if isinstance(answer, ComparisonAnswer):
        return GivenComparison.model_validate(facts)
    return GivenVerdict.model_validate(facts)
