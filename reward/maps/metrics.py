"""Figures of predicted maps against marked ones, by the definitions of RichHF's code.

They are those of saliency models (Bylinskii et al. 2019, arXiv 1604.03605), as the first author of
RichHF-18K computes them (github.com/youweiliang/RichHF, metrics.py). All but the MSE are means over
the maps on which something is marked.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Maps = NDArray[np.float64]
EPSILON = 1e-8
JITTER = 1e-7
"""Largest random number that is added to a prediction, so that no two places are equal."""


class MapFigures(BaseModel, frozen=True):
    """Figures of one aspect's maps; None where no map gives them."""

    n: int
    """Number of images."""
    n_marked: int
    """Images on which somebody marked the aspect."""
    mse: float | None = None
    """Mean squared error of all maps."""
    mse_clean: float | None = None
    """Mean squared error of the maps on which nothing is marked: false alarms."""
    cc: float | None = None
    """Pearson's correlation over pixels."""
    kld: float | None = None
    """KL divergence of the prediction from the marks, both with sum 1; less is better."""
    sim: float | None = None
    """Sum of the smaller one of both maps with sum 1."""
    nss: float | None = None
    """Mean of the standardized prediction over the marked pixels."""
    auc_judd: float | None = None
    """Area under the ROC curve of marked pixels."""
    raters_cc: float | None = None
    """Correlation of one rater's map with that of the others, `data.quality.regions`."""
    n_raters_maps: int = 0
    """Maps of single raters in `raters_cc`."""


def map_figures(predicted: Maps, marked: Maps, *, rng: np.random.Generator) -> MapFigures:
    """Compute all figures but the raters' of maps [N, H, W] in [0, 1]; `rng` draws the jitter."""
    errors = np.square(predicted - marked).mean((1, 2))
    faulty = marked.sum((1, 2)) > 0
    pairs = list(zip(predicted[faulty], marked[faulty], strict=True))
    return MapFigures(
        n=len(marked),
        n_marked=len(pairs),
        mse=_mean(errors),
        mse_clean=_mean(errors[~faulty]),
        cc=_mean([cc(*pair) for pair in pairs]),
        kld=_mean([kld(*pair) for pair in pairs]),
        sim=_mean([similarity(*pair) for pair in pairs]),
        nss=_mean([nss(*pair) for pair in pairs]),
        auc_judd=_mean([auc_judd(*pair, rng=rng) for pair in pairs]),
    )


def cc(predicted: Maps, marked: Maps) -> float:
    """Return Pearson's correlation of two maps [H, W]; 0 where one is the same everywhere."""
    one, other = predicted - predicted.mean(), marked - marked.mean()
    norms = np.sqrt(np.square(one).sum()) * np.sqrt(np.square(other).sum())
    return float((one * other).sum() / (norms + EPSILON))


def kld(predicted: Maps, marked: Maps) -> float:
    """Return sum g log(g / (p + 1e-8) + 1e-8) of maps [H, W], divided by their sums."""
    p, g = _distribution(predicted), _distribution(marked)
    return float((g * np.log(g / (p + EPSILON) + EPSILON)).sum())


def similarity(predicted: Maps, marked: Maps) -> float:
    """Return sum min(p, g) of maps [H, W], divided by their sums."""
    return float(np.minimum(_distribution(predicted), _distribution(marked)).sum())


def nss(predicted: Maps, marked: Maps) -> float:
    """Return the mean over marked pixels of the prediction [H, W], standardized (unbiased std)."""
    standardized = (predicted - predicted.mean()) / (predicted.std(ddof=1) + EPSILON)
    return float(standardized[marked > 0].mean())


def auc_judd(predicted: Maps, marked: Maps, *, rng: np.random.Generator) -> float:
    """Return the area under the ROC curve of marked pixels, by trapezoids (Judd et al. 2009).

    The thresholds are the predictions, with jitter, at marked pixels. As in RichHF's code, the i-th
    of them counts one pixel too many as a false positive. NaN where all pixels are marked.
    """
    jittered = (predicted + rng.random(predicted.shape) * JITTER).ravel()
    at_marks = np.sort(jittered[marked.ravel() > 0])[::-1]
    n, places = len(at_marks), np.arange(len(at_marks))
    above = len(jittered) - np.searchsorted(np.sort(jittered), at_marks, side="left")
    if n == len(jittered):
        return float("nan")
    false = np.concatenate([[0], (above - places) / (len(jittered) - n), [1]])
    true = np.concatenate([[0], (places + 1) / n, [1]])
    return float(np.trapezoid(true, false))


def _distribution(values: Maps) -> Maps:
    shares: Maps = values / (values.sum() + EPSILON)
    return shares


def _mean(values: Maps | list[float]) -> float | None:
    """Return the mean of the values that are numbers; None without any."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else None
