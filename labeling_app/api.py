"""The HTTP interface, version 1: the page uses it, and so may any other client. Bodies and answers are JSON.

Refusals are 401 (not signed in), 403 (not allowed, or not sent by a page of ours), 404 (no such task or image), 410 (an image that was
reported), 413 (body too large), 422 (bad body, with field and reason), 429 (too many attempts to sign in) and 503 (not saved, send it
again); their body is `{"detail": "..."}` or, for a bad body, `{"detail": [{"field", "reason"}, ...]}`.
"""

import asyncio
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, Discriminator, Field, NonNegativeInt, Tag, field_validator
from pydantic_core import to_json

from data.errors import PictuneError
from data.feedback import (
    Account,
    BinaryAnswer,
    Claim,
    Identifier,
    InputMode,
    RankingAnswer,
    Submission,
    Task,
    TaskKind,
)
from data.overview import GivenLabel, latest_labels
from labeling_app.desk import APP_VERSION, Desk, TheDesk, image_url
from labeling_app.gold_bound import pause_if_below
from labeling_app.pictures import bare_png
from labeling_app.sign_in import Identity, Login, Present, SignedIn, present, sign_in, sign_out

MOST_HELD = 30
"""Tasks that a page may hold, or have answers to on the way, besides the one that it asks for."""

router = APIRouter()


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
    excluding: Annotated[tuple[Identifier, ...], Field(alias="except", max_length=MOST_HELD)] = ()
    """Tasks that the page holds already or has answered: another one is wanted."""


class LeaseBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a renewal."""

    task_id: Identifier


class SubmissionBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a submission; who sends it is known from the cookie."""

    submission_id: Identifier
    """Made by the client, new for each answer: sending it again is safe."""
    task_id: Identifier
    answer: AnyAnswer
    time_on_task_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    active_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    input_mode: InputMode | None = None

    @field_validator("answer")
    @classmethod
    def _names_what_is_unsafe(
        cls, answer: BinaryAnswer | RankingAnswer
    ) -> BinaryAnswer | RankingAnswer:
        if (
            isinstance(answer, RankingAnswer)
            and "unsafe" in (answer.reason or "").casefold()
            and not answer.unsafe
        ):
            raise ValueError(
                "says that an image is unsafe but not which; give the ids of such images as `unsafe`"
            )
        return answer


class UndoBody(BaseModel, frozen=True, extra="forbid"):
    """Body of an undo: empty."""


class TrainingBody(BaseModel, frozen=True, extra="forbid"):
    """Body of an answer to a training item."""

    item_id: Identifier
    answer: AnyAnswer


@router.get("/api/v1/settings")
def settings(desk: TheDesk) -> dict[str, Any]:
    """What a page must know before anyone has signed in."""
    return {
        "needs_password": not desk.is_open,
        "paused": desk.store.is_paused,
        "guideline_version": desk.guidelines.version,
    }


@router.post("/api/v1/login")
async def login(request: Request, body: Login, desk: TheDesk) -> Identity:
    """Signs in and sets the cookie."""
    return await asyncio.get_running_loop().run_in_executor(
        desk.signing_in, sign_in, request, desk, body
    )


@router.post("/api/v1/logout", status_code=204)
def logout(request: Request, desk: TheDesk) -> None:
    """Signs this browser out: its cookie, and any copy of it, opens nothing any more."""
    sign_out(request, desk)


@router.get("/api/v1/me")
def me(account: Present, rater: SignedIn, desk: TheDesk) -> dict[str, Any]:
    """Who is signed in."""
    identity = {
        "rater_id": account.rater_id,
        "name": account.name,
        "session_id": rater.session_id,
        "role": account.role,
    }
    return identity | {"trained": not _training_left(desk, account)}


