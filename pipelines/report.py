"""Writes the evaluation's report: one HTML page that holds everything it shows, and the table for the terminal."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from finetune.diffusion import BASE
from pipelines.charts import COLORS, Estimate, comparison_chart, training_chart
from pipelines.config import METHODS, Settings
from pipelines.label_statistics import label_statistics
from pipelines.metrics_log import UNTRAINED, kept_step, read_metrics
from pipelines.models import REWARD_METRICS
from pipelines.page import (
    file_uri,
    interval,
    number,
    percent,
    percent_interval,
    picture_uri,
    svg_uri,
    write_page,
)
from pipelines.record import stamps

FILE = "report.html"
METRICS = "metrics.json"
TITLES = {"base": "base", "best of n": "best of {n}", "rwl": "RWL", "dpok": "DPOK", "ddpo": "DDPO"}
GROUPS = ("trained", "held out")
SHOWN = 6
"""Pictures of a prompt for each model in the grids."""
FEW = 10
"""A share of fewer images is told as a count, and has no bar."""
Evaluation = dict[str, Any]


def main(run: RunFolder, settings: Settings) -> None:
    """Writes `report.html` from what the stages left in the run's folder."""
    evaluation = read_evaluation(run)
    write_page("report.html.jinja", _context(run, settings, evaluation), run.evaluation_dir / FILE)
    print(f"report: {run.evaluation_dir / FILE}")


def read_evaluation(run: RunFolder) -> Evaluation:
    """What `evaluate` measured.

    Raises:
        PictuneError: it has not run yet.
    """
    path = run.evaluation_dir / METRICS
    try:
        evaluation: Evaluation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PictuneError(f"{path}: no such file; run `make evaluate` first") from error
    except ValueError as error:
        raise PictuneError(
            f"{path}: is not JSON; remove {path.parent} and run `make evaluate` again"
        ) from error
    return evaluation


def titles(evaluation: Evaluation) -> dict[str, str]:
    """What each model is called."""
    settings = evaluation["settings"]
    starts = {name: settings.get(name, {}).get("lora", {}).get("start", BASE) for name in TITLES}
    before = {
        name: "" if start == BASE else f"{TITLES.get(start, Path(start).name)}, then "
        for name, start in starts.items()
    }
    return {
        name: before[name] + title.format(n=evaluation["best_of"]) for name, title in TITLES.items()
    }


def table(evaluation: Evaluation) -> str:
    """Alignment by prompt and model, in text, for every sampler; the mean reward where there is no judge."""
    names = titles(evaluation)
    judged = evaluation["judged"]
    title = (
        "share of images that show what the prompt asks for, by the judge"
        if judged
        else "mean reward"
    )
    lines: list[str] = []
    for eta in _etas(evaluation):
        results = _results(evaluation, eta)
        sampler = "deterministic sampler, eta 0" if eta == 0 else f"stochastic sampler, eta {eta:g}"
        columns = [
            f"{names[name]:>14}" if len(names[name]) < 13 else f"  {names[name]}"
            for name in results
        ]
        lines += ["", f"{title} ({sampler})", f"{'':36}" + "".join(columns)]
        widths = [len(column) for column in columns]
        for rows in zip(*(result["prompts"] for result in results.values()), strict=True):
            if rows[0]["group"] == "trained":
                lines.append(
                    _line(rows[0]["prompt"], [_told(row, judged=judged) for row in rows], widths)
                )
        for group in _groups(evaluation):
            means = [result["groups"][group] for result in results.values()]
            told = [_told(mean, judged=judged) for mean in means]
            lines.append(_line(f"mean over the {group} prompts", told, widths))
            key, form = ("interval", percent_interval) if judged else ("reward_interval", interval)
            bounds = [form(mean.get(key)) for mean in means]
            lines += [_line("  95 % interval", bounds, widths)] * any(bounds)
            for key, words in (("clip_score", "  CLIP score"), ("diversity", "  diversity")):
                if any(mean.get(key) is not None for mean in means):
                    lines.append(_line(words, [number(mean.get(key)) for mean in means], widths))
        if any(result["kl"] for result in results.values()):
            nats = [
                number(result["kl"]["mean"], 1) if result["kl"] else ""
                for result in results.values()
            ]
            lines.append(_line("KL to the base, nats", nats, widths))
    lines += [f"{names[name]}: {UNTRAINED}" for name in _untrained(evaluation)]
    return "\n".join(lines)


def _told(figures: dict[str, Any], *, judged: bool) -> str:
    if not judged:
        return number(figures["reward"], 3)
    return (
        f"{figures['met']} of {figures['n']}"
        if figures["n"] < FEW
        else percent(figures["alignment"])
    )


def _line(label: str, texts: Sequence[str], widths: Sequence[int]) -> str:
    short = label if len(label) <= 34 else label[:33] + "…"
    return (
        f"{short:36}"
        + "".join(text.rjust(width) for text, width in zip(texts, widths, strict=True))
    ).rstrip()


def _untrained(evaluation: Evaluation) -> list[str]:
    """The methods that kept the weights from before their training."""
    return [name for name, step in evaluation.get("kept_steps", {}).items() if step == 0]


