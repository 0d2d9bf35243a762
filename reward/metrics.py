"""How well scores foretell labels, as pure functions of arrays.

Single labels: ROC-AUC, average precision, accuracy, Brier score, negative log-likelihood and calibration error. Ranked pairs: pairwise
accuracy, Kendall's tau-b (Kendall 1945) and recall@1. A micro figure pools all labels; a macro figure is the mean over prompts, so that a
prompt with many labels does not drown the others. Intervals are 95 % bootstrap intervals over prompts: labels of one prompt are not
independent of each other.
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

Scorer = Callable[[Indices, Indices], Values]
"""Probability of "good" for picture and prompt indices [V] each."""

Figures = dict[str, float | int | None]

Convention = Literal["strict", "imagereward", "hpsv2", "pickscore"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

ENOUGH_CLUSTERS = 10
"""With fewer prompts than this, intervals resample pictures: resampling a handful of prompts says nothing."""

MOST_WEIGHTS = 2_000_000
"""Weights of bootstrap samples held at once."""

SURE = 1e-9
"""Probabilities are kept this far from 0 and 1 where their logit is taken."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels beside what a scorer says of them: V single labels and K ranked pairs."""

    probability: Values
    """[V], of "good"."""
    good: Values
    """[V], 1 for good and 0 for bad."""
    image: Indices
    """[V]"""
    prompt: Indices
    """[V]"""
    score_0: Values
    """[K], the score of each pair's picture 0, a probability."""
    score_1: Values
    """[K], the score of each pair's picture 1, a probability."""
    label_0: Values
    """[K]: 1 when picture 0 is better, 0.5 for a tie, 0 when it is worse."""
    image_0: Indices
    """[K]"""
    image_1: Indices
    """[K]"""
    pair_prompt: Indices
    """[K]"""

    @classmethod
    def of(cls, scorer: Scorer, part: FeedbackDataset) -> Self:
        """The labels of `part` beside the scores of their pictures."""
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
        """The labels where the masks [V] and [K] hold."""
        single = {
            name: getattr(self, name)[verdicts]
            for name in ("probability", "good", "image", "prompt")
        }
        ranked = {
            name: getattr(self, name)[pairs]
            for name in ("score_0", "score_1", "label_0", "image_0", "image_1", "pair_prompt")
        }
        return replace(self, **single, **ranked)

    @property
    def margin(self) -> Values:
        """[K], by how much the logit of picture 0 is above that of picture 1."""
        first, second = (
            logit(np.clip(score, SURE, 1 - SURE)) for score in (self.score_0, self.score_1)
        )
        return np.where(self.score_0 == self.score_1, 0.0, first - second)

    @property
    def right(self) -> Values:
        """[K], 1 where the scores order a pair as its label does, 0.5 where they are equal, 0 elsewhere; NaN for ties of the rater."""
        difference = self.score_0 - self.score_1
        right = np.where(difference == 0, 0.5, (difference > 0) == (self.label_0 > 0.5))
        return np.where(self.label_0 == 0.5, np.nan, right)


def figures(scored: Scored) -> Figures:
    """All figures; None where one is undefined, as the ROC-AUC of labels of one class.

    Of `n` single labels, `share_good` of them good: `roc_auc`, `average_precision`, `accuracy` at 0.5, `brier`, `nll`, `ece` (15 bins), and
    by prompt `roc_auc_macro`, `accuracy_macro` and `good_at_1`, the share of good labels of the prompt's picture with the highest score.
    Of `n_pairs` ranked pairs without ties: `pairwise_accuracy`, where equal scores count as half right, and by prompt
    `pairwise_accuracy_macro`, `kendall_tau` and `recall_at_1`.
    """
    good, probability, right = scored.good, scored.probability, scored.right
    both, some = len(np.unique(good)) == 2, len(good) > 0
    return {
        "n": len(good),
        "share_good": float(good.mean()) if some else None,
        "roc_auc": float(roc_auc_score(good, probability)) if both else None,
        "average_precision": float(average_precision_score(good, probability)) if both else None,
        "accuracy": float(accuracy_score(good, probability >= 0.5)) if some else None,
        "brier": float(brier_score_loss(good, probability, labels=[0, 1])) if some else None,
        "nll": float(log_loss(good, probability, labels=[0, 1])) if some else None,
        "ece": expected_calibration_error(probability, good) if some else None,
        "n_pairs": int(np.isfinite(right).sum()),
        "pairwise_accuracy": _mean(right),
        **{name: _mean(values) for name, values in by_prompt(scored).items()},
    }


