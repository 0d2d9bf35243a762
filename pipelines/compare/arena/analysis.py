"""Computation of a comparison campaign's figures from its labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.errors import PictuneError
from pipelines.compare.arena.campaign import Campaign
from pipelines.compare.arena.figures import (
    AxisFigures,
    CategoryFigures,
    Comparison,
    PairFigures,
    StrengthFigures,
)
from pipelines.compare.arena.intervals import FEWEST, always_valid, bounds_of, share_of
from pipelines.compare.arena.ratings import Ratings, is_connected, rate
from pipelines.compare.arena.votes import Votes

RELEVANT = 70.0
"""Difference in Elo points, a win rate of 60 to 40, on which labeling stops soonest."""
MOST_TIMES = 10
"""Largest forecast that is printed, as a multiple of the current number of votes."""


def compare(campaign: Campaign, run: str) -> Comparison:
    """Return all figures of the campaign of the run named `run`; call `refuse_no_votes` first."""
    return Comparison(
        run=run,
        source=campaign.source,
        others=campaign.others,
        models=campaign.drawn_by,
        raters=len(np.unique(campaign.all_votes.rater)),
        axes=[_axis(campaign, axis) for axis in campaign.axes],
        unanswered=list(campaign.unanswered),
    )


def refuse_no_votes(campaign: Campaign, run: str) -> None:
    """Refuse a campaign in which no answer is a vote.

    Raises:
        PictuneError: no answer is a vote.
    """
    if not len(campaign.all_votes):
        raise PictuneError(
            f"{run}: all {len(campaign.labels)} comparisons were skipped or reported; "
            f"have more answered with `make label RUN={run}`"
        )


def pairs_of(votes: Votes) -> tuple[list[StrengthFigures], list[PairFigures]]:
    """Return the strengths of the models, strongest first, and all pairs with votes."""
    rated = rate(votes) if len(votes) and is_connected(votes) else None
    strengths = [] if rated is None else _strengths(rated, _won_by_model(votes))
    order = [one.model for one in strengths] or list(votes.models)
    number = {model: i for i, model in enumerate(votes.models)}
    pairs = [
        _pair(votes, (number[a], number[b]), rated)
        for i, a in enumerate(order)
        for b in order[i + 1 :]
        if tuple(sorted((number[a], number[b]))) in votes.met
    ]
    return strengths, pairs


def _axis(campaign: Campaign, axis: str) -> AxisFigures:
    labels, votes = campaign.of_axis(axis), campaign.votes(axis)
    strengths, pairs = pairs_of(votes)
    categories = []
    for name in sorted(set(votes.category)):
        part = votes.where(votes.category == name)
        own, _ = pairs_of(part.with_models_there())
        categories.append(CategoryFigures(category=name, n=len(part), strengths=own))
    return AxisFigures(
        axis=axis,
        n=len(votes),
        ties=int((~votes.is_decided).sum()),
        both_bad=int((labels["answer"] == "both_bad").sum()),
        skipped=int(labels["answer"].isin(["skip", "unsafe"]).sum()),
        raters=len(np.unique(votes.rater)),
        prompts=len(np.unique(votes.prompt)),
        strengths=strengths,
        pairs=pairs,
        categories=categories if len(categories) > 1 else [],
    )


def _pair(votes: Votes, models: tuple[int, int], rated: Ratings | None) -> PairFigures:
    there = votes.between(*models)
    won = share_of(there.outcome, there.rater, there.prompt)
    assert won is not None
    first, second = (votes.models[model] for model in models)
    return PairFigures(
        first=first,
        second=second,
        n=len(there),
        wins=int((there.outcome == 1).sum()),
        ties=int((there.outcome == 0.5).sum()),
        losses=int((there.outcome == 0).sum()),
        won=won,
        prompts=len(np.unique(there.prompt)),
        **({} if rated is None else _rated(votes, models, rated, len(there))),
    )


def _rated(votes: Votes, models: tuple[int, int], rated: Ratings, n: int) -> dict[str, Any]:
    """Return the figures of a pair with `n` votes from the strengths of all models."""
    found = rated.difference(*models)
    enough = all(len(np.unique(one)) >= FEWEST for one in (votes.rater, votes.prompt))
    at_any_look = bounds_of(always_valid(found, RELEVANT)[0]) if enough else None
    difference = float(found.value[0])
    return {
        "difference": difference,
        "interval": bounds_of(found.intervals()[0]),
        "at_any_look": at_any_look,
        "needed": votes_to_decide(difference, at_any_look, n) if at_any_look else None,
    }


def votes_to_decide(difference: float, bounds: tuple[float, float], votes: int) -> int | None:
    """Return the approximate total of votes that exclude 0, if the current difference is true.

    The interval is assumed to shrink with the square root of the votes. Return None above
    `MOST_TIMES` times the current votes.
    """
    half = (bounds[1] - bounds[0]) / 2
    times = max(1.0, half / max(abs(difference), 1e-9)) ** 2
    return None if times > MOST_TIMES else int(np.ceil(votes * times))


def _won_by_model(votes: Votes) -> list[tuple[int, float]]:
    """Return the number of votes of each model, and the share that it won."""
    k = len(votes.models)
    n = np.bincount(votes.model_a, minlength=k) + np.bincount(votes.model_b, minlength=k)
    won = np.bincount(votes.model_a, votes.outcome, k)
    won = won + np.bincount(votes.model_b, 1 - votes.outcome, k)
    return [(int(count), float(wins / max(count, 1))) for count, wins in zip(n, won, strict=True)]


def _strengths(rated: Ratings, won: Sequence[tuple[int, float]]) -> list[StrengthFigures]:
    bounds = rated.strengths.intervals()
    rows = [
        StrengthFigures(
            model=model,
            n=won[i][0],
            share=won[i][1],
            elo=float(rated.strengths.value[i]),
            interval=bounds_of(bounds[i]),
        )
        for i, model in enumerate(rated.models)
    ]
    return sorted(rows, key=lambda row: -row.elo)
