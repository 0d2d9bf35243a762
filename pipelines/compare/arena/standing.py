"""Standing of a campaign while labels come in: which pairs of models are decided."""

from collections.abc import Sequence

from pydantic import BaseModel

from pipelines.compare.arena.analysis import pairs_of
from pipelines.compare.arena.campaign import Campaign
from pipelines.compare.arena.figures import PairFigures
from pipelines.compare.arena.planning import MOST_TIMES, Design, votes_needed, votes_to_decide
from pipelines.compare.arena.ratings import as_elo
from pipelines.compare.arena.sequential import FEWEST
from pipelines.compare.arena.settings import ArenaConfig

SHARES = (0.52, 0.55, 0.575, 0.6, 0.65, 0.7, 0.8)
"""Shares of votes won that are planned for."""


class Standing(BaseModel, frozen=True):
    """One pair of models on one axis."""

    axis: str
    pair: PairFigures
    needed: int | None
    """Votes in all that decide it, if the present difference is the true one; None if that is far
    off."""

    @property
    def sentence(self) -> str:
        """Meaning for the campaign, in words."""
        if self.pair.is_decided:
            return "enough: the interval excludes 0"
        if self.pair.at_any_look is None:
            return f"too early: fewer than {FEWEST} raters or prompts, or models without a link"
        if self.needed is None:
            return f"no end in sight: more than {MOST_TIMES} times as many votes"
        return f"not yet: about {self.needed} votes if it stays like this"


class PlanRow(BaseModel, frozen=True):
    """Votes needed for one difference."""

    share: float
    elo: float
    votes: list[int | None]
    """One for each number of raters; None where no number of votes is enough."""


class Plan(BaseModel, frozen=True):
    """Votes needed with one number of prompts."""

    prompts: int
    rows: list[PlanRow]


def plans(config: ArenaConfig, shares: Sequence[float] = SHARES) -> list[Plan]:
    """Return the votes between two models for each number of prompts, difference and crowd."""
    return [
        Plan(
            prompts=prompts,
            rows=[
                PlanRow(
                    share=share,
                    elo=as_elo(share),
                    votes=[
                        votes_needed(share, design(config, raters, prompts), config.power)
                        for raters in config.raters
                    ],
                )
                for share in shares
            ],
        )
        for prompts in config.prompts
    ]


def design(config: ArenaConfig, raters: int, prompts: int) -> Design:
    """Return the campaign that the settings expect of so many raters and prompts."""
    return Design(raters, prompts, config.rater_spread, config.prompt_spread, config.ties)


def standings(campaign: Campaign, config: ArenaConfig) -> list[Standing]:
    """Return the standing of each axis and pair of models that has votes."""
    found = []
    for axis in campaign.axes:
        _, pairs = pairs_of(campaign.votes(axis), config)
        found += [Standing(axis=axis, pair=pair, needed=_needed(pair)) for pair in pairs]
    return found


def _needed(pair: PairFigures) -> int | None:
    if pair.at_any_look is None or pair.difference is None:
        return None
    return votes_to_decide(pair.difference, pair.at_any_look, pair.n)
