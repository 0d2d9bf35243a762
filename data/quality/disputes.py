"""Tasks on which raters disagree, most disputed first."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.quality.judgments import Judgments

DISPUTED = 0.25
"""Disagreement from which a task is disputed: that of one rater against seven, or, of rankings,
half of what chance gives."""

MOST = 100
"""Disputed tasks that are named; the others are only counted."""


def disputes_of(judgments: Judgments) -> dict[str, Any]:
    """Find the tasks that are disputed among people, or simulated raters where there are no others.

    The disagreement of a task is the share of pairs of raters who differ; for rankings, the mean
    over pairs of images of the share of pairs of raters who order them differently, where a tie
    against an order counts as half (Kendall's distance; Fagin et al. 2006).

    Returns:
        `total`, the number of disputed tasks, and `tasks`: `task_id`, `kind`, `disagreement` (0 to
        1) and `n_raters` of at most `MOST`, the most disputed first.
    """
    _, mine = judgments.of_raters
    found = [*_verdicts(mine.verdicts), *_rankings(mine)]
    disputed = [one for one in found if one["disagreement"] >= DISPUTED]
    disputed.sort(key=lambda one: (-one["disagreement"], -one["n_raters"], one["task_id"]))
    return {"total": len(disputed), "tasks": disputed[:MOST]}


def _verdicts(verdicts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    votes = verdicts.groupby("task_id")["good"].agg(["sum", "size"])
    for task_id, good, n in votes[votes["size"] > 1].itertuples():
        yield _dispute(str(task_id), "binary", good * (n - good) / (n * (n - 1) / 2), n)


def _rankings(judgments: Judgments) -> Iterator[dict[str, Any]]:
    first = judgments.first_rankings
    shared = first[first.groupby("task_id")["label_id"].transform("size") > 1]
    for task_id, part in shared.groupby("task_id"):
        ranks = np.array([np.asarray(row, float) for row in part["ranks"]])  # [raters, images]
        yield _dispute(str(task_id), "ranking", order_disagreement(ranks), len(ranks))


def order_disagreement(ranks: NDArray[np.float64]) -> float:
    """Return the disagreement of rankings [raters, images], as `disputes_of` defines it.

    A pair of images counts where two raters or more have ranked both; NaN is no rank. 0 where
    there is no such pair.
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
