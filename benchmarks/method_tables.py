"""Tables and plots of the comparison of methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.method_run import FIGURES
from benchmarks.record import Row, summary
from pipelines.methods import find_method
from pipelines.pages.charts import MODEL_COLORS

HEAD = """# Methods on the embedded world

Made by `python -m benchmarks.methods`; how: see there. Seeds: {seeds}. {columns} The trainings are
of several commits, some with changes that were not committed: [README.md](README.md).

![Alignment against reward queries, KL and diversity](methods.png)"""
COLUMNS = """In per cent, means of them
and in brackets the 95 % interval. Gains are beside the base of the same seed and sampler, and so
are the diversities (Vendi score, by CLIP embeddings), of all images and of those that show their
prompt at equal numbers. KL (nats), queries (images scored in training) and minutes of training are
no shares."""
TITLES = (
    "four prompts",
    "over base",
    "held-out prompts",
    "over base",
    "diversity",
    "of right images",
    "readable",
    "KL",
    "queries",
    "minutes",
)
PANELS = (
    ("queries", "images that the reward scored in training"),
    ("kl", "KL to the base, nats"),
    ("diversity", "diversity, share of the base's"),
)
"""Figures on the horizontal axes of the plots, and their titles."""


def table(by_seed: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each model and each sampler that drew with it.

    Gains and shares are relative to the base with the same seed and sampler.
    """
    rows: list[Row] = []
    for name, first in by_seed[0].items():
        for sampler in first["samplers"]:
            mine = [one[name]["samplers"][sampler] for one in by_seed]
            base = [one["base"]["samplers"][sampler] for one in by_seed]
            row: Row = {"model": name, "sampler": sampler}
            for group in mine[0]["groups"]:
                own = [one["groups"][group] for one in mine]
                row[group] = _beside(own, [one["groups"][group] for one in base])
            row["prompts"] = {
                prompt: summary([one["prompts"][prompt] for one in mine])
                for prompt in mine[0]["prompts"]
            }
            known = [one["diversity of right"] for one in mine if one["diversity of right"]]
            row["diversity of right"] = summary(known) if known else None
            for figure in ("kl", "queries", "minutes"):
                row[figure] = summary([float(one[name][figure]) for one in by_seed])
            rows.append(row)
    return rows


def _beside(figures: Sequence[Row], base: Sequence[Row]) -> Row:
    """Return the figures over the seeds, with the gains over the base."""
    pairs = list(zip(figures, base, strict=True))
    found = {key: summary([one[key] for one in figures]) for key in FIGURES}
    gains = [ours["alignment"] - theirs["alignment"] for ours, theirs in pairs]
    shares = [ours["diversity"] / theirs["diversity"] for ours, theirs in pairs]
    return found | {"gain": summary(gains), "diversity, of base": summary(shares)}


def plot(rows: Sequence[Row], by_seed: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot alignment with deterministic DDIM against queries, KL and diversity (seeds' means).

    A curve begins at the base and has all validations, also those of the variant that it continues.
    """
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    many = figure.subplots(1, len(PANELS), sharey=True)
    models = {row["model"]: _position(row) for row in rows if row["sampler"] == "DDIM"}
    base = models["base"]
    best = [name for name in models if name.startswith("best of ")]
    trained = {name: one["method"] for name, one in by_seed[0].items() if "curve" in one}
    firsts = {method: name for name, method in reversed(trained.items())}
    for axes, (figures, title) in zip(many, PANELS, strict=True):
        axes.axhline(base["alignment"], color=MODEL_COLORS["base"], linewidth=1, label="base")
        for name, marker in zip(best, "Ds", strict=False):
            height = models[name]["alignment"]
            at = {"color": MODEL_COLORS["best of n"], "label": f"{name}, for every image"}
            if figures == "queries":
                axes.axhline(height, linewidth=1, linestyle=":" if marker == "D" else "--", **at)
            else:
                axes.plot(models[name][figures], height, marker=marker, **at)
        for name, method in trained.items():
            points = [base, *_mean_curve(by_seed, name)]
            axes.plot(
                [point[figures] for point in points],
                [point["alignment"] for point in points],
                color=find_method(method).color,
                linestyle="-" if name == firsts[method] else "--",
                marker="o",
                markersize=4,
                label=name,
            )
        axes.set(xlabel=title, ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    many[0].set_ylabel("share of right images, DDIM")
    many[-1].invert_xaxis()
    handles, labels = many[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=130)


def _position(row: Row) -> dict[str, float]:
    """Return the place of a row of the table in the panels."""
    return {
        "queries": row["queries"]["mean"],
        "kl": row["kl"]["mean"],
        "diversity": row["trained"]["diversity, of base"]["mean"],
        "alignment": row["trained"]["alignment"]["mean"],
    }


def _mean_curve(by_seed: Sequence[dict[str, Any]], name: str) -> list[dict[str, float]]:
    """Return the mean over seeds of the validations that all seeds of a variant have."""
    curves = [
        {(one["queries"], one["step"]): one for one in seed[name]["curve"]} for seed in by_seed
    ]
    keys = ("queries", "kl", "diversity", "alignment")
    return [
        {key: float(np.mean([curve[at][key] for curve in curves])) for key in keys}
        for at in sorted(set.intersection(*(set(curve) for curve in curves)))
    ]


def page(
    rows: Sequence[Row],
    by_seed: Sequence[Mapping[str, Any]],
    seeds: Sequence[str],
    *,
    head: str = HEAD,
) -> str:
    """Return the page as Markdown, below a head with places for the seeds and the columns.

    It has a table for each sampler, then alignment by prompt and the guards' alarms.
    """
    lines = [head.format(seeds=", ".join(seeds), columns=COLUMNS)]
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
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
    for name in (name for name, one in by_seed[0].items() if "guards" in one):
        pairs = zip(seeds, by_seed, strict=True)
        alarms = [
            f"seed {seed}, {alarm}"
            for seed, one in pairs
            for alarm in one[name]["guards"]["alarms"]
        ]
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
        share(row["diversity of right"]),
        share(trained["readable"]),
        number(row["kl"]),
        f"{row['queries']['mean']:,.0f}",
        f"{row['minutes']['mean']:.1f}",
    ]


def share(figure: Row | None, *, signed: bool = False) -> str:
    """Return a share in per cent with its interval; a dash if unknown."""
    if figure is None:
        return "-"
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
