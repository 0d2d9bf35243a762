"""Figures of scores against labels, as pure functions of arrays.

Single labels: ROC-AUC, accuracy, Brier score and calibration error. Ranked pairs: pairwise
accuracy. A micro figure pools all labels; a macro figure is the mean over prompts, so that prompts
with many labels do not dominate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    roc_auc_score,
)

from reward.calibration import Values, expected_calibration_error
from reward.dataset import FeedbackDataset, Indices, Mask
from reward.measuring.report import Figures

Scorer = Callable[[Indices, Indices], Values]
"""Returns the probability of "good" for image and prompt indices, [V] each."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The labels of a part with a scorer's scores: V single labels and K ranked pairs."""

    part: FeedbackDataset
    probability: Values
    """[V], probability of "good"."""
    score_0: Values
    """[K], the score of each pair's image 0, a probability."""
    score_1: Values
    """[K], the score of each pair's image 1, a probability."""

    @classmethod
    def from_scorer(cls, scorer: Scorer, part: FeedbackDataset) -> Self:
        """Return the labels of `part` with the scores of their images."""
        verdicts, pairs = part.verdicts, part.pairs
        return cls(
            part=part,
            probability=scorer(verdicts.image, verdicts.prompt),
            score_0=scorer(pairs.image_0, pairs.prompt),
            score_1=scorer(pairs.image_1, pairs.prompt),
        )

    def where(self, verdicts: Mask | Indices, pairs: Mask | Indices) -> Self:
        """Return the labels of two masks [V] and [K], or of two lists of rows."""
        return replace(
            self,
            part=self.part.where(verdicts, pairs),
            probability=self.probability[verdicts],
            score_0=self.score_0[pairs],
            score_1=self.score_1[pairs],
        )

    @property
    def good(self) -> Values:
        """[V], 1 for good and 0 for bad."""
        return self.part.verdicts.good.astype(np.float64)

    @property
    def label_0(self) -> Values:
        """[K]: 1 when image 0 is better, 0.5 for a tie, 0 when it is worse."""
        return self.part.pairs.label_0.astype(np.float64)

    @property
    def right(self) -> Values:
        """[K]: 1 if the scores order a pair as its label does, 0.5 if they are equal, else 0.

        NaN for ties of the rater.
        """
        difference = self.score_0 - self.score_1
        right = np.where(difference == 0, 0.5, (difference > 0) == (self.label_0 > 0.5))
        return np.where(self.label_0 == 0.5, np.nan, right)


def figures(scored: Scored) -> Figures:
    """Return all figures; undefined figures are None."""
    good, probability, right = scored.good, scored.probability, scored.right
    both, some = len(np.unique(good)) == 2, len(good) > 0
    return Figures(
        n=len(good),
        share_good=float(good.mean()) if some else None,
        roc_auc=float(roc_auc_score(good, probability)) if both else None,
        accuracy=float(accuracy_score(good, probability >= 0.5)) if some else None,
        brier=float(brier_score_loss(good, probability, labels=[0, 1])) if some else None,
        ece=expected_calibration_error(probability, good) if some else None,
        n_pairs=int(np.isfinite(right).sum()),
        pairwise_accuracy=_mean(right),
        **{name: _mean(values) for name, values in by_prompt(scored).items()},
    )


def by_prompt(scored: Scored) -> dict[str, Values]:
    """Return the figures of each prompt, each [P]; NaN where a figure is undefined.

    The order is by the prompts' indices.
    """
    prompts, labels = scored.part.labeled_prompts, scored.part
    rows = zip(
        _rows_of(labels.verdicts.prompt, prompts),
        _rows_of(labels.pairs.prompt, prompts),
        strict=True,
    )
    table = pd.DataFrame([_of_one_prompt(scored.where(*one)) for one in rows], dtype=np.float64)
    return {name: table[name].to_numpy() for name in table.columns}


def _of_one_prompt(scored: Scored) -> dict[str, float | None]:
    probability, good = scored.probability, scored.good
    auc = weighted_roc_auc(as_ranks(probability), good, np.ones(len(good)))
    return {
        "roc_auc_macro": float(auc),
        "good_at_1": _mean(good[probability == probability.max(initial=0)]),
        "pairwise_accuracy_macro": _mean(scored.right),
    }


def weighted_roc_auc(scores: Indices, good: Values, weights: Values | Indices) -> Values:
    """Return the ROC-AUC of scores given as ranks from 0, for each row of `weights` [..., V].

    NaN if a class has no weight. Equals scikit-learn's `roc_auc_score`, which takes one set of
    weights per call and is 200 times slower.
    """
    positive, negative = _by_rank(scores, weights * good), _by_rank(scores, weights * (1 - good))
    below = np.cumsum(negative, axis=-1) - negative
    return ratio((positive * (below + negative / 2)).sum(-1), positive.sum(-1) * negative.sum(-1))


def _by_rank(ranks: Indices, weights: Values | Indices) -> Values:
    """Return the sums of the weights [..., V] by rank, [..., ranks]."""
    order = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[order], np.arange(ranks.max(initial=-1) + 1))
    if not len(ranks):
        return np.zeros(weights.shape)
    sums: Values = np.add.reduceat(weights[..., order].astype(np.float64), starts, axis=-1)
    return sums


def ratio(above: Values | Indices, below: Values | Indices) -> Values:
    """Return the ratios, NaN where `below` is 0."""
    ratios: Values = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
    return ratios


def _rows_of(values: Indices, keys: Indices) -> list[Indices]:
    """Return for each of the sorted `keys` the positions of the equal `values`."""
    order = np.argsort(values, kind="stable")
    starts, stops = (np.searchsorted(values[order], keys, side=side) for side in ("left", "right"))
    return [order[start:stop] for start, stop in zip(starts, stops, strict=True)]


def as_ranks(scores: Values) -> Indices:
    """Return the rank of each score from 0, lowest first; equal scores have equal ranks."""
    return np.unique(scores, return_inverse=True)[1]


def _mean(values: NDArray[np.float64] | Mask) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
