"""Effect of each part of the reward; writes `results/reward_ablation.json`.

Run it by `python -m benchmarks.reward_ablation`. Images, prompts, raters and settings are those of
the demo. Every variant is trained with several seeds, which choose the raters' slips, the prompts
that are held out whole and the head's first weights. The figures are on these prompts, against the
judge, which no training has seen, with the CLIP score of the same backbone for comparison: ROC-AUC
over all images, as the mean within prompts (which is what tuning feels), and the share of pairs in
the right order; `within` a family of prompts is the mean within its prompts. Intervals of gains
resample prompts; intervals over seeds are Student's, both 95 %. For comparison, the calibration
error of a perfectly calibrated reward with the same scores and number of labels is given, which is
due to chance.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.label_pool import Condition, Labels
from benchmarks.label_trials import Setup
from benchmarks.labels import open_setup
from benchmarks.record import Row, arguments, record, recorded, summary
from reward.calibration import Values, expected_calibration_error
from reward.dataset import FeedbackDataset, Indices, Verdicts
from reward.learning.examples import Examples, prepare
from reward.learning.split import split_feedback
from reward.learning.training import train_from_scratch
from reward.measuring.baselines import clip_scorer
from reward.measuring.evaluation import evaluate, model_scorer
from reward.measuring.report import CLIP_SCORE, MODEL, UNCALIBRATED
from reward.model import RewardModel
from reward.settings import RewardConfig

RANKINGS_PER_PROMPT = 4
DEFAULT, FRESH = "default", "default, fresh seeds"
FRESH_SEEDS = range(10, 18)
"""Seeds on which no setting was chosen."""
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "contrastive prompts": {"auxiliary_weight": 0.5},
    "no rankings": {"ranking_weight": 0.0},
    "one head": {"members": 1},
    "two hidden layers": {"hidden": (128, 128)},
    "images validate": {"split_by": "image"},
    FRESH: {},
}
FIGURES = ("roc_auc", "roc_auc_macro", "pairwise_accuracy")


def demo_labels(setup: Setup, seed: int) -> FeedbackDataset:
    """Return the labels of the demo's simulated raters: two verdicts an image, and rankings."""
    pool, labels = setup.images, Labels()
    n = len(pool.paths)
    condition = Condition(
        verdicts=2 * n, raters=2, rankings=RANKINGS_PER_PROMPT * len(set(pool.prompts))
    )
    labels.ask(pool, range(n), condition, random.Random(seed))
    return labels.dataset(pool)


def by_judge(setup: Setup, dataset: FeedbackDataset) -> Verdicts:
    """Return the judge's verdict on every image of the dataset."""
    quality = dict(zip(setup.images.paths, setup.images.qualities, strict=True))
    prompt_of = dict(zip(setup.images.paths, setup.images.prompts, strict=True))
    return Verdicts(
        np.arange(len(dataset.paths)),
        np.array([dataset.prompts.index(prompt_of[path]) for path in dataset.paths]),
        np.array([quality[path] == 1 for path in dataset.paths], np.float32),
        np.zeros(len(dataset.paths), np.int64),
    )


def figures(model: RewardModel, examples: Examples, truth: Verdicts, seed: int) -> Row:
    """Return the figures on the unseen prompts."""
    unseen = examples.split.test_unseen
    asked = np.isin(truth.prompt, unseen.verdicts.prompt)
    judged = replace(unseen, verdicts=truth.where(asked))
    scorer = model_scorer(model, examples)
    clip = clip_scorer(examples)
    scorers = {MODEL: scorer, UNCALIBRATED: scorer, CLIP_SCORE: clip}
    split = replace(examples.split, test_unseen=judged)
    report = evaluate(scorers, replace(examples, split=split), seed=seed).test_unseen
    labels = unseen.verdicts
    probability = scorer(labels.image, labels.prompt)
    row: Row = {"prompts": len(np.unique(labels.prompt))}
    for name in FIGURES:
        gain = report.gain[name]
        row |= {
            name: getattr(report.scorers[MODEL], name),
            f"{name} of the CLIP score": getattr(report.scorers[CLIP_SCORE], name),
            f"{name} gain": gain.value,
            f"{name} gain, lower end": gain.interval[0] if gain.interval else float("nan"),
        }
    for category, found in report.by_category.items():
        ours, theirs = found[MODEL].roc_auc_macro, found[CLIP_SCORE].roc_auc_macro
        if ours is not None and theirs is not None:
            row |= {f"within {category}": ours, f"within {category} of the CLIP score": theirs}
    return row | {
        "ece": expected_calibration_error(probability, labels.good.astype(np.float64)),
        "ece by chance": error_by_chance(probability, labels.image),
    }


