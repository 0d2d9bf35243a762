"""JSON answers of the HTTP interface to raters and other clients.

FastAPI checks answers with these models and describes them in `/api/v1/openapi.json`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Literal, Self

from markdown_it import MarkdownIt
from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass

from data.comparisons import WITHOUT_PROMPT, Axis
from data.feedback import Claim, Progress, Task
from data.kinds.registry import AnyAnswer, TaskKind
from data.store.views.overview import GivenLabel
from labeling_app.app_state import image_url
from labeling_app.reasons import OfferedReason
from labeling_app.reasons import Question as ReasonsQuestion
from labeling_app.sign_in import Identity
from labeling_app.words import Words

OPTIONAL = Field(exclude_if=lambda value: value is None)
"""Marks a field that is absent where it has no value."""

_MARKDOWN = MarkdownIt("commonmark", {"html": False})


class Settings(BaseModel, frozen=True):
    """Settings that a page needs before the sign-in."""

    needs_password: bool
    guideline_version: str
    guideline_versions: dict[str, str]
    """Versions of the translated guidelines, by language."""
    marks: Literal["off", "optional", "required"]
    """Marks on what is wrong in an image that raters find bad or report."""
    mark_aspects: tuple[str, ...]
    """Names for what is wrong at a mark."""


class PageWords(BaseModel, frozen=True):
    """The words of the page."""

    preferred: str | None
    """Language of raters who have not chosen a language; null means the browser's language."""
    languages: dict[str, Words]
    """The words by language; `{name}` in a word is a placeholder."""
    reasons: dict[ReasonsQuestion, list[OfferedReason]]
    """Offered reasons by question; a question without reasons is not asked."""


NO_TASK: Mapping[str, str] = {
    "campaign_paused": "the campaign is paused; your answers are kept, come back later",
    "rater_paused": "you have been paused; ask the people who run this campaign",
    "training_first": "the training comes first",
    "all_labeled": "everything is labeled",
    "taken": "others have answered that task meanwhile, or an image of it was reported",
    "not_for_you": "the remaining tasks are reserved for other raters",
}
"""Texts of the reasons why a rater gets no task, by code for programs."""


class Me(Identity, frozen=True):
    """The rater who is signed in, and whether they are trained."""

    trained: bool
    """Whether the rater has answered all training items."""


class ShownImage(BaseModel, frozen=True):
    """An image of a task."""

    image_id: str
    url: str | None
    """Address of the image; null for a reported image in a history."""


class Question(BaseModel, frozen=True):
    """Question of a comparison."""

    axis: Axis
    html: str
    """Wording of the axis, rendered from Markdown; raw HTML is escaped."""


class TaskToShow(BaseModel, frozen=True):
    """A task to answer."""

    task_id: str
    kind: TaskKind
    prompt: str
    """The prompt; empty on the axis appeal, where it is hidden."""
    images: tuple[ShownImage, ...]
    """Images in the order on the screen."""
    question: Annotated[Question | None, OPTIONAL] = None
    """Question of a comparison; absent for other kinds."""

    @classmethod
    def from_task(
        cls,
        task: Task,
        shown_order: Sequence[int],
        withheld: Collection[str] = (),
        *,
        wording: str | None = None,
        **more: object,
    ) -> Self:
        """Return the task with its images in the order shown; `more` has a subclass's own fields.

        `wording` is the wording of a comparison's axis.
        """
        places = sorted(zip(shown_order, task.image_ids, strict=True))
        facts: dict[str, object] = {
            "task_id": task.task_id,
            "kind": task.kind,
            "prompt": "" if task.axis == WITHOUT_PROMPT else task.prompt,
            "images": shown_images([image_id for _, image_id in places], withheld),
        }
        if task.axis is not None:
            facts["question"] = Question(axis=task.axis, html=wording_html(wording or ""))
        return cls.model_validate(facts | more)

    @classmethod
    def of(cls, given: Claim | GivenLabel, withheld: Collection[str] = ()) -> Self:
        """Return the task of a claim or a label; a subclass copies its own fields from there."""
        own = cls.model_fields.keys() - TaskToShow.model_fields.keys()
        more = {name: getattr(given, name) for name in own}
        return cls.from_task(given.task, given.shown_order, withheld, wording=given.wording, **more)


class ClaimedTask(TaskToShow, frozen=True):
    """A task that is leased to the rater."""

    lease_expires_at: datetime
    """Time until which the rater's place is reserved; a later answer is still accepted."""
    was_aside: Annotated[bool, Field(exclude_if=lambda was_aside: not was_aside)] = False
    """True if the rater had put the task aside; otherwise absent."""


class Claimed(BaseModel, frozen=True):
    """Answer to a claim."""

    task: ClaimedTask | None
    """The task; null if there is no task for this rater now."""
    code: Annotated[str | None, OPTIONAL, Field(json_schema_extra={"enum": list(NO_TASK)})] = None
    """Code of the reason for no task; absent with a task."""
    reason: Annotated[str | None, OPTIONAL] = None
    """Text of the reason for no task; absent with a task."""
    progress: Progress
    withdrawn: Annotated[list[str] | None, OPTIONAL] = None
    """Tasks of `except` that must not be shown any more; absent if `except` was empty."""


class Saved(BaseModel, frozen=True):
    """Receipt of an answer that is on disk."""

    label_id: str
    revision: int


class Undone(BaseModel, frozen=True):
    """Answer to an undo."""

    task: TaskToShow | None
    """The task whose label was removed; null if there was nothing to undo."""
    answer: AnyAnswer | None
    """The removed answer; null if there was nothing to undo."""


class HistoryEntry(TaskToShow, frozen=True):
    """A label of the rater."""

    answer: AnyAnswer
    submitted_at: datetime
    revision: int


class History(BaseModel, frozen=True):
    """Labels of the rater, newest first."""

    labels: list[HistoryEntry]
    older: int | None
    """Value of `before` for the next page; null on the last page."""


class AsideEntry(TaskToShow, frozen=True):
    """A task that the rater has put aside."""

    aside_at: datetime


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
    """Number of training items that the rater has not answered yet."""


@dataclass(frozen=True)
class RaterProgress(Progress):
    """Progress of the labeling, with the tasks that a page must not show any more."""

    withdrawn: Annotated[list[str] | None, OPTIONAL] = None
    """Tasks of `held` that must not be shown any more; absent if `held` was empty."""


def shown_images(
    image_ids: Sequence[str], withheld: Collection[str] = ()
) -> tuple[ShownImage, ...]:
    """Return the images with their addresses; a withheld image has no address."""
    return tuple(
        ShownImage(image_id=image_id, url=None if image_id in withheld else image_url(image_id))
        for image_id in image_ids
    )


@lru_cache(maxsize=256)
def wording_html(text: str) -> str:
    """Return an axis's Markdown as HTML; raw HTML is escaped."""
    return str(_MARKDOWN.render(text))
