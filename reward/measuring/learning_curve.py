"""The learning curve: the reward trained again on parts of the training labels.

All points are measured on the same held-out labels. A curve that still rises asks for more labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.learning.examples import Examples
from reward.learning.training import train_from_scratch
from reward.measuring.evaluation import measure, model_scorer
from reward.measuring.report import PARTS, CurvePoint
from reward.model import RewardModel
from reward.settings import RewardConfig

SHARES = (0.25, 0.5)
"""Shares of the training labels; together they cost less than one training with all of them."""
FIGURES = ("roc_auc", "pairwise_accuracy", "ece")
"""Figures of each point."""


def learning_curve(
    backbone: ClipBackbone,
    examples: Examples,
    config: RewardConfig,
    *,
    shares: Sequence[float] = SHARES,
) -> Iterator[CurvePoint]:
    """Yield the point of each of `shares`.

    A larger share includes the smaller ones. A share that is too small to learn from is omitted.
    """
    draw = np.random.default_rng(config.seed)
    of_image = draw.random(len(examples.dataset.image_ids))
    of_pair = draw.random(len(examples.split.train.pairs))
    for share in shares:
        train_part = examples.split.train
        some = train_part.where(of_image[train_part.verdicts.image] < share, of_pair < share)
        fewer = replace(examples, split=replace(examples.split, train=some))
        try:
            model = train_from_scratch(backbone, fewer, config)
        except PictuneError:
            continue
        yield point(model, fewer)


def point(model: RewardModel, examples: Examples) -> CurvePoint:
    """Return the point of a model that was trained on `examples`."""
    scorer = model_scorer(model, examples)
    parts = {name: measure(scorer, getattr(examples.split, name)) for name in PARTS}
    counts = examples.split.train.counts
    held_out = {
        name: {figure: getattr(row, figure) for figure in FIGURES} for name, row in parts.items()
    }
    return CurvePoint(labels=counts["good"] + counts["bad"], pairs=counts["pairs"], **held_out)
