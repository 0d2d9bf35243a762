"""Strengths of models on the Elo scale, by the model of Bradley and Terry.

    P(a is preferred to b) = 1 / (1 + 10 ** ((b - a) / 400)),   mean strength 1000

The model is fitted with evalica (Ustalov 2025, arXiv 2412.11314). A tie is half a win for each
model. One tie is added for each pair of models with votes, so that a model that won every vote has
a finite strength (as Haldane 1956 for log-odds).
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from evalica import Winner, bradley_terry
from scipy.sparse.csgraph import connected_components

from pipelines.compare.arena.intervals import Estimates, clustered
from pipelines.compare.arena.votes import Values, Votes

ELO = 400 / np.log(10)
"""Points of Elo per unit of log-odds."""
MEAN = 1000.0
TOLERANCE, MOST_STEPS = 1e-10, 10_000
"""Tolerance and steps of evalica's solver; strict, since one rater changes strengths little."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Strengths of K models and the differences of all pairs, with their uncertainty."""

    models: tuple[str, ...]
    strengths: Estimates
    """[K], in Elo points with the mean `MEAN`."""
    differences: Estimates
    """[K (K - 1) / 2], strength of the first less the second model of each pair, in Elo points."""

    def difference(self, a: int, b: int) -> Estimates:
        """Return the strength of model `a` less the strength of `b`, [1]."""
        at = list(combinations(range(len(self.models)), 2)).index((min(a, b), max(a, b)))
        found = self.differences.part(slice(at, at + 1))
        return found if a < b else replace(found, share=1 - found.share)


def win_probability(difference: float | Values) -> Values:
    """Return the probability that a model beats another that is `difference` Elo weaker."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(difference) / ELO)))


def wins_of(votes: Votes) -> Values:
    """Return the number of wins of each model over each other, [K, K]; a tie is half a win."""
    k = len(votes.models)
    wins = np.zeros((k, k))
    np.add.at(wins, (votes.model_a, votes.model_b), votes.outcome)
    np.add.at(wins, (votes.model_b, votes.model_a), 1 - votes.outcome)
    return wins


def bradley_terry_strengths(wins: Values) -> Values:
    """Return the maximum-likelihood strengths [M, K] in Elo points of wins [M, K, K]."""
    if wins.shape[-1] == 2:  # in closed form, the limit of evalica's iteration
        half = ELO / 2 * np.log(wins[:, 0, 1] / wins[:, 1, 0])
        return MEAN + np.stack([half, -half], axis=1)
    return np.stack([_fitted(one) for one in wins])


def _fitted(wins: Values) -> Values:
    first, second = np.nonzero(wins)
    fitted = bradley_terry(
        first.tolist(),
        second.tolist(),
        [Winner.X] * len(first),
        weights=wins[first, second].tolist(),
        tolerance=TOLERANCE,
        limit=MOST_STEPS,
    )
    logs = np.log(fitted.scores.reindex(range(len(wins))).to_numpy(np.float64))
    return np.asarray(MEAN + ELO * (logs - logs.mean()))


def is_connected(votes: Votes) -> bool:
    """Whether every model was compared with every other, directly or through other models."""
    return bool(connected_components(wins_of(votes) > 0, directed=False)[0] == 1)


def rate(votes: Votes) -> Ratings:
    """Return the Bradley-Terry strengths of the models; `is_connected` must hold."""
    k = len(votes.models)
    rows = np.arange(len(votes))
    sums = np.zeros((len(votes), k, k))
    sums[rows, votes.model_a, votes.model_b] = votes.outcome
    sums[rows, votes.model_b, votes.model_a] = 1 - votes.outcome
    wins = wins_of(votes)
    virtual = 0.5 * ((wins + wins.T) > 0)

    def strengths(some: Values) -> Values:
        return bradley_terry_strengths(some.reshape(-1, k, k) + virtual)

    information = _information(wins + virtual, strengths(wins.reshape(1, -1))[0])
    covariance = np.asarray(np.linalg.pinv(information))  # for independent votes
    first, second = np.array(list(combinations(range(k), 2))).T
    # each model against the mean of the others, then all pairs
    against_others = (k * np.eye(k) - 1) / (k - 1)
    contrasts = np.concatenate([against_others, np.eye(k)[first] - np.eye(k)[second]])

    def both(some: Values) -> Values:
        # many clusters have equal sums: each distinct sum is fitted once
        kinds, at = np.unique(some, axis=0, return_inverse=True) if k > 2 else (some, slice(None))
        return np.asarray(strengths(kinds)[at] @ contrasts.T / ELO)

    independent = np.einsum("qi,ij,qj->q", contrasts, covariance, contrasts) / ELO**2
    found = clustered(sums.reshape(len(votes), -1), votes.rater, votes.prompt, both, independent)
    return Ratings(
        votes.models,
        found.part(slice(k), unit=ELO * (k - 1) / k, middle=MEAN),
        found.part(slice(k, None), unit=ELO),
    )


def _information(wins: Values, strengths: Values) -> Values:
    """Return the Fisher information [K, K] of the strengths in Elo points."""
    p = win_probability(strengths[:, None] - strengths[None, :])
    weights = (wins + wins.T) * p * (1 - p) / ELO**2
    return np.asarray(np.diag(weights.sum(1)) - weights)
