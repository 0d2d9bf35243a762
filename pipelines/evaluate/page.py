"""The evaluation's report: one self-contained HTML page, and a table as text."""

import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.collect.label_statistics import RATERS_OF, counted, label_statistics
from pipelines.evaluate.figures import (
    Evaluation,
    Figures,
    PromptFigures,
    Result,
)
from pipelines.evaluate.models import file_name, tuned_models
from pipelines.evaluate.text import (
    FEW,
    TUNED_ON,
    Measure,
    etas_of,
    groups_of,
    known_figures,
    measure_of,
    page_file,
    read_evaluation,
    results_of,
    titles,
    untrained_models,
)
from pipelines.finetune.strengths import read_choice
from pipelines.methods import METHODS, find_method
from pipelines.pages.charts import (
    MODEL_COLORS,
    YELLOW,
    Estimate,
    comparison_chart,
    elo_chart,
    model_colors,
    shade,
    strength_chart,
    training_chart,
)
from pipelines.pages.page import (
    image_uri,
    svg_uri,
    write_page,
)
from pipelines.run.campaign import own_images
from pipelines.run.metrics_log import UNTRAINED, kept_step, read_metrics
from pipelines.run.mixes import is_mix
from pipelines.run.record import stamps
from pipelines.settings.config import Settings

IMAGES_IN_GRID = 6
"""Images of a prompt for each model in the grids."""
MOST_COLUMNS = 5
"""Largest number of models side by side; if there are more, only the base and the last round's
models are shown."""
MOST_GRIDS = 8
"""Number of training prompts with a grid, from the first prompt on."""
SHOWN_AS_THEY_ARE = (
    *("model_hash", "round", "omitted", "judged", "rewarded", "audit", "outdated"),
    *("scorers", "tuned_on"),
)
"""Fields of the evaluation that the template shows."""
YLABELS = {"share": "share right", "reward": "reward", "clip": "CLIP score"}
PACKAGES = ("torch", "diffusers", "transformers", "peft")
"""Packages whose versions the page states."""


def write(run: RunFolder, settings: Settings) -> None:
    """Write `report.html` from what the stages left in the run's folder."""
    page = page_file(run)
    write_page("report.html.jinja", _context(run, settings, read_evaluation(run)), page)
    print(f"report: {page}")


