"""Comparison of one reward per rater type with a single reward for all, on held-out raters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from data.errors import PictuneError
from reward.calibration import Values
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, Indices, Mask
from reward.learning.examples import Examples, logits_and_margins
from reward.learning.rater_types import RaterTypes, fit_types, posterior
from reward.learning.training import train_from_scratch
from reward.measuring.bootstrap import interval
from reward.measuring.report import Gain, PredictionFigures, TypeComparison
from reward.model import RewardModel
from reward.settings import RewardConfig

HELD_OUT_RATERS = 0.3
"""Share of the raters that are held out."""
RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Predictions:
    """Single labels and pairs without ties, and their predicted probabilities."""

    rater: Indices
    """[N]"""
    label: Values
    """[N], 1 for good or for the first image of a pair, else 0."""
    probability: Values
    """[N], predicted probability of label 1."""

    @property
    def figures(self) -> PredictionFigures:
        """Negative log-likelihood and ROC-AUC."""
        auc = None
        if len(np.unique(self.label)) == 2:
            auc = float(roc_auc_score(self.label, self.probability))
        nll = float(log_loss(self.label, self.probability, labels=[0, 1]))
        return PredictionFigures(nll=nll, roc_auc=auc)

    @property
    def losses(self) -> Values:
        """[N], the negative log-likelihood of each label."""
        of_label = np.where(self.label == 1, self.probability, 1 - self.probability)
        losses: Values = -np.log(of_label.clip(1e-9))
        return losses


def compare_types(
    backbone: ClipBackbone, examples: Examples, config: RewardConfig
) -> TypeComparison:
    """Compare how `config.rater_types` rewards and one reward predict held-out raters.

    A share of the raters is held out of training. Their types are computed from their labels of
    training images, and their labels of all other images are predicted. Several types help if the
    interval of `gain` is above 0. The result is empty if there are too few raters or labels.
    """
    rng = np.random.default_rng(config.seed)
    count = len(examples.dataset.raters)
    held_out = np.isin(np.arange(count), rng.permutation(count)[: round(HELD_OUT_RATERS * count)])

    def of(raters: Mask, part: FeedbackDataset) -> FeedbackDataset:
        return part.where(raters[part.verdicts.rater], raters[part.pairs.rater])

    split = examples.split
    teaching, known = of(~held_out, split.train), of(held_out, split.train)
    asked = [of(held_out, part) for part in (split.val, split.test_seen, split.test_unseen)]
    enough = len(teaching.labeling_raters) >= config.rater_types and len(known.labeling_raters)
    if not enough or not any(len(part.labeling_raters) for part in asked):
        return TypeComparison()
    fewer = replace(examples, split=replace(split, train=teaching, val=of(~held_out, split.val)))

    def predictions(pooled: RewardModel, types: int) -> Predictions:
        of_types = config.model_copy(update={"rater_types": types})
        generator = torch.Generator().manual_seed(config.seed)
        fitted = fit_types(pooled, fewer, of_types, generator=generator)
        return _predict(fitted, examples, known, asked)

    try:
        pooled = train_from_scratch(backbone, fewer, config)
        # One type is trained like several, which takes longer than training the pooled reward.
        one, several = (predictions(pooled, types) for types in (1, config.rater_types))
    except PictuneError:  # the other raters have no labels to learn from
        return TypeComparison()
    if not len(one.label):
        return TypeComparison()
    gains = one.losses - several.losses
    return TypeComparison(
        one=one.figures,
        several=several.figures,
        gain=Gain(value=float(gains.mean()), interval=_interval(gains, one.rater, rng)),
        held_out_raters=len(known.labeling_raters),
        labels=len(gains),
    )


def _predict(
    types: RaterTypes,
    examples: Examples,
    known: FeedbackDataset,
    asked: Sequence[FeedbackDataset],
) -> Predictions:
    shares = posterior(types.models, types.prior, examples, known)
    columns = []
    for part in asked:
        verdicts, pairs = part.verdicts, part.pairs
        strict = pairs.label_0 != 0.5
        rater = np.concatenate([verdicts.rater, pairs.rater[strict]])
        label = np.concatenate([verdicts.good, pairs.label_0[strict]]).astype(np.float64)
        by_type = []
        for model in types.models:
            logits, margins = logits_and_margins(model, examples, part)
            said = np.concatenate([logits, margins[strict]]) / float(model.temperature)
            by_type.append(expit(said))
        columns.append((rater, label, (shares[rater] * np.stack(by_type, axis=1)).sum(1)))
    return Predictions(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _interval(
    gains: Values, rater: Indices, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean gain over samples of raters."""
    names, at = np.unique(rater, return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    totals, sizes = np.bincount(at, weights=gains), np.bincount(at)
    return interval(times @ totals / (times @ sizes), len(names))
