"""Order of labeling and choice of slates; writes `results/label_order.json`.

Run it by `python -m benchmarks.label_order`. The reward's accuracy is the mean ROC-AUC within
prompts on images that nobody labels, a third of every prompt's, against the judge. An order pays if
it needs at most 80 % of the labels that the random order needs for the same accuracy.

Verdicts: a rater judges the demo's images one by one, in one of these orders: `random`; `in_turn`,
random but an image of every prompt in turn; `uncertain`, those first of which the reward is least
sure, by the spread of its members; `diverse`, those that greedily raise log det(V V^T + 0.05 I)
most, with labeled images counted as chosen; `diverse_batches`, where they are not; `both`, such
batches with each vector as long as the reward is unsure. V has the CLIP embeddings of the chosen
images, each joined with its prompt's: the greedy mode of a determinantal point process (Kulesza &
Taskar 2012, arXiv 1207.6083). The reward is that of the labels so far; the first batch of
`uncertain` and of the last two is random.

Rankings: a rater ranks slates of four images of a prompt, prompt by prompt in turn. They are
`random`, as the app makes them, or `diverse`: they greedily raise the log-determinant of the slate,
among the prompt's images that are in no slate before.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.label_pool import SLATE, Cell, Labels, Pool, roc_auc_within, without_tests
from benchmarks.labels import RUN, open_bench
from benchmarks.record import Row, record, summary
from labeling_app.tasks import ranking_groups
from pipelines.models import open_cache
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.embedding import embed_images, embed_prompts
from reward.examples import prepare
from reward.model import RewardModel
from reward.settings import RewardConfig
from reward.training import train_from_scratch

ORDERS = ("random", "in_turn", "uncertain", "diverse", "diverse_batches", "both")
VERDICTS = (75, 150, 225, 300, 450, 600, 750)
"""Verdicts after each batch."""
SLATES = ("random", "diverse")
RANKINGS = (17, 34, 51, 68, 85, 102, 119, 136)
"""Rankings after each batch; 68 are one of every prompt of the demo."""
SLIPS = 0.05
"""Probability that the rater's attention slips."""
PAYS = 0.8
"""Largest share of the random order's labels with which an order pays."""
RIDGE = 0.05
"""Added to the diagonal, so that more vectors than dimensions may be chosen."""

Vectors = NDArray[np.float64]
Curves = dict[str, list[list[float]]]
"""For each order, each seed's accuracy after each batch."""