def _context(run: RunFolder, settings: Settings, evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows."""
    eta = _etas(evaluation)[0]
    results = _results(evaluation, eta)
    names = titles(evaluation)
    first = next(iter(results.values()))
    side_by_side = [name for name in results if name != "best of n"]
    images = read_table(run.images_table, IMAGES)
    return {
        "run": run.root.name,
        "model": settings.run.model,
        "titles": names,
        "colors": COLORS,
        "eta": eta,
        "results": results,
        "groups": _groups(evaluation),
        "judged": evaluation["judged"],
        "few": FEW,
        "known": {group: _known(evaluation, group) for group in _groups(evaluation)},
        "tuned": [name for name in results if name in METHODS],
        "from_elsewhere": bool(evaluation["settings"].get("finetune", {}).get("rewards")),
        "untrained": {names[name]: UNTRAINED for name in _untrained(evaluation)},
        "marked": any(step is not None for step in evaluation.get("kept_steps", {}).values()),
        "outdated": evaluation.get("outdated", {}),
        "grids": [
            _grid(run, results, side_by_side, row)
            for row in first["prompts"]
            if row["group"] == "trained"
        ][:8],
        "held_out_grids": [
            _grid(run, results, side_by_side, row) for row in _one_a_family(first["prompts"])
        ],
        "models": side_by_side,
        "all_results": sorted(
            evaluation["results"], key=lambda result: list(TITLES).index(result["model"])
        ),
        "chart": _chart(results, names, judged=evaluation["judged"]),
        "curves": _curves(run, names),
        "labels": label_statistics(run.latest.resolve()),
        "reward": json.loads((run.reward_dir / REWARD_METRICS).read_text(encoding="utf-8")),
        "reliability": file_uri(run.reward_dir / "reliability.png", "image/png"),
        "audit": evaluation["audit"],
        "images": images.num_rows,
        "prompts": len(set(images["prompt_id"].to_pylist())),
        "model_hash": evaluation["model_hash"],
        "stages": [
            (stamp.stage, stamp.seconds)
            for stamp in sorted(stamps(run).values(), key=lambda stamp: stamp.started)
        ],
        "settings": settings.as_toml(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "diffusers", "transformers", "peft")
        },
    }


def _groups(evaluation: Evaluation) -> list[str]:
    return [group for group in GROUPS if group in evaluation["results"][0]["groups"]]


def _etas(evaluation: Evaluation) -> list[float]:
    return list(dict.fromkeys(result["eta"] for result in evaluation["results"]))


def _results(evaluation: Evaluation, eta: float) -> dict[str, dict[str, Any]]:
    """Results by model under one sampler, in the order of `TITLES`."""
    found = {result["model"]: result for result in evaluation["results"] if result["eta"] == eta}
    return {name: found[name] for name in TITLES if name in found}


def _one_a_family(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["group"] != "trained":
            first.setdefault(row["family"], row)
    return list(first.values())


def _known(evaluation: Evaluation, group: str) -> set[str]:
    """The figures of a group that are known of some model."""
    figures = [result["groups"][group] for result in evaluation["results"]]
    return {name for one in figures for name, value in one.items() if value is not None}


def _chart(
    results: dict[str, dict[str, Any]], names: dict[str, str], *, judged: bool
) -> str | None:
    """The trained prompts, then the held-out families, with every model's figures; those of few images are left out."""
    value, bounds = ("alignment", "interval") if judged else ("reward", "reward_interval")
    rows: list[tuple[str, dict[str, Estimate]]] = []
    first = next(iter(results.values()))
    for part, prefix in (("prompts", ""), ("families", "held out: ")):
        for i, row in enumerate(first[part]):
            if (
                value in row
                and row["n"] >= FEW
                and (row["group"] == "trained") == (part == "prompts")
            ):
                figures = {name: result[part][i] for name, result in results.items()}
                estimates = {name: (one[value], one.get(bounds)) for name, one in figures.items()}
                rows.append((prefix + row["prompt" if part == "prompts" else "family"], estimates))
    xlabel = "share of images that show all that the prompt asks for" if judged else "mean reward"
    return svg_uri(comparison_chart(rows, names, xlabel)) if rows else None


def _grid(
    run: RunFolder,
    results: dict[str, dict[str, Any]],
    models: Sequence[str],
    prompt: dict[str, Any],
) -> dict[str, Any]:
    """One prompt's pictures of each model, the same seeds in the same places."""
    columns = []
    for name in models:
        pictures = [one for one in results[name]["pictures"] if one["prompt"] == prompt["prompt"]][
            :SHOWN
        ]
        row = next(row for row in results[name]["prompts"] if row["prompt"] == prompt["prompt"])
        columns.append(
            {
                "model": name,
                "row": row,
                "pictures": [
                    {**one, "uri": picture_uri(run.root / one["path"])} for one in pictures
                ],
            }
        )
    return {**prompt, "columns": columns}


def _curves(run: RunFolder, names: dict[str, str]) -> list[tuple[str, str]]:
    """Titles and SVG pictures of the training curves."""
    curves = []
    for method, values, ylabel in (
        ("rwl", {"validation_reward": "validation"}, "reward"),
        ("rwl", {"loss": "denoising", "pretraining_loss": "pretraining"}, "loss"),
        ("dpok", {"validation_reward": "validation", "reward": "training images"}, "reward"),
        ("dpok", {"kl": "KL to the base"}, "KL to the base, nats"),
        ("ddpo", {"validation_reward": "validation", "reward": "training images"}, "reward"),
    ):
        lines = read_metrics(run.finetune_dir(method))
        if lines:
            chart = training_chart(
                lines, values, color=COLORS[method], ylabel=ylabel, kept=kept_step(lines)
            )
            curves.append((f"{names[method]}: {ylabel}", svg_uri(chart)))
    lines = read_metrics(run.reward_dir)
    if lines:
        chart = training_chart(
            lines,
            {"val_loss": "validation", "binary_loss": "training, verdicts"},
            color=COLORS["best of n"],
            ylabel="loss",
        )
        curves.append(("reward model: loss", svg_uri(chart)))
    return curves
