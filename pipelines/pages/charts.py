"""Charts of the pages, as SVG."""

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

GRAY, YELLOW, BLUE, RED = "#8a8f98", "#c9a227", "#3b7dd8", "#d1495b"
INK = "#333333"
MODEL_COLORS = {"base": GRAY, "best of n": YELLOW}
"""Colors of models that are not tuned; each method has its own."""
COMPARED_COLORS = (BLUE, RED, YELLOW, "#2a7f62", "#5b4b8a", "#c8553d", "#1b9aaa")
"""Colors of compared models, except for the base."""
SMALL = {"height": 2.6, "width": 3.8}
"""Size in inches of a chart beside others; its text stays readable on a phone."""
LONGEST = 40
"""Letters of a label beside a bar."""
NEXT_SHADE = 0.35
"""Step towards `INK`, as a share, by which a method's color darkens from round to round."""
Lines = Sequence[dict[str, Any]]
Estimate = tuple[float, tuple[float, float] | None]
"""A figure and its interval, if it has one."""


def shade(color: str, number: int) -> str:
    """Return a method's color for a round; later rounds are darker."""
    left = (1 - NEXT_SHADE) ** (number - 1)
    mixed = left * np.array(to_rgb(color)) + (1 - left) * np.array(to_rgb(INK))
    return color if number == 1 else to_hex(mixed.tolist())


def model_colors(models: Iterable[str]) -> dict[str, str]:
    """Return a color for each compared model; the base is gray on all pages."""
    others = [model for model in models if model != "base"]
    return {"base": GRAY} | dict(zip(others, cycle(COMPARED_COLORS), strict=False))


def comparison_chart(
    rows: Sequence[tuple[str, dict[str, Estimate]]],
    titles: dict[str, str],
    colors: dict[str, str],
    xlabel: str,
) -> str:
    """Return bars of a figure in [0, 1] with its interval, models side by side, as SVG.

    Each row is a prompt: its label, and the estimates by model.
    """
    figure, axes = _figure(height=0.9 + 0.13 * len(rows) * (len(rows[0][1]) + 1))
    models = list(rows[0][1])
    step = 0.8 / len(models)
    for offset, model in enumerate(models):
        at = [i + (offset - (len(models) - 1) / 2) * step for i in range(len(rows))]
        values, errors = _with_errors([estimates[model] for _, estimates in rows])
        axes.barh(
            at,
            values,
            step * 0.9,
            xerr=errors,
            color=colors[model],
            label=titles[model],
            error_kw={"ecolor": INK, "elinewidth": 0.8},
        )
    labels = [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label, _ in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=xlabel)
    _legend(axes, columns=len(models))
    return _svg(figure)


def training_chart(
    lines: Lines, values: dict[str, str], *, color: str, ylabel: str, kept: int | None = None
) -> str:
    """Return curves of the named values (name to legend) over the steps, as SVG.

    A line marks the step whose weights were kept. Steps without a value are omitted.
    """
    figure, axes = _figure(**SMALL)
    for number, (name, legend) in enumerate(values.items()):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        if points:
            steps, heights = zip(*points, strict=True)
            style = (
                {"marker": "o", "markersize": 3, "linewidth": 1.6}
                if number == 0
                else {"linewidth": 0.9, "alpha": 0.6}
            )
            axes.plot(steps, heights, color=color if number == 0 else INK, label=legend, **style)
    if kept is not None:
        axes.axvline(kept, color=INK, linewidth=1, linestyle=":", label="kept")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel=ylabel)
    _legend(axes, columns=3)
    return _svg(figure)


def strength_chart(
    strengths: Sequence[float],
    lines: Mapping[str, Sequence[Estimate]],
    *,
    color: str,
    ylabel: str,
    chosen: float | None,
) -> str:
    """Return lines (legend to estimates) of shares over the strengths of an adapter, as SVG.

    The first line is in the model's color. A dotted line marks the strength that was chosen.
    """
    figure, axes = _figure(**SMALL)
    styles: tuple[dict[str, Any], ...] = (
        {"color": color, "marker": "o", "linewidth": 1.6},
        {"color": INK, "marker": "s", "linewidth": 0.9},
        {"color": GRAY, "marker": "^", "linewidth": 0.9, "linestyle": "--"},
    )
    for (legend, estimates), style in zip(lines.items(), styles, strict=False):
        values, errors = _with_errors(estimates)
        axes.plot(strengths, values, markersize=3, label=legend, **style)
        bars = {"ecolor": style["color"], "elinewidth": 2 * style["linewidth"], "alpha": 0.4}
        axes.errorbar(strengths, values, errors, fmt="none", **bars)
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=1, linestyle=":", label="chosen by validation")
    axes.set(
        ylim=(0, None), xlabel="strength of the adapter (0: base, 1: as trained)", ylabel=ylabel
    )
    axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    _legend(axes)
    return _svg(figure)


def elo_chart(rows: Lines, colors: Mapping[str, str]) -> str:
    """Return strengths with their 95 % intervals, as SVG.

    A row has model, elo and interval, which can be None.
    """
    figure, axes = _figure(height=0.75 + 0.3 * len(rows))
    for at, row in enumerate(rows):
        color = colors[row["model"]]
        if (bounds := row["interval"]) is not None:
            axes.plot(bounds, [at, at], color=color, linewidth=4, solid_capstyle="butt")
        axes.plot(row["elo"], at, "o", color=color, markersize=7, markeredgecolor="white")
    axes.axvline(1000, color=GRAY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="Elo points, with 95 % intervals")
    return _svg(figure)


def _figure(*, height: float, width: float = 6.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _with_errors(estimates: Sequence[Estimate]) -> tuple[list[float], list[list[float]]]:
    """Return the figures, and how far their intervals reach below and above them."""
    values = [value for value, _ in estimates]
    intervals = [interval or (value, value) for value, interval in estimates]
    below = [max(0.0, value - low) for value, (low, _) in zip(values, intervals, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, intervals, strict=True)]
    return values, [below, above]


def _legend(axes: Axes, *, columns: int = 2, **style: Any) -> None:
    """Draw the legend above the axes, where it hides nothing."""
    spacing = {"columnspacing": 1.0, "handlelength": 1.5, "handletextpad": 0.5}
    axes.legend(
        frameon=False,
        fontsize=8,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        **spacing | style,
    )


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    # A fixed salt and no date: the same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "pictune"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
