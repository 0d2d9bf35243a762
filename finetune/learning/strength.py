"""The strength of an adapter (a factor of its update), and its choice by validation.

The reward alone nearly always prefers the strongest update, while diversity falls with strength. So
the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees, 3.4.3)
chooses the weakest strength whose reward is within one standard error of the best. All strengths
are validated on the same prompts and seeds, so the standard error is computed from paired
differences between images.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:  # the choice of a done training is read without torch
    from torch import Tensor

    from finetune.learning.validation import Validation, Validator


class StrengthFigures(BaseModel, frozen=True):
    """Validation of an adapter at one strength."""

    strength: float
    """0 is the base, 1 the adapter as trained."""
    reward: float
    """Mean reward of the validation images."""
    behind: float
    """Mean difference between an image's reward at the best strength and at this strength."""
    standard_error: float
    """Standard error of that difference."""
    diversity: float | None = None
    """Diversity from the monitors; None if it is not measured."""


class StrengthChoice(BaseModel, frozen=True):
    """The validated strengths, and the chosen strength."""

    strength: float
    """The weakest strength whose mean reward is within one standard error of the best."""
    tried: list[StrengthFigures]
    """Figures from weak to strong; the base comes first."""


def choose_strength(validator: "Validator", strengths: Iterable[float]) -> StrengthChoice:
    """Validate the model's adapter at these strengths, at 0 and at 1; choose a strength above 0."""
    found = {}
    for strength in sorted({0.0, *strengths, 1.0}):
        with validator.model.adapter.at_strength(strength):
            found[strength] = validator()
    return weakest_as_good(found)


def weakest_as_good(found: "Mapping[float, Validation]") -> StrengthChoice:
    """Choose among validations by strength, from weak to strong, the base first.

    A strength that violates a limit of `stop_on` is chosen only if every strength does.
    """
    base, *tuned = found
    allowed = [one for one in tuned if not _is_refused(found[one], found[base])] or tuned
    best = max(allowed, key=lambda one: found[one].reward)
    tried = [_figures(strength, one, found[best].rewards) for strength, one in found.items()]
    as_good = [
        one.strength
        for one in tried
        if one.strength in allowed and one.behind <= one.standard_error
    ]
    return StrengthChoice(strength=as_good[0], tried=tried)


def _is_refused(present: "Validation", untuned: "Validation") -> bool:
    alarms = present.rules.limits.exceeded(present.monitors, untuned.monitors)
    return any(name in alarms for name in present.config.stop_on)


def _figures(strength: float, found: "Validation", best: "Tensor") -> StrengthFigures:
    behind = best - found.rewards
    error = float(behind.std(correction=0)) / math.sqrt(max(1, len(behind) - 1))
    return StrengthFigures(
        strength=strength,
        reward=found.reward,
        behind=float(behind.mean()),
        standard_error=error,
        diversity=found.monitors.get("diversity"),
    )
