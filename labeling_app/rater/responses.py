"""JSON answers of the HTTP interface to raters and other clients.

FastAPI checks answers with these models and describes them in `/api/v1/openapi.json`.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from data.comparisons import SHOWN_WITHOUT_PROMPT, Axis
from data.feedback import Progress, Role, Task
from data.kinds.registry import AnyAnswer, TaskKind
from labeling_app.app_state import image_url
from labeling_app.campaign.wording import wording_html
from labeling_app.reasons import OfferedReason
from labeling_app.reasons import Question as ReasonsQuestion
from labeling_app.words import Words


def _is_none(value: object) -> bool:
    return value is None


class Settings(BaseModel, frozen=True):
    """Facts that a page needs before anyone has signed in."""

    needs_password: bool
    paused: bool
    """Whether the whole campaign is paused."""
    guideline_version: str
    guideline_versions: dict[str, str]
    """The versions in other languages that the guidelines are written in, by language."""


class PageWords(BaseModel, frozen=True):
    """The words of the page."""

    preferred: str | None
    """Language of raters who have not chosen one; null is their browser's."""
    languages: dict[str, Words]
    """The words by language; `{name}` in a word stands for what the page puts there."""
    reasons: dict[ReasonsQuestion, list[OfferedReason]]
    """Reasons that raters choose from, by what is asked; none where nothing is to be asked."""


NoTask = Literal[
    "campaign_paused",
    "rater_paused",
    "training_first",
    "all_labeled",
    "share_given",
    "taken",
    "not_for_you",
]
"""Reasons why a rater gets no task."""


class Identity(BaseModel, frozen=True):
    """The rater who is signed in."""

    rater_id: str
    name: str
    session_id: str
    role: Role


class Me(Identity, frozen=True):
    """The rater who is signed in, and whether they are trained."""

    trained: bool
    """Whether no training item is left for them."""


class ShownImage(BaseModel, frozen=True):
    """An image of a task."""

    image_id: str
    url: str | None
    """Null where the image was reported, in a history."""


class Question(BaseModel, frozen=True):
    """Question of a comparison."""

    axis: Axis
    html: str
    """The words of the axis, from Markdown without HTML of its own."""
    text: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """A longer text than the prompt; absent where there is none."""
    reference: Annotated[ShownImage | None, Field(exclude_if=_is_none)] = None
    """The image that shows what the prompt describes; absent where there is none."""
    steps: Annotated[int | None, Field(exclude_if=_is_none)] = None
    """5 where much better is told from slightly better; absent where it is not."""


class TaskToShow(BaseModel, frozen=True):
    """A task to answer."""

    task_id: str
    kind: TaskKind
    prompt: str
    """Empty where raters are not told it: on the axes appeal and count."""
    images: tuple[ShownImage, ...]
    """In the order in which they are to be shown; one, where it is the axis count."""
    question: Annotated[Question | None, Field(exclude_if=_is_none)] = None
    """Question of a comparison; absent for other kinds."""

    @classmethod
    def from_task(
        cls,
        task: Task,
        image_ids: Sequence[str],
        withheld: Collection[str] = (),
        *,
        wording: str | None = None,
        **more: object,
    ) -> Self:
        """Return the task with its images in this order; `more` has the fields of a subclass.

        `wording` has the words of a comparison's axis.
        """
        prompt = "" if task.axis in SHOWN_WITHOUT_PROMPT else task.prompt
        facts: dict[str, object] = {"task_id": task.task_id, "kind": task.kind, "prompt": prompt}
        if task.axis is not None:
            facts["question"] = _question(task, task.axis, wording, withheld)
        return cls.model_validate(facts | {"images": shown_images(image_ids, withheld)} | more)


class ClaimedTask(TaskToShow, frozen=True):
    """A task that is leased to the rater."""

    lease_expires_at: datetime
    """Until then nobody else is given the rater's place; a later answer is still accepted."""
    was_aside: Annotated[bool, Field(exclude_if=lambda was_aside: not was_aside)] = False
    """Whether the rater had put it aside; absent where they had not."""