def error_by_chance(
    probability: Values, image: Indices, *, slips: float = 0.05, draws: int = 200
) -> float:
    """Return the calibration error of correct scores [V] on labels that are drawn again.

    Raters of an image share its truth, and slip independently of each other.
    """
    rng = np.random.default_rng(0)
    _, first, at = np.unique(image, return_index=True, return_inverse=True)
    good = np.clip((probability[first] - slips) / (1 - 2 * slips), 0, 1)
    right = slips + (1 - 2 * slips) * good[at]
    labels = (
        (rng.random(len(good)) < good)[at] != (rng.random(len(at)) < slips) for _ in range(draws)
    )
    return float(
        np.mean([expected_calibration_error(right, each.astype(np.float64)) for each in labels])
    )


def runs(variants: list[str], seeds: list[int], setup: Setup) -> Iterator[tuple[str, int, Row]]:
    """Yield variant, seed and figures; images are encoded once for each variant."""
    default = setup.settings.table("reward", RewardConfig)
    for name in variants:
        changes = dict(VARIANTS[name])
        split = default.split.model_copy(
            update={"split_by": changes.pop("split_by", default.split.split_by)}
        )
        varied = default.model_copy(update=changes)
        encoded = prepare(demo_labels(setup, 0), varied, setup.backbone)
        truth = by_judge(setup, encoded.dataset)
        for seed in FRESH_SEEDS if name == FRESH else seeds:
            started = time.process_time()
            config = varied.model_copy(
                update={"seed": seed, "split": split.model_copy(update={"seed": seed})}
            )
            labels = demo_labels(setup, seed)
            examples = replace(encoded, dataset=labels, split=split_feedback(labels, config.split))
            model = train_from_scratch(setup.backbone, examples, config)
            row = figures(model, examples, truth, seed)
            yield name, seed, row | {"cpu_seconds": round(time.process_time() - started, 1)}


def main() -> None:
    """Train the variants with every seed, and write the table after each training.

    Variants that are not trained now keep their earlier figures.
    """
    given = arguments(__doc__, seeds=[0, 1, 2], variants=list(VARIANTS), set=[], threads=None)
    if given.threads:
        torch.set_num_threads(given.threads)
    setup = open_setup(queries=0, judged=0, changes=given.set)
    data = {
        "seeds": given.seeds,
        "images": len(setup.images.paths),
        "prompts": len(set(setup.images.prompts)),
        "share_good": float(np.mean([quality == 1 for quality in setup.images.qualities])),
    }
    by_variant: dict[str, list[Row]] = {}
    kept = recorded("reward_ablation").get("variants", {})
    for name, seed, row in runs(given.variants, given.seeds, setup):
        by_variant.setdefault(name, []).append(row)
        shown = ", ".join(f"{figure} {value:.3f}" for figure, value in row.items())
        print(f"{name} seed {seed}: {shown}", flush=True)
        record("reward_ablation", data | {"variants": kept | compared(by_variant)})


def compared(by_variant: dict[str, list[Row]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each variant over the seeds, and its difference to the default.

    Differences are between runs with the same seed.
    """
    base = by_variant.get(DEFAULT, [])
    table = {
        name: {
            figure: summary([row[figure] for row in rows if figure in row])
            for figure in dict.fromkeys(key for row in rows for key in row)
        }
        for name, rows in by_variant.items()
    }
    for name, rows in by_variant.items():
        for figure in FIGURES:
            if base and name != FRESH:
                table[name][f"{figure} over default"] = summary(
                    [row[figure] - other[figure] for row, other in zip(rows, base, strict=False)]
                )
    return table


if __name__ == "__main__":
    main()
