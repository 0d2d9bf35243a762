"""Simulated raters, whose answers reach the store like answers from a browser.

A rater sees the judged quality q of an image at place p (from 0) of n as
q + position_bias * (1 - p / (n - 1)). A single image is good when the quality seen reaches the
rater's threshold; a slip of attention, of probability `noise`, reverses the verdict. In a ranking a
slip replaces the quality seen by a random one. Images that are closer to the best of their group
than the just noticeable difference are tied with it. A comparison is a ranking of two, the place
counted from the left; a tie of images that are both below the threshold is `both_bad`. Where the
campaign asks for marks, a rater marks the faults of an image that they find bad: each one may be
missed, lies somewhat off its place, and there may be a mark where nothing is wrong.
"""

import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat

from data.feedback import Claim, Receipt, Submission
from data.kinds.comparison import ComparisonAnswer
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.regions import ARTIFACT, MOST_MARKS, Mark
from data.store.feedback_store import FeedbackStore

Judge = Callable[[str, str], float]
"""Image id and prompt -> quality in 0..1."""

Marker = Callable[[str, str], Sequence[Mark]]
"""Image id and prompt -> marks on everything that is wrong."""

FALSE_MARK = 0.25
"""Side of a mark where nothing is wrong, as a share of the image's."""

SECONDS_PER_IMAGE = 2.0
"""Median seconds of all raters for an image; each has a pace of their own around it."""

Share = Annotated[float, Field(ge=0, le=1)]

SUBMISSIONS = uuid.UUID("8f0f7d5e-6c0b-4f0e-9a53-3d0f6a3f6b1e")
"""Namespace of the ids of simulated submissions."""


class SimulatedRaterConfig(BaseModel, frozen=True, extra="forbid"):
    """Number of simulated raters, and their differences from a perfect judge."""

    raters: Annotated[int, Field(ge=1)] = 3
    """Number of raters."""
    noise: Share = 0.1
    """Probability that attention slips on an image."""
    threshold: Share = 0.5
    """Lowest quality that gets the verdict good."""
    position_bias: float = 0.0
    """Quality added to the image at the first place of a ranking, falling linearly to 0 at the last
    place; in a comparison, added to the left image."""
    just_noticeable_difference: NonNegativeFloat = 0.05
    """Largest difference of quality that counts as a tie."""
    skip_rate: Share = 0.02
    """Probability that a task is skipped."""
    mark_shift: Share = 0.05
    """Standard deviation of a mark's distance from its place, across and down, as a share of the
    image's side; the settings of marks matter where `tasks.marks` is not "off"."""
    mark_miss_rate: Share = 0.1
    """Probability that a fault of an image is not marked."""
    mark_false_alarm_rate: Share = 0.05
    """Probability of a mark at a random place, on an image that the rater finds bad."""


