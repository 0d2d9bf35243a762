"""Effect of each part of the reward; writes `results/reward_ablation.json`.

Run it by `python -m benchmarks.reward_ablation`. There are 2,000 images of the embedded world with
verdicts of three simulated raters each, who are wrong in 15 % of them and skip 2 %. Every variant
is trained with several seeds, which also choose the raters' slips and the split. The main figure is
the ROC-AUC against the oracle itself, which no training has seen, on prompts that were held out
whole, beside the CLIP score of the same backbone. Intervals over seeds are Student's, 95 %. The
images are drawn once, in `runs/reward-ablation/`, and all trainings use the same embeddings. The
calibration error stands beside that of a perfectly calibrated reward with the same scores on as
many labels, which is due to chance.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import Row, record, summary
from data.files import sha256_of
from finetune.diffusion import DiffusionModel
from finetune.sampler import Sampler
from labeling_app.simulated import SimulatedRater
from pipelines.drawing import Planned, draw_missing, seeded
from pipelines.image_io import load_images
from pipelines.progress import progress
from pipelines.world.measure import seen_prompts
from pipelines.world.oracle import Oracle
from pipelines.world.prompts import Requirement, family_of, held_out_prompts
from reward.calibration import Values, expected_calibration_error
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, Indices, RankedPairs, Verdicts
from reward.examples import Examples, prepare
from reward.measuring.baselines import clip_scorer
from reward.measuring.evaluation import measure, model_scorer
from reward.model import RewardModel
from reward.split import SplitConfig, split_feedback
from reward.training import RewardConfig, train_from_scratch

IMAGES, PER_FAMILY, RATERS = 2000, 12, 3
BATCH = 64
RATER = SimulatedRater(
    "rater",
    threshold=0.99,
    noise=0.15,
    position_bias=0.0,
    just_noticeable_difference=0.05,
    skip_rate=0.02,
    seconds_per_image=2.0,
)
SAMPLER = Sampler(steps=10, guidance=2.0)
DEFAULT = "default"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "no auxiliary loss": {"auxiliary_weight": 0.0},
    "one head": {"members": 1},
    "slips fitted": {"calibration": "temperature_and_slips"},
    "tune_last 1": {"tune_last": 1},
    "tune_last 2": {"tune_last": 2},
}
NOTHING, NO_NUMBERS = np.zeros(0, np.int64), np.zeros(0, np.float32)
NO_PAIRS = RankedPairs(NOTHING, NOTHING, NOTHING, NO_NUMBERS, NO_NUMBERS)


def draw(folder: Path, images: int) -> list[Planned]:
    """Draw missing ones of `images` images, evenly of prompts that the base knows and does not."""
    rng = random.Random(0)
    prompts = [text for texts in seen_prompts(PER_FAMILY, rng).values() for text in texts]
    prompts = list(dict.fromkeys(prompts + held_out_prompts(PER_FAMILY, rng)))
    planned = sorted(seeded(prompts, -(-images // len(prompts)), 0), key=lambda one: one.seed)[
        :images
    ]
    device = torch.device("cpu")
    model = DiffusionModel.from_pretrained("models/emoji-sd", device=device, precision="bf16")
    draw_missing(model, planned, folder, SAMPLER, batch=32)
    return planned


def judged(planned: list[Planned], folder: Path) -> tuple[FeedbackDataset, list[float]]:
    """Return the oracle's verdict on each image, and its quality for the raters.

    They are in the order of the dataset's images.
    """
    oracle = Oracle.from_pretrained(Path("models/emoji-oracle"))
    paths = [folder / one.file_name for one in planned]
    met: list[bool] = []
    qualities: list[float] = []
    for start in progress(range(0, len(paths), BATCH), "judge", "batch"):
        readings = oracle.read(load_images(paths[start : start + BATCH]))
        wanted = [Requirement.parse(one.prompt) for one in planned[start : start + BATCH]]
        met += [each.met_by(reading) for each, reading in zip(wanted, readings, strict=True)]
        qualities += [each.score(reading) for each, reading in zip(wanted, readings, strict=True)]
    prompts = tuple(sorted({one.prompt for one in planned}))
    number = {prompt: i for i, prompt in enumerate(prompts)}
    of_prompt = np.array([number[one.prompt] for one in planned])
    verdicts = Verdicts(np.arange(len(planned)), of_prompt, np.array(met, np.float32))
    categories = tuple(family_of(prompt) for prompt in prompts)
    ids = tuple(sha256_of(path) for path in paths)
    return FeedbackDataset(ids, tuple(paths), prompts, categories, verdicts, NO_PAIRS), qualities


def rated(truth: FeedbackDataset, qualities: list[float], seed: int) -> FeedbackDataset:
    """Return the verdicts of the simulated raters in place of the oracle's."""
    rng = random.Random(seed)
    given: list[tuple[int, bool]] = []
    for number, quality in enumerate(qualities):
        answers = (RATER.verdict(quality, rng=rng).verdict for _ in range(RATERS))
        given += [(number, answer == "good") for answer in answers if answer in ("good", "bad")]
    image = np.array([number for number, _ in given])
    good = np.array([good for _, good in given], np.float32)
    return replace(truth, verdicts=Verdicts(image, truth.verdicts.prompt[image], good))


