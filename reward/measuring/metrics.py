"""Figures of scores beside labels, as pure functions of arrays.

Single labels: ROC-AUC, average precision, accuracy, Brier score, negative log-likelihood and
calibration error. Ranked pairs: pairwise accuracy, Kendall's tau-b (Kendall 1945) and recall@1. A
micro figure pools all labels; a macro figure is the mean over prompts, so that a prompt with many
labels does not drown the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from reward.calibration import Values, expected_calibration_error
from reward.dataset import FeedbackDataset, Indices, Mask
from reward.measuring.report import Figures

Scorer = Callable[[Indices, Indices], Values]
"""Returns the probability of "good" for image and prompt indices, [V] each."""

Convention = Literal["strict", "imagereward", "hpsv2", "pickscore"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

BY_PROMPT = (
    "roc_auc_macro",
    "accuracy_macro",
    "good_at_1",
    "pairwise_accuracy_macro",
    "kendall_tau",
    "recall_at_1",
)
"""Figures that are taken prompt by prompt."""

CLIP_MARGIN = 1e-9
"""Distance from 0 and 1 that probabilities are clipped to before a logarithm."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels beside a scorer's scores: V single labels and K ranked pairs."""

    probability: Values
    """[V], of "good"."""
    good: Values
    """[V], 1 for good and 0 for bad."""
    image: Indices
    """[V]"""
    prompt: Indices
    """[V]"""
    score_0: Values
    """[K], the score of each pair's image 0, a probability."""
    score_1: Values
    """[K], the score of each pair's image 1, a probability."""
    label_0: Values
    """[K]: 1 when image 0 is better, 0.5 for a tie, 0 when it is worse."""
    image_0: Indices
    """[K]"""
    image_1: Indices
    """[K]"""
    pair_prompt: Indices
    """[K]"""

    @classmethod
    def from_scorer(cls, scorer: Scorer, part: FeedbackDataset) -> Self:
        """Return the labels of `part` beside the scores of their images."""
        verdicts, pairs = part.verdicts, part.pairs
        return cls(
            probability=scorer(verdicts.image, verdicts.prompt),
            good=verdicts.good.astype(np.float64),
            image=verdicts.image,
            prompt=verdicts.prompt,
            score_0=scorer(pairs.image_0, pairs.prompt),
            score_1=scorer(pairs.image_1, pairs.prompt),
            label_0=pairs.label_0.astype(np.float64),
            image_0=pairs.image_0,
            image_1=pairs.image_1,
            pair_prompt=pairs.prompt,
        )

    def where(self, verdicts: Mask, pairs: Mask) -> Self:
        """Return the labels where the masks [V] and [K] are true."""
        of_verdicts = ("probability", "good", "image", "prompt")
        of_pairs = ("score_0", "score_1", "label_0", "image_0", "image_1", "pair_prompt")
        single = {name: getattr(self, name)[verdicts] for name in of_verdicts}
        ranked = {name: getattr(self, name)[pairs] for name in of_pairs}
        return replace(self, **single, **ranked)

    @property
    def margin(self) -> Values:
        """[K], the logit of image 0 minus that of image 1."""
        first, second = (
            logit(np.clip(score, CLIP_MARGIN, 1 - CLIP_MARGIN))
            for score in (self.score_0, self.score_1)
        )
        return np.where(self.score_0 == self.score_1, 0.0, first - second)

    @property
    def right(self) -> Values:
        """[K]: 1 where the scores order a pair as its label does, 0.5 where they are equal, else 0.

        NaN for ties of the rater.
        """
        difference = self.score_0 - self.score_1
        right = np.where(difference == 0, 0.5, (difference > 0) == (self.label_0 > 0.5))
        return np.where(self.label_0 == 0.5, np.nan, right)


def figures(scored: Scored) -> Figures:
    """Return all figures, None where one is undefined."""
    good, probability, right = scored.good, scored.probability, scored.right
    both, some = len(np.unique(good)) == 2, len(good) > 0
    return Figures(
        n=len(good),
        share_good=float(good.mean()) if some else None,
        roc_auc=float(roc_auc_score(good, probability)) if both else None,
        average_precision=float(average_precision_score(good, probability)) if both else None,
        accuracy=float(accuracy_score(good, probability >= 0.5)) if some else None,
        brier=float(brier_score_loss(good, probability, labels=[0, 1])) if some else None,
        nll=float(log_loss(good, probability, labels=[0, 1])) if some else None,
        ece=expected_calibration_error(probability, good) if some else None,
        n_pairs=int(np.isfinite(right).sum()),
        pairwise_accuracy=_mean(right),
        **{name: _mean(values) for name, values in by_prompt(scored).items()},
    )


def by_prompt(scored: Scored) -> dict[str, Values]:
    """Return the figures that are taken prompt by prompt, each [P]; NaN where one is undefined.

    They are in the order of the prompts' indices.
    """
    prompts, right = prompts_of(scored), scored.right
    columns: dict[str, list[float | None]] = {name: [] for name in BY_PROMPT}
    labels_of, pairs_of = _rows_of(scored.prompt, prompts), _rows_of(scored.pair_prompt, prompts)
    for single, ranked in zip(labels_of, pairs_of, strict=True):
        probability, good = scored.probability[single], scored.good[single]
        margins = scored.score_0[ranked] - scored.score_1[ranked]
        row = {
            "roc_auc_macro": float(
                weighted_roc_auc(as_ranks(probability), good, np.ones(len(good)))
            ),
            "accuracy_macro": _mean((probability >= 0.5) == (good == 1)),
            "good_at_1": _mean(good[probability == probability.max()]) if len(good) else None,
            "pairwise_accuracy_macro": _mean(right[ranked]),
            "kendall_tau": _kendall_tau(margins, scored.label_0[ranked]),
            "recall_at_1": _recall_at_1(scored, ranked),
        }
        for name, column in columns.items():
            column.append(row[name])
    return {
        name: np.array([np.nan if value is None else value for value in column], np.float64)
        for name, column in columns.items()
    }


