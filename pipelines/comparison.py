"""The figures of the evaluation from judged pictures: by prompt, by group of prompts, and over all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor

from data.intervals import wilson_interval
from pipelines.best_of_n import by_reward
from pipelines.images import Planned
from pipelines.measures import Values, frechet_distance, vendi_score


class EvaluationPrompt(BaseModel, frozen=True, extra="forbid"):
    """A prompt that every model draws."""

    prompt: str
    family: str
    """What is hard about it."""
    group: str
    """`trained`, or `held out`: nothing was trained on it."""


@dataclass(frozen=True)
class Judged:
    """What is known of one model's pictures under one sampler."""

    planned: Sequence[Planned]
    paths: Sequence[Path]
    met: Sequence[bool]
    """Whether the judge finds all that the prompt asks for."""
    readable: Sequence[bool]
    rewards: Sequence[float]
    features: Values
    """[N, D], the judge's."""

    def rows_of(self, prompts: set[str]) -> list[int]:
        """Indices of the pictures of these prompts."""
        return [i for i, one in enumerate(self.planned) if one.prompt in prompts]

    def chosen(self, rows: Sequence[int]) -> "Judged":
        """The pictures at these indices alone."""
        return Judged(
            [self.planned[i] for i in rows],
            [self.paths[i] for i in rows],
            [self.met[i] for i in rows],
            [self.readable[i] for i in rows],
            [self.rewards[i] for i in rows],
            self.features[list(rows)],
        )


def best_of(candidates: Judged, n: int) -> Judged:
    """Of each `n` candidates in a row, the one with the highest reward; they stand under the seed of the first."""
    best = candidates.chosen([ranked[0] for ranked in by_reward(candidates.rewards, n)])
    first = candidates.planned[::n]
    return Judged(first, best.paths, best.met, best.readable, best.rewards, best.features)


def by_prompt(judged: Judged, prompts: Sequence[EvaluationPrompt], center: Values) -> list[dict[str, Any]]:
    """Figures of each prompt; `center` [D], the mean of real renders, is taken off the features before their diversity."""
    rows = []
    for prompt in prompts:
        part = judged.chosen(judged.rows_of({prompt.prompt}))
        shares = _shares(part)
        rows.append({**prompt.model_dump(), **shares, "vendi": vendi_score(part.features - center)})
    return rows


def by_family(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `by_prompt` pooled by group and family."""
    pooled = []
    for group, family in dict.fromkeys((row["group"], row["family"]) for row in rows):
        members = [row for row in rows if (row["group"], row["family"]) == (group, family)]
        met, n = sum(row["met"] for row in members), sum(row["n"] for row in members)
        interval = wilson_interval(met, n)
        pooled.append({"group": group, "family": family, "met": met, "n": n, "alignment": met / n, "interval": interval})
    return pooled


def overall(judged: Judged, rows: Sequence[dict[str, Any]], group: str, reference: dict[str, Tensor]) -> dict[str, Any]:
    """Figures of a group of prompts; the alignment is the mean over its prompts, its interval that of the pooled pictures."""
    members = [row for row in rows if row["group"] == group]
    part = judged.chosen(judged.rows_of({row["prompt"] for row in members}))
    features = part.features
    distance = None
    if len(features) > 1:
        mean, covariance = reference["mean"].numpy(), reference["covariance"].numpy()
        distance = frechet_distance(features.mean(0), np.cov(features.T), mean, covariance)
    return {
        **_shares(part),
        "alignment": float(np.mean([row["alignment"] for row in members])),
        "frechet": distance,
        "vendi": float(np.mean([row["vendi"] for row in members])),
    }


def _shares(part: Judged) -> dict[str, Any]:
    met, n = sum(part.met), len(part.met)
    return {
        "n": n,
        "met": met,
        "alignment": met / n,
        "interval": wilson_interval(met, n),
        "reward": float(np.mean(part.rewards)),
        "readable": sum(part.readable) / n,
    }