def by_prompt(scored: Scored) -> dict[str, Values]:
    """The figures that are taken prompt by prompt, each [P] in the order of the prompts' indices; NaN where one is undefined."""
    prompts, right = _prompts(scored), scored.right
    rows = []
    for single, ranked in zip(
        _rows_of(scored.prompt, prompts), _rows_of(scored.pair_prompt, prompts), strict=True
    ):
        probability, good = scored.probability[single], scored.good[single]
        rows.append(
            {
                "roc_auc_macro": weighted_roc_auc(_ranks(probability), good, np.ones(len(good))),
                "accuracy_macro": _mean((probability >= 0.5) == (good == 1)),
                "good_at_1": _mean(good[probability == probability.max()]) if len(good) else None,
                "pairwise_accuracy_macro": _mean(right[ranked]),
                "kendall_tau": _kendall_tau(
                    scored.score_0[ranked] - scored.score_1[ranked], scored.label_0[ranked]
                ),
                "recall_at_1": _recall_at_1(scored, ranked),
            }
        )
    names = (
        "roc_auc_macro",
        "accuracy_macro",
        "good_at_1",
        "pairwise_accuracy_macro",
        "kendall_tau",
        "recall_at_1",
    )
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
        for name in names
    }


def pair_accuracy(
    scored: Scored, convention: Convention, *, tie_within: float = 0.0
) -> float | None:
    """Accuracy on ranked pairs as `convention` counts it, to compare with published figures; None without pairs that it counts.

    strict: ties of raters are left out, equal scores count as half right. imagereward: the same, but equal scores count as wrong.
    hpsv2: ties of raters count as right, equal scores as half right, and prompts are averaged; HPSv2's programs bring equal
    scores into some order before they look at labels. pickscore: scores tie when the two chances to win are at most
    `tie_within` apart (`fit_tie_threshold`); a tie that only one side sees counts as half right.
    """
    labels, right = scored.label_0, scored.right
    strict = labels != 0.5
    if convention == "strict":
        return _mean(right)
    if convention == "imagereward":
        return _mean((right == 1)[strict])
    if convention == "hpsv2":
        fair = np.where(strict, right, 1.0)
        return _mean(
            np.array(
                [
                    fair[rows].mean()
                    for rows in _rows_of(scored.pair_prompt, np.unique(scored.pair_prompt))
                ]
            )
        )
    tied = (
        np.abs(np.tanh(scored.margin / 2)) <= tie_within
    )  # the chances to win are sigmoid(margin) and sigmoid(-margin)
    return _mean(np.where(tied | ~strict, np.where(tied & ~strict, 1.0, 0.5), right == 1))


