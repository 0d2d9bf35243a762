"""The figures of the evaluation, by prompt, by family and by group of prompts.

They are computed from measured images. `Evaluation` is what `evaluation/metrics.json` holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from data.intervals import mean_interval, share_interval_over_groups, wilson_interval
from pipelines.evaluate.measures import Values, vendi_score
from pipelines.run.image_plan import Planned
from pipelines.run.judge import Verdict

Interval = tuple[float, float] | None
Group = Literal["trained", "held out"]


class EvaluationPrompt(BaseModel, frozen=True):
    """A prompt that every model draws."""

    prompt: str
    family: str
    """Kind of difficulty, such as color or count."""
    group: Group
    """Group; `held out` prompts were not trained on."""


class Mean(BaseModel, frozen=True):
    """A mean with its 95 % interval; a gain is a mean difference to the base, image by image."""

    mean: float
    interval: Interval = None


class Score(Mean, frozen=True):
    """Mean score by one of `evaluate.scorers`."""

    gain: Mean | None = None


class Figures(BaseModel, frozen=True):
    """Figures of a set of images of one model; unknown figures are None or missing."""

    n: int
    """Number of images."""
    reward: float | None = None
    reward_interval: Interval = None
    reward_std: float | None = None
    """Mean standard deviation of the members of the reward's ensemble."""
    clip_score: float | None = None
    scores: list[Score] | None = None
    """Scores by `Evaluation.scorers`, in their order; None without scorers."""
    met: int | None = None
    """Number of images that show everything in their prompt, by the judge."""
    alignment: float | None = None
    """Share of images that show everything in their prompt, by the judge."""
    interval: Interval = None
    """95 % interval of `alignment`. For one prompt, and for trained prompts, it is over images
    (Wilson's). For several held-out prompts it is over prompts, so that it holds for other prompts
    of their kind. The other intervals here use the same units."""
    readable: float | None = None
    """Share of images whose content the judge can recognize."""
    diversity: float | None = None
    """Vendi score of the images of a prompt, by the CLIP's embeddings; mean over prompts."""


class PromptFigures(Figures, EvaluationPrompt, frozen=True):
    """Figures of a prompt."""


class FamilyFigures(Figures, frozen=True):
    """Figures of the prompts of one family."""

    group: Group
    family: str


class GroupFigures(Figures, frozen=True):
    """Figures of a group of prompts with the same number of images each."""

    reward_gain: Mean | None = None
    gain: Mean | None = None
    """Gain in alignment, if there is a judge."""


class Change(BaseModel, frozen=True):
    """Mean absolute change of pixels in [0, 1], inside and outside of the prompts' marks."""

    n: int
    inside: float
    outside: float


class EvaluatedImage(BaseModel, frozen=True):
    """One image of the evaluation."""

    prompt: str
    seed: int
    path: str
    """Relative to the run's folder."""
    met: bool | None = None
    reward: float | None = None


class Result(BaseModel, frozen=True):
    """Figures of one model under one sampler."""

    model: str
    """`base`, `best of n`, or the name of a method, with the round if it is not the first."""
    method: str | None = None
    """The method that tuned the model; None for untuned models."""
    round: int | None = None
    """The round that tuned the model."""
    eta: float
    prompts: list[PromptFigures]
    families: list[FamilyFigures]
    groups: dict[Group, GroupFigures]
    kl: Mean | None = None
    """KL of its denoising chains to the base, in nats, for tuned models."""
    change: Change | None = None
    """Change to the base's images of the same seeds; None without marks."""
    images: list[EvaluatedImage]


class AtStrength(BaseModel, frozen=True):
    """Figures of a tuned model at one strength of its adapter."""

    model: str
    """Name of the model, as in `Result`."""
    strength: float
    """Factor of the adapter's update: 0 is the base, 1 the model as in `Result`."""
    eta: float
    groups: dict[Group, GroupFigures]