def figures(model: RewardModel, examples: Examples, truth: FeedbackDataset) -> Row:
    """Return figures on the unseen prompts.

    They are the ROC-AUC of the model and of the CLIP score against the oracle, and the calibration
    error on raters' labels.
    """
    unseen = examples.split.test_unseen
    asked = np.isin(truth.verdicts.prompt, unseen.verdicts.prompt)
    part = truth.where(asked, np.zeros(0, np.bool_))
    scorer = model_scorer(model, examples)
    ours, clip = measure(scorer, part).roc_auc, measure(clip_scorer(examples), part).roc_auc
    assert ours is not None
    assert clip is not None
    return {
        "roc_auc": ours,
        "clip_score": clip,
        "over the CLIP score": ours - clip,
        "ece": measure(scorer, unseen).ece,
        "ece by chance": error_by_chance(
            scorer(unseen.verdicts.image, unseen.verdicts.prompt), unseen.verdicts.image
        ),
        "roc_auc on raters' labels": measure(scorer, unseen).roc_auc,
    }


def error_by_chance(probability: Values, image: Indices, *, draws: int = 200) -> float:
    """Return the calibration error of correct scores [V] on labels that are drawn again.

    Raters of an image share its truth, and slip independently of each other.
    """
    rng = np.random.default_rng(0)
    _, first, at = np.unique(image, return_index=True, return_inverse=True)
    good = np.clip((probability[first] - RATER.noise) / (1 - 2 * RATER.noise), 0, 1)
    right = RATER.noise + (1 - 2 * RATER.noise) * good[at]
    labels = (
        (rng.random(len(good)) < good)[at] != (rng.random(len(at)) < RATER.noise)
        for _ in range(draws)
    )
    return float(
        np.mean([expected_calibration_error(right, each.astype(np.float64)) for each in labels])
    )


def runs(
    variants: list[str],
    seeds: list[int],
    truth: FeedbackDataset,
    qualities: list[float],
    backbone: ClipBackbone,
) -> Iterator[tuple[str, int, Row]]:
    """Yield variant, seed and figures; images are encoded once for each variant."""
    for name in variants:
        varied = RewardConfig().model_copy(update=VARIANTS[name])
        encoded = prepare(truth, varied, backbone)
        for seed in seeds:
            started = time.process_time()
            labels = rated(truth, qualities, seed)
            seeded_config = varied.model_copy(
                update={"seed": seed, "split": SplitConfig(seed=seed)}
            )
            examples = replace(
                encoded, dataset=labels, split=split_feedback(labels, seeded_config.split)
            )
            row = figures(train_from_scratch(backbone, examples, seeded_config), examples, truth)
            yield name, seed, row | {"cpu_seconds": round(time.process_time() - started, 1)}


def main() -> None:
    """Draw, judge, train every variant with every seed, and write the table after each training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--draw-only", action="store_true", help="draw the images and stop")
    given = parser.parse_args()
    folder = Path("runs", "reward-ablation", "images")
    planned = draw(folder, given.images)
    if given.draw_only:
        return
    truth, qualities = judged(planned, folder)
    backbone = ClipBackbone.from_pretrained("models/emoji-clip")
    data = {
        "seeds": given.seeds,
        "images": len(planned),
        "prompts": len(truth.prompts),
        "share_good": float(truth.verdicts.good.mean()),
        "raters": RATERS,
    }
    by_variant: dict[str, list[Row]] = {}
    for name, seed, row in runs(given.variants, given.seeds, truth, qualities, backbone):
        by_variant.setdefault(name, []).append(row)
        print(
            name,
            f"seed {seed}:",
            ", ".join(f"{figure} {value:.3f}" for figure, value in row.items()),
            flush=True,
        )
        record("reward_ablation", data | {"variants": compared(by_variant)})


def compared(by_variant: dict[str, list[Row]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each variant over the seeds, and its difference to the default.

    The difference is that of the ROC-AUC with the same seed.
    """
    base = by_variant.get(DEFAULT, [])
    table = {
        name: {figure: summary([row[figure] for row in rows]) for figure in rows[0]}
        for name, rows in by_variant.items()
    }
    for name, rows in by_variant.items():
        if base:
            table[name]["over default"] = summary(
                [row["roc_auc"] - other["roc_auc"] for row, other in zip(rows, base, strict=False)]
            )
    return table


if __name__ == "__main__":
    main()
