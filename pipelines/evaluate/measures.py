"""Diversity of images, as a pure function of their features."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def vendi_score(features: Values) -> float:
    """Return the effective number of different images, 1 to n, of features [n, D].

    It is exp of the entropy of the eigenvalues of K / n, where K holds the cosines of the features
    (Friedman & Dieng 2023, arXiv 2210.02410).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.clip(np.linalg.eigvalsh(unit @ unit.T / len(unit)), 0, None)
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))
