"""Simulated sessions."""

import random
import tempfile
from collections.abc import Sequence

from benchmarks.session_bank import ANIMALS, PLACES, TINTS, Bank, Wish, propose
from benchmarks.session_types import LIKED, eye_of
from data.sessions import Candidate, Session
from data.store.feedback_store import FeedbackStore
from pipelines.session.people import Averaging, Satisficing, live_through
from pipelines.session.turns import Turns
from reward.sessions.slates import Policy

FITS = 0.7
"""Probability that a person wants the color, and the place, that their type likes."""
PEOPLE = {"averaging": Averaging, "satisficing": Satisficing}


def wish_of(kind: int, rng: random.Random) -> tuple[Wish, Wish]:
    """Return what a person of a type wants, and the half of it that they type first."""
    tint, place = LIKED[kind]
    tint = tint if rng.random() < FITS else rng.choice(TINTS)
    place = place if rng.random() < FITS else rng.choice(PLACES)
    wish = Wish(rng.choice(ANIMALS), tint, place)
    return wish, rng.choice(
        [Wish(wish.animal), Wish(wish.animal, tint), Wish(wish.animal, None, place)]
    )


def hold(bank: Bank, policy: Policy, count: int, *, people: str, seed: int):
    """Return sessions of simulated people under a policy, and what each person's eye sees."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        with FeedbackStore.open(f"sqlite:///{folder}/feedback.db") as store:
            turns = Turns(
                store.sessions,
                propose,
                policy,
                lambda prompts, _: [bank.image_ids[p] for p in prompts],
            )
            for number in range(count):
                rng = random.Random(f"{seed} {number}")
                kind = number % 4
                wish, first = wish_of(kind, rng)
                person = PEOPLE[people](eye_of(bank, kind, wish))
                name = f"person {number}"
                rater_id = store.add_rater(name, source="simulated")
                session = live_through(
                    turns,
                    person,
                    f"session-{number}",
                    rater_id,
                    first.prompt(),
                    intent=wish.prompt(),
                    rng=rng,
                )
                found.append((session, person, kind))
    return found


def utility(session: Session, person) -> float:
    """Return how good the column is with which the session ends; 0 without a pick."""
    picks = [
        turn.candidates[turn.answer.chosen]
        for turn in session.turns
        if turn.answer is not None and turn.answer.chosen is not None
    ]
    return person.quality([person.eye(one) for one in picks[-1].image_ids]) if picks else 0.0
