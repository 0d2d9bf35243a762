"""What scorers are worth on held-out labels: figures by part, category and rater, intervals, and raters themselves as a measure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from reward.calibration import Values, with_slips
from reward.dataset import FeedbackDataset, Indices
from reward.examples import Examples
from reward.metrics import (
    CONVENTIONS,
    Figures,
    Resamples,
    Scored,
    Scorer,
    figures,
    fit_tie_threshold,
    interval,
    pair_accuracy,
)
from reward.model import RewardModel
from reward.raters import LabelRaters, others_said

PARTS = ("val", "test_seen", "test_unseen")
MODEL, UNCALIBRATED, CLIP_SCORE = "model", "uncalibrated", "clip_score"
"""The reward model, the same without its temperature, and the baseline that it has to beat."""


def evaluate(
    scorers: Mapping[str, Scorer],
    examples: Examples,
    raters: LabelRaters | None = None,
    *,
    seed: int,
    resamples: int = 500,
) -> dict[str, Any]:
    """Figures of every held-out part, ready for JSON; `scorers` has `model` and `clip_score` at least.

    `report["val" | "test_seen" | "test_unseen"]` holds `counts`; for each scorer the figures of `metrics.figures` with 95 % `intervals`
    of `resampled` prompts or images; `gain`, by how much the model is above the CLIP score, with intervals from the same samples;
    `conventions`, the pairwise accuracy as others count it; `by_category` for `model` and `clip_score`. With `raters`, `human` says how
    well the other raters of a label foretell it, beside the model on the same labels, and `by_rater` how well both foretell each rater.
    """
    threshold = {
        name: fit_tie_threshold(Scored.of(scorer, examples.split.val))
        for name, scorer in scorers.items()
    }
    report: dict[str, Any] = {"train": {"counts": examples.split.train.counts}}
    for name in PARTS:
        part: FeedbackDataset = getattr(examples.split, name)
        scored = {each: Scored.of(scorer, part) for each, scorer in scorers.items()}
        samples = Resamples.draw(scored[MODEL], np.random.default_rng(seed), resamples)
        report[name] = {
            "counts": part.counts,
            "resampled": "prompts" if samples.by_prompt else "images",
        }
        report[name] |= _with_intervals(scored, samples)
        report[name]["by_category"] = {
            category: {
                each: figures(_of_category(scored[each], part, category))
                for each in (MODEL, CLIP_SCORE)
            }
            for category in sorted(set(part.categories))
            if category
        }
        report[name]["conventions"] = {
            each: {
                convention: pair_accuracy(one, convention, tie_within=threshold[each])
                for convention in CONVENTIONS
            }
            for each, one in scored.items()
        }
        if raters is not None:
            report[name] |= _beside_raters(
                scored[MODEL], raters.of_part(examples.dataset, part), samples
            )
    return report


def measure(scorer: Scorer, part: FeedbackDataset) -> Figures:
    """`metrics.figures` of a scorer on the labels of `part`."""
    return figures(Scored.of(scorer, part))


def model_scorer(model: RewardModel, examples: Examples, *, calibrated: bool = True) -> Scorer:
    """The probability of the reward model, after its calibration or before it."""
    temperature, slip = (float(model.temperature), float(model.slip)) if calibrated else (1.0, 0.0)
    return lambda image, prompt: with_slips(
        expit(logits_of(model, examples, image, prompt) / temperature), slip
    )


def verdict_logits(
    model: RewardModel, examples: Examples, part: FeedbackDataset
) -> tuple[Values, Values]:
    """The logit, before the temperature, and the label of each verdict of `part`, both [V]."""
    return logits_of(
        model, examples, part.verdicts.image, part.verdicts.prompt
    ), part.verdicts.good.astype(np.float64)


def logits_and_margins(
    model: RewardModel, examples: Examples, part: FeedbackDataset
) -> tuple[Values, Values]:
    """Before the temperature, the logit of each verdict of `part` [V], and by how much that of each pair's picture 0 is the higher [K]."""
    verdicts, pairs = part.verdicts, part.pairs
    logits = logits_of(model, examples, verdicts.image, verdicts.prompt)
    return logits, logits_of(model, examples, pairs.image_0, pairs.prompt) - logits_of(
        model, examples, pairs.image_1, pairs.prompt
    )


@torch.no_grad()
def logits_of(model: RewardModel, examples: Examples, image: Indices, prompt: Indices) -> Values:
    """The logit, before the temperature, of pictures and prompts given by index, [N]."""
    return _numpy(model.logit(**_embeddings(model, examples, image, prompt)))