def fit_tie_threshold(scored: Scored) -> float:
    """The `tie_within` of the convention pickscore that is right most often on these pairs, to be fitted on the validation part."""
    gaps = np.abs(np.tanh(scored.margin / 2))
    candidates = (
        np.unique([0.0, *np.quantile(gaps, np.linspace(0, 1, 101))]) if len(gaps) else np.zeros(1)
    )
    return float(
        max(
            candidates,
            key=lambda threshold: pair_accuracy(scored, "pickscore", tie_within=threshold) or 0.0,
        )
    )


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap samples of a part, the same ones for every scorer, so that differences between scorers have intervals as well."""

    by_prompt: bool
    """Whether whole prompts were drawn, or pictures with all their labels."""
    clusters: Indices
    """[C], the indices of the prompts or pictures, sorted."""
    counts: NDArray[np.int64]
    """[R, C], how often each was drawn."""

    @classmethod
    def draw(cls, scored: Scored, rng: np.random.Generator, resamples: int) -> Self:
        """`resamples` draws of as many prompts as there are, with replacement; of pictures where there are few prompts."""
        prompts = _prompts(scored)
        by_prompt = len(prompts) >= ENOUGH_CLUSTERS
        pictures = np.unique(np.concatenate([scored.image, scored.image_0, scored.image_1]))
        clusters = prompts if by_prompt else pictures
        if not len(clusters):
            return cls(by_prompt, clusters, np.zeros((resamples, 0), np.int64))
        return cls(
            by_prompt,
            clusters,
            rng.multinomial(
                len(clusters), np.full(len(clusters), 1 / len(clusters)), size=resamples
            ),
        )

    def figures(self, scored: Scored) -> dict[str, Values]:
        """Figures of every sample, each [R], NaN where one is undefined.

        Where pictures were drawn, a pair counts as often as the product of its two pictures, and there is nothing for figures by prompt.
        The calibration error is left out: resampling alone raises it, so its interval would mislead.
        """
        at = self._rows_of(scored.prompt if self.by_prompt else scored.image)
        columns = self._losses(scored, at) | self._areas(scored, at)
        if not self.by_prompt:
            return columns | {"pairwise_accuracy": self._of_pairs(scored)}
        by_pair = {
            "pairwise_accuracy": self._means(scored.right, self._rows_of(scored.pair_prompt))
        }
        whole = by_prompt(scored)
        rows = self._rows_of(_prompts(scored))
        return (
            columns | by_pair | {name: self._means(values, rows) for name, values in whole.items()}
        )

    def _rows_of(self, keys: Indices) -> Indices:
        return np.searchsorted(self.clusters, keys).astype(np.int64)

    def _losses(self, scored: Scored, at: Indices) -> dict[str, Values]:
        probability, good = np.clip(scored.probability, SURE, 1 - SURE), scored.good
        losses = {
            "accuracy": ((scored.probability >= 0.5) == (good == 1)).astype(np.float64),
            "brier": (scored.probability - good) ** 2,
            "nll": -np.log(np.where(good == 1, probability, 1 - probability)),
        }
        return {name: self._means(values, at) for name, values in losses.items()}

    def _areas(self, scored: Scored, at: Indices) -> dict[str, Values]:
        ranks, good = _ranks(scored.probability), scored.good
        areas = {"roc_auc": weighted_roc_auc, "average_precision": weighted_average_precision}
        chunks = self._chunks(len(at))
        return {
            name: np.concatenate([area(ranks, good, self.counts[rows][:, at]) for rows in chunks])
            for name, area in areas.items()
        }

    def _of_pairs(self, scored: Scored) -> Values:
        """The pairwise accuracy of each sample of pictures."""
        known = np.isfinite(scored.right)
        right = scored.right[known]
        first, second = (self._rows_of(image[known]) for image in (scored.image_0, scored.image_1))
        parts = (
            self.counts[rows][:, first] * self.counts[rows][:, second]
            for rows in self._chunks(len(right))
        )
        return np.concatenate([_ratio(weights @ right, weights.sum(1)) for weights in parts])

    def _means(self, values: Values, at: Indices) -> Values:
        """The mean of `values` [N] in each sample, [R]; `at` [N] says which cluster each belongs to, and NaN counts for nothing."""
        known = np.isfinite(values)
        sums, sizes = (
            np.bincount(at[known], weights, minlength=len(self.clusters))
            for weights in (values[known], None)
        )
        return _ratio(self.counts @ sums, self.counts @ sizes)

    def _chunks(self, columns: int) -> list[slice]:
        """The samples in parts that fit into memory with `columns` weights each."""
        step = max(1, MOST_WEIGHTS // max(columns, 1))
        return [slice(start, start + step) for start in range(0, len(self.counts), step)]


def interval(values: Values) -> tuple[float, float] | None:
    """The middle 95 % of bootstrap values, those that are undefined left out; None when all are."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def weighted_roc_auc(scores: Indices, good: Values, weights: Values | Indices) -> Values:
    """ROC-AUC of scores given as ranks from 0, for each row of `weights` [..., V]; NaN without weight on both classes.

    The same figure as scikit-learn's `roc_auc_score`, which takes one set of weights at a time and 200 times as long for it.
    """
    positive, negative = _by_rank(scores, weights * good), _by_rank(scores, weights * (1 - good))
    below = np.cumsum(negative, axis=-1) - negative
    return _ratio((positive * (below + negative / 2)).sum(-1), positive.sum(-1) * negative.sum(-1))