def pair_accuracy(
    scored: Scored, convention: Convention, *, tie_within: float = 0.0
) -> float | None:
    """Return the accuracy on ranked pairs as `convention` counts it; None without such pairs.

    The conventions are those of published figures:

    - strict: ties of raters are omitted, equal scores count as half right.
    - imagereward: the same, but equal scores count as wrong.
    - hpsv2: ties of raters count as right, equal scores as half right, and prompts are averaged;
      HPSv2's programs bring equal scores into some order before they look at labels.
    - pickscore: scores tie when the two probabilities to win are at most `tie_within` apart
      (`fit_tie_threshold`); a tie that only one side sees counts as half right.
    """
    labels, right = scored.label_0, scored.right
    strict = labels != 0.5
    if convention == "strict":
        return _mean(right)
    if convention == "imagereward":
        return _mean((right == 1)[strict])
    if convention == "hpsv2":
        fair = np.where(strict, right, 1.0)
        by_prompt_rows = _rows_of(scored.pair_prompt, np.unique(scored.pair_prompt))
        return _mean(np.array([fair[rows].mean() for rows in by_prompt_rows]))
    # The probabilities to win are sigmoid(margin) and sigmoid(-margin).
    tied = np.abs(np.tanh(scored.margin / 2)) <= tie_within
    return _mean(np.where(tied | ~strict, np.where(tied & ~strict, 1.0, 0.5), right == 1))


def fit_tie_threshold(scored: Scored) -> float:
    """Return the `tie_within` of the convention pickscore that is right most often.

    It is to be fitted on the pairs of the validation part.
    """
    gaps = np.abs(np.tanh(scored.margin / 2))
    candidates = np.zeros(1)
    if len(gaps):
        candidates = np.unique([0.0, *np.quantile(gaps, np.linspace(0, 1, 101))])

    def accuracy(threshold: float) -> float:
        return pair_accuracy(scored, "pickscore", tie_within=threshold) or 0.0

    return float(max(candidates, key=accuracy))


def weighted_roc_auc(scores: Indices, good: Values, weights: Values | Indices) -> Values:
    """Return the ROC-AUC of scores given as ranks from 0, for each row of `weights` [..., V].

    NaN without weight on both classes. It equals scikit-learn's `roc_auc_score`, which takes one
    set of weights at a time and 200 times as long for it.
    """
    positive, negative = _by_rank(scores, weights * good), _by_rank(scores, weights * (1 - good))
    below = np.cumsum(negative, axis=-1) - negative
    return ratio((positive * (below + negative / 2)).sum(-1), positive.sum(-1) * negative.sum(-1))


def weighted_average_precision(scores: Indices, good: Values, weights: Values | Indices) -> Values:
    """Return the average precision of scores given as ranks from 0, for each row of `weights`.

    `weights` are [..., V]; NaN without weight on good. It equals scikit-learn's
    `average_precision_score`.
    """
    positive, everything = (_by_rank(scores, each)[..., ::-1] for each in (weights * good, weights))
    precision = positive.cumsum(-1) / np.maximum(everything.cumsum(-1), 1e-12)
    return ratio((positive * precision).sum(-1), positive.sum(-1))


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


def _kendall_tau(differences: Values, labels: Values) -> float | None:
    """Return tau-b over ranked pairs.

    It is the number of agreeing minus disagreeing pairs, over the geometric mean of the numbers of
    pairs that the rater does not tie and that the scores do not tie.
    """
    signs, wanted = np.sign(differences), np.sign(labels - 0.5)
    untied = np.sqrt(float(np.abs(signs).sum() * np.abs(wanted).sum()))
    if untied:
        return float(signs @ wanted / untied)
    return 0.0 if wanted.any() else None  # equal scores say nothing about an order that there is


def _recall_at_1(scored: Scored, pairs: Indices) -> float | None:
    """Return 1 if the image with the highest score won the largest share of its comparisons.

    Where several images tie for the highest score, it is the share of them that did.
    """
    if not (scored.label_0[pairs] != 0.5).any():
        return None
    images = np.concatenate([scored.image_0[pairs], scored.image_1[pairs]])
    scores = np.concatenate([scored.score_0[pairs], scored.score_1[pairs]])
    wins = np.concatenate([scored.label_0[pairs], 1 - scored.label_0[pairs]])
    _, first, at = np.unique(images, return_index=True, return_inverse=True)
    worth = np.bincount(at, weights=wins) / np.bincount(at)
    chosen = scores[first] == scores[first].max()
    return float((worth == worth.max())[chosen].mean())


def prompts_of(scored: Scored) -> Indices:
    """Return the distinct prompts of the labels, sorted."""
    return np.unique(np.concatenate([scored.prompt, scored.pair_prompt]))


def _rows_of(values: Indices, keys: Indices) -> list[Indices]:
    """Return, for each of the sorted `keys`, the positions of `values` that equal it."""
    order = np.argsort(values, kind="stable")
    starts, stops = (np.searchsorted(values[order], keys, side=side) for side in ("left", "right"))
    return [order[start:stop] for start, stop in zip(starts, stops, strict=True)]


def as_ranks(scores: Values) -> Indices:
    """Return the rank of each score from 0, lowest first; equal scores have equal ranks."""
    return np.unique(scores, return_inverse=True)[1]


def _mean(values: NDArray[np.float64] | Mask) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
