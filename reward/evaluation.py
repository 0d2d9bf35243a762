"""How well the reward foretells held-out labels, beside the CLIP score of the same backbone and the majority's verdict."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, roc_auc_score

from reward.calibration import Values, expected_calibration_error
from reward.dataset import FeedbackDataset, Indices, Numbers
from reward.examples import Examples
from reward.model import RewardModel

Scorer = Callable[[Indices, Indices], Values]
"""Probability of "good" for picture and prompt indices [V] each."""

PARTS = ("val", "test_seen", "test_unseen")
ENOUGH_CLUSTERS = 10
"""With fewer prompts than this, intervals resample pictures: resampling a handful of prompts says nothing."""


def evaluate(model: RewardModel, examples: Examples, *, seed: int, resamples: int = 500) -> dict[str, Any]:
    """Metrics of every held-out part, ready for JSON.

    `report["val" | "test_seen" | "test_unseen"]` holds `counts` and, for `model`, `clip_score` and `majority` each, the metrics of
    `measure`; `by_category` holds `model` and `clip_score` for the prompts of each category. `temperature` is the fitted one.
    Probabilities of the CLIP score come from a logistic regression on the training labels.
    """
    scorers = {
        "model": model_scorer(model, examples),
        "clip_score": clip_scorer(examples),
        "majority": majority_scorer(examples),
    }
    report: dict[str, Any] = {"temperature": float(model.temperature), "train": {"counts": examples.split.train.counts}}
    for name in PARTS:
        part: FeedbackDataset = getattr(examples.split, name)
        rows: dict[str, Any] = {"counts": part.counts}
        for scorer_name, scorer in scorers.items():
            rng = np.random.default_rng(seed)
            rows[scorer_name] = measure(scorer, part) | {"roc_auc_interval": roc_auc_interval(scorer, part, rng, resamples)}
        rows["by_category"] = {
            category: {each: measure(scorers[each], of_category(part, category)) for each in ("model", "clip_score")}
            for category in sorted(set(part.categories))
            if category
        }
        report[name] = rows
    return report


def measure(scorer: Scorer, part: FeedbackDataset) -> dict[str, float | int | None]:
    """Metrics of a scorer on the labels of `part`; None where they are undefined, as for labels of one class only.

    Of `n` verdicts, `share_good` of them good: `roc_auc`, `average_precision`, `accuracy` at 0.5, `brier`, `ece` (15 bins). Of `n_pairs`
    ranked pairs without ties: `pairwise_accuracy`, where equal scores count as half right.
    """
    good = part.verdicts.good.astype(np.float64)
    probabilities = scorer(part.verdicts.image, part.verdicts.prompt)
    both = len(np.unique(good)) == 2
    some = len(good) > 0
    pairs = part.pairs.where(part.pairs.label_0 != 0.5)
    margins = scorer(pairs.image_0, pairs.prompt) - scorer(pairs.image_1, pairs.prompt)
    right = np.where(margins == 0, 0.5, (margins > 0) == (pairs.label_0 > 0.5))
    return {
        "n": len(good),
        "share_good": float(good.mean()) if some else None,
        "roc_auc": float(roc_auc_score(good, probabilities)) if both else None,
        "average_precision": float(average_precision_score(good, probabilities)) if both else None,
        "accuracy": float(accuracy_score(good, probabilities >= 0.5)) if some else None,
        "brier": float(brier_score_loss(good, probabilities, labels=[0, 1])) if some else None,
        "ece": expected_calibration_error(probabilities, good) if some else None,
        "n_pairs": len(pairs),
        "pairwise_accuracy": float(right.mean()) if len(pairs) else None,
    }


def roc_auc_interval(scorer: Scorer, part: FeedbackDataset, rng: np.random.Generator, resamples: int) -> tuple[float, float] | None:
    """95 % bootstrap interval of the ROC-AUC; whole prompts are resampled, or all labels of a picture where there are few prompts."""
    verdicts = part.verdicts
    if not len(verdicts):
        return None
    by_prompt = len(np.unique(verdicts.prompt)) >= ENOUGH_CLUSTERS
    clusters = np.unique(verdicts.prompt if by_prompt else verdicts.image, return_inverse=True)[1]
    n = int(clusters.max()) + 1
    scores = np.unique(scorer(verdicts.image, verdicts.prompt), return_inverse=True)[1]
    draws = (np.bincount(rng.integers(n, size=n), minlength=n)[clusters] for _ in range(resamples))
    values = [weighted_roc_auc(scores, verdicts.good, weights) for weights in draws]
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def weighted_roc_auc(scores: Indices, good: Numbers, weights: Indices) -> float | None:
    """ROC-AUC of scores given as ranks from 0, all arguments [V]; None without weight on both classes.

    The same figure as scikit-learn's `roc_auc_score`, whose checks of its arguments take 200 times as long: too long for a bootstrap.
    """
    positive = np.bincount(scores, weights=weights * good)
    negative = np.bincount(scores, weights=weights * (1 - good))
    total = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative
    return float(positive @ (below + negative / 2) / total) if total else None


def of_category(part: FeedbackDataset, category: str) -> FeedbackDataset:
    """The labels of `part` on prompts of `category`."""
    belongs = np.array([each == category for each in part.categories])
    return part.where(belongs[part.verdicts.prompt], belongs[part.pairs.prompt])


def model_scorer(model: RewardModel, examples: Examples) -> Scorer:
    """The calibrated probability of the reward model."""
    return lambda image, prompt: expit(_logits(model, examples, image, prompt) / float(model.temperature))


def clip_scorer(examples: Examples) -> Scorer:
    """The cosine of picture and prompt, made a probability by logistic regression on the training labels."""
    verdicts = examples.split.train.verdicts
    if len(np.unique(verdicts.good)) < 2:
        return lambda image, prompt: (1 + _cosines(examples, image, prompt)) / 2
    cosines = _cosines(examples, verdicts.image, verdicts.prompt)
    center, scale = cosines.mean(), max(cosines.std(), 1e-9)
    fitted = LogisticRegression().fit(((cosines - center) / scale)[:, None], verdicts.good)
    # Never negative: a CLIP score that ranks the wrong way round has to show.
    slope, intercept = max(fitted.coef_.item(), 1e-6), fitted.intercept_.item()
    return lambda image, prompt: expit(slope * (_cosines(examples, image, prompt) - center) / scale + intercept)


def majority_scorer(examples: Examples) -> Scorer:
    """The share of good among the training labels, whatever the picture."""
    verdicts = examples.split.train.verdicts
    share = float(verdicts.good.mean()) if len(verdicts) else 0.5
    return lambda image, _prompt: np.full(len(image), share)


def verdict_logits(model: RewardModel, examples: Examples, part: FeedbackDataset) -> tuple[Values, Values]:
    """The logit, before the temperature, and the label of each verdict of `part`, both [V]."""
    return _logits(model, examples, part.verdicts.image, part.verdicts.prompt), part.verdicts.good.astype(np.float64)


@torch.no_grad()
def _logits(model: RewardModel, examples: Examples, image: Indices, prompt: Indices) -> Values:
    chosen = examples.image_embeddings[torch.from_numpy(image)], examples.text_embeddings[torch.from_numpy(prompt)]
    return _numpy(model.logit(image_embeddings=chosen[0], text_embeddings=chosen[1]))


def _cosines(examples: Examples, image: Indices, prompt: Indices) -> Values:
    return _numpy((examples.image_embeddings[torch.from_numpy(image)] * examples.text_embeddings[torch.from_numpy(prompt)]).sum(-1))


def _numpy(values: torch.Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
