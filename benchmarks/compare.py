"""Simulations that check intervals, power and the stopping rule of comparisons.

Run as `python -m benchmarks.compare`; the figures are in `results/compare.json`.

- A/A: a model against itself, 1,000 campaigns a case. Intervals should cover 0 at their nominal
rate. The interval under independent votes and the bootstrap over raters and prompts are given as
well;
- power: how often a true 60 to 40 is found, beside the binomial test;
- looking: campaigns that are looked at after every vote and stopped when the interval excludes 0;
- the tables of Imagen 3 (arXiv 2408.07009), whose strengths the paper gives.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.record import record, recorded
from data.intervals import wilson_interval
from pipelines.compare.arena.intervals import (
    FEWEST,
    always_valid,
    clustered,
    log_odds,
    share_of,
)
from pipelines.compare.arena.ratings import ELO, bradley_terry_strengths, rate, wins_of
from pipelines.compare.arena.votes import Indices, Values, Votes

RESAMPLES = 400
MADE_BY = ("command", "commit", "machine")
IMAGEN_MODELS = ("Imagen 3", "SD 3", "DALL-E 3", "MJ v6", "Imagen 2", "SDXL 1")
IMAGEN_TABLES = {
    "overall": "57.8 60.0 58.0 69.9 77.7 53.2 53.7 62.6 72.8 50.1 63.3 68.1 59.1 69.5 58.2",
    "alignment": "55.1 59.4 59.1 65.4 76.1 51.0 54.9 63.6 72.5 51.2 59.8 70.2 61.7 68.0 59.0",
}
"""Win rates in per cent, row against column, the upper triangle by rows."""
IMAGEN_ELO = {
    "overall": (1098, 1047, 1028, 1027, 941, 860),
    "alignment": (1083, 1047, 1028, 1019, 950, 873),
}
IMAGEN_VOTES = 2500
"""Votes on each pair of models."""


@dataclass(frozen=True)
class Crowd:
    """A campaign between models of equal or given strength, with a known truth."""

    raters: int = 16
    prompts: int = 50
    images: int = 2
    """Pairs of images of each prompt and pair of models."""
    overlap: int = 3
    """Raters of each pair of images."""
    taste: float = 0.0
    """Standard deviation over raters of the log-odds with which they prefer a model."""
    luck: float = 0.0
    """The same over prompts."""
    left: float = 0.0
    """The same, of the log-odds with which a rater prefers the image at the left."""
    ties: float = 0.0
    """Share of votes that are ties."""
    uneven: float = 0.0
    """Unevenness of raters' shares of the work: 0 gives them the same."""
    strengths: tuple[float, ...] = (0.0, 0.0)
    """Log-odds."""

    def campaign(self, rng: np.random.Generator) -> Votes:
        """Return the votes of one campaign, in random order."""
        k = len(self.strengths)
        first, second = np.triu_indices(k, 1)
        tasks = self.prompts * self.images * len(first)
        n = tasks * self.overlap
        task = np.repeat(np.arange(tasks), self.overlap)
        keys = rng.random((tasks, self.raters)) ** (1 + self.uneven * np.arange(self.raters))
        rater = np.argsort(-keys, axis=1)[:, : self.overlap].ravel()
        prompt = task // (self.images * len(first))
        model_a, model_b = first[task % len(first)], second[task % len(first)]
        tastes = rng.normal(0, 1, (self.raters, k)) * self.taste / np.sqrt(2)
        luck = rng.normal(0, 1, (self.prompts, k)) * self.luck / np.sqrt(2)
        a_is_left = rng.random(n) < 0.5
        sides = rng.normal(0, self.left, self.raters)[rater] * np.where(a_is_left, 1, -1)
        worth = np.array(self.strengths) + tastes[rater] + luck[prompt]
        rows = np.arange(n)
        odds = worth[rows, model_a] - worth[rows, model_b] + sides
        outcome = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.float64)
        outcome[rng.random(n) < self.ties] = 0.5
        votes = Votes(
            models=tuple(f"model {i}" for i in range(k)),
            model_a=model_a,
            model_b=model_b,
            outcome=outcome,
            rater=rater,
            prompt=prompt,
            category=np.full(n, "other", object),
        )
        return votes.in_order(rng.permutation(n))


CASES = {
    "independent votes": Crowd(),
    "raters of strong taste": Crowd(taste=1.0),
    "lucky prompts": Crowd(luck=1.0),
    "taste and luck": Crowd(taste=1.0, luck=1.0),
    "taste, luck, bias of position, ties": Crowd(taste=0.7, luck=0.7, left=0.7, ties=0.2),
    "uneven work": Crowd(taste=0.7, luck=0.7, uneven=0.3),
    "one rater a pair, 10 raters": Crowd(raters=10, overlap=1, images=4, taste=0.5, luck=0.7),
    "6 raters": Crowd(raters=6, prompts=40, taste=0.7, luck=0.7),
    "6 raters, independent votes": Crowd(raters=6, prompts=40),
    "3 raters": Crowd(raters=3, prompts=40, overlap=2, taste=0.7, luck=0.7),
    "3 raters, independent votes": Crowd(raters=3, prompts=40, overlap=2),
    "three models, taste and luck": Crowd(
        strengths=(0.0, 0.0, 0.0), images=1, overlap=2, taste=0.7, luck=0.7
    ),
}
"""Campaigns of a model against itself."""


