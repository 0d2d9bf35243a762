"""HTTP interface, version 1, in JSON, for the page and for any other client.

`labeling_app.rater.responses` has the models of answers, `labeling_app.refusals` the refusals.
"""

import asyncio
from collections.abc import Collection
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field, field_validator

from data.errors import PictuneError
from data.feedback import Account, SentAnswer, Submission
from data.ids import Identifier
from data.kinds.kind import Answer
from data.kinds.registry import AnyAnswer, TaskKind, is_skip, kind_of, reported_images
from data.store.views.overview import latest_labels
from labeling_app.app_state import APP_VERSION, AppState, Health, State
from labeling_app.rater.images import bare_png, encoded
from labeling_app.rater.marks import check_marks
from labeling_app.rater.no_task import (
    pause_if_below,
    reason_for_none,
    reason_to_wait,
    training_left,
)
from labeling_app.rater.responses import (
    NO_TASK,
    Claimed,
    ClaimedTask,
    Me,
    PageWords,
    RaterProgress,
    Saved,
    Settings,
    TaskToShow,
    Training,
    TrainingFeedback,
    TrainingQuestion,
    Undone,
    shown_images,
)
from labeling_app.reasons import LONGEST as LONGEST_REASON
from labeling_app.reasons import offered_reasons
from labeling_app.refusals import may_refuse
from labeling_app.sign_in import (
    Identity,
    Login,
    Present,
    SignedIn,
    present,
    sign_in,
    sign_out,
)

MOST_HELD = 30
"""Largest number of tasks that a page may hold, or be sending answers to, at a claim."""

OF_A_BODY = (400, 413, 422)
"""Statuses of refused bodies."""

PNG = {"schema": {"type": "string", "format": "binary"}}
"""OpenAPI schema of an image."""

router = APIRouter(responses=may_refuse(403, 503))


class ClaimBody(BaseModel, frozen=True, extra="forbid"):
    """Body of a claim."""

    kind: TaskKind | None = None
    """Only tasks of this kind."""
    excluding: Annotated[tuple[Identifier, ...], Field(alias="except", max_length=MOST_HELD)] = ()
    """Tasks that the page already holds or has answered; the claim returns another task."""
    wanted: Identifier | None = None
    """Task that the claim returns if the rater holds it."""
    aside: Identifier | None = None
    """Task put aside that the rater wants back."""


class SubmissionBody(SentAnswer, frozen=True, extra="forbid"):
    """Body of a submission; the cookie says who sends it."""

    language: Annotated[str, Field(max_length=35)] | None = None
    """Language of the page, such as `de`; the label keeps the version of the guidelines in it."""

    @field_validator("answer")
    @classmethod
    def _gives_reasons(cls, answer: Answer) -> Answer:
        kind, reason = kind_of(answer), (answer.reason or "").strip()
        names_none = kind.names_unsafe_images and not reported_images(answer, ())
        if names_none and "unsafe" in reason.casefold():
            raise ValueError(
                "says that an image is unsafe but not which; "
                "give the ids of such images as `unsafe`"
            )
        if is_skip(answer) and kind.skips_with_reason and not reason:
            raise ValueError("a skip or report without a reason; give why as `reason`")
        if len(reason) > LONGEST_REASON:
            raise ValueError(
                f"a reason of {len(reason)} characters; give {LONGEST_REASON} at most, "
                "and the rest as `comment`"
            )
        return answer


class TrainingBody(BaseModel, frozen=True, extra="forbid"):
    """Body of an answer to a training item."""

    item_id: Identifier
    answer: AnyAnswer


@router.get("/api/v1/settings")
def settings(state: State) -> Settings:
    """Return the facts that a page needs before anyone has signed in."""
    return Settings(
        needs_password=not state.config.open,
        guideline_version=state.guidelines.version(),
        guideline_versions={
            language: state.guidelines.version(language)
            for language in state.guidelines.translations
        },
        marks=state.tasks.marks,
        mark_aspects=state.tasks.aspects,
    )


