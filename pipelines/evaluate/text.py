"""The saved figures of the evaluation, and its table as text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.settings.adapter_kinds import BASE
from pipelines.evaluate.figures import (
    Evaluation,
    Figures,
    Group,
    GroupFigures,
    Result,
)
from pipelines.methods import METHODS
from pipelines.pages.page import (
    interval,
    number,
    percent,
    percent_interval,
)
from pipelines.run.metrics_log import UNTRAINED

GROUPS: tuple[Group, ...] = ("trained", "held out")

FEW = 10
"""Least number of images for a share and a bar; with fewer images, a count is shown."""


Measure = Literal["share", "reward", "clip"]
"""Main figure of an evaluation: share of right images, mean reward, or mean CLIP score."""

TUNED_ON = "the models were tuned on it, so its scores prove nothing; name another scorer"
SHARE_BY_JUDGE = "share of images that show what the prompt asks for, by the judge"


def measure_of(evaluation: Evaluation) -> Measure:
    """Return the first available measure: the judge's share, the reward, or the CLIP score."""
    if evaluation.judged:
        return "share"
    return "reward" if evaluation.rewarded else "clip"


def page_file(run: RunFolder) -> Path:
    """Return the file of the report."""
    return run.evaluation_dir / "report.html"


def metrics_file(run: RunFolder) -> Path:
    """Return the file of the evaluation's figures."""
    return run.evaluation_dir / "metrics.json"


def read_evaluation(run: RunFolder) -> Evaluation:
    """Read the evaluation's figures.

    Raises:
        PictuneError: the evaluation has not run yet, or its file is damaged.
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
    """Return the title of each model, in display order."""
    names = {name: method.title for name, method in METHODS.items()}
    found = {"base": "base", "best of n": f"best of {evaluation.best_of}"}
    for method, name in names.items():
        start = evaluation.settings.get(method, {}).get("adapter", {}).get("start", BASE)
        before = "" if start == BASE else f"{names.get(start, Path(start).name)}, then "
        found[method] = before + name
    for result in evaluation.results:
        if result.method is not None and result.model not in found:
            found[result.model] = f"{names[result.method]}, round {result.round}"
        found.setdefault(result.model, result.model)  # a mix
    return found


def table(evaluation: Evaluation) -> str:
    """Return the evaluation's main figure by prompt and model as text, for every sampler."""
    names, measure = titles(evaluation), measure_of(evaluation)
    title = {"share": SHARE_BY_JUDGE, "reward": "mean reward", "clip": "mean CLIP score"}[measure]
    lines: list[str] = []
    for eta in etas_of(evaluation):
        results = results_of(evaluation, eta)
        sampler = "deterministic sampler, eta 0" if eta == 0 else f"stochastic sampler, eta {eta:g}"
        heads = [names[name] for name in results]
        columns = [f"{head:>14}" if len(head) < 13 else f"  {head}" for head in heads]
        lines += ["", f"{title} ({sampler})", f"{'':36}" + "".join(columns)]
        widths = [len(column) for column in columns]
        lines += _rows(list(results.values()), widths, measure, evaluation.scorers)
    lines += [f"{names[name]}: {UNTRAINED}" for name in untrained_models(evaluation)]
    return "\n".join(lines)


def _rows(
    results: Sequence[Result], widths: Sequence[int], measure: Measure, scorers: Sequence[str]
) -> list[str]:
    lines = []
    for rows in zip(*(result.prompts for result in results), strict=True):
        if rows[0].group == "trained":
            cells = [_cell(row, measure) for row in rows]
            lines.append(_line(rows[0].prompt, cells, widths))
    for group in groups_of(results):
        means = [result.groups[group] for result in results]
        cells = [_cell(mean, measure) for mean in means]
        lines.append(_line(f"mean over the {group} prompts", cells, widths))
        bounds = [
            percent_interval(mean.interval)
            if measure == "share"
            else interval(mean.reward_interval)
            for mean in means
        ]
        lines += [_line("  95 % interval", bounds, widths)] * any(bounds)
        for words, values in (
            ("  CLIP score", [mean.clip_score for mean in means] if measure != "clip" else []),
            ("  diversity", [mean.diversity for mean in means]),
        ):
            if any(value is not None for value in values):
                lines.append(_line(words, [number(value) for value in values], widths))
        by_scorer = zip(*(mean.scores or () for mean in means), strict=True)
        for name, scores in zip(scorers, by_scorer, strict=True):
            lines.append(_line(f"  {name}", [number(score.mean, 3) for score in scores], widths))
            bounds = [interval(score.interval) for score in scores]
            lines += [_line("    95 % interval", bounds, widths)] * any(bounds)
    if any(result.kl for result in results):
        nats = [number(result.kl.mean, 1) if result.kl else "" for result in results]
        lines.append(_line("KL to the base, nats", nats, widths))
    return lines


def _cell(figures: Figures, measure: Measure) -> str:
    if measure != "share":
        return number(figures.reward if measure == "reward" else figures.clip_score, 3)
    if figures.n < FEW:
        return f"{figures.met} of {figures.n}"
    return percent(figures.alignment)


def _line(label: str, texts: Sequence[str], widths: Sequence[int]) -> str:
    short = label if len(label) <= 34 else label[:33] + "…"
    cells = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
    return (f"{short:36}" + "".join(cells)).rstrip()


def untrained_models(evaluation: Evaluation) -> list[str]:
    """Return the methods that kept their initial weights."""
    return [name for name, step in evaluation.kept_steps.items() if step == 0]


def groups_of(results: Sequence[Result]) -> list[Group]:
    """Return the groups of prompts in the evaluation."""
    return [group for group in GROUPS if group in results[0].groups]


def etas_of(evaluation: Evaluation) -> list[float]:
    """Return the eta of each sampler, in display order."""
    return list(dict.fromkeys(result.eta for result in evaluation.results))


def results_of(evaluation: Evaluation, eta: float) -> dict[str, Result]:
    """Return the results by model under one sampler, in the order of `titles`."""
    found = {result.model: result for result in evaluation.results if result.eta == eta}
    return {name: found[name] for name in titles(evaluation) if name in found}


def known_figures(evaluation: Evaluation, group: Group) -> set[str]:
    """Return the names of a group's figures that are known for at least one model."""
    groups = [result.groups[group] for result in evaluation.results]
    names = GroupFigures.model_fields
    return {name for name in names if any(getattr(one, name) is not None for one in groups)}
