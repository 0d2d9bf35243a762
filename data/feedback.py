"""Tasks, submissions and claims: the input and output of the feedback store."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, NonNegativeInt, model_validator

from data.comparisons import Axis
from data.errors import PictuneError
from data.ids import Identifier
from data.kinds.registry import KINDS, AnyAnswer, TaskKind, check_answer

Source = Literal["human", "simulated", "imported", "adjudicator"]
"""Origins of labels. An adjudicator is an admin who decides a disputed task: the admin's label
takes no rater's place and overrides the raters' labels."""

Role = Literal["rater", "admin"]
Status = Literal["active", "paused", "left_out"]
Decision = Literal["kept", "removed"]
InputMode = Literal["key", "mouse", "touch"]


class NotFound(PictuneError):
    """The rater or the task does not exist."""


class SentAnswer(BaseModel, frozen=True, extra="forbid"):
    """An answer as a client sends it."""

    submission_id: Identifier
    """UUID that the sender makes for every answer; sending the same answer again changes
    nothing."""
    task_id: Identifier
    """The task answered."""
    answer: AnyAnswer
    """Answer to a task of the same kind; its JSON must have the key `kind`."""
    time_on_task_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    """Milliseconds from the moment when the images were visible to the answer."""
    active_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    """Part of `time_on_task_ms` during which the page was visible and the rater active."""
    input_mode: InputMode | None = None
    """Device with which the answer was entered."""


class Submission(SentAnswer, frozen=True, extra="forbid"):
    """One answer on its way into the store."""

    rater_id: Identifier
    """The rater who answers."""
    session_id: Identifier | None = None
    """The browser session."""
    app_version: Identifier | None = None
    """Version of the app that sent the answer."""
    guideline_version: Identifier | None = None
    """Version of the guidelines that the rater saw."""


class NewTask(BaseModel, frozen=True, extra="forbid"):
    """A task to be added to the store."""

    kind: TaskKind
    """`binary` has one image, `ranking` 2 to 100, `comparison` two."""
    prompt: str
    """The text shown with the images."""
    image_ids: tuple[Identifier, ...]
    """Images, each different."""
    overlap: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of people who answer the task; as many simulated raters may answer it as well."""
    priority: float = 0.0
    """Tasks of higher priority come first; tasks of equal priority come in random order."""
    gold: AnyAnswer | None = None
    """The right answer, if it is known."""
    gold_source: Identifier | None = None
    """Source of the right answer, such as its file. A task with a source is a check: it is hidden
    among the other tasks at the rate `ChecksConfig.gold_share`, is not in the queue and does not
    count as progress. A right answer without a source changes nothing about the task."""
    axis: Axis | None = None
    """Axis of a comparison; None for other kinds."""
    models: tuple[Identifier, ...] = ()
    """Names of the models that drew the images of a comparison; raters are never told."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        kind = KINDS[self.kind]
        if kind.has_axis != (self.axis is not None):
            raise ValueError("a comparison has an axis, and nothing else has one")
        if self.models and not kind.has_axis:
            raise ValueError(f"{kind.plural} compare no models")
        if kind.has_axis and len(self.models) != len(self.image_ids):
            raise ValueError(f"a {self.kind} of models names the model of each of its images")
        fewest, most = kind.images
        if not fewest <= len(self.image_ids) <= most:
            raise ValueError(
                f"a {self.kind} task takes {fewest} to {most} images, not {len(self.image_ids)}"
            )
        if len(set(self.image_ids)) != len(self.image_ids):
            raise ValueError("an image stands in the task twice")
        if self.gold is not None:
            check_answer(self.gold, self.kind, self.image_ids)
        elif self.gold_source is not None:
            raise ValueError("a source of the right answer, but no right answer")
        return self


class ChecksConfig(BaseModel, frozen=True, extra="forbid"):
    """Shares of the tasks that check the rater; they look like all other tasks."""

    gold_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the next task has a known right answer (`NewTask.gold_source`)."""
    repeat_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the next task repeats an earlier task of the rater, with its images in
    mirrored order."""


@dataclass(frozen=True)
class Account:
    """A rater as the app knows them."""

    rater_id: str
    name: str
    source: Source
    role: Role
    status: Status
    password_hash: str | None
    """Hash of the password; None for a rater without one."""


@dataclass(frozen=True)
class Task:
    """A task as raters see it, without its right answer. Its fields are described in `NewTask`."""

    task_id: str
    kind: TaskKind
    prompt: str
    image_ids: tuple[str, ...]
    axis: Axis | None = None


@dataclass(frozen=True)
class Claim:
    """A task that is leased to one rater."""

    task: Task
    lease_expires_at: datetime
    """Moment until which the rater's place is reserved; a later answer is still accepted."""
    shown_order: tuple[int, ...]
    """The place on the screen, from 0, of each image of `task.image_ids`."""
    shown_at: datetime
    wording: str | None = None
    """Wording of a comparison's question as the rater sees it, in Markdown."""
    aside_at: datetime | None = None
    """Time at which the rater put the task aside; None if the rater did not."""

    @property
    def was_aside(self) -> bool:
        """Whether the rater had put the task aside."""
        return self.aside_at is not None


@dataclass(frozen=True)
class Receipt:
    """Receipt for a label that is stored."""

    label_id: str
    revision: int
    created: bool
    """Whether the label is new; False if the store already had this submission."""


@dataclass(frozen=True)
class Progress:
    """Progress of the labeling by people, or by simulated raters."""

    mine: int
    """Live labels of the named rater; 0 if no rater was named."""
    done: int
    """Live labels by people, or by simulated raters, whichever were asked for; a task counts at
    most as many labels as its overlap."""
    total: int
    """Wanted labels: the sum of the overlaps of all tasks except checks."""
    hold: int = 2
    """Largest number of tasks that one rater should hold, the current one included; see
    `fair_hold`."""