@router.post("/api/v1/claim", response_model=dict[str, Any])
def claim(body: ClaimBody, desk: TheDesk, rater: SignedIn) -> Response:
    """Hands out the next task, or one that the rater holds already; `task` is null when there is none, with the reason."""
    # Claims and submissions are what raters wait for: each is one transaction on one thread, with the check of the sign-in and its answer.
    with desk.store.database.write():
        account = present(rater, desk)
        reason = _reason_to_wait(desk, account)
        claimed = (
            None
            if reason
            else desk.store.claim(account.rater_id, kind=body.kind, excluding=body.excluding)
        )
        progress = _progress(
            desk, account.rater_id, newest=claimed is None
        )  # "all done" is said of this moment
        withdrawn = _withdrawn(desk, body.excluding)
    if claimed is not None:
        return _json({"task": _claimed_task(claimed), "progress": progress} | withdrawn)
    if not reason:
        all_done = progress["done"] >= progress["total"]
        reason = (
            "everything is labeled"
            if all_done
            else "the tasks that are left are not for you or with others"
        )
    return _json({"task": None, "reason": reason, "progress": progress} | withdrawn)


@router.post("/api/v1/leases")
def renew(body: LeaseBody, desk: TheDesk, account: Present) -> dict[str, Any]:
    """Prolongs the hold on a task; 404 when it is not held any more (an answer is taken all the same)."""
    return {"lease_expires_at": desk.store.renew(account.rater_id, body.task_id)}


@router.post("/api/v1/submissions", status_code=201, response_model=dict[str, Any])
def submit(body: SubmissionBody, desk: TheDesk, rater: SignedIn) -> Response:
    """Stores an answer; the reply is sent once it is on disk: 201, or 200 if it had been received before."""
    submission = Submission(
        submission_id=body.submission_id,
        task_id=body.task_id,
        rater_id=rater.rater_id,
        answer=body.answer,
        time_on_task_ms=body.time_on_task_ms,
        active_ms=body.active_ms,
        input_mode=body.input_mode,
        session_id=rater.session_id,
        app_version=APP_VERSION,
        guideline_version=desk.guidelines.version,
    )
    with desk.store.database.write():
        present(rater, desk)
        receipt = desk.store.submit(submission)
    if receipt.created and desk.gold_bound is not None:
        pause_if_below(desk.store, rater.rater_id, desk.gold_bound)
    return _json(
        {"label_id": receipt.label_id, "revision": receipt.revision},
        201 if receipt.created else 200,
    )


@router.post("/api/v1/undo")
def undo(_body: UndoBody, desk: TheDesk, account: Present) -> dict[str, Any]:
    """Takes back the rater's last label; the next claim hands out its task again. `task` is null when there is nothing to undo."""
    task = desk.store.undo(account.rater_id)
    return {
        "task": None if task is None else _task(task, task.image_ids),
        "progress": _progress(desk, account.rater_id),
    }


