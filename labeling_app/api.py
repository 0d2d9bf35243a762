"""The HTTP interface, version 1: the page uses it, and so may any other client. Bodies and answers are JSON.

Refusals are 401 (not signed in), 404 (no such task or image), 422 (bad body, with field and reason) and 503 (not saved, send it again);
their body is `{"detail": "..."}` or, for a bad body, `{"detail": [{"field", "reason"}, ...]}`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, Discriminator, Field, NonNegativeInt, Tag

from data.feedback import BinaryAnswer, Claim, Identifier, InputMode, NotFound, RankingAnswer, Submission, Task, TaskKind
from labeling_app.desk import APP_VERSION, Desk
from labeling_app.pictures import bare_png
from labeling_app.sign_in import Login, Rater, SignedIn, sign_in

router = APIRouter()


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(_desk)]


def _kind_of_answer(answer: object) -> Literal["binary", "ranking"]:
    return "ranking" if isinstance(answer, Mapping) and "ranks" in answer else "binary"


AnyAnswer = Annotated[
    Annotated[BinaryAnswer, Tag("binary")] | Annotated[RankingAnswer, Tag("ranking")],
    Discriminator(_kind_of_answer),
]


class ClaimBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a claim."""

    kind: TaskKind | None = None
    """Only tasks of this kind."""


class SubmissionBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a submission; who sends it is known from the cookie."""

    submission_id: Identifier
    """Made by the client, new for each answer: sending it again is safe."""
    task_id: Identifier
    answer: AnyAnswer
    time_on_task_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    input_mode: InputMode | None = None


class UndoBody(BaseModel, frozen=True, extra="forbid"):
    """Body of an undo: empty."""


@router.post("/api/v1/login")
def login(request: Request, body: Login, desk: TheDesk) -> Rater:
    """Signs in by name and sets the cookie."""
    return sign_in(request, desk, body)


@router.post("/api/v1/logout", status_code=204)
def logout(request: Request) -> None:
    """Signs out."""
    request.session.clear()


@router.get("/api/v1/me")
def me(rater: SignedIn) -> Rater:
    """Who is signed in."""
    return rater


@router.post("/api/v1/claim")
def claim(body: ClaimBody, desk: TheDesk, rater: SignedIn) -> dict[str, Any]:
    """Hands out the next task, or the one that the rater holds already; `task` is null when none is left, with the reason."""
    with _known_to_store():
        claimed = desk.store.claim(rater.rater_id, kind=body.kind)
    progress = _progress(desk, rater)
    if claimed is not None:
        return {"task": _claimed_task(claimed), "progress": progress}
    reason = "everything is labeled" if progress["done"] >= progress["total"] else "the tasks that are left are not for you or with others"
    return {"task": None, "reason": reason, "progress": progress}


@router.post("/api/v1/submissions", status_code=201)
def submit(body: SubmissionBody, response: Response, desk: TheDesk, rater: SignedIn) -> dict[str, Any]:
    """Stores an answer; the reply is sent once it is on disk: 201, or 200 if it had been received before."""
    receipt = desk.store.submit(
        Submission(
            submission_id=body.submission_id,
            task_id=body.task_id,
            rater_id=rater.rater_id,
            answer=body.answer,
            time_on_task_ms=body.time_on_task_ms,
            input_mode=body.input_mode,
            session_id=rater.session_id,
            app_version=APP_VERSION,
            guideline_version=desk.guidelines.version,
        )
    )
    if not receipt.created:
        response.status_code = 200
    return {"label_id": receipt.label_id, "revision": receipt.revision}


@router.post("/api/v1/undo")
def undo(_body: UndoBody, desk: TheDesk, rater: SignedIn) -> dict[str, Any]:
    """Takes back the rater's last label; the next claim hands out its task again. `task` is null when there is nothing to undo."""
    with _known_to_store():
        task = desk.store.undo(rater.rater_id)
    return {"task": None if task is None else _task(task, task.image_ids), "progress": _progress(desk, rater)}


@router.get("/api/v1/progress")
def progress(desk: TheDesk, rater: SignedIn) -> dict[str, int]:
    """Labels of this rater (`mine`), of all raters (`done`) and wanted (`total`)."""
    return _progress(desk, rater)


@router.get("/api/v1/images/{image_id}")
def image(image_id: str, desk: TheDesk, _rater: SignedIn) -> Response:
    """One image of the campaign as PNG, without metadata."""
    path = desk.image_path(image_id)
    if path is None:
        raise HTTPException(404, "no such image")
    try:
        content = bare_png(path)
    except OSError as error:
        raise HTTPException(404, "the image's file is missing or damaged") from error
    # the id names the content, so a browser may keep it for good
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"})


@router.get("/health")
def health(desk: TheDesk) -> dict[str, Any]:
    """Counts of writes refused and failed since the start, and when labels were last exported."""
    return {"status": "ok", **asdict(desk.health)}


def _progress(desk: Desk, rater: Rater) -> dict[str, int]:
    return asdict(desk.store.progress(rater.rater_id))


@contextmanager
def _known_to_store() -> Iterator[None]:
    try:
        yield
    except NotFound as error:  # the cookie is older than the store
        raise HTTPException(401, str(error)) from error


def _claimed_task(claimed: Claim) -> dict[str, Any]:
    places = zip(claimed.shown_order, claimed.task.image_ids, strict=True)
    return _task(claimed.task, [image_id for _, image_id in sorted(places)]) | {"lease_expires_at": claimed.lease_expires_at}


def _task(task: Task, image_ids: Sequence[str]) -> dict[str, Any]:
    images = [{"image_id": image_id, "url": f"/api/v1/images/{image_id}"} for image_id in image_ids]
    return {"task_id": task.task_id, "kind": task.kind, "prompt": task.prompt, "images": images}