@dataclass(frozen=True, eq=False)
class ScoredPictures:
    """What the reward says of every labelled picture for its prompt, [N] each."""

    image: Indices
    prompt: Indices
    probability: Values
    std: Values
    """Of the members' own probabilities: how far they differ."""
    good: Values
    """The share of raters who said good; NaN where it was only ranked."""


def labelled(dataset: FeedbackDataset) -> tuple[Indices, Indices]:
    """Each picture and prompt with a label once, sorted [N, 2], and which of them each verdict, picture 0 and picture 1 is [V + K + K]."""
    verdicts, pairs = dataset.verdicts, dataset.pairs
    image = np.concatenate([verdicts.image, pairs.image_0, pairs.image_1])
    prompt = np.concatenate([verdicts.prompt, pairs.prompt, pairs.prompt])
    return np.unique(np.stack([image, prompt], axis=1), axis=0, return_inverse=True)


@torch.no_grad()
def score_pictures(model: RewardModel, examples: Examples) -> ScoredPictures:
    """Every picture and prompt of the dataset once, in the order of their indices."""
    verdicts = examples.dataset.verdicts
    keys, at = labelled(examples.dataset)
    of_verdicts = at[: len(verdicts)]
    given, good = (
        np.bincount(of_verdicts, weights, minlength=len(keys)) for weights in (None, verdicts.good)
    )
    probability, std = model.embeddings_score_with_std(
        **_embeddings(model, examples, keys[:, 0], keys[:, 1])
    )
    return ScoredPictures(
        image=keys[:, 0],
        prompt=keys[:, 1],
        probability=_numpy(probability),
        std=_numpy(std),
        good=np.divide(good, given, out=np.full(len(keys), np.nan), where=given > 0),
    )


def _with_intervals(scored: Mapping[str, Scored], samples: Resamples) -> dict[str, Any]:
    """Figures and intervals of each scorer, and `gain`, the model's figures less those of the CLIP score."""
    resampled = {name: samples.figures(one) for name, one in scored.items()}
    rows: dict[str, Any] = {name: _row(one, resampled[name]) for name, one in scored.items()}
    ours, theirs = rows[MODEL], rows[CLIP_SCORE]
    rows["gain"] = {
        figure: {
            "value": ours[figure] - theirs[figure],
            "interval": interval(values - resampled[CLIP_SCORE][figure]),
        }
        for figure, values in resampled[MODEL].items()
        if ours[figure] is not None and theirs[figure] is not None
    }
    return rows


def _row(scored: Scored, resampled: Mapping[str, Values]) -> dict[str, Any]:
    return figures(scored) | {
        "intervals": {figure: interval(values) for figure, values in resampled.items()}
    }


def _of_category(scored: Scored, part: FeedbackDataset, category: str) -> Scored:
    belongs = np.array([each == category for each in part.categories])
    return scored.where(belongs[scored.prompt], belongs[scored.pair_prompt])


def _beside_raters(scored: Scored, raters: LabelRaters, samples: Resamples) -> dict[str, Any]:
    """`human` and `by_rater` for the labels of a part, whose raters are `raters`."""
    others = replace(
        scored,
        probability=others_said(scored.good, raters.of_verdicts, scored.image, scored.prompt),
        score_0=others_said(
            scored.label_0, raters.of_pairs, scored.image_0, scored.image_1, scored.pair_prompt
        ),
        score_1=np.full(len(scored.label_0), 0.5),
    )
    comparable = np.isfinite(others.probability), np.isfinite(others.score_0)
    by_rater = {}
    for number, name in enumerate(raters.names):
        mine = raters.of_verdicts == number, raters.of_pairs == number
        if any(mask.any() for mask in mine):
            same = mine[0] & comparable[0], mine[1] & comparable[1]
            by_rater[name] = {
                MODEL: figures(scored.where(*mine)),
                "others": figures(others.where(*same)),
            }
    both = {"others": others.where(*comparable), MODEL: scored.where(*comparable)}
    human = {name: _row(one, samples.figures(one)) for name, one in both.items()}
    human["others"]["nll"] = (
        None  # raters are never unsure: one contradiction would cost infinitely much
    )
    return {"human": human, "by_rater": by_rater}


def _embeddings(
    model: RewardModel, examples: Examples, image: Indices, prompt: Indices
) -> dict[str, torch.Tensor]:
    """Of pictures and prompts, [V, D] each."""
    images = examples.images_seen_by(model.backbone, torch.from_numpy(image))
    return {
        "image_embeddings": images[torch.from_numpy(image)],
        "text_embeddings": examples.text_embeddings[torch.from_numpy(prompt)],
    }


def _numpy(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
