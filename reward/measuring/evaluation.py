"""Evaluation of scorers on held-out labels: by part, by category and rater, beside the raters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import expit

from reward.calibration import Values, with_slips
from reward.dataset import FeedbackDataset, Indices
from reward.learning.examples import Examples
from reward.learning.logits import as_values, embeddings_at, logits_at
from reward.measuring.bootstrap import Resamples, interval
from reward.measuring.metrics import (
    CONVENTIONS,
    Scored,
    Scorer,
    figures,
    fit_tie_threshold,
    pair_accuracy,
)
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
    RaterFigures,
    TrainReport,
)
from reward.model import RewardModel
from reward.raters import LabelRaters, others_said


def evaluate(
    scorers: Mapping[str, Scorer],
    examples: Examples,
    raters: LabelRaters | None = None,
    *,
    seed: int,
    resamples: int = 500,
) -> Evaluation:
    """Measure `scorers`, which have `model` and `clip_score` at least, on every held-out part.

    Intervals are of 95 %, from the same resampled prompts or images for all scorers. With `raters`,
    `human` has figures of the other raters of each label, beside the model on the same labels, and
    `by_rater` those of both on each rater's labels.
    """
    threshold = {
        name: fit_tie_threshold(Scored.from_scorer(scorer, examples.split.val))
        for name, scorer in scorers.items()
    }
    parts = {}
    for name in PARTS:
        part: FeedbackDataset = getattr(examples.split, name)
        scored = {each: Scored.from_scorer(scorer, part) for each, scorer in scorers.items()}
        samples = Resamples.draw(scored[MODEL], np.random.default_rng(seed), resamples)
        report = _part_report(scored, part, samples, threshold)
        if raters is not None:
            mine = raters.of_part(examples.dataset, part)
            others = _others(scored[MODEL], mine)
            beside = {
                "human": _human(scored[MODEL], others, samples),
                "by_rater": _by_rater(scored[MODEL], others, mine),
            }
            report = report.model_copy(update=beside)
        parts[name] = report
    return Evaluation(train=TrainReport(counts=examples.split.train.counts), **parts)


def _part_report(
    scored: Mapping[str, Scored],
    part: FeedbackDataset,
    samples: Resamples,
    threshold: Mapping[str, float],
) -> PartReport:
    resampled = {name: samples.figures(one) for name, one in scored.items()}
    rows = {name: with_intervals(one, resampled[name], samples) for name, one in scored.items()}
    conventions: dict[str, dict[str, float | None]] = {
        name: {
            convention: pair_accuracy(one, convention, tie_within=threshold[name])
            for convention in CONVENTIONS
        }
        for name, one in scored.items()
    }
    return PartReport(
        counts=part.counts,
        resampled="prompts" if samples.by_prompt else "images",
        scorers=rows,
        gain=_gains(rows, resampled, len(samples.clusters)),
        by_category=_by_category(scored, part),
        conventions=conventions,
    )


def measure(scorer: Scorer, part: FeedbackDataset) -> Figures:
    """Return the figures of a scorer on the labels of `part`."""
    return figures(Scored.from_scorer(scorer, part))


def model_scorer(model: RewardModel, examples: Examples, *, calibrated: bool = True) -> Scorer:
    """Return the scorer of the reward model, after its calibration or before it."""
    temperature, slip = (float(model.temperature), float(model.slip)) if calibrated else (1.0, 0.0)

    def score(image: Indices, prompt: Indices) -> Values:
        logits = logits_at(model, examples, image, prompt)
        return with_slips(expit(logits / temperature), slip)

    return score


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """The reward's scores of every labeled image for its prompt, [N] each."""

    image: Indices
    prompt: Indices
    probability: Values
    std: Values
    """Standard deviation of the members' own probabilities."""
    good: Values
    """Share of raters who said good; NaN where the image was only ranked."""


def labeled(dataset: FeedbackDataset) -> tuple[Indices, Indices]:
    """Return the distinct labeled (image, prompt) rows, sorted, and each label's row among them.

    The rows are [N, 2]; the others [V + 2K] are those of the verdicts, images 0 and images 1.
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
    embeddings = embeddings_at(model, examples, keys[:, 0], keys[:, 1])
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
    """Return all figures, with intervals from their values in the samples."""
    clusters = len(samples.clusters)
    intervals = {figure: interval(values, clusters) for figure, values in resampled.items()}
    return FiguresWithIntervals(**dict(figures(scored)), intervals=intervals)


def _gains(
    rows: Mapping[str, Figures],
    resampled: Mapping[str, Mapping[str, Values]],
    clusters: int,
) -> dict[str, Gain]:
    """Return the figures of the model minus those of the CLIP score."""
    gains = {}
    for figure, values in resampled[MODEL].items():
        ours, theirs = (getattr(rows[name], figure) for name in (MODEL, CLIP_SCORE))
        if ours is not None and theirs is not None:
            difference = interval(values - resampled[CLIP_SCORE][figure], clusters)
            gains[figure] = Gain(value=ours - theirs, interval=difference)
    return gains


def _by_category(
    scored: Mapping[str, Scored], part: FeedbackDataset
) -> dict[str, dict[str, Figures]]:
    rows = {}
    for category in sorted(set(part.categories) - {""}):
        belongs = np.array([each == category for each in part.categories])
        rows[category] = {
            name: figures(one.where(belongs[one.prompt], belongs[one.pair_prompt]))
            for name, one in ((name, scored[name]) for name in (MODEL, CLIP_SCORE))
        }
    return rows


def _others(scored: Scored, raters: LabelRaters) -> Scored:
    """Return the same labels beside the answers of the other raters; NaN where there is none."""
    asked = scored.image_0, scored.image_1, scored.pair_prompt
    return replace(
        scored,
        probability=others_said(scored.good, raters.of_verdicts, scored.image, scored.prompt),
        score_0=others_said(scored.label_0, raters.of_pairs, *asked),
        score_1=np.full(len(scored.label_0), 0.5),
    )


def _human(scored: Scored, others: Scored, samples: Resamples) -> HumanFigures:
    comparable = np.isfinite(others.probability), np.isfinite(others.score_0)
    theirs, ours = (
        with_intervals(one, samples.figures(one), samples)
        for one in (others.where(*comparable), scored.where(*comparable))
    )
    # Raters are never unsure: one contradiction would cost infinitely much.
    return HumanFigures(others=theirs.model_copy(update={"nll": None}), model=ours)


def _by_rater(scored: Scored, others: Scored, raters: LabelRaters) -> dict[str, RaterFigures]:
    comparable = np.isfinite(others.probability), np.isfinite(others.score_0)
    by_rater = {}
    for number, name in enumerate(raters.names):
        mine = raters.of_verdicts == number, raters.of_pairs == number
        if any(mask.any() for mask in mine):
            same = mine[0] & comparable[0], mine[1] & comparable[1]
            by_rater[name] = RaterFigures(
                model=figures(scored.where(*mine)), others=figures(others.where(*same))
            )
    return by_rater
