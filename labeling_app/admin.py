"""The admin page and its part of the HTTP interface; for raters of the role `admin`."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from data.errors import PictuneError
from data.feedback import Account, Decision, Identifier, Status
from data.overview import GivenLabel, PromptCount, counts_by_prompt, latest_labels
from data.reports import ReportedImage
from labeling_app.desk import STATIC, Desk, TheDesk, image_url
from labeling_app.sign_in import Admin, Name, admin, present, rater_of

STREAM = 30
"""Labels in the stream of the page."""

router = APIRouter()


class EmptyBody(BaseModel, frozen=True, extra="forbid"):
    """Nothing."""


class PauseBody(BaseModel, frozen=True, extra="forbid"):
    """Whom to pause or let go on."""

    rater: Name | None = None
    """One rater's name; without it, the whole campaign."""


class ImageBody(BaseModel, frozen=True, extra="forbid"):
    """The image that is decided about."""

    image_id: Identifier


@router.get("/admin", include_in_schema=False)
def page(request: Request, desk: TheDesk) -> HTMLResponse:
    """The page, which asks for the figures; or for a sign-in, with the status that says why."""
    status = 200
    try:
        admin(present(rater_of(request, desk), desk))
    except HTTPException as refusal:
        status = refusal.status_code
    return HTMLResponse(
        (STATIC / "admin.html").read_text(encoding="utf-8"), status, {"Cache-Control": "no-cache"}
    )


@router.get("/api/v1/admin/summary")
def summary(desk: TheDesk, _admin: Admin) -> dict[str, Any]:
    """Progress, also by category, and the latest labels."""
    progress = desk.store.progress()
    return {
        "paused": desk.store.is_paused,
        "progress": {
            "done": progress.done,
            "total": progress.total,
            "seconds_left": progress.seconds_left,
        },
        "categories": _by_category(desk, counts_by_prompt(desk.store)),
        "stream": [_line(label) for label in latest_labels(desk.store, limit=STREAM)],
        "last_export": desk.health.last_export,
        "export_error": desk.health.export_error,
    }


@router.get("/api/v1/admin/quality")
def quality(desk: TheDesk, _admin: Admin) -> dict[str, Any]:
    """Agreement, and each rater's gold accuracy, times and position bias. Of many labels it takes seconds."""
    return dict(desk.quality())


@router.get("/api/v1/admin/reports")
def reports(desk: TheDesk, _admin: Admin) -> dict[str, list[dict[str, Any]]]:
    """The images that wait for a decision, the one reported first at the beginning, and those that are removed."""
    images = desk.store.reports.images()
    return {
        name: [_reported(image) for image in images if image.removed == removed]
        for name, removed in (("open", False), ("removed", True))
    }


@router.post("/api/v1/admin/put-back")
def put_back(body: ImageBody, desk: TheDesk, account: Admin) -> dict[str, Decision]:
    """Puts a reported or removed image back into circulation; it stays there unless it is reported again."""
    return _decide(desk, account, body.image_id, "kept")


@router.post("/api/v1/admin/remove")
def remove(body: ImageBody, desk: TheDesk, account: Admin) -> dict[str, Decision]:
    """Keeps a reported image out of circulation for good; no label is lost."""
    return _decide(desk, account, body.image_id, "removed")


@router.post("/api/v1/admin/export")
def export(_body: EmptyBody, desk: TheDesk, _admin: Admin) -> dict[str, Any]:
    """Exports to Parquet now."""
    try:
        desk.exports.export()
    except PictuneError as error:
        raise HTTPException(503, str(error)) from error
    return {"last_export": desk.health.last_export}


@router.post("/api/v1/admin/pause")
def pause(body: PauseBody, desk: TheDesk, _admin: Admin) -> dict[str, bool]:
    """Hands out no more tasks, to one rater or to anyone; answers are still taken."""
    return _set_paused(desk, body, paused=True)


@router.post("/api/v1/admin/resume")
def resume(body: PauseBody, desk: TheDesk, _admin: Admin) -> dict[str, bool]:
    """Hands out tasks again."""
    return _set_paused(desk, body, paused=False)


def _decide(desk: Desk, account: Account, image_id: str, decision: Decision) -> dict[str, Decision]:
    desk.store.reports.decide(image_id, decision, account.rater_id)
    return {"decision": decision}


def _reported(image: ReportedImage) -> dict[str, Any]:
    facts = asdict(image)
    del facts["removed"]
    return facts | {"url": image_url(image.image_id)}


def _set_paused(desk: Desk, body: PauseBody, *, paused: bool) -> dict[str, bool]:
    if body.rater is None:
        desk.store.set_paused(paused)
        return {"paused": paused}
    account = desk.store.raters.find(body.rater)
    if account is None:
        raise HTTPException(404, f"no rater is called {body.rater}")
    status: Status = "paused" if paused else "active"
    desk.store.raters.set_status(account.rater_id, status)
    return {"paused": paused}


def _by_category(desk: Desk, counts: list[PromptCount]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, str], list[int]] = {}
    for count in counts:
        done_and_total = sums.setdefault(
            (desk.categories.get(count.prompt_id, "other"), count.kind), [0, 0]
        )
        done_and_total[0] += count.done
        done_and_total[1] += count.total
    return [
        {"category": name, "kind": kind, "done": done, "total": total}
        for (name, kind), (done, total) in sorted(sums.items())
    ]


def _line(label: GivenLabel) -> dict[str, Any]:
    answer = label.answer.model_dump(exclude={"kind"}, exclude_none=True)
    about = {
        "rater": label.rater,
        "kind": label.task.kind,
        "prompt": label.task.prompt,
        "answer": answer,
    }
    return about | {"submitted_at": label.submitted_at, "revision": label.revision}
