"""Tasks, submissions and claims: the values that go into and come out of the feedback store."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, model_validator

from data.comparisons import Axis
from data.errors import PictuneError
from data.ids import Identifier, Remark
from data.kinds.registry import KINDS, AnyAnswer, TaskKind, check_answer

Source = Literal["human", "simulated", "imported", "adjudicator"]
"""Givers of labels. An adjudicator is an admin who decides what raters disagree on: such a label
takes no rater's place, and where there is one it is the answer."""

Role = Literal["rater", "admin"]
Status = Literal["active", "paused"]
Decision = Literal["kept", "removed"]
InputMode = Literal["key", "mouse", "touch"]


class NotFound(PictuneError):
    """No such rater or task."""


class SentAnswer(BaseModel, frozen=True, extra="forbid"):
    """An answer as a client sends it."""

    submission_id: Identifier
    """Made by the sender, new for every answer (a UUID); sending the same again changes nothing."""
    task_id: Identifier
    """The task answered."""
    answer: AnyAnswer
    """The answer, of the task's kind; `kind` must be named in JSON."""
    time_on_task_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    """Milliseconds from the images being visible to the answer."""
    active_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    """Milliseconds of `time_on_task_ms` in which the page was visible and the rater not idle."""
    input_mode: InputMode | None = None
    """Device with which it was entered."""


class Submission(SentAnswer, frozen=True, extra="forbid"):
    """One answer on its way into the store."""

    rater_id: Identifier
    """The rater who answers."""
    session_id: Identifier | None = None
    """The browser session."""
    app_version: Identifier | None = None
    """Version of the app that sent it."""
    guideline_version: Identifier | None = None
    """Version of the guidelines that were shown."""


class NewTask(BaseModel, frozen=True, extra="forbid"):
    """A task to be added to the store."""

    kind: TaskKind
    """`binary` takes one image, `ranking` two to 100, `comparison` two, or one to count in."""
    prompt: str
    """The text shown with the images."""
    image_ids: tuple[Identifier, ...]
    """Images, each different."""
    overlap: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of people who are to answer it, and of simulated raters besides."""
    priority: float = 0.0
    """Higher is asked first; equal priorities come in random order."""
    gold: AnyAnswer | None = None
    """The right answer, if it is known."""
    gold_source: Identifier | None = None
    """Source of the right answer, such as its file. A task with a source is a check: hidden among
    the others at `ChecksConfig.gold_share`, not part of the queue and of nobody's progress. A known
    answer without a source leaves the task like all others."""
    axis: Axis | None = None
    """Question of a comparison; other kinds have none."""
    models: tuple[Identifier, ...] = ()
    """Names of the models that drew the images of a comparison, or of a ranking that compares
    models; raters are never told."""
    subject: Remark | None = None
    """On the axis count what is counted, on the axis detailed a longer text than the prompt."""
    reference: Identifier | None = None
    """On the axis detailed the image that shows what the prompt describes."""
    steps: Literal[3, 5] | None = None
    """Number of answers offered about the two images of a comparison; None is 3. Five tell much
    better from slightly better."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        kind = KINDS[self.kind]
        if kind.has_axis != (self.axis is not None):
            raise ValueError("a comparison has an axis, and nothing else has one")
        if self.models and not kind.takes_models:
            raise ValueError(f"{kind.plural} compare no models")
        if (self.models or kind.has_axis) and len(self.models) != len(self.image_ids):
            raise ValueError(f"a {self.kind} of models names the model of each of its images")
        if self.axis == "count" and not self.subject:
            raise ValueError("the axis count needs a subject, that which is counted")
        fewest, most = kind.number_of_images(self.axis)
        if not fewest <= len(self.image_ids) <= most:
            raise ValueError(
                f"a {self.kind} task takes {fewest} to {most} images, not {len(self.image_ids)}"
            )
        if len(set(self.image_ids)) != len(self.image_ids):
            raise ValueError("an image stands in the task twice")
        if self.gold is not None:
            check_answer(self.gold, self.kind, self.image_ids, self.axis)
        elif self.gold_source is not None:
            raise ValueError("a source of the right answer, but no right answer")
        return self


class LeaseConfig(BaseModel, frozen=True, extra="forbid"):
    """Length of a lease, the time for which a claimed task is kept for its rater."""

    shortest_s: NonNegativeFloat = 300.0
    """Seconds; no lease is shorter."""
    times_median: NonNegativeFloat = 12.0
    """A lease lasts this many times the median time on task of recent labels, if that is longer.

    The last of ten tasks that are answered without a connection is then still in time."""


class ChecksConfig(BaseModel, frozen=True, extra="forbid"):
    """Shares of tasks that check the rater, who cannot tell them from the others."""

    gold_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the next task is one whose right answer is known (`NewTask.gold_source`)."""
    repeat_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the next task is one that the rater answered a while ago, its images in
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
    share: float | None = None
    """Largest share of the wanted labels that the rater may give; None for any."""


@dataclass(frozen=True)
class Task:
    """A task as raters see it; whether it is gold stays hidden. Fields are as of `NewTask`."""

    task_id: str
    kind: TaskKind
    prompt: str
    image_ids: tuple[str, ...]
    axis: Axis | None = None
    subject: str | None = None
    reference: str | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Claim:
    """A task that is leased to one rater."""

    task: Task
    lease_expires_at: datetime
    """Moment until which nobody else is given the place; a later answer is still taken."""
    shown_order: tuple[int, ...]
    """The place on the screen, from 0, of each image of `task.image_ids`."""
    shown_at: datetime
    wording: str | None = None
    """The words of a comparison's axis, in Markdown, as they are shown."""
    aside_at: datetime | None = None
    """When the rater had put the task aside; None of a task that was not."""


@dataclass(frozen=True)
class Receipt:
    """The store has the label for good."""

    label_id: str
    revision: int
    created: bool
    """Whether the label is new; False when this submission had been received before."""


@dataclass(frozen=True)
class Progress:
    """Progress of the labeling by people, or by simulated raters."""

    mine: int
    """Live labels of the rater asked for; 0 when none was named."""
    done: int
    """Live labels in the places of the raters asked for, people or simulated ones; at most as many
    per task as are wanted."""
    total: int
    """Wanted labels: the sum of the overlaps of all tasks that are no checks."""
    seconds_left: float | None = None
    """Active seconds that the rest takes all raters together; None when too few labels tell."""
    hold: int = 2
    """Tasks that one rater should hold at most, the present one included: see `fair_hold`."""
