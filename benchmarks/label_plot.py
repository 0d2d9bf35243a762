"""The plot of `benchmarks.labels`: what raters' work buys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.label_pool import CELLS

CURVE = ("feedback_100", "feedback_300", "feedback_1000", "feedback_3000")
LINES = {
    "base": ("base model", "#777777"),
    "clip_score": ("tuned on the CLIP score, no labels", "#c2571a"),
    "best_of_4": ("best of 4 of the base", "#8e5aa8"),
    "judge_as_reward": ("tuned on the judge itself", "#2a7f62"),
}
"""Cells that are drawn as lines, with their legends and colors."""
ROUNDS = {"rounds_3": "three rounds", "single_same_labels": "one round"}
CLOSE = 2.0
"""Per cent by which two lines have to be apart for their legends to stand one above the other."""
SECONDS = 2
"""Rater's time on a verdict."""


def plot(cells: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the judge's mean over the prompts against the number of verdicts."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    heights = {name: cells[name]["trained"]["mean"] for name in LINES if name in cells}
    for name, height in heights.items():
        title, color = LINES[name]
        axes.axhline(height, color=color, linewidth=1.2, linestyle="--")
        is_under_another = any(0 < other - height < CLOSE for other in heights.values())
        axes.annotate(
            title,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(-4, -3 if is_under_another else 3),
            textcoords="offset points",
            ha="right",
            va="top" if is_under_another else "bottom",
            color=color,
            fontsize=8,
        )
    points = [
        (CELLS[name].verdicts, cells[name]["trained"]["values"]) for name in CURVE if name in cells
    ]
    counts = [count for count, _ in points]
    means = [sum(values) / len(values) for _, values in points]
    axes.plot(counts, means, color="#1f5fa8", marker="o", label="tuned on what raters taught")
    for name, title in ROUNDS.items():
        if name in cells:
            mean = cells[name]["trained"]["mean"]
            marker = "*" if name == "rounds_3" else "x"
            axes.plot(
                CELLS[name].verdicts, mean, marker, color="#1f5fa8", markersize=9, label=title
            )
    for count, values in points:
        axes.plot([count] * len(values), values, ".", color="#1f5fa8", alpha=0.4)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}\n{count * SECONDS / 60:.0f} min" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("verdicts, and a rater's time on them")
    axes.set_ylabel("images that show what the prompt asks for, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.1), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
