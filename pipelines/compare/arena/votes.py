"""Votes of a comparison campaign as arrays, read from `labels_comparisons.parquet`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Values = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

OUTCOMES = {"first": 1.0, "second": 0.0, "tie": 0.5, "both_bad": 0.5}
"""Outcome for the first image by answer, as a share of a win; other answers are no votes."""
OTHER = "other"
"""Category of a prompt without one."""


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes on pairs of images by two different models; arrays have one entry a vote."""

    models: tuple[str, ...]
    """Names of the K models."""
    model_a: Indices
    """[N], index in `models` of the model of the first image."""
    model_b: Indices
    """[N]."""
    outcome: Values
    """[N]: 1 if the first image is better, 0.5 for a tie, 0 if the second is better."""
    rater: Indices
    """[N], number of the rater."""
    prompt: Indices
    """[N], number of the prompt."""
    category: NDArray[np.object_]
    """[N], category of the prompt."""

    def __len__(self) -> int:
        """Return the number of votes."""
        return len(self.outcome)

    def where(self, mask: Mask) -> "Votes":
        """Return some of the votes; models and raters keep their numbers."""
        return self.in_order(np.flatnonzero(mask).astype(np.int64))

    def in_order(self, rows: Indices) -> "Votes":
        """Return the votes at these indices, in this order."""
        values = vars(self).items()
        chosen: Any = {name: one[rows] for name, one in values if isinstance(one, np.ndarray)}
        return replace(self, **chosen)

    def between(self, a: int, b: int) -> "Votes":
        """Return the votes between two models, reversed if needed so that `a` comes first."""
        turned = (self.model_a == b) & (self.model_b == a)
        mask = turned | ((self.model_a == a) & (self.model_b == b))
        there = self.where(mask)
        back = turned[mask]
        return replace(
            there,
            model_a=np.full(len(there), a),
            model_b=np.full(len(there), b),
            outcome=np.where(back, 1 - there.outcome, there.outcome),
        )

    def with_models_there(self) -> "Votes":
        """Return the same votes; models without votes are dropped."""
        there = np.unique(np.concatenate([self.model_a, self.model_b]))
        return replace(
            self,
            models=tuple(self.models[i] for i in there),
            model_a=np.searchsorted(there, self.model_a),
            model_b=np.searchsorted(there, self.model_b),
        )

    @property
    def met(self) -> list[tuple[int, int]]:
        """The pairs of models with votes, each once."""
        numbers = range(len(self.models))
        found = {tuple(sorted(one)) for one in zip(self.model_a, self.model_b, strict=True)}
        return [one for one in combinations(numbers, 2) if one in found]

    @property
    def is_decided(self) -> Mask:
        """[N], whether the vote prefers one of the two images."""
        return np.not_equal(self.outcome, 0.5)


def votes_of(labels: pd.DataFrame, categories: Mapping[str, str | None]) -> Votes:
    """Return the votes among labels (`data.schema.LABELS_COMPARISONS`) of one axis.

    Labels without an answer, and pairs of images by the same model, are omitted.

    Args:
        labels: the labels in the order of submission.
        categories: the category of each prompt id.
    """
    there = labels[labels["answer"].isin(list(OUTCOMES))]
    there = there[there["models"].map(lambda models: models[0] != models[1]).astype(bool)]
    models = tuple(dict.fromkeys(name for pair in there["models"] for name in pair))
    number = {name: i for i, name in enumerate(models)}
    rater, _ = numbered(there["rater_id"])
    prompt, prompts = numbered(there["prompt_id"])
    named = np.array([categories.get(one) or OTHER for one in prompts], object)
    return Votes(
        models=models,
        model_a=np.array([number[first] for first, _ in there["models"]], np.int64),
        model_b=np.array([number[second] for _, second in there["models"]], np.int64),
        outcome=np.array([OUTCOMES[answer] for answer in there["answer"]]),
        rater=rater,
        prompt=prompt,
        category=named[prompt],
    )


def numbered(column: "pd.Series[str]") -> tuple[Indices, tuple[str, ...]]:
    """Return a number for each value [N], and the value of each number."""
    numbers, names = pd.factorize(column)
    return numbers.astype(np.int64), tuple(map(str, names))