@router.get("/api/v1/history")
def history(
    desk: TheDesk, account: Present, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """The rater's last labels, newest first; an answer to one of their tasks is an edit."""
    given = latest_labels(desk.store, rater_id=account.rater_id, limit=limit)
    withheld = desk.store.reports.withheld_images(
        {image_id for label in given for image_id in label.task.image_ids}
    )
    return {"labels": [_given(label, withheld) for label in given]}


@router.get("/api/v1/training")
def training(desk: TheDesk, account: Present) -> dict[str, Any]:
    """The training items that the rater has not answered yet."""
    left = _training_left(desk, account)
    items = [item.task for item in desk.training if item.task.task_id in left]
    return {
        "items": [{"item_id": task.task_id} | _question(task, task.image_ids) for task in items],
        "done": not left,
    }


@router.post("/api/v1/training")
def train(body: TrainingBody, desk: TheDesk, account: Present) -> dict[str, Any]:
    """Says whether an answer to a training item is right, and why; it is not a label."""
    item = next((item for item in desk.training if item.task.task_id == body.item_id), None)
    if item is None:
        raise HTTPException(404, "no such training item; ask for the items first")
    correct = item.is_correct(body.answer)
    desk.store.raters.add_training_answer(account.rater_id, body.item_id, is_correct=correct)
    return {
        "correct": correct,
        "explanation": item.explanation,
        "left": len(_training_left(desk, account)),
    }


@router.get("/api/v1/progress")
def progress(
    desk: TheDesk,
    account: Present,
    held: Annotated[tuple[Identifier, ...], Query(max_length=MOST_HELD)] = (),
) -> dict[str, Any]:
    """Labels of this rater (`mine`), of all raters (`done`) and wanted (`total`), and how long the rest will take (`seconds_left`)."""
    return _progress(desk, account.rater_id) | _withdrawn(desk, held)


@router.get("/api/v1/images/{image_id}")
async def image(image_id: str, desk: TheDesk, account: Present) -> Response:
    """One image of the campaign as PNG, without metadata; of those that were reported, admins alone get it."""
    content = await asyncio.get_running_loop().run_in_executor(
        desk.decoding, _png, desk, account, image_id
    )
    # the id names the content, so a browser may keep it for good
    return Response(
        content,
        media_type="image/png",
        headers={"Cache-Control": "private, max-age=31536000, immutable"},
    )


@router.get("/health")
def health(desk: TheDesk, response: Response) -> dict[str, Any]:
    """Counts of writes refused and failed since the start, the last export, and the room left on the disk; 503 without a store."""
    status = "ok"
    try:
        desk.store.progress()
    except PictuneError:
        status, response.status_code = "the store cannot be read", 503
    return {
        "status": status,
        **asdict(desk.health),
        "free_disk_bytes": shutil.disk_usage(desk.folder).free,
    }


def _json(content: dict[str, Any], status: int = 200) -> Response:
    # FastAPI would check and write it out in two more steps
    return Response(to_json(content), status, media_type="application/json")


def _progress(desk: Desk, rater_id: str, *, newest: bool = False) -> dict[str, Any]:
    return asdict(desk.store.progress(rater_id, newest=newest))


def _png(desk: Desk, account: Account, image_id: str) -> bytes:
    path = desk.image_path(image_id)
    if path is None:
        raise HTTPException(404, "no such image")
    if account.role != "admin" and desk.store.reports.withheld_images([image_id]):
        raise HTTPException(
            410,
            "the image was reported and is shown to nobody",
            headers={"Cache-Control": "no-store"},
        )
    try:
        return bare_png(path)
    except (OSError, SyntaxError, ValueError) as error:  # of a broken PNG it is a SyntaxError
        raise HTTPException(404, "the image's file is missing or damaged") from error
    except PictuneError as error:
        raise HTTPException(404, "the image has too many pixels to be shown") from error


def _withdrawn(desk: Desk, held: Collection[str]) -> dict[str, list[str]]:
    """Those of the tasks that a page holds which must not be shown any more; nothing for a page that holds none."""
    return {"withdrawn": desk.store.reports.withheld_tasks(held)} if held else {}


def _reason_to_wait(desk: Desk, account: Account) -> str | None:
    if desk.store.is_paused:
        return "the campaign is paused; your answers are kept, come back later"
    if account.status == "paused":
        return "you have been paused; ask the people who run this campaign"
    if _training_left(desk, account):
        return "the training comes first"
    return None


def _training_left(desk: Desk, account: Account) -> set[str]:
    if not desk.training:
        return set()
    withheld = desk.store.reports.withheld_images(
        {image_id for item in desk.training for image_id in item.task.image_ids}
    )
    items = {
        item.task.task_id for item in desk.training if withheld.isdisjoint(item.task.image_ids)
    }
    return items - desk.store.raters.trained(account.rater_id)


def _claimed_task(claimed: Claim) -> dict[str, Any]:
    return _task(claimed.task, _as_shown(claimed.task, claimed.shown_order)) | {
        "lease_expires_at": claimed.lease_expires_at
    }


def _given(label: GivenLabel, withheld: Collection[str]) -> dict[str, Any]:
    answer = label.answer.model_dump(exclude={"kind"}, exclude_none=label.answer.kind == "binary")
    about = {"answer": answer, "submitted_at": label.submitted_at, "revision": label.revision}
    task = _task(label.task, _as_shown(label.task, label.shown_order))
    task["images"] = [
        image | {"url": None} if image["image_id"] in withheld else image
        for image in task["images"]
    ]
    return task | about


def _as_shown(task: Task, shown_order: Sequence[int]) -> list[str]:
    return [image_id for _, image_id in sorted(zip(shown_order, task.image_ids, strict=True))]


def _task(task: Task, image_ids: Sequence[str]) -> dict[str, Any]:
    return {"task_id": task.task_id} | _question(task, image_ids)


def _question(task: Task, image_ids: Sequence[str]) -> dict[str, Any]:
    images = [{"image_id": image_id, "url": image_url(image_id)} for image_id in image_ids]
    return {"kind": task.kind, "prompt": task.prompt, "images": images}