@router.get("/api/v1/words")
def words(state: State) -> PageWords:
    """Return the words of the page in all languages; missing words are English."""
    return PageWords(
        preferred=state.config.language,
        languages=dict(state.words),
        reasons=offered_reasons(state.config.reasons, state.words),
    )


@router.post("/api/v1/login", responses=may_refuse(*OF_A_BODY, 401, 429))
async def login(request: Request, body: Login, state: State) -> Identity:
    """Sign in and set the cookie."""
    return await asyncio.get_running_loop().run_in_executor(
        state.signing_in, sign_in, request, state, body
    )


@router.post("/api/v1/logout", status_code=204, responses=may_refuse(413))
def logout(request: Request, state: State) -> None:
    """Sign this browser out; its cookie and any copy of the cookie become invalid."""
    sign_out(request, state)


@router.get("/api/v1/me", responses=may_refuse(401))
def me(account: Present, rater: SignedIn, state: State) -> Me:
    """Return the rater who is signed in."""
    return Me(
        rater_id=account.rater_id,
        name=account.name,
        session_id=rater.session_id,
        role=account.role,
        trained=not training_left(state, account),
    )


@router.post("/api/v1/claim", response_model=Claimed, responses=may_refuse(*OF_A_BODY, 401))
def claim(body: ClaimBody, state: State, rater: SignedIn) -> Response:
    """Hand out the next task, or a task that the rater already holds.

    Without a task, `task` is null, and `code` and `reason` say why.
    """
    # Raters wait for claims and submissions: each is one transaction on one thread, with the
    # check of the sign-in and its answer.
    with state.store.database.write():
        account = present(rater, state)
        code = reason_to_wait(state, account)
        claimed = None
        if code is None and body.aside is not None:
            claimed = state.store.own_work.take_back(account.rater_id, body.aside)
            code = None if claimed else "taken"
        elif code is None:
            claimed = state.store.claim(
                account.rater_id, kind=body.kind, excluding=body.excluding, wanted=body.wanted
            )
        # "everything is labeled" must be true now, so the progress must not come from a cache
        progress = state.store.progress(account.rater_id, newest=claimed is None)
        withdrawn = _withdrawn(state, body.excluding)
    if claimed is None and code is None:
        code = reason_for_none(progress)
    return _json(
        Claimed(
            task=None if claimed is None else ClaimedTask.of(claimed),
            code=code,
            reason=None if code is None else NO_TASK[code],
            progress=progress,
            withdrawn=withdrawn,
        )
    )


@router.post(
    "/api/v1/submissions",
    status_code=201,
    response_model=Saved,
    responses=may_refuse(*OF_A_BODY, 401, 404)
    | {200: {"model": Saved, "description": "received before"}},
)
def submit(body: SubmissionBody, state: State, rater: SignedIn) -> Response:
    """Store an answer; reply after it is on disk: 201, or 200 if it was stored before."""
    submission = Submission(
        **{name: value for name, value in body if name != "language"},
        rater_id=rater.rater_id,
        session_id=rater.session_id,
        app_version=APP_VERSION,
        guideline_version=state.guidelines.version(body.language),
    )
    with state.store.database.write():
        present(rater, state)
        receipt = state.store.submit(submission)
        if receipt.created:  # what was stored before stays, whatever the campaign asks for now
            check_marks(body.answer, state.tasks)
    bound = state.config.gold_bound
    if receipt.created and bound is not None:
        pause_if_below(state.store, rater.rater_id, bound)
    saved = Saved(label_id=receipt.label_id, revision=receipt.revision)
    return _json(saved, 201 if receipt.created else 200)