@dataclass(frozen=True)
class Bed:
    """The images that are labeled, and the reward that learns from the labels."""

    pool: Pool
    backbone: ClipBackbone
    config: RewardConfig
    cache: EmbeddingCache
    features: Tensor
    """[N, F] of the images."""
    texts: Tensor
    """Embedding [N, D] of each image's prompt."""

    @classmethod
    def of(
        cls, pool: Pool, backbone: ClipBackbone, config: RewardConfig, cache: EmbeddingCache
    ) -> "Bed":
        """Encode the pool."""
        features = embed_images(pool.paths, backbone, batch_size=64, cache=cache)
        texts = embed_prompts(pool.prompts, backbone, cache=cache)
        return cls(pool, backbone, config, cache, features, texts)

    def divided(self, rng: random.Random) -> tuple[list[int], list[int]]:
        """Return the rows of a third of every prompt's images, and the other rows, by chance."""
        rows = rng.sample(range(len(self.pool.paths)), len(self.pool.paths))
        by_prompt = self.by_prompt(rows)
        tested = [row for mine in by_prompt.values() for row in mine[: len(mine) // 3]]
        return tested, [row for row in rows if row not in set(tested)]

    def by_prompt(self, rows: Sequence[int]) -> dict[str, list[int]]:
        """Return the rows of each prompt."""
        found: dict[str, list[int]] = {}
        for row in rows:
            found.setdefault(self.pool.prompts[row], []).append(row)
        return found

    def trained(self, labels: Labels, seed: int) -> RewardModel:
        """Return a reward that learned from the labels."""
        config = without_tests(self.config, seed)
        examples = prepare(labels.dataset(self.pool), config, self.backbone, cache=self.cache)
        return train_from_scratch(self.backbone, examples, config)

    def seen(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the arguments of the reward's scoring for some images."""
        some = list(rows)
        return {"image_features": self.features[some], "text_embeddings": self.texts[some]}

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return each image's embedding joined with its prompt's, [N, 2 D] of unit length."""
        some, width = list(rows), self.texts.shape[1]
        joint = torch.cat([self.features[some, :width], self.texts[some]], 1).double().numpy()
        unit: Vectors = joint / np.linalg.norm(joint, axis=1, keepdims=True)
        return unit

    @torch.no_grad()
    def spread(self, model: RewardModel, rows: Sequence[int]) -> Vectors:
        """Return the disagreement of the reward's members on some images, [N]."""
        spread: Vectors = model.score_features_with_std(**self.seen(rows))[1].double().numpy()
        return spread

    @torch.no_grad()
    def accuracy(self, model: RewardModel, rows: Sequence[int]) -> float:
        """Return the reward's mean ROC-AUC within prompts on some images."""
        scores = model.mean_logits(**self.seen(rows)).double().numpy()
        good = np.array([self.pool.qualities[row] == 1 for row in rows], np.float64)
        accuracy = roc_auc_within([self.pool.prompts[row] for row in rows], scores, good)
        assert accuracy is not None  # the demo's prompts have both
        return accuracy


def verdict_curve(bed: Bed, order: str, seed: int) -> list[float]:
    """Return the accuracy of the reward after each of `VERDICTS` in this order."""
    rng = random.Random(seed)
    tested, left = bed.divided(rng)
    labels, model, found = Labels(), None, list[float]()
    for size in VERDICTS:
        labeled = [row for row, _ in labels.verdicts]
        chosen = next_rows(bed, order, model, left, labeled, count=size - len(labeled))
        left = [row for row in left if row not in set(chosen)]
        asked = Cell(verdicts=len(chosen), slips=SLIPS)
        labels.ask(bed.pool, chosen, asked, rng)
        model = bed.trained(labels, seed)
        found.append(bed.accuracy(model, tested))
    return found


def next_rows(
    bed: Bed,
    order: str,
    model: RewardModel | None,
    left: Sequence[int],
    labeled: Sequence[int],
    *,
    count: int,
) -> list[int]:
    """Return the `count` rows of those left that are labeled next.

    `model` is the reward of the labels so far, None before the first batch.
    """
    if order == "in_turn":
        return in_turn(bed, left, labeled)[:count]
    if order == "diverse":
        rows = [*left, *labeled]
        known = range(len(left), len(rows))
        return [rows[i] for i in greedy_log_determinant(bed.vectors(rows), count, chosen=known)]
    if order == "random" or model is None:
        return list(left[:count])
    spread = bed.spread(model, left)
    if order == "uncertain":
        return [left[i] for i in np.argsort(-spread, kind="stable")[:count]]
    vectors = bed.vectors(left)
    if order == "both":
        vectors = vectors * (spread / spread.mean())[:, None]
    return [left[i] for i in greedy_log_determinant(vectors, count)]


def in_turn(bed: Bed, left: Sequence[int], labeled: Sequence[int]) -> list[int]:
    """Return the rows that are left, first those of prompts with the fewest labels."""
    prompts = bed.pool.prompts
    counts = Counter(prompts[row] for row in labeled)
    places = dict[int, int]()
    for row in left:
        places[row] = counts[prompts[row]]
        counts[prompts[row]] += 1
    return sorted(left, key=lambda row: places[row])


def greedy_log_determinant(
    vectors: Vectors, count: int, *, chosen: Sequence[int] = ()
) -> list[int]:
    """Return `count` further rows of [N, D], or all, that greedily raise the log-determinant most.

    It is that of V V^T + `RIDGE` I, where V has the rows that are chosen. A further row v adds
    log(1 + v^T A v) + log `RIDGE`, with A the inverse [D, D] of V^T V + `RIDGE` I.
    """
    known = vectors[list(chosen)]
    inverse = np.linalg.inv(known.T @ known + RIDGE * np.eye(vectors.shape[1]))
    gains = ((vectors @ inverse) * vectors).sum(1)
    gains[list(chosen)] = -np.inf
    found: list[int] = []
    for _ in range(min(count, len(vectors) - len(chosen))):
        best = int(np.argmax(gains))
        found.append(best)
        step = inverse @ vectors[best] / np.sqrt(1 + gains[best])
        inverse -= np.outer(step, step)  # Sherman and Morrison
        gains -= np.square(vectors @ step)
        gains[best] = -np.inf
    return found


def ranking_curve(bed: Bed, order: str, seed: int) -> list[float]:
    """Return the accuracy of the reward after each of `RANKINGS` of slates of this kind."""
    rng = random.Random(seed)
    tested, left = bed.divided(rng)
    by_prompt = bed.by_prompt(left)
    each = -(-RANKINGS[-1] // len(by_prompt))
    slates = {
        prompt: random_slates(f"{prompt} {seed}", rows, each)
        if order == "random"
        else diverse_slates(bed, rows, each)
        for prompt, rows in by_prompt.items()
    }
    in_turn = [mine[i] for i in range(each) for mine in slates.values() if i < len(mine)]
    labels, found = Labels(), list[float]()
    for size in RANKINGS:
        for slate in in_turn[len(labels.rankings) : size]:
            labels.rank(bed.pool, slate, SLIPS, rng)
        found.append(bed.accuracy(bed.trained(labels, seed), tested))
    return found


def random_slates(seed: str, rows: Sequence[int], count: int) -> list[list[int]]:
    """Return slates of a prompt's images as the app makes them."""
    groups = ranking_groups(seed, [str(row) for row in rows], size=SLATE, groups=count)
    return [[int(name) for name in group] for group in groups]


def diverse_slates(bed: Bed, rows: Sequence[int], count: int) -> list[list[int]]:
    """Return diverse slates of a prompt's images, at most `count` and no image twice."""
    slates: list[list[int]] = []
    left = list(rows)
    while len(slates) < count and len(left) >= SLATE:
        slates.append([left[i] for i in greedy_log_determinant(bed.vectors(left), SLATE)])
        left = [row for row in left if row not in slates[-1]]
    return slates


def labels_for(accuracy: float, sizes: Sequence[int], means: Sequence[float]) -> float | None:
    """Return the labels at which a curve over `sizes` first reaches the accuracy.

    None where it never does.
    """
    for i, value in enumerate(means):
        if value >= accuracy:
            if i == 0:
                return float(sizes[0])
            share = (accuracy - means[i - 1]) / (value - means[i - 1])
            return sizes[i - 1] + share * (sizes[i] - sizes[i - 1])
    return None


def compared(curves: Curves, sizes: Sequence[int]) -> dict[str, Row]:
    """Return for each order its accuracies, their gain, and its share of random's labels.

    The share is for the accuracy that the random order has with the second largest number.
    """
    by_chance = np.array(curves["random"])
    target = float(by_chance[:, -2].mean())
    found: dict[str, Row] = {}
    for order, values in curves.items():
        mine = np.array(values)
        needed = labels_for(target, sizes, mine.mean(0).tolist())
        found[order] = {
            "accuracy": _by_size(mine, sizes),
            "gain over random": _by_size(mine - by_chance, sizes),
            "labels, of random": None if needed is None else needed / sizes[-2],
            "pays": needed is not None and needed <= PAYS * sizes[-2],
        }
    return found


def _by_size(values: Vectors, sizes: Sequence[int]) -> dict[str, Row]:
    return {str(size): summary(values[:, i].tolist()) for i, size in enumerate(sizes)}


def measured(
    bed: Bed,
    curve: Callable[[Bed, str, int], list[float]],
    orders: Sequence[str],
    seeds: Sequence[int],
) -> Curves:
    """Return the curve of every order with every seed."""
    curves: Curves = {order: [] for order in orders}
    for seed in seeds:
        for order in orders:
            curves[order].append(curve(bed, order, seed))
            print(order, seed, [round(value, 3) for value in curves[order][-1]], flush=True)
    return curves


def report(bed: Bed, seeds: Sequence[int]) -> dict[str, Any]:
    """Label in every order with every seed; write the table and return it."""
    orders = compared(measured(bed, verdict_curve, ORDERS, seeds), VERDICTS)
    slates = compared(measured(bed, ranking_curve, SLATES, seeds), RANKINGS)
    data = {
        "seeds": list(seeds),
        "verdicts": VERDICTS,
        "orders": orders,
        "rankings": RANKINGS,
        "slates": slates,
    }
    record("label_order", data)
    return data


def main() -> None:
    """Measure the orders and slates on the demo's images, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(30)))
    parser.add_argument("--threads", type=int, help="threads that torch may use")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    bench = open_bench(queries=0, judged=0, changes=[])
    config = bench.settings.table("reward", RewardConfig)
    data = report(Bed.of(bench.images, bench.backbone, config, open_cache(RUN)), given.seeds)
    for what in ("orders", "slates"):
        for name, row in data[what].items():
            print(what, name, row["labels, of random"], row["pays"])


if __name__ == "__main__":
    main()
