"""Images to label in `benchmarks.labels`, and the raters' answers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.files import sha256_of
from labeling_app.campaign.simulated import SimulatedRater
from pipelines.run.image_io import load_images
from reward.calibration import Values
from reward.dataset import FeedbackDataset, RankedPairs, Verdicts
from reward.measuring.metrics import as_ranks, weighted_roc_auc
from reward.settings import RewardConfig, SplitConfig
from world.oracle import Oracle
from world.prompts import Requirement, family_of

BATCH = 32
RANKING_SIZE = 4
"""Number of images of a ranking."""


def roc_auc_within(prompts: Sequence[str], scores: Values, good: Values) -> float | None:
    """Return the mean over prompts of the ROC-AUC of scores [N] for good images [N], 1 or 0.

    None if no prompt has both good and bad images.
    """
    values = []
    for prompt in dict.fromkeys(prompts):
        mine = np.array([other == prompt for other in prompts])
        values.append(weighted_roc_auc(as_ranks(scores[mine]), good[mine], np.ones(mine.sum())))
    known = [float(value) for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def without_tests(config: RewardConfig, seed: int) -> RewardConfig:
    """Return reward settings without held-out test labels, since the judge tests the reward."""
    split = SplitConfig(split_by="image", unseen_prompts=0, test_images=0, seed=seed)
    return config.model_copy(update={"seed": seed, "split": split})


@dataclass(frozen=True)
class Condition:
    """One source of rewards."""

    reward: str = "labels"
    """`labels`, `clip_score` or `judge`."""
    verdicts: int = 0
    """Verdicts in all, over all rounds."""
    rankings: int = 0
    """Rankings of four images in all, over all rounds."""
    slips: float = 0.05
    """Probability of a rater's slip of attention on an image."""
    raters: int = 1
    """Raters who judge each image; the number of verdicts stays the same."""
    rounds: int = 1
    """Rounds of labeling and tuning, which share labels and reward queries evenly."""
    train_on: str = "focus"
    """`focus`, the four prompts, or `all` of the run's, which share the reward queries evenly."""


CONDITIONS: dict[str, Condition] = {
    "clip_score": Condition("clip_score"),
    "judge_as_reward": Condition("judge"),
    "feedback_100": Condition(verdicts=100),
    "feedback_300": Condition(verdicts=300),
    "feedback_1000": Condition(verdicts=1000),
    "feedback_3000": Condition(verdicts=3000),
    "rankings_250": Condition(rankings=250),
    "both_500_125": Condition(verdicts=500, rankings=125),
    "slips_0": Condition(verdicts=1000, slips=0.0),
    "slips_10": Condition(verdicts=1000, slips=0.1),
    "slips_25": Condition(verdicts=1000, slips=0.25),
    "three_raters": Condition(verdicts=1000, raters=3),
    "three_raters_slips_25": Condition(verdicts=1000, raters=3, slips=0.25),
    "rounds_3": Condition(verdicts=1500, rounds=3),
    "single_same_labels": Condition(verdicts=1500),
    "all_prompts": Condition(verdicts=1000, train_on="all"),
}
"""Conditions by name. 250 rankings of four images take a rater as long as 1,000 verdicts."""


@dataclass
class Pool:
    """Images for raters, with the judge's quality of each image."""

    paths: list[Path] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)
    """Share of the prompt's parts that the judge sees, for each image."""

    def copy(self) -> "Pool":
        """Return an independent copy."""
        return Pool(list(self.paths), list(self.prompts), list(self.qualities))

    def add(self, oracle: Oracle, paths: Sequence[Path], prompts: Sequence[str]) -> None:
        """Add images of the prompts."""
        self.paths += paths
        self.prompts += prompts
        for start in range(0, len(paths), BATCH):
            readings = oracle.read(load_images(paths[start : start + BATCH]))
            texts = prompts[start : start + BATCH]
            self.qualities += [
                Requirement.parse(text).score(one)
                for text, one in zip(texts, readings, strict=True)
            ]


@dataclass
class Labels:
    """Labels on images of a pool, by the images' indices."""

    verdicts: list[tuple[int, bool]] = field(default_factory=list)
    rankings: list[dict[int, int]] = field(default_factory=list)
    """Rank of each image, 1 for the best."""

    def ask(
        self, pool: Pool, rows: Sequence[int], condition: Condition, rng: random.Random
    ) -> None:
        """Ask simulated raters about a round's share of the images `rows`."""
        rater = _rater(condition.slips)
        wanted = condition.verdicts // condition.rounds
        order = rng.sample(list(rows), len(rows))
        asked = [row for row in order for _ in range(condition.raters)]
        for row in (asked * (1 + wanted // max(len(asked), 1)))[:wanted]:
            answer = rater.verdict(pool.qualities[row], rng=rng)
            self.verdicts.append((row, answer.verdict == "good"))
        prompts = sorted({pool.prompts[row] for row in rows})
        for number in range(condition.rankings // condition.rounds):
            prompt = prompts[number % len(prompts)]
            mine = [row for row in rows if pool.prompts[row] == prompt]
            self.rank(pool, rng.sample(mine, min(RANKING_SIZE, len(mine))), condition.slips, rng)

    def rank(self, pool: Pool, slate: Sequence[int], slips: float, rng: random.Random) -> None:
        """Ask a simulated rater with the slip rate `slips` to rank the images `rows`."""
        qualities = {str(row): pool.qualities[row] for row in slate}
        ranking = _rater(slips).ranking(qualities, range(len(slate)), rng=rng)
        ranked = ((int(name), rank) for name, rank in ranking.ranks.items())
        self.rankings.append({row: rank for row, rank in ranked if rank is not None})

    def dataset(self, pool: Pool) -> FeedbackDataset:
        """Return the labels as the reward's training reads them."""
        used = sorted({row for row, _ in self.verdicts} | {i for one in self.rankings for i in one})
        prompts = tuple(sorted({pool.prompts[row] for row in used}))
        at = {row: i for i, row in enumerate(used)}
        prompt_of = {row: prompts.index(pool.prompts[row]) for row in used}
        pairs = [
            (at[a], at[b], prompt_of[a], 0.5 if one[a] == one[b] else float(one[a] < one[b]), n)
            for n, one in enumerate(self.rankings)
            for a in one
            for b in one
            if a < b
        ]
        columns = np.array(pairs, np.float64).reshape(-1, 5).T
        first, second, prompt, number = (columns[i].astype(np.int64) for i in (0, 1, 2, 4))
        each = np.bincount(number)
        return FeedbackDataset(
            tuple(sha256_of(pool.paths[row]) for row in used),
            tuple(pool.paths[row] for row in used),
            prompts,
            tuple(family_of(text) for text in prompts),
            Verdicts(
                np.array([at[row] for row, _ in self.verdicts], np.int64),
                np.array([prompt_of[row] for row, _ in self.verdicts], np.int64),
                np.array([good for _, good in self.verdicts], np.float32),
                np.zeros(len(self.verdicts), np.int64),
            ),
            RankedPairs(
                first,
                second,
                prompt,
                columns[3].astype(np.float32),
                (1 / each[number]).astype(np.float32),
                number,
                0 * number,
            ),
            ("rater",),
        )


def _rater(slips: float) -> SimulatedRater:
    return SimulatedRater(rater_id="rater", threshold=0.99, noise=slips, skip_rate=0.0)