class SimulatedRater(SimulatedRaterConfig, frozen=True, extra="forbid"):
    """One rater, with standards and habits of their own."""

    rater_id: str
    seconds_per_image: PositiveFloat = SECONDS_PER_IMAGE
    """Median seconds spent on one image."""

    def answer(
        self, claim: Claim, judge: Judge, marker: Marker | None = None, *, rng: random.Random
    ) -> Answer:
        """Answer a claimed task; with a `marker`, a bad verdict has marks."""
        task = claim.task
        qualities = {image_id: judge(image_id, task.prompt) for image_id in task.image_ids}
        if task.kind == "binary":
            given = self.verdict(qualities[task.image_ids[0]], rng=rng)
            if marker is None or given.verdict != "bad":
                return given
            faults = marker(task.image_ids[0], task.prompt)
            return given.model_copy(update={"marks": self.marks(faults, rng=rng)})
        if task.kind == "ranking":
            return self.ranking(qualities, claim.shown_order, rng=rng)
        return self.comparison(qualities, claim.shown_order, rng=rng)

    def verdict(self, quality: float, *, rng: random.Random) -> BinaryAnswer:
        """Judge one image."""
        if rng.random() < self.skip_rate:
            return BinaryAnswer(verdict="skip")
        good = (quality >= self.threshold) != (rng.random() < self.noise)
        return BinaryAnswer(verdict="good" if good else "bad")

    def marks(self, faults: Sequence[Mark], *, rng: random.Random) -> tuple[Mark, ...]:
        """Mark the faults of an image, whose boxes keep their size and stay within it."""
        noticed = [fault for fault in faults if rng.random() >= self.mark_miss_rate]
        given = [self._shifted(fault, rng=rng) for fault in noticed[: MOST_MARKS - 1]]
        if rng.random() < self.mark_false_alarm_rate:
            x, y = (rng.uniform(0, 1 - FALSE_MARK) for _ in range(2))
            edges = {"x0": x, "y0": y, "x1": x + FALSE_MARK, "y1": y + FALSE_MARK}
            given.append(Mark.model_validate({"kind": "box", "aspect": ARTIFACT} | edges))
        return tuple(given)

    def _shifted(self, mark: Mark, *, rng: random.Random) -> Mark:
        edges: dict[str, float | None] = {}
        for low, high in (("x0", "x1"), ("y0", "y1")):
            start, end = getattr(mark, low), getattr(mark, high)
            last = start if end is None else end
            shift = min(max(rng.gauss(0, self.mark_shift), -start), 1 - last)
            edges |= {low: start + shift, high: end and min(end + shift, 1)}
        return mark.model_copy(update=edges)

    def ranking(
        self, qualities: Mapping[str, float], places: Sequence[int], *, rng: random.Random
    ) -> RankingAnswer:
        """Rank images of one prompt, by id; a skip gives no image a rank.

        `places` are the images' places on the screen, from 0.
        """
        if rng.random() < self.skip_rate:
            return RankingAnswer(ranks=dict.fromkeys(qualities))
        seen = self._seen(qualities, places, rng=rng)
        return RankingAnswer(ranks=dict(tied_ranks(seen, self.just_noticeable_difference)))

    def comparison(
        self, qualities: Mapping[str, float], places: Sequence[int], *, rng: random.Random
    ) -> ComparisonAnswer:
        """Compare two images of one prompt; `places` are 0 for the left and 1 for the right."""
        if rng.random() < self.skip_rate:
            return ComparisonAnswer(outcome="skip")
        seen = self._seen(qualities, places, rng=rng)
        ranks = tied_ranks(seen, self.just_noticeable_difference)
        best, worst = sorted(ranks, key=ranks.__getitem__)
        if ranks[best] == ranks[worst]:
            return ComparisonAnswer(
                outcome="both_bad" if max(seen.values()) < self.threshold else "tie"
            )
        return ComparisonAnswer(outcome="preferred", preferred=best)

    def _seen(
        self, qualities: Mapping[str, float], places: Sequence[int], *, rng: random.Random
    ) -> dict[str, float]:
        """Return the quality of each image as the rater sees it, at its place on the screen."""
        last = len(qualities) - 1
        seen: dict[str, float] = {}
        for (image_id, quality), place in zip(qualities.items(), places, strict=True):
            perceived = rng.random() if rng.random() < self.noise else quality
            seen[image_id] = perceived + self.position_bias * (1 - place / last)
        return seen

    def milliseconds(self, images: int, *, rng: random.Random) -> int:
        """Draw the time on a task of this many images: log-normal around the rater's pace."""
        return round(1000 * self.seconds_per_image * images * rng.lognormvariate(0, 0.3))


def tied_ranks(seen: dict[str, float], just_noticeable_difference: float) -> dict[str, int]:
    """Return ranks from 1 for the best.

    An image whose quality is within `difference` of the best of a group shares the group's rank.
    """
    ranks: dict[str, int] = {}
    best_of_group = float("inf")
    for image_id in sorted(seen, key=lambda image_id: (-seen[image_id], image_id)):
        if best_of_group - seen[image_id] > just_noticeable_difference:
            best_of_group = seen[image_id]
            ranks[image_id] = max(ranks.values(), default=0) + 1
        else:
            ranks[image_id] = max(ranks.values())
    return ranks


def create_raters(
    store: FeedbackStore, config: SimulatedRaterConfig, *, rng: random.Random
) -> list[SimulatedRater]:
    """Enter the raters in the store, as simulated ones, and draw the state of each."""
    raters = []
    for number in range(1, config.raters + 1):
        rater_id = store.add_rater(f"simulated rater {number}", source="simulated")
        rng.gauss()  # not used, but without it a seed would no longer give the same answers
        own = {"seconds_per_image": SECONDS_PER_IMAGE * rng.lognormvariate(0, 0.2)}
        raters.append(SimulatedRater(rater_id=rater_id, **config.model_dump() | own))
    return raters


def simulate(
    store: FeedbackStore,
    judge: Judge,
    config: SimulatedRaterConfig,
    *,
    rng: random.Random,
    marker: Marker | None = None,
) -> Iterator[Receipt]:
    """Let the raters take turns until no rater gets another task; they mark if there is a `marker`.

    Yields the receipt of each label after it is stored.
    """
    working = create_raters(store, config, rng=rng)
    while working:
        still_working = []
        for rater in working:
            claim = store.claim(rater.rater_id)
            if claim is not None:
                still_working.append(rater)
                answer = rater.answer(claim, judge, marker, rng=rng)
                yield store.submit(_submission(rater, claim, answer, rng=rng))
        working = still_working


def _submission(
    rater: SimulatedRater, claim: Claim, answer: Answer, *, rng: random.Random
) -> Submission:
    # derived from the task, not drawn: a second run with the same seed must not repeat ids in the
    # store
    name = f"{rater.rater_id} {claim.task.task_id} {claim.shown_at.isoformat()}"
    return Submission(
        submission_id=str(uuid.uuid5(SUBMISSIONS, name)),
        task_id=claim.task.task_id,
        rater_id=rater.rater_id,
        answer=answer,
        time_on_task_ms=rater.milliseconds(len(claim.task.image_ids), rng=rng),
    )
