"""The saved figures of the evaluation, and their means as text."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import ValidationError

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.settings.adapter_kinds import BASE
from pipelines.evaluate.figures import (
    Evaluation,
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
    """Return the means over each group of prompts by model as text, for every sampler."""
    names, measure = titles(evaluation), measure_of(evaluation)
    title = {"share": SHARE_BY_JUDGE, "reward": "mean reward", "clip": "mean CLIP score"}[measure]
    lines: list[str] = []
    for eta in etas_of(evaluation):
        sampler = "deterministic sampler, eta 0" if eta == 0 else f"stochastic sampler, eta {eta:g}"
        rows = {
            names[name]: dict(_cells(result, measure, evaluation.scorers))
            for name, result in results_of(evaluation, eta).items()
        }
        shown = pd.DataFrame(rows).to_string()
        lines += ["", f"{title}, with 95 % intervals ({sampler})", shown]
    lines += [f"{names[name]}: {UNTRAINED}" for name in untrained_models(evaluation)]
    return "\n".join(lines)


def _cells(result: Result, measure: Measure, scorers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield titles of means, and the means with their intervals."""
    for group, figures in result.groups.items():
        title = f"mean over the {group} prompts"
        if measure == "share":
            is_few = figures.n < FEW
            share = f"{figures.met} of {figures.n}" if is_few else percent(figures.alignment)
            yield title, _with(share, percent_interval(figures.interval))
        elif measure == "reward":
            yield title, _with(number(figures.reward, 3), interval(figures.reward_interval))
        else:
            yield title, number(figures.clip_score, 3)
        for name, score in zip(scorers, figures.scores or (), strict=True):
            yield f"{name}, {group}", _with(number(score.mean, 3), interval(score.interval))


def _with(value: str, bounds: str) -> str:
    return f"{value} ({bounds})" if bounds else value


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
