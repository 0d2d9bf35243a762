"""A kind of task that only tests know: the best of three images."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from data.ids import Identifier, Remark
from data.kinds.kind import Answer, Columns, InvalidAnswer, Kind, TaskFacts
from data.schema import LABEL_CIRCUMSTANCES, LABEL_IDENTITY, schema_of


class BestAnswer(Answer, frozen=True):
    kind: Literal["best"] = "best"
    best: Identifier | None
    """Null is can't tell."""
    reason: Remark | None = None
    comment: Remark | None = None


class BestOfThree(Kind[BestAnswer]):
    name = "best"
    plural = "picks"
    answer = BestAnswer
    table = "labels_best"
    schema = schema_of(f"""
{LABEL_IDENTITY}
image_ids    strings  the images shown
shown_order  int8s    the place of each
pick         string   the best image, or none
{LABEL_CIRCUMSTANCES}
""")
    answer_column = "pick"
    images = (3, 3)

    def check(self, answer: BestAnswer, image_ids: Sequence[str]) -> None:
        if answer.best is not None and answer.best not in image_ids:
            raise InvalidAnswer(f"answer: {answer.best} is not of this task; pick one of it")

    def outcome(self, answer: BestAnswer) -> str:
        return "skip" if answer.best is None else "picked"

    def agrees(self, answer: BestAnswer, gold: BestAnswer) -> bool | None:
        return None if answer.best is None else answer.best == gold.best

    def in_words(self, answer: BestAnswer, image_ids: Sequence[str]) -> str:
        del image_ids
        return answer.best or "none"

    def columns(self, answers: Sequence[dict[str, Any]], asked: Sequence[TaskFacts]) -> Columns:
        return {
            "image_ids": [task.image_ids for task in asked],
            "pick": [answer["best"] or "none" for answer in answers],
        }

    def skipped(self, labels: pd.DataFrame) -> "pd.Series[bool]":
        return labels["pick"] == "none"

    def from_source(
        self, value: Any, image_ids: Sequence[str], rest: Mapping[str, Any]
    ) -> BestAnswer:
        del image_ids
        return BestAnswer.model_validate({"best": None if value == "none" else value} | dict(rest))
