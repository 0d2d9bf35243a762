"""The strength of an adapter, a factor of its update, and its choice by validation.

The reward alone nearly always prefers the strongest update, while diversity falls with strength. So
the rule is that of one standard error (Breiman et al. 1984, Classification and Regression Trees,
3.4.3): of the strengths whose reward cannot be told from the best, the weakest. All are validated
on the same prompts and seeds, so the standard error is taken of the images' differences.
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
    """0 is the base, 1 the adapter as it was trained."""
    reward: float
    """Mean over the validation images."""
    behind: float
    """Mean difference of the images' rewards at the best strength to those at this one."""
    standard_error: float
    """Standard error of that difference."""
    diversity: float | None = None
    """Of the monitors; None where it is not measured."""


class StrengthChoice(BaseModel, frozen=True):
    """Strengths that were validated, and the one to draw with."""

    strength: float
    """The weakest that is behind the best by no more than the standard error of the difference."""
    tried: list[StrengthFigures]
    """From weak to strong; the base is the first."""


def choose_strength(validator: "Validator", strengths: Iterable[float]) -> StrengthChoice:
    """Validate the model's adapter at these strengths, at 0 and at 1, and choose one above 0."""
    found = {}
    for strength in sorted({0.0, *strengths, 1.0}):
        with validator.model.adapter.at_strength(strength):
            found[strength] = validator()
    return weakest_as_good(found)


def weakest_as_good(found: "Mapping[float, Validation]") -> StrengthChoice:
    """Choose among validations by strength, from weak to strong, the base first.

    A strength to which a measure of `stop_on` objects is not chosen, unless all are.
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
