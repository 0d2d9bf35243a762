"""Settings of the policy of sessions."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeFloat

RewardKind = Literal["progress", "utility"]
Learned = Literal["greedy", "value"]
PolicyName = Literal["random", Learned]


class SessionPolicyConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the policy that picks the slates of sessions, and of its estimates."""

    reward: RewardKind = "progress"
    """Reward of a turn. "progress": 1, 0 or -1 for better, same or worse than the turn before, and
    where nobody said, -1 if no column was picked. "utility": the utility of the picked column by
    the reward model, under the posterior over rater types."""
    discount: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of the next turn's reward against this turn's."""
    temperature: NonNegativeFloat = 0.25
    """Randomness of slates, as a multiple of the spread of the values of a turn's candidates; 0
    shows the highest values only, and such sessions say nothing about other policies."""
