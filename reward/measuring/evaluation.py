"""Evaluation of scorers on held-out labels: by part and category, and against raters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from reward.calibration import Values
from reward.dataset import FeedbackDataset, Indices
from reward.learning.examples import Examples, as_values, embeddings_at, logits_at
from reward.measuring.bootstrap import Resamples, interval
from reward.measuring.metrics import Scored, Scorer, figures
from reward.measuring.report import (
    CLIP_SCORE,
    MODEL,
    PARTS,
    Evaluation,
    Figures,
    FiguresWithIntervals,
    Gain,
    HumanFigures,
    PartReport,
)
from reward.model import RewardModel

RESAMPLES = 500


def evaluate(
    scorers: Mapping[str, Scorer], examples: Examples, *, seed: int, resamples: int = RESAMPLES
) -> Evaluation:
    """Measure `scorers` (at least `model` and `clip_score`) on every held-out part.

    Intervals have 95 % coverage and use the same resamples for all scorers.
    """
    parts = {}
    for name in PARTS:
        part: FeedbackDataset = getattr(examples.split, name)
        scored = {each: Scored.from_scorer(scorer, part) for each, scorer in scorers.items()}
        samples = Resamples.draw(scored[MODEL], np.random.default_rng(seed), resamples)
        parts[name] = _part_report(scored, samples)
    return Evaluation(train={"counts": examples.split.train.counts}, **parts)


def _part_report(scored: Mapping[str, Scored], samples: Resamples) -> PartReport:
    part = scored[MODEL].part
    resampled = {name: samples.figures(one) for name, one in scored.items()}
    rows: dict[str, Any] = {
        name: with_intervals(one, resampled[name], samples) for name, one in scored.items()
    }
    return PartReport(
        counts=part.counts,
        resampled="prompts" if samples.by_prompt else "images",
        gain=_gains(rows, resampled, len(samples.clusters)),
        by_category=_by_category(scored),
        human=_human(scored[MODEL], samples),
        **rows,
    )


def measure(scorer: Scorer, part: FeedbackDataset) -> Figures:
    """Return the figures of a scorer on the labels of `part`."""
    return figures(Scored.from_scorer(scorer, part))


def model_scorer(model: RewardModel, examples: Examples, *, calibrated: bool = True) -> Scorer:
    """Return the scorer of the reward model, with or without its calibration."""
    temperature = float(model.temperature) if calibrated else 1.0

    def score(image: Indices, prompt: Indices) -> Values:
        return np.asarray(expit(logits_at(model, examples, image, prompt) / temperature))

    return score


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """The reward's scores of every labeled image for its prompt, [N] each."""

    image: Indices
    prompt: Indices
    probability: Values
    std: Values
    """Standard deviation of the members' probabilities."""
    good: Values
    """Share of raters who answered "good"; NaN for images that were only ranked."""


def labeled(dataset: FeedbackDataset) -> tuple[Indices, Indices]:
    """Return the distinct labeled (image, prompt) rows [N, 2], sorted, and each label's row.

    Labels [V + 2K] are the verdicts, then images 0 and images 1 of the pairs.
    """
    verdicts, pairs = dataset.verdicts, dataset.pairs
    image = np.concatenate([verdicts.image, pairs.image_0, pairs.image_1])
    prompt = np.concatenate([verdicts.prompt, pairs.prompt, pairs.prompt])
    return np.unique(np.stack([image, prompt], axis=1), axis=0, return_inverse=True)


@torch.no_grad()
def score_images(model: RewardModel, examples: Examples) -> ScoredImages:
    """Score every image and prompt of the dataset once, in the order of their indices."""
    verdicts = examples.dataset.verdicts
    keys, at = labeled(examples.dataset)
    of_verdicts = at[: len(verdicts)]
    given, good = (
        np.bincount(of_verdicts, weights, minlength=len(keys)) for weights in (None, verdicts.good)
    )
    embeddings = embeddings_at(examples, keys[:, 0], keys[:, 1])
    probability, std = model.score_features_with_std(**embeddings)
    return ScoredImages(
        image=keys[:, 0],
        prompt=keys[:, 1],
        probability=as_values(probability),
        std=as_values(std),
        good=np.divide(good, given, out=np.full(len(keys), np.nan), where=given > 0),
    )


def with_intervals(
    scored: Scored, resampled: Mapping[str, Values], samples: Resamples
) -> FiguresWithIntervals:
    """Return all figures, with intervals from the resampled values."""
    clusters = len(samples.clusters)
    intervals = {figure: interval(values, clusters) for figure, values in resampled.items()}
    return FiguresWithIntervals(**dict(figures(scored)), intervals=intervals)


def _gains(
    rows: Mapping[str, Figures],
    resampled: Mapping[str, Mapping[str, Values]],
    clusters: int,
) -> dict[str, Gain]:
    """Return the model's gain over the CLIP score in each figure."""
    gains = {}
    for figure, values in resampled[MODEL].items():
        ours, theirs = (getattr(rows[name], figure) for name in (MODEL, CLIP_SCORE))
        if ours is not None and theirs is not None:
            difference = interval(values - resampled[CLIP_SCORE][figure], clusters)
            gains[figure] = Gain(value=ours - theirs, interval=difference)
    return gains


def _by_category(scored: Mapping[str, Scored]) -> dict[str, dict[str, Figures]]:
    part, rows = scored[MODEL].part, {}
    for category in sorted(set(part.categories) - {""}):
        belongs = np.array([each == category for each in part.categories])
        masks = belongs[part.verdicts.prompt], belongs[part.pairs.prompt]
        rows[category] = {name: figures(scored[name].where(*masks)) for name in (MODEL, CLIP_SCORE)}
    return rows


def others_said(answers: Values, rater: Indices, *asked: Indices) -> Values:
    """Return the mean answer of other raters to the same question, [V]; NaN without others.

    All arguments are [V]; equal rows of `asked` are the same question. A rater's mean excludes all
    of the rater's own answers to the question.
    """
    question = {str(i): column for i, column in enumerate(asked)}
    table = pd.DataFrame(question | {"rater": rater, "sum": answers, "count": 1.0})
    of_all, own = (
        table.groupby(columns)[["sum", "count"]].transform("sum")
        for columns in ([*question], [*question, "rater"])
    )
    others = of_all - own
    return (others["sum"] / others["count"]).to_numpy(np.float64)


def _others(scored: Scored) -> Scored:
    """Return the same labels with the other raters' answers as scores; NaN without others."""
    verdicts, pairs = scored.part.verdicts, scored.part.pairs
    asked = pairs.image_0, pairs.image_1, pairs.prompt
    return replace(
        scored,
        probability=others_said(scored.good, verdicts.rater, verdicts.image, verdicts.prompt),
        score_0=others_said(scored.label_0, pairs.rater, *asked),
        score_1=np.full(len(pairs), 0.5),
    )


def _human(scored: Scored, samples: Resamples) -> HumanFigures:
    others = _others(scored)
    comparable = np.isfinite(others.probability), np.isfinite(others.score_0)
    theirs, ours = (
        with_intervals(one, samples.figures(one), samples)
        for one in (others.where(*comparable), scored.where(*comparable))
    )
    return HumanFigures(others=theirs, model=ours)
