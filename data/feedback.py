"""Tasks, answers and claims: the values that go into and come out of the feedback store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import permutations
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from data.comparisons import Axis, ComparisonAnswer, answers_axis
from data.errors import PictuneError
from data.ids import Identifier, Remark

TaskKind = Literal["binary", "ranking", "comparison"]
Source = Literal["human", "simulated", "imported", "adjudicator"]
"""Givers of labels. An adjudicator is an admin who decides what raters disagree on: such a label
takes no rater's place, and where there is one it is the answer."""

Role = Literal["rater", "admin"]
Status = Literal["active", "paused"]
Decision = Literal["kept", "removed"]
InputMode = Literal["key", "mouse", "touch"]


class NotFound(PictuneError):
    """No such rater or task."""


class InvalidAnswer(PictuneError):
    """The answer does not fit the task."""


class BinaryAnswer(BaseModel, frozen=True, extra="forbid"):
    """Verdict on whether one image fits its prompt (Lee et al. 2023, arXiv 2302.12192)."""

    kind: Literal["binary"] = "binary"
    verdict: Literal["good", "bad", "skip", "unsafe"]
    """`skip` is can't tell; `unsafe` is an image that nobody should be shown."""
    reason: Remark | None = None
    """Reason why it was skipped, or is bad or unsafe."""
    comment: Remark | None = None
    """Free text."""