class Evaluation(BaseModel, frozen=True):
    """Content of `evaluation/metrics.json`."""

    round: int = 1
    """The round of the reward that is used: the last round of the models."""
    settings: dict[str, dict[str, Any]]
    model_hash: str
    best_of: int
    omitted: str | None = None
    """Line on the training prompts that were not drawn; None if all were."""
    judged: bool
    rewarded: bool = True
    """Whether there is a trained reward."""
    scorers: list[str] = []
    """Names of the rewards of `evaluate.scorers`."""
    tuned_on: list[str] = []
    """Those scorers that the models were tuned on."""
    audit: dict[str, Any] | None = None
    """Agreement of the judge with a person's labels, if it is known."""
    results: list[Result]
    strengths: list[AtStrength] = []
    """Each tuned model at each strength, from weak to strong, if strengths were requested."""
    kept_steps: dict[str, int | None] = {}
    """Step whose weights each method kept; None if its log does not record it."""
    outdated: dict[str, list[str]] = {}
    """Inputs of each method that have changed since it was tuned."""


@dataclass(frozen=True)
class Measured:
    """Measurements of one model's images under one sampler."""

    planned: Sequence[Planned]
    paths: Sequence[Path]
    rewards: Sequence[float] | None
    """None without a trained reward."""
    stds: Sequence[float] | None
    """Standard deviations of the members of the reward's ensemble; None with one member."""
    clip_scores: Sequence[float]
    """Cosine of image and prompt under the reward's CLIP, or the CLIP of the reward's settings."""
    embeddings: Values
    """[N, D], of the CLIP."""
    verdicts: Sequence[Verdict] | None
    """Verdicts of the judge; None without a judge for such images."""
    scores: Values | None = None
    """[N, scorers]; None without scorers."""

    def chosen(self, rows: Sequence[int]) -> "Measured":
        """Return the measurements of the images at these indices."""

        def pick(values: Any) -> Any:
            if isinstance(values, np.ndarray):
                return values[list(rows)]
            return None if values is None else [values[i] for i in rows]

        return Measured(**{name: pick(values) for name, values in vars(self).items()})

    def of_prompts(self, prompts: set[str]) -> "Measured":
        """Return the measurements of the images of these prompts."""
        return self.chosen([i for i, one in enumerate(self.planned) if one.prompt in prompts])


