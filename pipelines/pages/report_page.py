"""The evaluation's report: one HTML page that holds all that it shows, and a table as text."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from finetune.lora import BASE
from pipelines.comparison import (
    Evaluation,
    FamilyFigures,
    Figures,
    Group,
    GroupFigures,
    PromptFigures,
    Result,
)
from pipelines.config import Settings
from pipelines.methods import METHODS, find_method
from pipelines.metrics_log import UNTRAINED, kept_step, read_metrics
from pipelines.models import REWARD_METRICS
from pipelines.pages.charts import (
    MODEL_COLORS,
    YELLOW,
    Estimate,
    comparison_chart,
    shade,
    strength_chart,
    training_chart,
)
from pipelines.pages.label_statistics import label_statistics
from pipelines.pages.page import (
    file_uri,
    image_uri,
    interval,
    number,
    percent,
    percent_interval,
    svg_uri,
    write_page,
)
from pipelines.pages.people import peoples_verdict
from pipelines.record import stamps
from pipelines.strengths import read_choice

GROUPS: tuple[Group, ...] = ("trained", "held out")
IMAGES_IN_GRID = 6
"""Images of a prompt for each model in the grids."""
MOST_COLUMNS = 5
"""Models side by side; of more, the base and those of the last round are shown."""
MOST_GRIDS = 8
"""Training prompts that have a grid, the first ones."""
PACKAGES = ("torch", "diffusers", "transformers", "peft")
"""Packages whose versions the page states."""
FEW = 10
"""A share of fewer images is shown as a count, and has no bar."""


def page_file(run: RunFolder) -> Path:
    """Return the file of the report."""
    return run.evaluation_dir / "report.html"


def metrics_file(run: RunFolder) -> Path:
    """Return the file of the figures that `evaluate` leaves."""
    return run.evaluation_dir / "metrics.json"


def write(run: RunFolder, settings: Settings) -> None:
    """Write `report.html` from what the stages left in the run's folder."""
    page = page_file(run)
    write_page("report.html.jinja", _context(run, settings, read_evaluation(run)), page)
    print(f"report: {page}")


def read_evaluation(run: RunFolder) -> Evaluation:
    """Return the figures that `evaluate` left.

    Raises:
        PictuneError: it has not run yet, or its file is damaged.
    """
    path = metrics_file(run)
    try:
        return Evaluation.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise PictuneError(f"{path}: no such file; run `make evaluate` first") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise PictuneError(
            f"{path}: {where} is not as `evaluate` writes it; "
            f"remove {path.parent} and run `make evaluate` again"
        ) from error
    except ValueError as error:
        raise PictuneError(
            f"{path}: is not JSON; remove {path.parent} and run `make evaluate` again"
        ) from error


def titles(evaluation: Evaluation) -> dict[str, str]:
    """Return the title of each model, in the order in which they are shown."""
    names = {method: find_method(method).name for method in METHODS}
    found = {"base": "base", "best of n": f"best of {evaluation.best_of}"}
    for method, name in names.items():
        start = evaluation.settings.get(method, {}).get("lora", {}).get("start", BASE)
        before = "" if start == BASE else f"{names.get(start, Path(start).name)}, then "
        found[method] = before + name
    for result in evaluation.results:
        if result.method is not None and result.model not in found:
            found[result.model] = f"{names[result.method]}, round {result.round}"
    return found


def table(evaluation: Evaluation) -> str:
    """Return alignment by prompt and model as text, for every sampler.

    Without a judge it is the mean reward.
    """
    names, judged = titles(evaluation), evaluation.judged
    title = "mean reward"
    if judged:
        title = "share of images that show what the prompt asks for, by the judge"
    lines: list[str] = []
    for eta in _etas(evaluation):
        results = _results(evaluation, eta)
        sampler = "deterministic sampler, eta 0" if eta == 0 else f"stochastic sampler, eta {eta:g}"
        heads = [names[name] for name in results]
        columns = [f"{head:>14}" if len(head) < 13 else f"  {head}" for head in heads]
        lines += ["", f"{title} ({sampler})", f"{'':36}" + "".join(columns)]
        lines += _rows(list(results.values()), [len(column) for column in columns], judged=judged)
    lines += [f"{names[name]}: {UNTRAINED}" for name in _untrained(evaluation)]
    return "\n".join(lines)


def _rows(results: Sequence[Result], widths: Sequence[int], *, judged: bool) -> list[str]:
    """Return the lines of one sampler's table."""
    lines = []
    for rows in zip(*(result.prompts for result in results), strict=True):
        if rows[0].group == "trained":
            cells = [_cell(row, judged=judged) for row in rows]
            lines.append(_line(rows[0].prompt, cells, widths))
    for group in _groups(results):
        means = [result.groups[group] for result in results]
        cells = [_cell(mean, judged=judged) for mean in means]
        lines.append(_line(f"mean over the {group} prompts", cells, widths))
        bounds = [
            percent_interval(mean.interval) if judged else interval(mean.reward_interval)
            for mean in means
        ]
        lines += [_line("  95 % interval", bounds, widths)] * any(bounds)
        for words, values in (
            ("  CLIP score", [mean.clip_score for mean in means]),
            ("  diversity", [mean.diversity for mean in means]),
        ):
            if any(value is not None for value in values):
                lines.append(_line(words, [number(value) for value in values], widths))
    if any(result.kl for result in results):
        nats = [number(result.kl.mean, 1) if result.kl else "" for result in results]
        lines.append(_line("KL to the base, nats", nats, widths))
    return lines