def _context(run: RunFolder, settings: Settings, evaluation: Evaluation) -> dict[str, Any]:
    eta = etas_of(evaluation)[0]
    results = results_of(evaluation, eta)
    names, measure = titles(evaluation), measure_of(evaluation)
    tuned = {
        name: find_method(result.method or name)
        for name, result in results.items()
        if name not in MODEL_COLORS and not is_mix(name)
    }
    colors = model_colors(filter(is_mix, results)) | MODEL_COLORS
    colors |= {
        name: shade(method.color, results[name].round or 1) for name, method in tuned.items()
    }
    first = next(iter(results.values()))
    side_by_side = _side_by_side(results)
    trained = [row for row in first.prompts if row.group == "trained"][:MOST_GRIDS]
    # the first prompt of each family
    held_out = {row.family: row for row in reversed(first.prompts) if row.group != "trained"}
    methods = {name: one.method or name for name, one in results.items()}
    return {
        **{name: getattr(evaluation, name) for name in SHOWN_AS_THEY_ARE},
        "run": run.root.name,
        "people": peoples_verdict(run),
        "model": settings.run.model,
        "titles": names,
        "colors": colors,
        "eta": eta,
        "results": results,
        "groups": (groups := groups_of(evaluation.results)),
        "made_held_out": evaluation.settings.get("evaluate", {}).get("held_out_per_family"),
        "few": FEW,
        "known": {group: known_figures(evaluation, group) for group in groups},
        "tuned": tuned,
        "methods": methods,
        "papers": [
            f"{method.title}: {find_method(name).paper}"
            for name, method in METHODS.items()
            if name in methods.values()
        ],
        "from_elsewhere": bool(evaluation.settings.get("finetune", {}).get("rewards")),
        "tuned_on_words": TUNED_ON,
        "untrained": {names[name]: UNTRAINED for name in untrained_models(evaluation)},
        "marked": any(step is not None for step in evaluation.kept_steps.values()),
        "grids": [_grid(run, results, side_by_side, row) for row in trained],
        "held_out_grids": [
            _grid(run, results, side_by_side, row) for row in reversed(held_out.values())
        ],
        "models": side_by_side,
        "all_results": sorted(evaluation.results, key=lambda one: [*names].index(one.model)),
        "chart": _chart(results, names, colors, measure),
        "curves": _curves(run.in_round(evaluation.round), names),
        "dials": _dials(run, evaluation, names, colors),
        "counted": counted,
        "labels": label_statistics(run.latest.resolve()) if run.latest.exists() else None,
        **_drawn(run),
        "stages": sorted(stamps(run).values(), key=lambda stamp: stamp.started),
        "settings": settings.as_toml(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def peoples_verdict(run: RunFolder) -> dict[str, Any] | None:
    """Return the page's section on the run's comparison; None without a comparison.

    Raises:
        PictuneError: the figures of the comparison are damaged.
    """
    path = run.comparison_dir / "metrics.json"
    if not path.exists():
        return None
    present = {file_name(one.name): one.adapter_hash for one in tuned_models(run)}
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        source, axes, compared = (figures[name] for name in ("source", "axes", "models"))
        shown = next((i for i, axis in enumerate(axes) if axis["strengths"]), None)
        chart = None
        if shown is not None:
            chart = svg_uri(elo_chart(axes[shown]["strengths"], model_colors(compared)))
        return {
            "raters": RATERS_OF[source],
            "verdicts": figures["verdicts"],
            "by": counted(figures["raters"], source),
            "votes": sum(axis["n"] for axis in axes),
            "chart": chart,
            "chart_title": None if shown is None else figures["verdicts"][shown][0],
            "outdated": [  # models that were tuned again after their images were compared
                model
                for model, hashes in compared.items()
                if model in present and present[model] not in hashes
            ],
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PictuneError(
            f"{path}: is not as `compare-report` writes it; "
            f"run `make compare-report RUN={run.root.name}` again"
        ) from error


def _drawn(run: RunFolder) -> dict[str, int]:
    """Count the campaign's images and prompts, without images of comparisons and visitors."""
    images = own_images(run)
    return {"images": images.num_rows, "prompts": len(set(images["prompt_id"].to_pylist()))}


def _side_by_side(results: dict[str, Result]) -> list[str]:
    """Return the models whose images are shown beside each other."""
    names = [name for name in results if name != "best of n"]
    if len(names) <= MOST_COLUMNS:
        return names
    last = max(result.round or 1 for result in results.values())
    return [name for name in names if results[name].round in (None, last)]


def _chart(
    results: dict[str, Result], names: dict[str, str], colors: dict[str, str], measure: Measure
) -> str | None:
    """Return a chart of the trained prompts, then the held-out families, with every model.

    Rows with few images are omitted.
    """
    first = next(iter(results.values()))
    rows: list[tuple[str, dict[str, Estimate]]] = []
    for i, prompt in enumerate(first.prompts):
        if prompt.group == "trained" and prompt.n >= FEW:
            bars = {name: _estimate(one.prompts[i], measure) for name, one in results.items()}
            rows.append((prompt.prompt, bars))
    for i, family in enumerate(first.families):
        if family.group != "trained" and family.n >= FEW:
            bars = {name: _estimate(one.families[i], measure) for name, one in results.items()}
            rows.append((f"held out: {family.family}", bars))
    xlabel = {
        "share": "share of images that show all that the prompt asks for",
        "reward": "mean reward",
        "clip": "mean CLIP score",
    }[measure]
    return svg_uri(comparison_chart(rows, names, colors, xlabel)) if rows else None


def _estimate(figures: Figures, measure: Measure) -> Estimate:
    if measure == "clip":
        return figures.clip_score or 0.0, None
    if measure == "reward":
        return figures.reward or 0.0, figures.reward_interval
    return figures.alignment or 0.0, figures.interval


def _grid(
    run: RunFolder, results: dict[str, Result], models: Sequence[str], prompt: PromptFigures
) -> dict[str, Any]:
    """Return one prompt's images by model, with the same seeds in the same places."""
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
                _estimate(row.groups[group], measure_of(evaluation)) for row in rows
            ]
            for group in groups_of(evaluation.results)
        }
        diversities = [row.groups["trained"].diversity for row in rows]
        if (base := diversities[0]) is not None:
            lines["diversity / base"] = [((one or 0.0) / base, None) for one in diversities]
        chart = strength_chart(
            [row.strength for row in rows],
            lines,
            color=colors[model],
            ylabel=YLABELS[measure_of(evaluation)],
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
            title = names.get(one.titled(name), one.titled(METHODS[name].title))
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
