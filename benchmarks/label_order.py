"""Order of labeling; writes `results/label_order.json`.

Run it by `python -m benchmarks.label_order`. A rater judges the demo's images one by one, in one of
four orders: random; first those of which the reward is least sure (the spread of its members), as
`label.order = "uncertain"`; a diverse batch (greedy log-determinant of the embeddings' cosines, a
determinantal point process, Kulesza & Taskar 2012, arXiv 1207.6083); or both, with the spread as
quality. The first batch is random for all, and each next one is chosen by the reward of the labels
so far. The reward's accuracy is the mean ROC-AUC within prompts on images that nobody labels, a
third of every prompt's, against the judge. An order pays if it needs at most 80 % of the labels
that the random order needs for the same accuracy.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.label_cells import Bench
from benchmarks.label_pool import Cell, Labels, Pool, roc_auc_within
from benchmarks.labels import RUN, open_bench
from benchmarks.record import Row, record, summary
from pipelines.models import open_cache
from reward.embedding import embed_images, embed_prompts
from reward.examples import prepare
from reward.model import RewardModel
from reward.split import SplitConfig
from reward.training import RewardConfig, train_from_scratch

ORDERS = ("random", "uncertain", "diverse", "both")
SIZES = (75, 150, 225, 300, 450, 600, 750)
"""Verdicts after each batch."""
BATCH = 150
"""Largest difference of two sizes."""
SLIPS = 0.05
PAYS = 0.8
"""Largest share of the random order's labels with which an order pays."""


@dataclass(frozen=True)
class Encoded:
    """The images of a pool as the reward's head sees them."""

    features: Tensor
    """[N, F]"""
    texts: Tensor
    """Embedding [N, D] of each image's prompt."""

    def rows(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the arguments of the reward's scoring for some images."""
        return {
            "image_features": self.features[list(rows)],
            "text_embeddings": self.texts[list(rows)],
        }


def curve(bench: Bench, encoded: Encoded, order: str, seed: int) -> list[float]:
    """Return the accuracy of the reward after each of `SIZES` verdicts."""
    rng, pool = random.Random(seed), bench.images
    rows = rng.sample(range(len(pool.paths)), len(pool.paths))
    tested = _third(pool.prompts, rows)
    left = [row for row in rows if row not in set(tested)]
    cache = open_cache(RUN)
    config = bench.settings.table("reward", RewardConfig).model_copy(
        update={
            "seed": seed,
            "split": SplitConfig(split_by="image", unseen_prompts=0, test_images=0, seed=seed),
        }
    )
    labels, model, found = Labels(), None, list[float]()
    for size in SIZES:
        count = size - len(labels.verdicts)
        chosen = left[:count]
        if model is not None and order != "random":
            chosen = _next(order, model, encoded, left)[:count]
        left = [row for row in left if row not in set(chosen)]
        labels.ask(pool, chosen, Cell(verdicts=count, slips=SLIPS), rng)
        examples = prepare(labels.dataset(pool), config, bench.backbone, cache=cache)
        model = train_from_scratch(bench.backbone, examples, config)
        found.append(_accuracy(pool, model, encoded, tested))
    return found


def _third(prompts: Sequence[str], rows: Sequence[int]) -> list[int]:
    """Return a third of the rows of every prompt."""
    by_prompt: dict[str, list[int]] = {}
    for row in rows:
        by_prompt.setdefault(prompts[row], []).append(row)
    return [row for mine in by_prompt.values() for row in mine[: len(mine) // 3]]


@torch.no_grad()
def _next(order: str, model: RewardModel, encoded: Encoded, rows: Sequence[int]) -> list[int]:
    """Return the first of `rows` to label next, as many as the largest batch has."""
    given = encoded.rows(rows)
    quality = model.score_features_with_std(**given)[1].double().numpy()
    if order == "uncertain":
        return [rows[i] for i in np.argsort(-quality, kind="stable")[:BATCH]]
    texts = given["text_embeddings"]
    joint = torch.cat([given["image_features"][:, : texts.shape[1]], texts], 1).double().numpy()
    unit = joint / np.linalg.norm(joint, axis=1, keepdims=True)
    if order == "both":
        unit = unit * (quality / quality.mean())[:, None]
    return [rows[i] for i in greedy_log_determinant(unit, min(BATCH, len(rows)))]


def greedy_log_determinant(vectors: NDArray[np.float64], count: int) -> list[int]:
    """Return `count` rows of [N, D] that greedily raise the log-determinant of their products.

    A small constant on the diagonal lets there be more rows than dimensions.
    """
    gains = np.square(vectors).sum(1) + 0.05
    factors = np.zeros((count, len(vectors)))
    chosen: list[int] = []
    for step in range(count):
        best = int(np.argmax(gains))
        chosen.append(best)
        row = vectors @ vectors[best] - factors[:step].T @ factors[:step, best]
        row[best] += 0.05
        factors[step] = row / np.sqrt(gains[best])
        gains = gains - np.square(factors[step])
        gains[chosen] = -np.inf
    return chosen


@torch.no_grad()
def _accuracy(pool: Pool, model: RewardModel, encoded: Encoded, rows: Sequence[int]) -> float:
    scores = model.mean_logits(**encoded.rows(rows)).double().numpy()
    good = np.array([pool.qualities[row] == 1 for row in rows], np.float64)
    accuracy = roc_auc_within([pool.prompts[row] for row in rows], scores, good)
    assert accuracy is not None  # the demo's prompts have both
    return accuracy


def labels_for(accuracy: float, means: Sequence[float]) -> float | None:
    """Return the verdicts at which a curve over `SIZES` first reaches the accuracy.

    None where it never does.
    """
    for i, value in enumerate(means):
        if value >= accuracy:
            if i == 0:
                return float(SIZES[0])
            share = (accuracy - means[i - 1]) / (value - means[i - 1])
            return SIZES[i - 1] + share * (SIZES[i] - SIZES[i - 1])
    return None


def compared(curves: dict[str, list[list[float]]]) -> dict[str, Row]:
    """Return for each order its accuracies, and its share of the random order's labels.

    The share is for the accuracy that the random order has with the second largest number.
    """
    target = float(np.mean([one[-2] for one in curves["random"]]))
    found: dict[str, Row] = {}
    for order, mine in curves.items():
        means = np.mean(mine, axis=0).tolist()
        needed = labels_for(target, means)
        found[order] = {
            "accuracy": {str(n): summary([one[i] for one in mine]) for i, n in enumerate(SIZES)},
            "labels, of random": None if needed is None else needed / SIZES[-2],
            "pays": needed is not None and needed <= PAYS * SIZES[-2],
        }
    return found


def main() -> None:
    """Label in every order with every seed, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--threads", type=int, help="threads that torch may use")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    bench = open_bench(queries=0, judged=0, changes=[])
    pool, cache = bench.images, open_cache(RUN)
    encoded = Encoded(
        embed_images(pool.paths, bench.backbone, batch_size=64, cache=cache),
        embed_prompts(pool.prompts, bench.backbone, cache=cache),
    )
    curves: dict[str, list[list[float]]] = {order: [] for order in ORDERS}
    for seed in given.seeds:
        for order in ORDERS:
            curves[order].append(curve(bench, encoded, order, seed))
            print(order, seed, [round(value, 3) for value in curves[order][-1]], flush=True)
    data: dict[str, Any] = {"seeds": given.seeds, "verdicts": SIZES, "orders": compared(curves)}
    record("label_order", data)
    for order, row in data["orders"].items():
        print(order, row["labels, of random"], row["pays"])


if __name__ == "__main__":
    main()
