"""Bootstrap intervals of figures.

Intervals have 95 % coverage. Prompts are resampled, since the labels of a prompt are dependent.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from reward.calibration import Values
from reward.dataset import Indices
from reward.measuring.metrics import (
    Scored,
    as_ranks,
    by_prompt,
    ratio,
    weighted_roc_auc,
)

ENOUGH_CLUSTERS = 10
"""Least number of prompts to resample; with fewer prompts, images are resampled."""

MOST_WEIGHTS = 2_000_000
"""Weights of bootstrap samples in memory at once."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap samples of a part.

    All scorers share the samples, so that differences between scorers have intervals too.
    """

    by_prompt: bool
    """Whether prompts were drawn, or else images; each with all its labels."""
    clusters: Indices
    """[C], indices of the prompts or images, sorted."""
    counts: NDArray[np.int64]
    """[R, C], how often each cluster was drawn."""

    @classmethod
    def draw(cls, scored: Scored, rng: np.random.Generator, resamples: int) -> Self:
        """Draw all prompts with replacement, `resamples` times.

        With few prompts, images are drawn instead: a resample of very few prompts is not
        informative.
        """
        prompts = scored.part.labeled_prompts
        by_prompt = len(prompts) >= ENOUGH_CLUSTERS
        images = scored.part.labeled_images
        clusters = prompts if by_prompt else images
        if not len(clusters):
            return cls(by_prompt, clusters, np.zeros((resamples, 0), np.int64))
        evenly = np.full(len(clusters), 1 / len(clusters))
        return cls(by_prompt, clusters, rng.multinomial(len(clusters), evenly, size=resamples))

    def figures(self, scored: Scored) -> dict[str, Values]:
        """Return the figures of every sample, each [R]; NaN where a figure is undefined.

        If images were drawn, the weight of a pair is the product of its images' counts, and figures
        by prompt are omitted. The calibration error is always omitted: resampling itself raises it,
        so its interval would mislead.
        """
        verdicts = scored.part.verdicts
        at = self._rows_of(verdicts.prompt if self.by_prompt else verdicts.image)
        columns = self._losses(scored, at) | {"roc_auc": self._areas(scored, at)}
        if not self.by_prompt:
            return columns | {"pairwise_accuracy": self._of_pairs(scored)}
        rows = self._rows_of(scored.part.labeled_prompts)
        macro = {name: self._means(values, rows) for name, values in by_prompt(scored).items()}
        right = self._means(scored.right, self._rows_of(scored.part.pairs.prompt))
        return columns | {"pairwise_accuracy": right} | macro

    def _rows_of(self, keys: Indices) -> Indices:
        return np.searchsorted(self.clusters, keys).astype(np.int64)

    def _losses(self, scored: Scored, at: Indices) -> dict[str, Values]:
        good = scored.good
        losses = {
            "accuracy": ((scored.probability >= 0.5) == (good == 1)).astype(np.float64),
            "brier": (scored.probability - good) ** 2,
        }
        return {name: self._means(values, at) for name, values in losses.items()}

    def _areas(self, scored: Scored, at: Indices) -> Values:
        ranks, good = as_ranks(scored.probability), scored.good
        weights = (self.counts[rows][:, at] for rows in self._chunks(len(at)))
        return np.concatenate([weighted_roc_auc(ranks, good, each) for each in weights])

    def _of_pairs(self, scored: Scored) -> Values:
        """Return the pairwise accuracy of each sample of images."""
        known = np.isfinite(scored.right)
        right, pairs = scored.right[known], scored.part.pairs.where(known)
        first, second = self._rows_of(pairs.image_0), self._rows_of(pairs.image_1)
        parts = (
            self.counts[rows][:, first] * self.counts[rows][:, second]
            for rows in self._chunks(len(right))
        )
        return np.concatenate([ratio(weights @ right, weights.sum(1)) for weights in parts])

    def _means(self, values: Values, at: Indices) -> Values:
        """Return the mean of `values` [N] in each sample, [R].

        `at` [N] is the cluster of each value; NaN values are omitted.
        """
        known = np.isfinite(values)
        sums, sizes = (
            np.bincount(at[known], weights, minlength=len(self.clusters))
            for weights in (values[known], None)
        )
        return ratio(self.counts @ sums, self.counts @ sizes)

    def _chunks(self, columns: int) -> list[slice]:
        """Split the samples into chunks that fit into memory with `columns` weights each."""
        step = max(1, MOST_WEIGHTS // max(columns, 1))
        return [slice(start, start + step) for start in range(0, len(self.counts), step)]


def interval(values: Values, clusters: int) -> tuple[float, float] | None:
    """Return a 95 % interval from bootstrap values; None if all values are undefined.

    With few clusters the middle 95 % of the samples are too narrow: with 10 to 20 clusters they
    cover 90 %. So the share is enlarged by Student's t (Hesterberg 2015, The American Statistician
    69, "expanded percentile"), which covers 93 to 95 %.
    """
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    few = max(2, clusters)
    share = float(ndtr(stdtrit(few - 1, 0.025) * np.sqrt(few / (few - 1))))
    low, high = np.quantile(defined, [share, 1 - share])
    return float(low), float(high)
