"""Settings of the policy of sessions."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeFloat

Learned = Literal["greedy", "value"]
PolicyName = Literal["random", Learned]


class SessionPolicyConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the policy that picks the slates of sessions, and of its estimates."""

    discount: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of the next turn's reward against this turn's."""
    temperature: NonNegativeFloat = 0.25
    """Randomness of slates, as a multiple of the spread of the values of a turn's candidates; 0
    shows the highest values only, and such sessions say nothing about other policies."""
