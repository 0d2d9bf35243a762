"""Simulated people: what they say follows from what they see and from their mood."""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from benchmarks.session_people import (
    Averaging,
    Habits,
    Mood,
    Person,
    Satisficing,
    Sight,
    answer,
    live_through,
)
from data.sessions import Candidate, Turn
from data.store.feedback_store import FeedbackStore
from tests.support.session_turns import small_turns

SEEN = {"poor": 0.1, "fair": 0.4, "good": 0.6, "best": 0.9}
CALM = Habits(noise=0, fatigue=0)


def eye(image_id: str) -> Sight:
    """See the quality in the image's name, and the color lacking below 0.5."""
    quality = SEEN[image_id]
    return Sight(quality, ("wrong colors",) if quality < 0.5 else ())


def turn(*columns: tuple[str, ...], number: int = 1) -> Turn:
    candidates = tuple(
        Candidate(f"prompt {place}", "detail", place, 1.0, None, images)
        for place, images in enumerate(columns)
    )
    return Turn(number, 0, "a dog", "random", candidates, datetime.now(UTC))


def said(person: Person, asked: Turn, mood: Mood = Mood()) -> tuple[object, ...]:  # noqa: B008
    given, _ = answer(person, asked, mood, rng=random.Random(0))
    return given.chosen, given.progress, given.critique, given.stops


def test_nothing_is_picked_below_the_threshold() -> None:
    person = Averaging(eye, CALM, sharpness=1000)
    assert said(person, turn(("poor", "poor"), ("fair", "poor")))[0] == 1
    assert said(person, turn(("poor", "poor"), ("poor", "poor")))[0] is None


@pytest.mark.parametrize(
    ("before", "progress"), [(None, None), (0.5, "better"), (0.57, "same"), (0.9, "worse")]
)
def test_progress_is_a_change_that_is_noticed(before: float | None, progress: str | None) -> None:
    person = Averaging(eye, CALM, sharpness=1000)
    assert said(person, turn(("good",), ("fair",)), Mood(before))[:2] == (0, progress)


def test_the_critique_names_what_most_images_of_the_best_column_lack() -> None:
    person = Averaging(eye, CALM, sharpness=1000)
    assert said(person, turn(("fair", "fair", "best"), ("poor",)))[2] == ("wrong colors",)
    assert said(person, turn(("best", "best", "fair"), ("poor",)))[2] == ()


def test_people_tire_with_turns_without_progress() -> None:
    person = Averaging(eye, Habits(noise=0, fatigue=0.2), sharpness=1000)
    same, rng = turn(("good",), ("fair",)), random.Random(0)
    for idle in (0, 2):
        stops = Counter(
            answer(person, same, Mood(0.6, idle), rng=rng)[0].stops for _ in range(2000)
        )
        assert stops[True] / 2000 == pytest.approx(0.2 * (idle + 1), abs=0.04)
    given, mood = answer(person, same, Mood(0.4, 3), rng=rng)
    assert (given.stops, mood) == (False, Mood(0.6, 0))
    assert answer(person, same, Mood(0.6, 3), rng=rng)[1] == Mood(0.6, 4)


def test_softmax_picks_as_often_as_it_says() -> None:
    person, rng = Averaging(eye, CALM, sharpness=5), random.Random(0)
    picks = Counter(person.pick((0.6, 0.4), 1, rng) for _ in range(4000))
    assert picks[0] / 4000 == pytest.approx(2.718281828 / 3.718281828, abs=0.03)


def test_the_second_form_takes_the_first_column_that_is_good_enough() -> None:
    person = Satisficing(eye, CALM, enough=0.5, more=0.15)
    asked = turn(("fair",), ("good", "poor"), ("best",))
    assert said(person, asked)[0] == 1
    later = turn(("fair",), ("good", "poor"), ("best",), number=2)
    assert said(person, later)[0] == 2
    assert said(person, turn(("poor",), ("fair",)))[0] == 1


def test_sessions_of_people_are_stored_as_simulated_ones(store: FeedbackStore) -> None:
    rater_id = store.add_rater("person 1", source="simulated")
    person = Averaging(lambda image_id: Sight(("a0" in image_id) * 0.5 + 0.3))
    held = live_through(
        small_turns(store.sessions),
        person,
        "session-1",
        rater_id,
        "a dog",
        intent="a dog on the moon",
        rng=random.Random(0),
    )
    (kept,) = store.sessions.all("simulated")
    assert kept == held
    assert kept.ended_at is not None
    assert kept.intent == "a dog on the moon"
    assert all(one.answer is not None for one in kept.turns)
    assert store.sessions.all("human") == []
