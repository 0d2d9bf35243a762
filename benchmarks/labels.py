"""Value of raters' labels: `python -m benchmarks.labels`; writes `results/labels.json` and `.png`.

A model is tuned on the four prompts of DPOK's paper, always by NFT with the demo's settings and the
same number of reward queries; only the reward differs. The reward is the CLIP score, which uses no
labels; a reward trained on 100 to 3,000 verdicts, on rankings, on both in the same rating time,
with more or fewer slips of the raters, or with one or three raters per image; or the judge itself,
as the upper limit. The judge then evaluates new images by DDIM, one draw each, on seeds on which
nothing was chosen. The base, and the best of four of its images by the reward of 1,000 verdicts,
are given for comparison. In `rounds_3` a third of the labels is on images that the tuned model
drew, twice; `single_same_labels` has as many labels on the base's images alone. `all_prompts`
trains on all prompts of the run, to measure the gain on held-out prompts. NFT's settings were
chosen on seeds that the results exclude.

`headline` has the judge's mean over the four prompts in per cent, the mean of the seeds, and
`over_clip_score` the difference to the CLIP score's result, seed by seed. Intervals over seeds are
Student's, 95 %. Finished conditions are stored in `runs/bench-labels/cells`, so a second call goes
on, and several processes may work on different conditions; `--report` only writes the results
again.
"""

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.label_pool import CONDITIONS, Condition, Pool
from benchmarks.label_trials import Setup, Trial
from benchmarks.record import RESULTS, Row, arguments, record, summary
from data.files import write_json
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from pipelines.collect import images as images_stage
from pipelines.run.models import open_backbone
from pipelines.run.prompts import prompts_of
from pipelines.settings.config import check, config_file, override, parse_override, read_toml
from pipelines.settings.tables import TABLES
from reward.settings import RewardConfig
from world.oracle import Oracle
from world.prompts import held_out_prompts

RUN = RunFolder(Path("runs/bench-labels"))
CELLS_FOLDER = RUN.root / "cells"
HELD_OUT = 3
"""Held-out prompts of each family."""
HEADLINE = (
    "base",
    "best_of_4",
    "clip_score",
    "feedback_100",
    "feedback_1000",
    "rounds_3",
    "single_same_labels",
    "judge_as_reward",
)
CURVE = ("feedback_100", "feedback_300", "feedback_1000", "feedback_3000")
LINES = {
    "base": ("base model", "#777777"),
    "clip_score": ("tuned on the CLIP score, no labels", "#c2571a"),
    "best_of_4": ("best of 4 of the base", "#8e5aa8"),
    "judge_as_reward": ("tuned on the judge itself", "#2a7f62"),
}
"""Conditions that are plotted as lines, with their legends and colors."""
ROUNDS = {"rounds_3": "three rounds", "single_same_labels": "one round"}
CLOSE = 2.0
"""Least distance of two lines, in per cent, at which their legends do not overlap."""
SECONDS = 2
"""A rater's seconds for one verdict."""


def open_setup(*, queries: int, judged: int, changes: list[str]) -> Setup:
    """Draw missing images of the base, and return the shared settings, models and images."""
    tables = override(read_toml(config_file(None)), [parse_override(each) for each in changes])
    settings = check(tables, TABLES, "benchmarks.labels")
    images_stage.main(RUN, settings)
    oracle, pool = Oracle.from_pretrained("models/emoji-oracle"), Pool()
    rows = read_table(RUN.images_table, IMAGES).select(["path", "prompt"]).to_pylist()
    pool.add(oracle, [RUN.root / row["path"] for row in rows], [row["prompt"] for row in rows])
    known = frozenset(prompts_of(settings.run))
    return Setup(
        settings=settings,
        oracle=oracle,
        backbone=open_backbone(settings.table("reward", RewardConfig).backbone, settings.run),
        images=pool,
        held_out=held_out_prompts(HELD_OUT, random.Random(5), exclude=known),
        folder=RUN.root / "drawn",
        queries=queries,
        judged=judged,
    )


def of_condition(setup: Setup, name: str, seed: int) -> Row:
    """Return the figures of a condition with a seed, and its duration in seconds."""
    started = time.monotonic()
    trial = Trial(setup, name, CONDITIONS.get(name, Condition(verdicts=1000)), seed)
    if name == "base":
        found = setup.judge(trial.model, seed)
    elif name == "best_of_4":
        reward = trial.reward(range(len(trial.pool.paths)))
        found = setup.judge(trial.model, seed, choose=reward)
    else:
        found = trial.run()
    return found | {"seconds": round(time.monotonic() - started, 1)}


def report() -> dict[str, Any]:
    """Write the results of the finished conditions; return them."""
    by_cell: dict[str, dict[int, Row]] = {}
    for path in sorted(CELLS_FOLDER.glob("*.json")):
        name, _, seed = path.stem.rpartition("-")
        by_cell.setdefault(name, {})[int(seed)] = json.loads(path.read_text())["figures"]
    clip = by_cell.get("clip_score", {})
    cells: dict[str, Row] = {}
    for name, by_seed in by_cell.items():
        rows = list(by_seed.values())
        cells[name] = {
            figure: summary([row[figure] for row in rows])
            for figure in rows[0]
            if all(figure in row for row in rows)
        }
        both = sorted(by_seed.keys() & clip.keys())
        if both and name != "clip_score":
            gains = [by_seed[seed]["trained"] - clip[seed]["trained"] for seed in both]
            cells[name]["over_clip_score"] = summary(gains)
    headline = {
        name: round(cells[name]["trained"]["mean"], 1) for name in HEADLINE if name in cells
    }
    results = {"headline": headline, "cells": cells}
    record("labels", results)
    plot(cells, RESULTS / "labels.png")
    return results


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
        (CONDITIONS[name].verdicts, cells[name]["trained"]["values"])
        for name in CURVE
        if name in cells
    ]
    counts = [count for count, _ in points]
    means = [sum(values) / len(values) for _, values in points]
    axes.plot(counts, means, color="#1f5fa8", marker="o", label="tuned on what raters taught")
    for name, title in ROUNDS.items():
        if name in cells:
            mean = cells[name]["trained"]["mean"]
            marker = "*" if name == "rounds_3" else "x"
            axes.plot(
                CONDITIONS[name].verdicts, mean, marker, color="#1f5fa8", markersize=9, label=title
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


def main() -> None:
    """Run the unfinished conditions, and write the results."""
    given = arguments(
        __doc__,
        seeds=[1, 2, 3],
        cells=["base", "best_of_4", *CONDITIONS],
        queries=768,
        judged=48,
        set=[],
        threads=None,
        report=False,
    )
    if given.threads:
        torch.set_num_threads(given.threads)
    todo = [
        (name, seed, path)
        for seed in given.seeds
        for name in given.cells
        if not (path := CELLS_FOLDER / f"{name}-{seed}.json").exists()
    ]
    if todo and not given.report:
        setup = open_setup(queries=given.queries, judged=given.judged, changes=given.set)
        for name, seed, path in todo:
            figures = of_condition(setup, name, seed)
            made_by = {"queries": given.queries, "judged": given.judged, "set": given.set}
            write_json(path, made_by | {"seed": seed, "figures": figures})
            print(name, seed, json.dumps(figures), flush=True)
    print(json.dumps(report()["headline"], indent=2))


if __name__ == "__main__":
    main()