def together(parts: Sequence[Measured]) -> Measured:
    """Return the measurements of all parts (at least one) together."""

    def joined(values: list[Any]) -> Any:
        if isinstance(values[0], np.ndarray):
            return np.concatenate(values)
        return None if values[0] is None else list(chain.from_iterable(values))

    return Measured(
        **{name: joined([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    )


def by_reward(rewards: Sequence[float], n: int) -> list[list[int]]:
    """Return for each `n` consecutive candidates their indices by falling reward.

    At equal rewards, the earlier candidate comes first.
    """
    groups = (range(start, start + n) for start in range(0, len(rewards), n))
    return [sorted(group, key=lambda i: -rewards[i]) for group in groups]


def best_of(candidates: Measured, n: int) -> Measured:
    """Return the candidate with the highest reward of each `n` consecutive candidates.

    It gets the seed of the first candidate.
    """
    assert candidates.rewards is not None
    best = candidates.chosen([ranked[0] for ranked in by_reward(candidates.rewards, n)])
    return replace(best, planned=candidates.planned[::n])


def by_prompt(drawn: Measured, prompts: Sequence[EvaluationPrompt]) -> list[PromptFigures]:
    """Return the figures of each prompt; a single image has no diversity."""
    rows = []
    for prompt in prompts:
        part = drawn.of_prompts({prompt.prompt})
        diversity = vendi_score(part.embeddings) if len(part.planned) > 1 else None
        figures = _figures(part) | {"diversity": diversity}
        rows.append(PromptFigures(**prompt.model_dump(), **figures))
    return rows


def by_family(drawn: Measured, prompts: Sequence[EvaluationPrompt]) -> list[FamilyFigures]:
    """Return the figures of the images of each group and family."""
    texts: dict[tuple[Group, str], set[str]] = {}
    for one in prompts:
        texts.setdefault((one.group, one.family), set()).add(one.prompt)
    found = []
    for (group, family), own in texts.items():
        figures = _figures(drawn.of_prompts(own), over_prompts=group != "trained")
        found.append(FamilyFigures(group=group, family=family, **figures))
    return found


def by_group(
    drawn: Measured, rows: Sequence[PromptFigures], base: Measured | None
) -> dict[Group, GroupFigures]:
    """Return the figures of each group of prompts from the rows of `by_prompt`.

    With `base`, they include the gain over the base on the same prompts and seeds.
    """
    return {
        group: _group_figures(drawn, [row for row in rows if row.group == group], base)
        for group in dict.fromkeys(row.group for row in rows)
    }


def _group_figures(
    drawn: Measured, rows: Sequence[PromptFigures], base: Measured | None
) -> GroupFigures:
    texts = {row.prompt for row in rows}
    part = drawn.of_prompts(texts)
    diversities = [row.diversity for row in rows if row.diversity is not None]
    over_prompts = any(row.group != "trained" for row in rows)
    figures = _figures(part, over_prompts=over_prompts)
    figures["diversity"] = float(np.mean(diversities)) if diversities else None
    if base is not None:
        before = base.of_prompts(texts)
        groups = _by_text(part) if over_prompts else None
        if part.rewards is not None and before.rewards is not None:
            figures["reward_gain"] = _gain(part.rewards, before.rewards, groups)
        if part.scores is not None and before.scores is not None:
            pairs = zip(figures["scores"], part.scores.T, before.scores.T, strict=True)
            figures["scores"] = [
                one.model_copy(update={"gain": _gain(after.tolist(), earlier.tolist(), groups)})
                for one, after, earlier in pairs
            ]
        if part.verdicts is not None and before.verdicts is not None:
            met, met_before = ([one.met for one in v] for v in (part.verdicts, before.verdicts))
            figures["gain"] = _gain(met, met_before, groups)
    return GroupFigures(**figures)


def by_strength(
    model: str, eta: float, drawn: Mapping[float, Measured], prompts: Sequence[EvaluationPrompt]
) -> list[AtStrength]:
    """Return the figures of a tuned model by strength of its adapter; 0 is the base."""
    return [
        AtStrength(
            model=model,
            strength=strength,
            eta=eta,
            groups=by_group(part, by_prompt(part, prompts), drawn[0.0] if strength else None),
        )
        for strength, part in sorted(drawn.items())
    ]


def mean_of(values: Sequence[float], groups: list[list[int]] | None = None) -> Mean:
    """Return the mean and its interval; with groups of indices, the interval is over groups."""
    return Mean(mean=float(np.mean(values)), interval=mean_interval(_means(values, groups)))


def _figures(part: Measured, *, over_prompts: bool = False) -> dict[str, Any]:
    n = len(part.planned)
    groups = _by_text(part) if over_prompts else None
    figures: dict[str, Any] = {"n": n, "clip_score": float(np.mean(part.clip_scores))}
    if part.rewards is not None:
        figures |= {
            "reward": float(np.mean(part.rewards)),
            "reward_interval": mean_interval(_means(part.rewards, groups)),
            "reward_std": None if part.stds is None else float(np.mean(part.stds)),
        }
    if part.scores is not None:
        means = (mean_of(one.tolist(), groups) for one in part.scores.T)
        figures["scores"] = [Score(**dict(one)) for one in means]
    if part.verdicts is None:
        return figures
    is_met = [verdict.met for verdict in part.verdicts]
    met = sum(is_met)
    interval: Interval = wilson_interval(met, n)
    if groups is not None:
        in_groups = [sum(is_met[i] for i in rows) for rows in groups]
        interval = share_interval_over_groups(in_groups, [len(rows) for rows in groups])
    return figures | {
        "met": met,
        "alignment": met / n,
        "interval": interval,
        "readable": sum(one.readable for one in part.verdicts) / n,
    }


def _gain(values: Sequence[float], before: Sequence[float], groups: list[list[int]] | None) -> Mean:
    differences = np.subtract(values, before, dtype=float).tolist()
    return mean_of(differences, groups)


def _by_text(part: Measured) -> list[list[int]]:
    rows: dict[str, list[int]] = {}
    for i, one in enumerate(part.planned):
        rows.setdefault(one.prompt, []).append(i)
    return list(rows.values())


def _means(values: Sequence[float], groups: list[list[int]] | None) -> Sequence[float]:
    """Return the mean of each group; without groups, return the values."""
    if groups is None:
        return values
    return [float(np.mean([values[i] for i in rows])) for rows in groups]