def _cell(figures: Figures, *, judged: bool) -> str:
    if not judged:
        return number(figures.reward, 3)
    if figures.n < FEW:
        return f"{figures.met} of {figures.n}"
    return percent(figures.alignment)


def _line(label: str, texts: Sequence[str], widths: Sequence[int]) -> str:
    short = label if len(label) <= 34 else label[:33] + "…"
    cells = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
    return (f"{short:36}" + "".join(cells)).rstrip()


def _untrained(evaluation: Evaluation) -> list[str]:
    """Return the methods that kept the weights from before their training."""
    return [name for name, step in evaluation.kept_steps.items() if step == 0]


def _context(run: RunFolder, settings: Settings, evaluation: Evaluation) -> dict[str, Any]:
    """Return everything that the template shows."""
    eta = _etas(evaluation)[0]
    results = _results(evaluation, eta)
    names = titles(evaluation)
    reward = run.in_round(evaluation.round).reward_dir
    tuned = {
        name: find_method(result.method or name)
        for name, result in results.items()
        if name not in MODEL_COLORS
    }
    colors = MODEL_COLORS | {
        name: shade(method.color, results[name].round or 1) for name, method in tuned.items()
    }
    first = next(iter(results.values()))
    side_by_side = _side_by_side(results)
    trained = [row for row in first.prompts if row.group == "trained"][:MOST_GRIDS]
    held_out = _one_a_family(first.prompts)
    groups = _groups(evaluation.results)
    images = read_table(run.images_table, IMAGES)
    stages = sorted(stamps(run).values(), key=lambda stamp: stamp.started)
    order = list(names)
    return {
        "run": run.root.name,
        "people": peoples_verdict(run),
        "model": settings.run.model,
        "titles": names,
        "colors": colors,
        "eta": eta,
        "results": results,
        "groups": groups,
        "judged": evaluation.judged,
        "few": FEW,
        "known": {group: _known(evaluation, group) for group in groups},
        "tuned": tuned,
        "methods": {name: result.method or name for name, result in results.items()},
        "papers": dict.fromkeys(f"{method.name}: {method.paper}" for method in tuned.values()),
        "rounds": evaluation.rounds,
        "from_elsewhere": bool(evaluation.settings.get("finetune", {}).get("rewards")),
        "untrained": {names[name]: UNTRAINED for name in _untrained(evaluation)},
        "marked": any(step is not None for step in evaluation.kept_steps.values()),
        "outdated": evaluation.outdated,
        "grids": [_grid(run, results, side_by_side, row) for row in trained],
        "held_out_grids": [_grid(run, results, side_by_side, row) for row in held_out],
        "models": side_by_side,
        "all_results": sorted(evaluation.results, key=lambda result: order.index(result.model)),
        "chart": _chart(results, names, colors, judged=evaluation.judged),
        "curves": _curves(run.in_round(evaluation.round), names),
        "dials": _dials(run, evaluation, names, colors),
        "labels": label_statistics(run.latest.resolve()),
        "reward": json.loads((reward / REWARD_METRICS).read_text(encoding="utf-8")),
        "reliability": file_uri(reward / "reliability.png", "image/png"),
        "audit": evaluation.audit,
        "images": images.num_rows,
        "prompts": len(set(images["prompt_id"].to_pylist())),
        "model_hash": evaluation.model_hash,
        "stages": [(stamp.stage, stamp.seconds) for stamp in stages],
        "settings": settings.as_toml(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _side_by_side(results: dict[str, Result]) -> list[str]:
    """Return the models whose images are shown beside each other."""
    names = [name for name in results if name != "best of n"]
    if len(names) <= MOST_COLUMNS:
        return names
    last = max(result.round or 1 for result in results.values())
    return [name for name in names if results[name].round in (None, last)]


def _groups(results: Sequence[Result]) -> list[Group]:
    return [group for group in GROUPS if group in results[0].groups]


def _etas(evaluation: Evaluation) -> list[float]:
    return list(dict.fromkeys(result.eta for result in evaluation.results))


def _results(evaluation: Evaluation, eta: float) -> dict[str, Result]:
    """Return the results by model under one sampler, in the order of `titles`."""
    found = {result.model: result for result in evaluation.results if result.eta == eta}
    return {name: found[name] for name in titles(evaluation) if name in found}


def _one_a_family(rows: Sequence[PromptFigures]) -> list[PromptFigures]:
    first: dict[str, PromptFigures] = {}
    for row in rows:
        if row.group != "trained":
            first.setdefault(row.family, row)
    return list(first.values())


def _known(evaluation: Evaluation, group: Group) -> set[str]:
    """Return the names of the figures of a group that are known of some model."""
    groups = [result.groups[group] for result in evaluation.results]
    names = GroupFigures.model_fields
    return {name for name in names if any(getattr(one, name) is not None for one in groups)}


def _chart(
    results: dict[str, Result], names: dict[str, str], colors: dict[str, str], *, judged: bool
) -> str | None:
    """Return a chart of the trained prompts, then the held-out families, with every model.

    Rows of few images are omitted.
    """
    first = next(iter(results.values()))
    rows: list[tuple[str, dict[str, Estimate]]] = []
    for i, prompt in enumerate(first.prompts):
        if prompt.group == "trained" and prompt.n >= FEW:
            figures = {name: result.prompts[i] for name, result in results.items()}
            rows.append((prompt.prompt, _estimates(figures, judged=judged)))
    for i, family in enumerate(first.families):
        if family.group != "trained" and family.n >= FEW:
            members = {name: result.families[i] for name, result in results.items()}
            rows.append((f"held out: {family.family}", _estimates(members, judged=judged)))
    xlabel = "share of images that show all that the prompt asks for" if judged else "mean reward"
    return svg_uri(comparison_chart(rows, names, colors, xlabel)) if rows else None


def _estimates(
    figures: dict[str, PromptFigures] | dict[str, FamilyFigures], *, judged: bool
) -> dict[str, Estimate]:
    """Return the alignment of each model with its interval; without a judge, the reward."""
    return {name: _estimate(one, judged=judged) for name, one in figures.items()}


def _estimate(figures: Figures, *, judged: bool) -> Estimate:
    if not judged:
        return figures.reward, figures.reward_interval
    return figures.alignment or 0.0, figures.interval


def _grid(
    run: RunFolder, results: dict[str, Result], models: Sequence[str], prompt: PromptFigures
) -> dict[str, Any]:
    """Return one prompt's images of each model, the same seeds in the same places."""
    columns = []
    for name in models:
        result = results[name]
        images = [one for one in result.images if one.prompt == prompt.prompt][:IMAGES_IN_GRID]
        shown = [{**one.model_dump(), "uri": image_uri(run.root / one.path)} for one in images]
        row = next(row for row in result.prompts if row.prompt == prompt.prompt)
        columns.append({"model": name, "row": row, "images": shown})
    return {"prompt": prompt.prompt, "family": prompt.family, "columns": columns}


def _dials(
    run: RunFolder, evaluation: Evaluation, names: dict[str, str], colors: dict[str, str]
) -> list[dict[str, Any]]:
    """Return, for each tuned model that was drawn at several strengths, its figures and chart."""
    dials = []
    for model in dict.fromkeys(one.model for one in evaluation.strengths):
        rows = [one for one in evaluation.strengths if one.model == model]
        result = next(one for one in evaluation.results if one.model == model)
        folder = run.in_round(result.round or 1).finetune_dir(result.method or model)
        choice = read_choice(folder)
        chosen = None if choice is None else choice.strength
        lines = {
            f"{'training' if group == 'trained' else 'held-out'} prompts": [
                _estimate(row.groups[group], judged=evaluation.judged) for row in rows
            ]
            for group in _groups(evaluation.results)
        }
        diversities = [row.groups["trained"].diversity for row in rows]
        if (base := diversities[0]) is not None:
            lines["diversity / base"] = [((one or 0.0) / base, None) for one in diversities]
        chart = strength_chart(
            [row.strength for row in rows],
            lines,
            color=colors[model],
            ylabel="share right" if evaluation.judged else "reward",
            chosen=chosen,
        )
        dial = {"model": model, "rows": rows, "chosen": chosen, "chart": svg_uri(chart)}
        dials.append(dial | {"title": names[model]})
    return dials


def _curves(run: RunFolder, names: dict[str, str]) -> list[tuple[str, str]]:
    """Return titles and SVG images of the training curves of all rounds up to the run's."""
    curves = []
    for one in map(run.in_round, range(1, run.round + 1)):
        for name in METHODS:
            method, lines = find_method(name), read_metrics(one.finetune_dir(name))
            title = names.get(one.titled(name), one.titled(method.name))
            for curve in method.curves if lines else ():
                chart = training_chart(
                    lines,
                    curve.metrics,
                    color=shade(method.color, one.round),
                    ylabel=curve.title,
                    kept=kept_step(lines),
                )
                curves.append((f"{title}: {curve.title}", svg_uri(chart)))
    if lines := read_metrics(run.reward_dir):
        losses = {"val_loss": "validation", "binary_loss": "training, verdicts"}
        chart = training_chart(lines, losses, color=YELLOW, ylabel="loss")
        curves.append(("reward model: loss", svg_uri(chart)))
    return curves
