"""Tables and plots of the comparison of methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.method_bed import FIGURES, SAMPLERS
from benchmarks.record import Row, summary
from pipelines.methods import find_method
from pipelines.pages.charts import MODEL_COLORS

CURVES = {
    "RWL": find_method("rwl").color,
    "DDPO": find_method("ddpo").color,
    "DPOK": find_method("dpok").color,
    "RWL, then DPOK": "#8e5aa8",
    "NFT": find_method("nft").color,
    "Reward gradient": find_method("reward_gradient").color,
    "Preference": find_method("preference").color,
}
"""Variants whose curves are drawn, and their colors."""
HEAD = """# Methods on the embedded world

Made by `python -m benchmarks.methods`; how: see there. Seeds: {seeds}. In per cent, means of them
and in brackets the 95 % interval; without brackets the first seed alone. Gains and diversity (Vendi
score, by CLIP embeddings) are beside the base of the same seed and sampler; Frechet distance (to
the base's images, by CLIP embeddings) and KL (nats) are no shares.

![Alignment against reward queries](methods.svg)"""
TITLES = (
    "four prompts",
    "over base",
    "held-out prompts",
    "over base",
    "diversity, of base",
    "readable",
    "distance to base",
    "KL",
)


def table(by_seed: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each model of the first seed and each sampler.

    Each figure is over the seeds that have the model. Gains and shares are relative to the base
    with the same seed and sampler.
    """
    rows: list[Row] = []
    for name in by_seed[0]:
        having = [one for one in by_seed if name in one]
        for sampler in SAMPLERS:
            mine = [one[name]["samplers"][sampler] for one in having]
            base = [one["base"]["samplers"][sampler] for one in having]
            row: Row = {"model": name, "sampler": sampler}
            for group in mine[0]["groups"]:
                own = [one["groups"][group] for one in mine]
                row[group] = _beside(own, [one["groups"][group] for one in base])
            row["prompts"] = {
                prompt: summary([one["prompts"][prompt] for one in mine])
                for prompt in mine[0]["prompts"]
            }
            row["kl"] = summary([one[name]["kl"] for one in having])
            row["queries"] = summary([float(one[name]["queries"]) for one in having])
            rows.append(row)
    return rows


def _beside(figures: Sequence[Row], base: Sequence[Row]) -> Row:
    """Return the figures over the seeds, with the gains over the base's."""
    pairs = list(zip(figures, base, strict=True))
    found = {key: summary([one[key] for one in figures]) for key in FIGURES}
    gains = [ours["alignment"] - theirs["alignment"] for ours, theirs in pairs]
    shares = [ours["diversity"] / theirs["diversity"] for ours, theirs in pairs]
    return found | {"gain": summary(gains), "diversity, of base": summary(shares)}


def plot(by_seed: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw alignment with deterministic DDIM against reward queries.

    There is a thin line for each seed and a thick one for their mean.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    base, color = _alignments(by_seed, "base"), MODEL_COLORS["base"]
    axes.axhline(float(np.mean(base)), color=color, linewidth=1.2, label="base")
    for name, color in CURVES.items():
        curves = [
            [(0, start), *((point["queries"], point["alignment"]) for point in one[name]["curve"])]
            for start, one in zip(base, by_seed, strict=True)
            if name in one
        ]
        _draw_curves(axes, curves, color, name)
    best = [name for name in by_seed[0] if name.startswith("best of ")]
    for name, style in zip(best, (":", "--"), strict=False):
        axes.axhline(
            float(np.mean(_alignments(by_seed, name))),
            color=MODEL_COLORS["best of n"],
            linewidth=1,
            linestyle=style,
            label=f"{name}, for every image",
        )
    axes.set(xlabel="images that the reward scored in training", ylabel="alignment, DDIM")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pictune"}):
        figure.savefig(path, metadata={"Date": None})


def _alignments(by_seed: Sequence[dict[str, Any]], name: str) -> list[float]:
    """Return a model's alignment on the training prompts with DDIM, by seed."""
    return [one[name]["samplers"]["DDIM"]["groups"]["trained"]["alignment"] for one in by_seed]


def _draw_curves(
    axes: Axes, curves: Sequence[Sequence[tuple[float, float]]], color: str, name: str
) -> None:
    for curve in curves:
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.4)
    if curves:
        mean = np.mean(curves, axis=0).T
        axes.plot(*mean, color=color, linewidth=2, marker="o", markersize=4, label=name)


def page(rows: Sequence[Row], guards: Mapping[str, Sequence[Row]], seeds: Sequence[int]) -> str:
    """Return the page as Markdown.

    It has a table for each sampler, then alignment by prompt and the guards' alarms.
    """
    lines = [HEAD.format(seeds=", ".join(map(str, seeds)))]
    for sampler in SAMPLERS:
        own = [row for row in rows if row["sampler"] == sampler]
        lines += ["", f"## {sampler}", "", *_heading(TITLES)]
        lines += [_line(row["model"], _cells(row)) for row in own]
    prompts = list(rows[0]["prompts"])
    lines += ["", "## By prompt, DDIM", "", *_heading(prompts)]
    for row in rows:
        if row["sampler"] == "DDIM":
            cells = [share(row["prompts"][prompt]) for prompt in prompts]
            lines.append(_line(row["model"], cells))
    lines += ["", "## Alarms of the guards", ""]
    for name, found in guards.items():
        pairs = zip(seeds, found, strict=False)
        alarms = [f"seed {seed}, {alarm}" for seed, one in pairs for alarm in one["alarms"]]
        lines.append(f"- {name}: {'; '.join(alarms) or 'nothing'}.")
    return "\n".join(lines) + "\n"


def _heading(titles: Sequence[str]) -> list[str]:
    return [_line("model", titles), "|---" * (1 + len(titles)) + "|"]


def _line(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    trained, held_out = row["trained"], row["held out"]
    return [
        share(trained["alignment"]),
        share(trained["gain"], signed=True),
        share(held_out["alignment"]),
        share(held_out["gain"], signed=True),
        share(trained["diversity, of base"]),
        share(trained["readable"]),
        number(trained["distance"], ".3f", ".3f"),
        number(row["kl"]),
    ]


def share(figure: Row, *, signed: bool = False) -> str:
    """Return a share in per cent with its interval."""
    interval = figure["interval"] and [100 * end for end in figure["interval"]]
    in_per_cent = {"mean": 100 * figure["mean"], "interval": interval}
    return number(in_per_cent, f"{'+' if signed else ''}.0f", ".0f")


def number(figure: Row, form: str = ".1f", ends: str = ".1f") -> str:
    """Return a figure with its interval."""
    text = f"{figure['mean']:{form}}"
    if figure["interval"] is None:
        return text
    low, high = figure["interval"]
    return f"{text} ({low:{ends}} to {high:{ends}})"