def weighted_average_precision(scores: Indices, good: Values, weights: Values | Indices) -> Values:
    """Average precision of scores given as ranks from 0, as scikit-learn's `average_precision_score`, for each row of `weights` [..., V].

    NaN without weight on good.
    """
    positive, everything = (_by_rank(scores, each)[..., ::-1] for each in (weights * good, weights))
    precision = positive.cumsum(-1) / np.maximum(everything.cumsum(-1), 1e-12)
    return _ratio((positive * precision).sum(-1), positive.sum(-1))


def _by_rank(ranks: Indices, weights: Values | Indices) -> Values:
    """The weights [..., V] added up by rank, [..., ranks]."""
    order = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[order], np.arange(ranks.max(initial=-1) + 1))
    sums: Values = (
        np.add.reduceat(weights[..., order].astype(np.float64), starts, axis=-1)
        if len(ranks)
        else np.zeros(weights.shape)
    )
    return sums


def _ratio(above: Values | Indices, below: Values | Indices) -> Values:
    """NaN where `below` is 0."""
    ratios: Values = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
    return ratios


def _kendall_tau(differences: Values, labels: Values) -> float | None:
    """Tau-b over ranked pairs: agreeing minus disagreeing ones over the geometric mean of those that rater and scores each do not tie."""
    signs, wanted = np.sign(differences), np.sign(labels - 0.5)
    untied = np.sqrt(float(np.abs(signs).sum() * np.abs(wanted).sum()))
    if untied:
        return float(signs @ wanted / untied)
    return 0.0 if wanted.any() else None  # equal scores say nothing about an order that there is


def _recall_at_1(scored: Scored, pairs: Indices) -> float | None:
    """Whether the picture with the highest score won the largest share of its comparisons; a share where several tie for the highest."""
    if not (scored.label_0[pairs] != 0.5).any():
        return None
    images = np.concatenate([scored.image_0[pairs], scored.image_1[pairs]])
    scores = np.concatenate([scored.score_0[pairs], scored.score_1[pairs]])
    wins = np.concatenate([scored.label_0[pairs], 1 - scored.label_0[pairs]])
    _, first, at = np.unique(images, return_index=True, return_inverse=True)
    worth = np.bincount(at, weights=wins) / np.bincount(at)
    chosen = scores[first] == scores[first].max()
    return float((worth == worth.max())[chosen].mean())


def _prompts(scored: Scored) -> Indices:
    return np.unique(np.concatenate([scored.prompt, scored.pair_prompt]))


def _rows_of(values: Indices, keys: Indices) -> list[Indices]:
    """For each of the sorted `keys`, which entries of `values` it is."""
    order = np.argsort(values, kind="stable")
    starts, stops = (np.searchsorted(values[order], keys, side=side) for side in ("left", "right"))
    return [order[start:stop] for start, stop in zip(starts, stops, strict=True)]


def _ranks(scores: Values) -> Indices:
    return np.unique(scores, return_inverse=True)[1]


def _mean(values: NDArray[np.float64] | Mask) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
