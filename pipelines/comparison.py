"""The figures of the evaluation from measured images: by prompt, by family, and by group of prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor

from data.intervals import mean_interval, wilson_interval
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
class Verdicts:
    """What a judge says of images."""

    met: Sequence[bool]
    """Whether the judge finds all that the prompt asks for."""
    readable: Sequence[bool]
    features: Values
    """[N, D]"""

    @classmethod
    def joined(cls, parts: Sequence["Verdicts"]) -> "Verdicts":
        """Those on the images of all parts."""
        met, readable = (
            [one for part in parts for one in part.met],
            [one for part in parts for one in part.readable],
        )
        return cls(met, readable, np.concatenate([part.features for part in parts]))

    def chosen(self, rows: Sequence[int]) -> "Verdicts":
        """Those on the images at these indices alone."""
        return Verdicts(
            [self.met[i] for i in rows], [self.readable[i] for i in rows], self.features[list(rows)]
        )


@dataclass(frozen=True)
class Measured:
    """What is known of one model's images under one sampler."""

    planned: Sequence[Planned]
    paths: Sequence[Path]
    rewards: Sequence[float]
    stds: Sequence[float] | None
    """How far the members of the reward's ensemble differ; None where it has one."""
    clip_scores: Sequence[float]
    """Cosine of image and prompt under the CLIP that the reward stands on."""
    embeddings: Values
    """[N, D], the reward's."""
    verdicts: Verdicts | None
    """None where no judge knows such images."""

    def rows_of(self, prompts: set[str]) -> list[int]:
        """Indices of the images of these prompts."""
        return [i for i, one in enumerate(self.planned) if one.prompt in prompts]

    def chosen(self, rows: Sequence[int]) -> "Measured":
        """The images at these indices alone."""
        return Measured(
            [self.planned[i] for i in rows],
            [self.paths[i] for i in rows],
            [self.rewards[i] for i in rows],
            None if self.stds is None else [self.stds[i] for i in rows],
            [self.clip_scores[i] for i in rows],
            self.embeddings[list(rows)],
            None if self.verdicts is None else self.verdicts.chosen(rows),
        )


def best_of(candidates: Measured, n: int) -> Measured:
    """Of each `n` candidates in a row, the one with the highest reward; they stand under the seed of the first."""
    best = candidates.chosen([ranked[0] for ranked in by_reward(candidates.rewards, n)])
    return replace(best, planned=candidates.planned[::n])


def by_prompt(drawn: Measured, prompts: Sequence[EvaluationPrompt]) -> list[dict[str, Any]]:
    """Figures of each prompt; `diversity` is None for a single image."""
    rows = []
    for prompt in prompts:
        part = drawn.chosen(drawn.rows_of({prompt.prompt}))
        diversity = vendi_score(part.embeddings) if len(part.planned) > 1 else None
        rows.append({**prompt.model_dump(), **_figures(part), "diversity": diversity})
    return rows


def by_family(drawn: Measured, prompts: Sequence[EvaluationPrompt]) -> list[dict[str, Any]]:
    """Figures of the images of each group and family."""
    rows = []
    for group, family in dict.fromkeys((one.group, one.family) for one in prompts):
        texts = {one.prompt for one in prompts if (one.group, one.family) == (group, family)}
        rows.append(
            {"group": group, "family": family, **_figures(drawn.chosen(drawn.rows_of(texts)))}
        )
    return rows


def overall(
    drawn: Measured,
    rows: Sequence[dict[str, Any]],
    group: str,
    reference: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """Figures of a group of prompts, which have equally many images each, from those of `by_prompt`.

    With a judge's `reference`, mean and covariance of its features of real renders, they hold the distance to these.
    """
    members = [row for row in rows if row["group"] == group]
    part = drawn.chosen(drawn.rows_of({row["prompt"] for row in members}))
    diversities = [row["diversity"] for row in members if row["diversity"] is not None]
    figures = _figures(part) | {"diversity": float(np.mean(diversities)) if diversities else None}
    if part.verdicts is not None and reference is not None:
        figures["frechet"] = _distance(part.verdicts.features, reference)
    return figures


def gains(drawn: Measured, base: Measured, texts: set[str]) -> dict[str, Any]:
    """What is gained over the base on the same prompts and seeds, with the interval of the mean difference."""
    rows = drawn.rows_of(texts)
    part, before = drawn.chosen(rows), base.chosen(rows)
    found = {"reward_gain": _gain(part.rewards, before.rewards)}
    if part.verdicts is not None and before.verdicts is not None:
        found["gain"] = _gain(part.verdicts.met, before.verdicts.met)
    return found


def _figures(part: Measured) -> dict[str, Any]:
    n = len(part.planned)
    figures = {
        "n": n,
        "reward": float(np.mean(part.rewards)),
        "reward_interval": mean_interval(part.rewards),
        "reward_std": None if part.stds is None else float(np.mean(part.stds)),
        "clip_score": float(np.mean(part.clip_scores)),
    }
    if part.verdicts is None:
        return figures
    met, readable = sum(part.verdicts.met), sum(part.verdicts.readable)
    return figures | {
        "met": met,
        "alignment": met / n,
        "interval": wilson_interval(met, n),
        "readable": readable / n,
    }


def _gain(values: Sequence[float], before: Sequence[float]) -> dict[str, Any]:
    differences = np.subtract(values, before, dtype=float).tolist()
    return {"mean": float(np.mean(differences)), "interval": mean_interval(differences)}


def _distance(features: Values, reference: Mapping[str, Tensor]) -> float | None:
    if len(features) < 2:
        return None
    mean, covariance = reference["mean"].numpy(), reference["covariance"].numpy()
    return frechet_distance(features.mean(0), np.cov(features.T), mean, covariance)