@router.post("/api/v1/undo", responses=may_refuse(401, 413))
def undo(state: State, account: Present) -> Undone:
    """Remove the rater's last label; the next claim hands out its task again.

    `task` is null when there is nothing to undo.
    """
    with state.store.database.write():
        last = latest_labels(state.store, rater_id=account.rater_id, limit=1)
        task = state.store.undo(account.rater_id)
    # another undo may have come first: then the label belongs to another task
    answer = next((one.answer for one in last if one.task == task), None)
    return Undone(
        task=None if task is None else TaskToShow.from_task(task, range(len(task.image_ids))),
        answer=answer,
    )


@router.get("/api/v1/training", responses=may_refuse(401))
def training(state: State, account: Present) -> Training:
    """Return the training items that the rater has not answered yet."""
    left = training_left(state, account)
    tasks = [item.task for item in state.training if item.task.task_id in left]
    items = [
        TrainingQuestion(
            item_id=task.task_id,
            kind=task.kind,
            prompt=task.prompt,
            images=shown_images(task.image_ids),
        )
        for task in tasks
    ]
    return Training(items=items, done=not left)


@router.post("/api/v1/training", responses=may_refuse(*OF_A_BODY, 401, 404))
def train(body: TrainingBody, state: State, account: Present) -> TrainingFeedback:
    """Return whether an answer to a training item is right, and why; it is not a label."""
    item = next((item for item in state.training if item.task.task_id == body.item_id), None)
    if item is None:
        raise HTTPException(404, "no such training item; ask for the items first")
    correct = item.is_correct(body.answer)
    state.store.raters.add_training_answer(account.rater_id, body.item_id, is_correct=correct)
    return TrainingFeedback(
        correct=correct,
        explanation=item.explanation,
        left=len(training_left(state, account)),
    )


@router.get("/api/v1/progress", responses=may_refuse(401, 422))
def progress(
    state: State,
    account: Present,
    held: Annotated[tuple[Identifier, ...], Query(max_length=MOST_HELD)] = (),
) -> RaterProgress:
    """Return the numbers of labels done, by this rater and by all, and of wanted labels."""
    now = state.store.progress(account.rater_id)
    return RaterProgress(**asdict(now), withdrawn=_withdrawn(state, held))


@router.get(
    "/api/v1/images/{image_id}",
    response_class=Response,
    responses=may_refuse(401, 404, 410) | {200: {"content": {"image/png": PNG}}},
)
async def image(image_id: str, state: State, account: Present) -> Response:
    """Return an image of the campaign as PNG, without metadata; reported images to admins only."""
    content = await asyncio.get_running_loop().run_in_executor(
        state.decoding, _png, state, account, image_id
    )
    # the id is a hash of the content, so a browser may cache it forever
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(content, media_type="image/png", headers=kept)


@router.get(
    "/health",
    responses={503: {"model": Health, "description": "the store cannot be read"}},
)
def health(state: State, response: Response) -> Health:
    """Return the state of the app; the status is 503 if the store cannot be read."""
    status = "ok"
    try:
        state.store.progress()
    except PictuneError:
        status, response.status_code = "the store cannot be read", 503
    now = {"status": status, "free_disk_bytes": state.free_disk_bytes}
    return state.health.model_copy(update=now)


def _json(content: BaseModel, status: int = 200) -> Response:
    # FastAPI would validate it again, on another thread
    return Response(content.model_dump_json(), status, media_type="application/json")


def _png(state: AppState, account: Account, image_id: str) -> bytes:
    path = state.image_path(image_id)
    if (
        path is not None
        and account.role != "admin"
        and state.store.reports.withheld_images([image_id])
    ):
        raise HTTPException(
            410,
            "the image was reported and is shown to nobody",
            headers={"Cache-Control": "no-store"},
        )
    return encoded(path, bare_png)


def _withdrawn(state: AppState, held: Collection[str]) -> list[str] | None:
    """Return the tasks of `held` that must not be shown any more; None if `held` is empty."""
    return state.store.reports.withheld_tasks(held) if held else None
