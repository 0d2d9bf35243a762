"""Would more labels help? The reward trained anew on parts of the training labels, measured on the same held-out ones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.evaluation import PARTS, measure, model_scorer
from reward.examples import Examples
from reward.model import RewardModel
from reward.training import RewardConfig, trained

SHARES = (0.25, 0.5)
"""Of the training labels; together they cost less than one training with all of them."""
FIGURES = ("roc_auc", "pairwise_accuracy", "ece")


def learning_curve(
    backbone: ClipBackbone,
    examples: Examples,
    config: RewardConfig,
    *,
    shares: Sequence[float] = SHARES,
) -> Iterator[dict[str, Any]]:
    """For each of `shares`: `labels` and `pairs` learned from, and for every held-out part the figures of `FIGURES`, ready for JSON.

    A larger share holds the smaller ones. A share that is too small to learn from is left out.
    """
    draw = np.random.default_rng(config.seed)
    of_image, of_pair = (
        draw.random(len(examples.dataset.image_ids)),
        draw.random(len(examples.split.train.pairs)),
    )
    for share in shares:
        train_part = examples.split.train
        some = train_part.where(of_image[train_part.verdicts.image] < share, of_pair < share)
        fewer = replace(examples, split=replace(examples.split, train=some))
        try:
            model = trained(backbone, fewer, config)
        except PictuneError:
            continue
        yield point(model, fewer)


def point(model: RewardModel, examples: Examples) -> dict[str, Any]:
    """The point of a learning curve that a model trained on `examples` is."""
    scorer = model_scorer(model, examples)
    parts = {name: measure(scorer, getattr(examples.split, name)) for name in PARTS}
    counts = examples.split.train.counts
    held_out = {name: {figure: row[figure] for figure in FIGURES} for name, row in parts.items()}
    return {"labels": counts["good"] + counts["bad"], "pairs": counts["pairs"], **held_out}
