"""The report's charts, as SVG."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {"base": "#8a8f98", "best of n": "#c9a227", "rwl": "#3b7dd8", "dpok": "#d1495b"}
INK = "#333333"
Lines = Sequence[dict[str, Any]]


def alignment_chart(rows: Sequence[tuple[str, dict[str, dict[str, Any]]]], titles: dict[str, str]) -> str:
    """Alignment with its interval for each prompt (label, figures by model), models side by side; SVG."""
    figure, axes = _figure(height=0.6 + 0.55 * len(rows))
    models = list(rows[0][1])
    step = 0.8 / len(models)
    for offset, model in enumerate(models):
        at = [i + (offset - (len(models) - 1) / 2) * step for i in range(len(rows))]
        values = [figures[model]["alignment"] for _, figures in rows]
        lows, highs = zip(*(figures[model]["interval"] for _, figures in rows), strict=True)
        errors = [
            [max(0, value - low) for value, low in zip(values, lows, strict=True)],
            [max(0, high - value) for value, high in zip(values, highs, strict=True)],
        ]
        axes.barh(
            at, values, step * 0.9, xerr=errors, color=COLORS[model], label=titles[model], error_kw={"ecolor": INK, "elinewidth": 0.8}
        )
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of pictures that show all that the prompt asks for")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


def training_chart(lines: Lines, values: dict[str, str], *, color: str, ylabel: str) -> str:
    """Curves of the named values (name to legend) over the steps; steps without a value are left out; SVG."""
    figure, axes = _figure(height=2.6, width=4.6)
    for number, (name, legend) in enumerate(values.items()):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        if points:
            steps, heights = zip(*points, strict=True)
            style = {"marker": "o", "markersize": 3, "linewidth": 1.6} if number == 0 else {"linewidth": 0.9, "alpha": 0.6}
            axes.plot(steps, heights, color=color if number == 0 else INK, label=legend, **style)
    axes.set(xlabel="step", ylabel=ylabel)
    if len(values) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _figure(*, height: float, width: float = 8.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    # A fixed salt and no date: the same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "pictune"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