class RankingAnswer(BaseModel, frozen=True, extra="forbid"):
    """Order of several images of one prompt; ties and images that cannot be judged are allowed."""

    kind: Literal["ranking"] = "ranking"
    ranks: dict[str, int | None]
    """Image id to rank: 1 is best, equal is a tie, null is can't judge; all null is a skip.

    Gaps are closed: 1, 1, 3 becomes 1, 1, 2."""
    reason: Remark | None = None
    """Reason why it was skipped."""
    comment: Remark | None = None
    """Free text."""
    unsafe: Annotated[
        tuple[Identifier, ...], Field(max_length=100, exclude_if=lambda image_ids: not image_ids)
    ] = ()
    """Images that nobody should be shown; they have no rank."""

    @field_validator("ranks")
    @classmethod
    def _dense(cls, ranks: dict[str, int | None]) -> dict[str, int | None]:
        used = sorted({rank for rank in ranks.values() if rank is not None})
        if used and used[0] < 1:
            raise ValueError(f"ranks start at 1, not at {used[0]}")
        return {
            image_id: None if rank is None else used.index(rank) + 1
            for image_id, rank in ranks.items()
        }

    @field_validator("unsafe")
    @classmethod
    def _unranked(cls, unsafe: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        ranks = info.data.get("ranks", {})
        if any(ranks.get(image_id, 0) is not None for image_id in unsafe):
            raise ValueError("an image that is not in `ranks`, or has a rank there; give it null")
        return unsafe


Answer = BinaryAnswer | RankingAnswer | ComparisonAnswer

ANSWERS: dict[TaskKind, type[BinaryAnswer] | type[RankingAnswer] | type[ComparisonAnswer]] = {
    "binary": BinaryAnswer,
    "ranking": RankingAnswer,
    "comparison": ComparisonAnswer,
}
"""The answer to each kind of task."""


def parse_answer(kind: TaskKind, text: str) -> Answer:
    """Read the JSON of an answer to a task of this kind.

    Raises:
        ValidationError: pydantic's; it is no such answer.
    """
    return ANSWERS[kind].model_validate_json(text)


def check_answer(
    answer: Answer,
    kind: TaskKind,
    image_ids: Sequence[str],
    axis: Axis | None = None,
    *,
    has_steps: bool = True,
) -> None:
    """Check that the answer is of this kind, about exactly these images and to this axis.

    `has_steps` is whether much better is told from slightly better.

    Raises:
        InvalidAnswer: it is not.
    """
    if answer.kind != kind:
        raise InvalidAnswer(
            f"answer: a {answer.kind} answer to a {kind} task; answer in the task's kind"
        )
    if isinstance(answer, RankingAnswer) and set(answer.ranks) != set(image_ids):
        different = sorted(set(answer.ranks) ^ set(image_ids))
        raise InvalidAnswer(
            f"answer: images {', '.join(different)} are missing or not of this task; "
            "rank every image, null if in doubt"
        )
    if isinstance(answer, ComparisonAnswer):
        named = {answer.preferred, *answer.unsafe} - {None}
        if not named <= set(image_ids):
            strangers = ", ".join(sorted(str(one) for one in named - set(image_ids)))
            raise InvalidAnswer(
                f"answer: images {strangers} are not of this task; name images of it"
            )
        if not answers_axis(answer, axis):
            raise InvalidAnswer(
                f"answer: {answer.outcome} to a question of the axis {axis}; "
                "give a count there and nowhere else"
            )
        if answer.strength is not None and not has_steps:
            raise InvalidAnswer(
                "answer: `strength` to a question of three steps; leave it out there"
            )


def is_skip(answer: Answer) -> bool:
    """Whether the answer says nothing about quality: skip, unsafe, or no rank at all."""
    if isinstance(answer, BinaryAnswer):
        return answer.verdict in ("skip", "unsafe")
    if isinstance(answer, ComparisonAnswer):
        return answer.outcome in ("skip", "unsafe")
    return all(rank is None for rank in answer.ranks.values())


def reported_images(answer: Answer, image_ids: Sequence[str]) -> set[str]:
    """Return the images that nobody should be shown, by the answer to a task about `image_ids`."""
    if isinstance(answer, BinaryAnswer):
        return set(image_ids) if answer.verdict == "unsafe" else set()
    return set(answer.unsafe)


def agrees_with_gold(answer: Answer, gold: Answer) -> bool | None:
    """Return whether an answer is right.

    It is right if it is the gold verdict or comparison, or if no pair of images that gold puts in
    order is reversed or tied. None for a skip, unless the gold verdict is skip or unsafe itself.
    """
    if isinstance(answer, BinaryAnswer) and isinstance(gold, BinaryAnswer) and is_skip(gold):
        return answer.verdict == gold.verdict
    if is_skip(answer):
        return None
    if isinstance(answer, BinaryAnswer):
        return isinstance(gold, BinaryAnswer) and answer.verdict == gold.verdict
    if isinstance(answer, ComparisonAnswer):
        facts = {"outcome", "preferred", "count"}
        return answer.model_dump(include=facts) == gold.model_dump(include=facts)
    if not isinstance(gold, RankingAnswer):
        return False
    return all(
        _is_above(answer.ranks.get(better), answer.ranks.get(worse))
        for better, worse in permutations(gold.ranks, 2)
        if _is_above(gold.ranks[better], gold.ranks[worse])
    )


def _is_above(rank: int | None, other: int | None) -> bool:
    return rank is not None and other is not None and rank < other


class SentAnswer(BaseModel, frozen=True, extra="forbid"):
    """An answer as a client sends it."""

    submission_id: Identifier
    """Made by the sender, new for every answer (a UUID); sending the same again changes nothing."""
    task_id: Identifier
    """The task answered."""
    answer: Annotated[Answer, Field(discriminator="kind")]
    """The answer, of the task's kind; `kind` must be named in JSON."""
    time_on_task_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    """Milliseconds from the images being visible to the answer."""
    active_ms: Annotated[NonNegativeInt, Field(lt=2**31)] | None = None
    """Milliseconds of these in which the page was visible and the rater not idle."""
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
    gold: Annotated[Answer, Field(discriminator="kind")] | None = None
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
        if (self.kind == "comparison") != (self.axis is not None):
            raise ValueError("a comparison has an axis, and nothing else has one")
        if self.models and self.kind == "binary":
            raise ValueError("a verdict compares no models")
        if (self.models or self.kind == "comparison") and len(self.models) != len(self.image_ids):
            raise ValueError(f"a {self.kind} of models names the model of each of its images")
        if self.axis == "count" and not self.subject:
            raise ValueError("the axis count needs a subject, that which is counted")
        fewest, most = _images_of(self.kind, self.axis)
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


def _images_of(kind: TaskKind, axis: Axis | None) -> tuple[int, int]:
    """Return the fewest and the most images of a task."""
    if kind == "ranking":
        return 2, 100
    return (2, 2) if kind == "comparison" and axis != "count" else (1, 1)


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
    """A task as raters see it; whether it is gold stays hidden."""

    task_id: str
    kind: TaskKind
    prompt: str
    image_ids: tuple[str, ...]
    axis: Axis | None = None
    """Question of a comparison."""
    subject: str | None = None
    """As `NewTask.subject`."""
    reference: str | None = None
    """As `NewTask.reference`."""
    steps: int | None = None
    """As `NewTask.steps`."""


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