def coverage(crowd: Crowd, campaigns: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return how often the intervals of equal models' differences hold 0."""
    held: dict[str, list[bool]] = {"95": [], "99": [], "independent_95": [], "bootstrap_95": []}
    widths = []
    for _ in range(campaigns):
        votes = crowd.campaign(rng)
        found = rate(votes).differences
        for name, level in (("95", 0.95), ("99", 0.99)):
            bounds = found.intervals(level)
            held[name] += list((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0))
        widths.append(float(np.ptp(found.intervals(), axis=1).mean()))
        held["independent_95"] += _held_by_independent(votes, found.value)
        held["bootstrap_95"] += _held_by_bootstrap(votes, rng)
    n = len(votes)
    shares = {name: float(np.mean(values)) for name, values in held.items() if values}
    interval = wilson_interval(sum(held["95"]), len(held["95"]))
    return shares | {
        "campaigns": campaigns,
        "votes": n,
        "interval_of_95": list(interval),
        "width": float(np.median(widths)),
    }


def _held_by_independent(votes: Votes, differences: Values) -> list[bool]:
    """Return whether the intervals of independent votes hold 0, for two models."""
    if len(votes.models) != 2:
        return []
    wins = wins_of(votes) + 0.5
    half = 1.96 * ELO * np.sqrt(1 / wins[0, 1] + 1 / wins[1, 0])
    return [bool(abs(differences[0]) <= half)]


def _held_by_bootstrap(votes: Votes, rng: np.random.Generator) -> list[bool]:
    """Return whether the interval of resampled raters and prompts holds 0, for two models."""
    if len(votes.models) != 2:
        return []
    return [says_resampled(votes.between(0, 1).outcome, votes.rater, votes.prompt, rng) == 0]


def found_share(crowd: Crowd, campaigns: int, rng: np.random.Generator) -> float:
    """Return how often the 95 % interval says rightly that the first of two models is stronger."""
    lows = [rate(crowd.campaign(rng)).differences.intervals()[0, 0] for _ in range(campaigns)]
    return float(np.mean(np.array(lows) > 0))


def true_60_to_40(campaigns: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the power at 200 votes: 100 raters with 2 votes each, a prompt for each vote."""
    crowd = Crowd(100, 200, images=1, overlap=1, strengths=(np.log(1.5), 0.0))
    rejected = [binomtest(wins, 200).pvalue <= 0.05 for wins in range(201)]
    wins = rng.binomial(200, 0.6, 100_000)
    return {
        "design": "200 votes, 100 raters, 200 prompts, no ties, no taste, no luck",
        "found": found_share(crowd, campaigns, rng),
        "binomial_test": float(np.array(rejected)[wins].mean()),
        "campaigns": campaigns,
    }


@dataclass(frozen=True)
class Design:
    """Raters and prompts of a campaign, and the correlation of their votes."""

    raters: int
    prompts: int
    rater_spread: float
    """Standard deviation over raters of the share of votes for a model."""
    prompt_spread: float
    """Standard deviation over prompts of the share of votes for a model."""
    ties: float
    """Share of votes that are ties."""


def planned_votes(
    share: float, votes: int, design: Design, rng: np.random.Generator
) -> tuple[Values, Indices, Indices]:
    """Return outcomes, raters and prompts of a campaign that is as the design says."""
    rater = np.resize(rng.permutation(design.raters), votes)
    prompt = np.resize(rng.permutation(design.prompts), votes)
    rng.shuffle(prompt)
    p = share + rng.normal(0, design.rater_spread, design.raters)[rater]
    p = np.clip(p + rng.normal(0, design.prompt_spread, design.prompts)[prompt], 0, 1)
    # a share `ties` of the votes is half a win, and the mean outcome stays p
    wins = np.clip(p - design.ties / 2, 0, 1 - design.ties)
    drawn = rng.random(votes)
    outcome = np.where(drawn < wins, 1.0, np.where(drawn < wins + design.ties, 0.5, 0.0))
    return outcome, rater, prompt


def says(outcome: Values, rater: Indices, prompt: Indices) -> int:
    """Return 1 or -1 where the interval says that the first or the second is better, else 0."""
    found = share_of(outcome, rater, prompt)
    assert found is not None
    assert found.interval is not None
    low, high = found.interval
    return int(low > 0.5) - int(high < 0.5)


def says_resampled(
    outcome: Values, rater: Indices, prompt: Indices, rng: np.random.Generator
) -> int:
    """Return the same of the bootstrap that resamples raters and prompts, by its percentiles."""
    k, m = rater.max() + 1, prompt.max() + 1
    wins, votes = np.zeros((k, m)), np.zeros((k, m))
    np.add.at(wins, (rater, prompt), outcome)
    np.add.at(votes, (rater, prompt), 1)
    raters, prompts = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (k, m))
    won, given = (((raters @ one) * prompts).sum(1) for one in (wins, votes))
    low, high = np.quantile(won[given > 0] / given[given > 0], [0.025, 0.975])
    return int(low > 0.5) - int(high < 0.5)


LOOKED_AT = {
    "independent votes": Crowd(raters=12, prompts=50, overlap=2, images=3),
    "taste and luck": Crowd(raters=12, prompts=50, overlap=2, images=3, taste=0.7, luck=0.7),
    "6 raters of strong taste": Crowd(raters=6, prompts=50, overlap=2, images=3, taste=1.0),
    "true 60 to 40": Crowd(
        raters=12, prompts=50, overlap=2, images=3, taste=0.3, luck=0.5,
        strengths=(np.log(1.5), 0.0),
    ),
}  # fmt: skip
"""Campaigns that are looked at after each of 300 votes."""


def looked_at(crowd: Crowd, campaigns: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return how often the interval excludes 0 at some look, and after how many votes."""
    stops, plain = [], 0
    for _ in range(campaigns):
        looks = list(_looks(crowd.campaign(rng)))
        stop = next((n for n, stopped, _ in looks if stopped), None)
        stops += [] if stop is None else [stop]
        plain += any(outside for _, _, outside in looks)
    return {
        "campaigns": campaigns,
        "stopped": len(stops) / campaigns,
        "median_votes_when_stopped": float(np.median(stops)) if stops else None,
        "stopped_by_the_plain_interval": plain / campaigns,
    }


def _looks(votes: Votes) -> Iterator[tuple[int, bool, bool]]:
    """Yield after each vote the number of votes, and whether each of both intervals excludes 0."""
    sums = np.stack([votes.outcome, 1 - votes.outcome], axis=1)
    for n in range(2, len(votes) + 1):
        rater, prompt = votes.rater[:n], votes.prompt[:n]
        if min(len(set(rater.tolist())), len(set(prompt.tolist()))) < FEWEST:
            continue
        independent = (1 / (sums[:n].sum(0) + 0.5)).sum(keepdims=True)
        found = clustered(sums[:n], rater, prompt, log_odds, independent)
        bounds, plain = always_valid(found, 70 / ELO)[0], found.intervals()[0]
        yield n, bool(bounds[0] > 0 or bounds[1] < 0), bool(plain[0] > 0 or plain[1] < 0)


def imagen_wins(table: str) -> Values:
    """Return the wins [6, 6] of the paper's table."""
    wins = np.zeros((6, 6))
    wins[np.triu_indices(6, 1)] = [float(rate) for rate in IMAGEN_TABLES[table].split()]
    wins += np.tril(100 - wins.T, -1)
    return wins / 100 * IMAGEN_VOTES


def imagen(table: str) -> dict[str, Any]:
    """Return the strengths of the paper's table, beside the paper's own."""
    found = bradley_terry_strengths(imagen_wins(table)[None])[0]
    ours = dict(zip(IMAGEN_MODELS, found.round(1).tolist(), strict=True))
    return {"ours": ours, "paper": dict(zip(IMAGEN_MODELS, IMAGEN_ELO[table], strict=True))}


def all_covered(campaigns: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the coverage of every case; three models take long, so they have fewer campaigns."""
    found = {}
    for name, crowd in CASES.items():
        fewer = campaigns // (1 if len(crowd.strengths) == 2 else 4)
        found[name] = vars(crowd) | coverage(crowd, fewer, rng)
        print(name, found[name], flush=True)
    return {"aa": found}


def all_powers(campaigns: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return how often true differences are found, and the published tables' strengths."""
    found = {
        "true_60_to_40": true_60_to_40(4 * campaigns, rng),
        "imagen": {table: imagen(table) for table in IMAGEN_TABLES},
    }
    print(found, flush=True)
    return found


def all_looked_at(campaigns: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return how campaigns end that are looked at after each vote."""
    found = {}
    for name, crowd in LOOKED_AT.items():
        found[name] = vars(crowd) | looked_at(crowd, campaigns // 8, rng)
        print(name, found[name], flush=True)
    return {"looked_at_after_each_vote": found}


PARTS = {"aa": all_covered, "power": all_powers, "looks": all_looked_at}


def main() -> None:
    """Measure all of it, or the part that is named, in some minutes each."""
    parser = argparse.ArgumentParser(description="Measure what comparisons promise.")
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: all of them")
    parser.add_argument("--campaigns", type=int, default=1000, help="of a case (default: 1000)")
    given = parser.parse_args()
    for name in [given.part] if given.part else PARTS:
        figures = PARTS[name](given.campaigns, np.random.default_rng(0))
        kept = {key: value for key, value in recorded("compare").items() if key not in MADE_BY}
        record("compare", kept | figures)


if __name__ == "__main__":
    main()