class Claimed(BaseModel, frozen=True):
    """Answer to a claim."""

    task: ClaimedTask | None
    """Null when there is nothing for this rater now."""
    code: Annotated[NoTask | None, Field(exclude_if=_is_none)] = None
    """Why there is no task, for programs; absent where there is one."""
    reason: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """The same in words."""
    progress: Progress
    withdrawn: Annotated[list[str] | None, Field(exclude_if=_is_none)] = None
    """Those of `except` that must not be shown any more; absent where `except` was empty."""


class Lease(BaseModel, frozen=True):
    """A renewed lease."""

    lease_expires_at: datetime


class Saved(BaseModel, frozen=True):
    """Receipt of an answer that is on disk."""

    label_id: str
    revision: int


class Undone(BaseModel, frozen=True):
    """Answer to an undo."""

    task: TaskToShow | None
    """The task whose label was removed; null when there was nothing to undo."""
    answer: AnyAnswer | None
    """The answer that was removed; null when there was none."""
    progress: Progress


class HistoryEntry(TaskToShow, frozen=True):
    """A label of the rater."""

    answer: AnyAnswer
    submitted_at: datetime
    revision: int


class History(BaseModel, frozen=True):
    """Labels of the rater, newest first."""

    labels: list[HistoryEntry]
    older: int | None
    """The `before` of the labels that come next; null after the last one."""


class AsideEntry(TaskToShow, frozen=True):
    """A task that the rater has put aside."""

    aside_at: datetime


class Aside(BaseModel, frozen=True):
    """Tasks that the rater has put aside and can answer still, oldest first."""

    tasks: list[AsideEntry]


class TrainingQuestion(BaseModel, frozen=True):
    """A training item to answer."""

    item_id: str
    kind: TaskKind
    prompt: str
    images: tuple[ShownImage, ...]


class Training(BaseModel, frozen=True):
    """The training items that the rater has not answered yet."""

    items: list[TrainingQuestion]
    done: bool


class TrainingFeedback(BaseModel, frozen=True):
    """Feedback on an answer to a training item."""

    correct: bool
    explanation: str
    left: int
    """Items that the rater has not answered yet."""


class RaterProgress(BaseModel, frozen=True):
    """Progress of the labeling, with the tasks that a page must not show any more."""

    mine: int
    """Labels of the rater."""
    done: int
    """Labels by people, at most as many per task as are wanted."""
    total: int
    """Labels wanted."""
    seconds_left: float | None
    """Active time that the rest takes all raters together; null when that is unknown."""
    hold: int
    """Tasks that a page should hold now at most, the one on the screen included."""
    withdrawn: Annotated[list[str] | None, Field(exclude_if=_is_none)] = None
    """Those of `held` that must not be shown any more; absent where `held` was empty."""

    @classmethod
    def from_progress(cls, progress: Progress, withdrawn: list[str] | None) -> Self:
        """Return the store's progress with these withdrawn tasks."""
        return cls(**asdict(progress), withdrawn=withdrawn)


class HealthNow(BaseModel, frozen=True):
    """State of the app, for monitoring; counts since its start."""

    status: str
    """`ok`, or what is wrong."""
    writes_refused: int
    writes_failed: int
    last_export: datetime | None
    export_error: str | None
    free_disk_bytes: int


def shown_images(
    image_ids: Sequence[str], withheld: Collection[str] = ()
) -> tuple[ShownImage, ...]:
    """Return the images with their addresses; those that are `withheld` have none."""
    return tuple(
        ShownImage(image_id=image_id, url=None if image_id in withheld else image_url(image_id))
        for image_id in image_ids
    )


def _question(task: Task, axis: Axis, wording: str | None, withheld: Collection[str]) -> Question:
    is_detailed = axis == "detailed"
    reference = () if task.reference is None else shown_images([task.reference], withheld)
    return Question(
        axis=axis,
        html=wording_html(wording or "", task.subject or ""),
        text=task.subject if is_detailed else None,
        reference=reference[0] if reference else None,
        steps=task.steps,
    )


def in_shown_order(task: Task, shown_order: Sequence[int]) -> list[str]:
    """Return the task's images in the order in which they are shown."""
    return [image_id for _, image_id in sorted(zip(shown_order, task.image_ids, strict=True))]
