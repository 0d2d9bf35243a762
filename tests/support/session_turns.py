"""Turns of sessions without a model: candidates by rote, and images that are names alone."""

import random
from collections.abc import Sequence

from data.sessions import CATEGORIES, Candidate, Session
from data.store.sessions import Sessions
from pipelines.session.turns import Turns
from reward.sessions.slates import RandomPolicy

CANDIDATES = (
    Candidate("a", "detail"),
    Candidate("b", "detail"),
    Candidate("c", "style"),
    Candidate("d", "subject"),
)
VALUES = (1.0, 2.0, 0.5, 0.0)
"""Values of `CANDIDATES`."""


def two_a_category(_path: Session, prompt: str, _rng: random.Random) -> list[Candidate]:
    """Return two candidates of each category."""
    return [Candidate(f"{prompt}, {one}{k}", one) for one in CATEGORIES for k in (1, 2)]


def named_images(prompts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[list[str]]:
    """Return names of images, one for each seed of each prompt."""
    return [
        [f"{prompt} {seed}" for seed in own] for prompt, own in zip(prompts, seeds, strict=True)
    ]


def small_turns(store: Sessions) -> Turns:
    """Return turns with random slates of four columns of two images."""
    return Turns(store, two_a_category, RandomPolicy(), named_images, images=2)
