"""Do several rater types foretell raters whom nobody learned from better than one reward for all?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.calibration import Values, with_slips
from reward.dataset import Indices
from reward.evaluation import logits_and_margins
from reward.examples import Examples
from reward.metrics import interval
from reward.rater_types import RatedPart, RaterTypes, fit_types, posterior
from reward.raters import LabelRaters
from reward.training import RewardConfig, trained

HELD_OUT = 0.3
"""Of the raters."""
RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Foretold:
    """Single labels and strict pairs of raters, and the probabilities that they were given."""

    rater: Indices
    """[N]"""
    label: Values
    """[N], 1 for good or for the first picture of a pair, else 0."""
    probability: Values
    """[N], of label 1."""

    @property
    def figures(self) -> dict[str, float | None]:
        """`nll` and `roc_auc`, None where there is one class only."""
        auc = (
            float(roc_auc_score(self.label, self.probability))
            if len(np.unique(self.label)) == 2
            else None
        )
        return {"nll": float(log_loss(self.label, self.probability, labels=[0, 1])), "roc_auc": auc}

    @property
    def losses(self) -> Values:
        """[N], the negative log-likelihood of each label."""
        losses: Values = -np.log(
            np.where(self.label == 1, self.probability, 1 - self.probability).clip(1e-9)
        )
        return losses


def compare_types(
    backbone: ClipBackbone, examples: Examples, raters: LabelRaters, config: RewardConfig
) -> dict[str, Any] | None:
    """Whether `config.rater_types` rewards foretell raters whom they never learned from better than one, ready for JSON.

    A share of the raters is left out of training. Their types are worked out from their labels of training pictures, and foretold are their
    labels of all other pictures: `nll` (mean negative log-likelihood) and `roc_auc` of `one` and of `several`, and `gain`, by how much the
    `nll` of several is lower, with a 95 % `interval` from resampled raters: several types help where it lies above 0. None where there are
    too few raters, or labels, to say.
    """
    rng = np.random.default_rng(config.seed)
    count = len(raters.names)
    left_out = np.isin(np.arange(count), rng.permutation(count)[: round(HELD_OUT * count)])
    split = examples.split
    teaching, validating = (
        RatedPart.of(examples, part, raters).of_raters(~left_out)
        for part in (split.train, split.val)
    )
    known = RatedPart.of(examples, split.train, raters).of_raters(left_out)
    asked = [
        RatedPart.of(examples, part, raters).of_raters(left_out)
        for part in (split.val, split.test_seen, split.test_unseen)
    ]
    if (
        len(teaching.raters) < config.rater_types
        or not len(known.raters)
        or not any(len(each.raters) for each in asked)
    ):
        return None
    fewer = replace(examples, split=replace(split, train=teaching.labels, val=validating.labels))
    foretold = {}
    try:
        pooled = trained(backbone, fewer, config)
        for name, types in (
            ("one", 1),
            ("several", config.rater_types),
        ):  # one by the same way: it trains longer than the pooled reward
            of_types = config.model_copy(update={"rater_types": types})
            generator = torch.Generator().manual_seed(config.seed)
            fitted = fit_types(
                pooled, fewer, (teaching, validating), raters.names, of_types, generator=generator
            )
            foretold[name] = _foretell(fitted, examples, known, asked, count)
    except PictuneError:  # what is left teaches nothing
        return None
    if not len(foretold["one"].label):
        return None
    gains = foretold["one"].losses - foretold["several"].losses
    rows: dict[str, Any] = {name: each.figures for name, each in foretold.items()}
    rows["gain"] = {
        "value": float(gains.mean()),
        "interval": _interval(gains, foretold["one"].rater, rng),
    }
    return rows | {
        "types": config.rater_types,
        "held_out_raters": len(known.raters),
        "labels": len(gains),
    }


def _foretell(
    types: RaterTypes,
    examples: Examples,
    known: RatedPart,
    asked: Sequence[RatedPart],
    n_raters: int,
) -> Foretold:
    shares = posterior(types.models, types.prior, examples, known, n_raters)
    columns = []
    for part in asked:
        verdicts, pairs = part.labels.verdicts, part.labels.pairs
        strict = pairs.label_0 != 0.5
        rater = np.concatenate([part.of_verdicts, part.of_pairs[strict]])
        label = np.concatenate([verdicts.good, pairs.label_0[strict]]).astype(np.float64)
        by_type = []
        for model in types.models:
            logits, margins = logits_and_margins(model, examples, part.labels)
            said = expit(np.concatenate([logits, margins[strict]]) / float(model.temperature))
            by_type.append(with_slips(said, float(model.slip)))
        columns.append((rater, label, (shares[rater] * np.stack(by_type, axis=1)).sum(1)))
    return Foretold(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _interval(
    gains: Values, rater: Indices, rng: np.random.Generator
) -> tuple[float, float] | None:
    """95 % of the mean gain over samples of raters."""
    names, at = np.unique(rater, return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    totals, sizes = np.bincount(at, weights=gains), np.bincount(at)
    return interval(times @ totals / (times @ sizes))
