"""Plots of the reward's calibration and scores."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve

from reward.calibration import Values
from reward.learning.examples import Examples
from reward.measuring.evaluation import model_scorer
from reward.measuring.report import PARTS
from reward.model import RewardModel

GOOD, BAD, INK, FAINT = "#2a7f62", "#c8553d", "#333333", "#b9bec6"


def reliability_figure(model: RewardModel, examples: Examples) -> Figure:
    """Draw reliability diagrams above histograms of the scores of good and bad images.

    Each held-out part with verdicts is a column.
    """
    scorer, before = model_scorer(model, examples), model_scorer(model, examples, calibrated=False)
    verdicts = {name: getattr(examples.split, name).verdicts for name in PARTS}
    shown = {name: each for name, each in verdicts.items() if len(each)}
    figure = Figure(figsize=(4 * max(len(shown), 1), 5.5), layout="constrained")
    if not shown:
        figure.text(0.5, 0.5, "no held-out verdicts", ha="center")
        return figure
    axes = figure.subplots(2, len(shown), squeeze=False, sharex=True)
    for column, (name, each) in enumerate(shown.items()):
        good, probabilities = each.good.astype(np.float64), scorer(each.image, each.prompt)
        uncalibrated = before(each.image, each.prompt)
        above, below = axes[:, column]
        above.set_title(f"{name.replace('_', ' ')}: {len(each)} verdicts")
        above.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        draw_reliability(above, uncalibrated, good, color=FAINT, label="before calibration")
        draw_reliability(above, probabilities, good, color=GOOD, label="calibrated")
        draw_scores(below, probabilities, good)
    return figure


def draw_reliability(
    axes: Axes, probabilities: Values, good: Values, *, color: str, label: str, bins: int = 10
) -> None:
    """Draw the share of good labels over the mean score, in bins of equally many labels.

    Perfect calibration is the diagonal.
    """
    observed, predicted = calibration_curve(
        good, probabilities, n_bins=bins, strategy="quantile", pos_label=1
    )
    axes.plot(predicted, observed, color=color, marker="o", markersize=4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share called good")
    axes.legend(frameon=False, loc="upper left")


def draw_scores(axes: Axes, probabilities: Values, good: Values, *, bins: int = 20) -> None:
    """Draw histograms of the scores of images with label good and with label bad."""
    edges = np.linspace(0, 1, bins + 1)
    axes.hist(probabilities[good == 1], edges.tolist(), color=GOOD, alpha=0.6, label="good")
    axes.hist(probabilities[good == 0], edges.tolist(), color=BAD, alpha=0.6, label="bad")
    axes.set(xlim=(0, 1), xlabel="score", ylabel="verdicts")
    axes.legend(frameon=False, loc="upper center")
