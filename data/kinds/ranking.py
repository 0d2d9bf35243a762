"""Ranking: several images of one prompt in order."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from data.ids import Identifier, Remark
from data.kinds.kind import Answer, Columns, InvalidAnswer, Kind, TaskFacts
from data.schema import LABELS_RANKING

if TYPE_CHECKING:
    import pandas as pd


class RankingAnswer(Answer, frozen=True):
    """Order of several images of one prompt; ties and images that cannot be judged are allowed."""

    kind: Literal["ranking"] = "ranking"
    ranks: dict[str, int | None]
    """Rank by image id: 1 is best, equal ranks are a tie, null is "can't judge"; a ranking with
    only nulls is a skip.

    Gaps are closed: 1, 1, 3 becomes 1, 1, 2."""
    reason: Remark | None = None
    """Reason for the skip."""
    comment: Remark | None = None
    """Free text."""
    unsafe: Annotated[
        tuple[Identifier, ...], Field(max_length=100, exclude_if=lambda image_ids: not image_ids)
    ] = ()
    """Images reported as unsafe; they have no rank."""

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


class Ranking(Kind[RankingAnswer]):
    """The kind `ranking`."""

    name = "ranking"
    plural = "rankings"
    answer = RankingAnswer
    table = "labels_ranking"
    schema = LABELS_RANKING
    answer_column = "ranks"
    images = (2, 100)
    always_counted = True
    skips_with_reason = False

    def check(self, answer: RankingAnswer, image_ids: Sequence[str]) -> None:
        """Check that `ranks` has exactly the images of the task.

        Raises:
            InvalidAnswer: it does not.
        """
        if different := sorted(set(answer.ranks) ^ set(image_ids)):
            raise InvalidAnswer(
                f"answer: images {', '.join(different)} are missing or not of this task; "
                "rank every image, null if in doubt"
            )

    def is_skip(self, answer: RankingAnswer) -> bool:
        """Whether no image has a rank."""
        return all(rank is None for rank in answer.ranks.values())

    def outcome(self, answer: RankingAnswer) -> str:
        """Return whether the answer reports an image, ranks some images, or is a skip."""
        if answer.unsafe:
            return "unsafe"
        return "skip" if self.is_skip(answer) else "ranked"

    def agrees(self, answer: RankingAnswer, gold: RankingAnswer) -> bool | None:
        """Return whether all pairs ordered by the right answer have that order; None for a skip."""
        if self.is_skip(answer):
            return None
        return all(
            _is_above(answer.ranks.get(better), answer.ranks.get(worse))
            for better, worse in permutations(gold.ranks, 2)
            if _is_above(gold.ranks[better], gold.ranks[worse])
        )

    def in_words(self, answer: RankingAnswer, image_ids: Sequence[str]) -> str:
        """Return the ranks."""
        del image_ids
        return " ".join("?" if rank is None else str(rank) for rank in answer.ranks.values())

    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        """Return the images, their ranks, and figures derived from the ranks."""
        ranks = [
            [answer["ranks"][image_id] for image_id in task.image_ids]
            for answer, task in zip(answers, asked, strict=True)
        ]
        given = [[rank for rank in one if rank is not None] for one in ranks]
        return {
            "image_ids": [task.image_ids for task in asked],
            "ranks": ranks,
            "n_images": [len(task.image_ids) for task in asked],
            "unsafe_image_ids": [answer.get("unsafe", []) for answer in answers],
            "n_tie_groups": [sum(one.count(rank) > 1 for rank in set(one)) for one in given],
            "best_image_id": [
                task.image_ids[one.index(1)] if judged.count(1) == 1 else None
                for one, judged, task in zip(ranks, given, asked, strict=True)
            ],
        }

    def skipped(self, labels: "pd.DataFrame") -> "pd.Series[bool]":
        """Return a mask of the rankings without any rank."""
        return labels["ranks"].map(_has_no_rank).astype(bool)

    def from_source(
        self, value: Any, image_ids: Sequence[str], rest: Mapping[str, Any]
    ) -> RankingAnswer:
        """Return the ranking; some sources count ranks from 0, here they start at 1."""
        if isinstance(value, str) or len(value) != len(image_ids):
            raise InvalidAnswer(
                f"answer: {value!r} has no rank for each of {len(image_ids)} images"
            )
        if not all(rank is None or isinstance(rank, int | float) for rank in value):
            raise InvalidAnswer(f"answer: the ranks {value!r} are not whole numbers")
        least = min((rank for rank in value if rank is not None), default=1)
        from_one = (None if rank is None else rank - least + 1 for rank in value)
        ranks = dict(zip(image_ids, from_one, strict=True))
        return RankingAnswer.model_validate({"ranks": ranks} | dict(rest))


def _has_no_rank(ranks: Sequence[float | None]) -> bool:
    return all(rank is None or isnan(rank) for rank in ranks)


def _is_above(rank: int | None, other: int | None) -> bool:
    return rank is not None and other is not None and rank < other
