"""Measures of the evaluation, as pure functions: feature distance, diversity, KL of a chain."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def frechet_distance(features: Values, others: Values) -> float | None:
    """Return the squared Frechet distance of Gaussians fitted to features [n, D] and [m, D].

    See Heusel et al. 2017, arXiv 1706.08500. None if a set has a single row. With few images the
    distance is large even between sets of the same kind, so compare only sets of the same size.
    """
    if min(len(features), len(others)) < 2:
        return None
    mean, covariance = features.mean(0), np.cov(features.T)
    other_mean, other_covariance = others.mean(0), np.cov(others.T)
    # tr sqrt(A B) is the sum of the square roots of the eigenvalues of A B. These are real and
    # not negative, except for rounding.
    eigenvalues = np.linalg.eigvals(covariance @ other_covariance).real
    roots = np.sqrt(np.clip(eigenvalues, 0, None))
    traces = np.trace(covariance) + np.trace(other_covariance)
    distance = np.square(mean - other_mean).sum() + traces - 2 * roots.sum()
    return float(max(distance, 0.0))


def vendi_score(features: Values) -> float:
    """Return the effective number of different images, 1 to n, of features [n, D].

    It is exp of the entropy of the eigenvalues of K / n, where K holds the cosines of the features
    (Friedman & Dieng 2023, arXiv 2210.02410).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.clip(np.linalg.eigvalsh(unit @ unit.T / len(unit)), 0, None)
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def vendi_of_subsets(features: Values, size: int, *, subsets: int, seed: int) -> float:
    """Return the mean Vendi score of random subsets of `size` of the features [n, D].

    The score grows with the number of images, so sets of different sizes are compared at one size.
    """
    random = np.random.default_rng(seed)
    drawn = (random.choice(len(features), size, replace=False) for _ in range(subsets))
    return float(np.mean([vendi_score(features[rows]) for rows in drawn]))
