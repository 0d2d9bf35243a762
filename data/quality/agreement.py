"""Agreement between raters: Krippendorff's alpha with bootstrap intervals."""

from collections.abc import Mapping
from typing import Any, Literal

import krippendorff
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.quality.judgments import Judgments

RESAMPLES = 200
"""Number of bootstrap samples of tasks behind each interval of alpha."""

Level = Literal["nominal", "ordinal"]
"""Level of measurement: answers are just different, or more or less so (Stevens 1946)."""


def agreement_of(
    judgments: Judgments, categories: Mapping[str, str] | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Compute Krippendorff's alpha, nominal for verdicts and ordinal for ranks.

    1 is full agreement, 0 is agreement by chance, and below 0 is worse than chance.

    Args:
        judgments: labels; people's are taken, or simulated ones where there are no others.
        categories: the category of each prompt id; a prompt without one is `other`.
        seed: seed of the bootstrap over tasks.

    Returns:
        `source`, and under `binary` and `ranking` each `alpha`, `alpha_ci_low`, `alpha_ci_high`
        (95 %), `n_tasks` with two raters or more and their `n_labels`, and `categories`: a list of
        the same with `category`. Alpha is None where there is nothing to compare, and its interval
        where there is one task.
    """
    source, mine = judgments.of_raters
    known = categories or {}
    prompts = mine.tasks.set_index("task_id")["prompt_id"]
    named = prompts.map(lambda prompt_id: known.get(prompt_id, "other"))
    rng = np.random.default_rng(seed)
    verdicts = mine.verdicts.assign(
        unit=lambda rows: rows["task_id"], value=lambda rows: rows["good"].astype("int64")
    )
    ranks = mine.ranks.assign(
        unit=lambda rows: rows["task_id"] + " " + rows["image_id"], value=lambda rows: rows["rank"]
    )
    return {
        "source": source,
        "binary": _agreement_by_category(verdicts, "nominal", named, rng),
        "ranking": _agreement_by_category(ranks, "ordinal", named, rng),
    }


def _agreement_by_category(
    rows: pd.DataFrame, level: Level, categories: "pd.Series[str]", rng: np.random.Generator
) -> dict[str, Any]:
    compared = rows[rows.groupby("unit")["value"].transform("size") > 1]
    named = compared["task_id"].map(categories)
    parts = [
        {"category": str(name)} | alpha_with_interval(part, level, rng)
        for name, part in compared.groupby(named)
    ]
    return alpha_with_interval(compared, level, rng) | {"categories": parts}


def alpha_with_interval(
    rows: pd.DataFrame, level: Level, rng: np.random.Generator
) -> dict[str, Any]:
    """Compute alpha of units with two raters or more; its interval is a bootstrap over tasks.

    Args:
        rows: a label of a unit each, with `unit`, `value`, `task_id` and `label_id`.
        level: level of measurement of the values.
        rng: source of the bootstrap.

    Returns:
        As of `agreement_of`, without `categories`.
    """
    sizes = {"n_tasks": int(rows["task_id"].nunique()), "n_labels": int(rows["label_id"].nunique())}
    counts = pd.crosstab(rows["unit"], rows["value"])
    alpha = _alpha(counts.to_numpy(), counts.columns.to_numpy(), level)
    if alpha is None:
        return {"alpha": None, "alpha_ci_low": None, "alpha_ci_high": None, **sizes}
    task_of = rows.drop_duplicates("unit").set_index("unit").reindex(counts.index)["task_id"]
    samples = _bootstrap(counts.to_numpy(), pd.Categorical(task_of), level, rng)
    if sizes["n_tasks"] < 2 or not samples:
        return {"alpha": alpha, "alpha_ci_low": None, "alpha_ci_high": None, **sizes}
    low, high = np.quantile(samples, [0.025, 0.975])
    return {"alpha": alpha, "alpha_ci_low": float(low), "alpha_ci_high": float(high), **sizes}


def _bootstrap(
    counts: NDArray[Any], tasks: pd.Categorical, level: Level, rng: np.random.Generator
) -> list[float]:
    """Compute alpha of samples of tasks; `counts` is [units, values], `tasks` names each unit's."""
    patterns, pattern_of = np.unique(counts, axis=0, return_inverse=True)
    n_tasks = len(tasks.categories)
    samples = []
    for _ in range(RESAMPLES):
        drawn = rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks))
        times = np.bincount(pattern_of, weights=drawn[tasks.codes], minlength=len(patterns))
        value = alpha_of_repeated(patterns, times, level)
        if value is not None:
            samples.append(value)
    return samples


def alpha_of_repeated(counts: NDArray[Any], times: NDArray[Any], level: Level) -> float | None:
    """Compute Krippendorff's alpha of units that occur `times` times each.

    It equals `krippendorff.alpha` on the expanded table, but is fast enough for a bootstrap. None
    where every value is the same.

    Args:
        counts: [units, values], number of raters who gave each unit each value; a unit has two
            labels or more.
        times: [units], number of times that each unit occurs.
        level: level of measurement of the values, which are in order.
    """
    n_labels = counts.sum(1)[:, None, None]
    same_label = counts[:, :, None] * np.eye(counts.shape[1])
    pairs = (counts[:, :, None] * counts[:, None, :] - same_label) / (n_labels - 1)
    observed = np.tensordot(times, pairs, 1)
    totals = observed.sum(0)
    if (totals > 0).sum() < 2:
        return None
    distance = 1 - np.eye(len(totals))
    if level == "ordinal":
        middles = np.cumsum(totals) - totals / 2
        distance = np.square(middles[:, None] - middles[None, :])
    expected = np.outer(totals, totals) / (totals.sum() - 1)
    return float(1 - (observed * distance).sum() / (expected * distance).sum())


def _alpha(counts: NDArray[Any], values: NDArray[Any], level: Level) -> float | None:
    """Compute alpha from counts [units, values]; None where all values are the same."""
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(
        krippendorff.alpha(value_counts=counts, value_domain=values, level_of_measurement=level)
    )
