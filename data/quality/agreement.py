"""Agreement of raters by Krippendorff's alpha, and the tasks on which they disagree most."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Literal

import krippendorff
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.quality.judgments import Judgments

RESAMPLES = 200
"""Number of bootstrap samples of tasks behind each interval of alpha."""

DISPUTED = 0.25
"""Least disagreement of a disputed task: one rater against seven, or half of what chance gives in
rankings."""

MOST = 100
"""Largest number of disputed tasks that are listed; further tasks are only counted."""

Level = Literal["nominal", "ordinal"]
"""Level of measurement: nominal or ordinal (Stevens 1946)."""


def agreement_of(
    judgments: Judgments, categories: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compute Krippendorff's alpha, nominal for verdicts and ordinal for ranks.

    1 is full agreement, 0 is agreement by chance, and below 0 is worse than chance.

    Args:
        judgments: labels by people; without any, labels by simulated raters.
        categories: the category of each prompt id; a prompt without one is `other`.

    Returns:
        `source`, and under `binary` and `ranking` each `alpha`, `alpha_ci_low`, `alpha_ci_high`
        (95 %), `n_tasks` with two raters or more and their `n_labels`, and `categories`: a list
        with the same figures by `category`. Alpha is None without labels to compare; its interval
        is None for a single task.
    """
    source, mine = judgments.of_raters
    known = categories or {}
    prompts = mine.tasks.set_index("task_id")["prompt_id"]
    named = prompts.map(lambda prompt_id: known.get(prompt_id, "other"))
    rng = np.random.default_rng(0)
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
    facts: dict[str, Any] = {
        "alpha": None,
        "alpha_ci_low": None,
        "alpha_ci_high": None,
        "n_tasks": int(rows["task_id"].nunique()),
        "n_labels": int(rows["label_id"].nunique()),
    }
    table = pd.crosstab(rows["unit"], rows["value"])
    counts = table.to_numpy()
    if (counts.sum(axis=0) > 0).sum() < 2:
        return facts
    facts["alpha"] = float(
        krippendorff.alpha(
            value_counts=counts, value_domain=table.columns.to_numpy(), level_of_measurement=level
        )
    )
    task_of = rows.drop_duplicates("unit").set_index("unit").reindex(table.index)["task_id"]
    tasks, n_tasks = pd.Categorical(task_of), facts["n_tasks"]
    patterns, pattern_of = np.unique(counts, axis=0, return_inverse=True)
    samples = []
    for _ in range(RESAMPLES):
        drawn = rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks))
        times = np.bincount(pattern_of, weights=drawn[tasks.codes], minlength=len(patterns))
        samples.append(alpha_of_repeated(patterns, times, level))
    known = [value for value in samples if value is not None]
    if n_tasks > 1 and known:
        low, high = np.quantile(known, [0.025, 0.975])
        facts |= {"alpha_ci_low": float(low), "alpha_ci_high": float(high)}
    return facts


def alpha_of_repeated(counts: NDArray[Any], times: NDArray[Any], level: Level) -> float | None:
    """Compute Krippendorff's alpha of units that occur `times` times each.

    It equals `krippendorff.alpha` on the expanded table, but is fast enough for a bootstrap. None
    if all values are the same.

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


def disputes_of(judgments: Judgments) -> dict[str, Any]:
    """Find tasks that are disputed among people; without people, among simulated raters.

    The disagreement of a task is the share of pairs of raters who differ; for rankings, the mean
    over pairs of images of the share of pairs of raters who order them differently, where a tie
    against an order counts as half (Kendall's distance; Fagin et al. 2006).

    Returns:
        `total`, the number of disputed tasks, and `tasks`: `task_id`, `kind`, `disagreement` (0 to
        1) and `n_raters` of at most `MOST`, the most disputed first.
    """
    _, mine = judgments.of_raters
    found = [*_disputed_verdicts(mine.verdicts), *_disputed_rankings(mine)]
    disputed = [one for one in found if one["disagreement"] >= DISPUTED]
    disputed.sort(key=lambda one: (-one["disagreement"], -one["n_raters"], one["task_id"]))
    return {"total": len(disputed), "tasks": disputed[:MOST]}


def _disputed_verdicts(verdicts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    votes = verdicts.groupby("task_id")["good"].agg(["sum", "size"])
    for task_id, good, n in votes[votes["size"] > 1].itertuples():
        yield _dispute(str(task_id), "binary", good * (n - good) / (n * (n - 1) / 2), n)


def _disputed_rankings(judgments: Judgments) -> Iterator[dict[str, Any]]:
    first = judgments.first_rankings
    shared = first[first.groupby("task_id")["label_id"].transform("size") > 1]
    for task_id, part in shared.groupby("task_id"):
        ranks = np.array([np.asarray(row, float) for row in part["ranks"]])  # [raters, images]
        yield _dispute(str(task_id), "ranking", order_disagreement(ranks), len(ranks))


def order_disagreement(ranks: NDArray[np.float64]) -> float:
    """Return the disagreement of rankings [raters, images], as `disputes_of` defines it.

    A pair of images counts if two raters or more ranked both; NaN is no rank. The result is 0
    without such a pair.
    """
    shares = []
    for one, other in combinations(range(ranks.shape[1]), 2):
        signs = np.sign(ranks[:, one] - ranks[:, other])
        n = int(np.isfinite(signs).sum())
        if n > 1:
            above, tied, below = ((signs == sign).sum() for sign in (-1, 0, 1))
            shares.append((above * below + tied * (above + below) / 2) / (n * (n - 1) / 2))
    return float(np.mean(shares)) if shares else 0.0


def _dispute(task_id: str, kind: str, disagreement: float, n: int) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "kind": kind,
        "disagreement": float(disagreement),
        "n_raters": int(n),
    }
