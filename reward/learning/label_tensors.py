"""Labels as tensors for the losses: verdicts joined by image, pairs and whole rankings."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from data.errors import PictuneError
from reward.dataset import FeedbackDataset, Numbers
from reward.settings import LabelWeighting


@dataclass(frozen=True, eq=False)
class PaddedRankings:
    """R whole rankings of up to M images, on the CPU."""

    image: Tensor
    """[R, M] rows of `Examples.image_features`, sorted within a ranking."""
    ranks: Tensor
    """[R, M], lower is better, equal is a tie."""
    present: Tensor
    """Bool [R, M], false where a ranking has fewer than M images."""
    prompt: Tensor
    """[R] rows of `Examples.text_embeddings`."""
    weight: Tensor
    """[R]"""


@dataclass(frozen=True, eq=False)
class LabelTensors:
    """The labels of one part, on the CPU: what a step needs is moved to the model's device.

    The verdicts of all raters on one image and prompt are joined.
    """

    image: Tensor
    """[V] rows of `Examples.image_features`."""
    prompt: Tensor
    """[V] rows of `Examples.text_embeddings`."""
    good: Tensor
    """[V], share of raters who answered "good"."""
    raters: Tensor
    """[V], number of raters who answered "good" or "bad", weighted by the settings."""
    image_0: Tensor
    """[K] rows of `Examples.image_features`."""
    image_1: Tensor
    """[K] rows of `Examples.image_features`."""
    pair_prompt: Tensor
    """[K] rows of `Examples.text_embeddings`."""
    label_0: Tensor
    """[K]: 1 when image 0 is better, 0.5 for a tie, 0 when it is worse."""
    weight: Tensor
    """[K], 1 / (number of pairs in the ranking), times the weight of the rater."""
    ranking: Tensor | None = None
    """[K], number of each pair's ranking, from 0; None if each pair counts as a ranking."""

    @classmethod
    def from_part(
        cls,
        part: FeedbackDataset,
        *,
        weighting: LabelWeighting = "equal",
        whole_rankings: bool = False,
        shares: Numbers | None = None,
    ) -> Self:
        """Join the verdicts of `part`.

        `shares` [raters] multiplies the weight of each rater's labels. Labels of weight 0 are
        omitted.

        Raises:
            PictuneError: the export has no estimates that `weighting` needs.
        """
        verdicts, pairs = part.verdicts, part.pairs
        target = _consensus(part) if weighting == "consensus" else verdicts.good
        counts, weight = _rater_weights(part, weighting)
        if shares is not None:
            counts, weight = counts * shares[verdicts.rater], weight * shares[pairs.rater]
        asked = np.stack([verdicts.image, verdicts.prompt], axis=1)
        keys, inverse = np.unique(asked, axis=0, return_inverse=True)
        raters, good = (
            np.bincount(inverse, weights=each, minlength=len(keys)).astype(np.float32)
            for each in (counts, counts * target)
        )
        kept, counted = raters > 0, weight > 0
        of_verdicts = (keys[kept, 0], keys[kept, 1], good[kept] / raters[kept], raters[kept])
        columns = (pairs.image_0, pairs.image_1, pairs.prompt, pairs.label_0, weight)
        of_pairs = [column[counted] for column in columns]
        if whole_rankings:
            of_pairs.append(np.unique(pairs.ranking[counted], return_inverse=True)[1])
        return cls(*map(torch.tensor, (*of_verdicts, *of_pairs)))

    @property
    def n_rankings(self) -> int:
        """Number of rankings, or of pairs if `ranking` is None."""
        if self.ranking is None or not len(self.ranking):
            return len(self.image_0)
        return int(self.ranking.max()) + 1

    @cached_property
    def padded_rankings(self) -> PaddedRankings:
        """All whole rankings; if `ranking` is None, each pair is a ranking of two.

        They are built from the pairs and not from `labels_ranking.parquet`, since the split, the
        raters' weights and imports work on pairs. Images are ranked by the number of pairs that
        they win; a tie is half a win.
        """
        device, count = self.image_0.device, self.n_rankings
        group = torch.arange(count, device=device) if self.ranking is None else self.ranking
        shown = torch.stack([group.repeat(2), torch.cat([self.image_0, self.image_1])], dim=1)
        listed, at = shown.unique(dim=0, return_inverse=True)  # sorted by ranking, then by image
        row, image = listed.T
        sizes = torch.bincount(row, minlength=count)
        column = torch.arange(len(row), device=device) - (sizes.cumsum(0) - sizes)[row]
        scores = torch.cat([self.label_0, 1 - self.label_0])
        wins = self.label_0.new_zeros(len(row)).index_add(0, at, scores)
        shape, place = (count, int(sizes.max())), (row, column)
        return PaddedRankings(
            image=image.new_zeros(shape).index_put(place, image),
            ranks=wins.new_zeros(shape).index_put(place, -wins),
            present=torch.arange(shape[1], device=device) < sizes[:, None],
            prompt=group.new_zeros(count).index_copy(0, group, self.pair_prompt),
            weight=self.weight.new_zeros(count).index_add(0, group, self.weight),
        )


def _rater_weights(part: FeedbackDataset, weighting: LabelWeighting) -> tuple[Numbers, Numbers]:
    """Return the rater's weight of each verdict [V], and the weight of each pair [K]."""
    verdicts, pairs = part.verdicts, part.pairs
    if weighting != "skill":
        return np.ones(len(verdicts), np.float32), pairs.weight
    if verdicts.skill is None or pairs.skill is None:
        raise PictuneError(
            "label_weights: no rater's skill is known; let two raters or more answer the "
            'same tasks, or set it to "equal"'
        )
    above_chance = [np.clip(2 * skill - 1, 0, 1) for skill in (verdicts.skill, pairs.skill)]
    known = np.concatenate(above_chance)
    known = known[np.isfinite(known)]
    # A rater without shared tasks gets the mean weight of the other raters.
    usual = float(known.mean()) if len(known) else 1.0
    counts, of_pairs = (
        np.where(np.isfinite(each), each, usual).astype(np.float32) for each in above_chance
    )
    return counts, pairs.weight * of_pairs


def _consensus(part: FeedbackDataset) -> Numbers:
    """Return the consensus probability of "good" on each verdict's task, [V].

    Without an estimate it is the verdict itself.
    """
    p_good = part.verdicts.p_good
    if p_good is None:
        raise PictuneError(
            "label_weights: the export has no consensus.parquet; export the labels again, "
            'or set it to "equal"'
        )
    return np.where(np.isfinite(p_good), p_good, part.verdicts.good)
