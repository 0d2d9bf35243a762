"""Simulated people in sessions: a hidden wish, a type, patience; the state decides, words follow.

The rule of ICER (arXiv 2510.02331): what is said follows from a person's state and is never drawn
by itself. An `Eye` says how good an image is for this person, by the wish and the type that nobody
else knows, and what it lacks. Both kinds of people share what they say of a turn:

- none of the columns where the best one that they see is below their threshold;
- better, same or worse: the quality of the pick against the one before, by more than a just
  noticeable difference;
- the critique: what most images of the best column lack;
- they stop with a probability that grows with each turn without progress.

`Averaging` people see a column as the mean of its images, and pick by softmax. `Satisficing` people
(Simon 1956) see its best image, and take the first column from the left that is good enough, which
they expect more of as they go on; a second form, so that what was learned with one can be tried on
the other.
"""

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from data.sessions import Progress, Session, Turn, TurnAnswer
from pipelines.session.turns import Turns


@dataclass(frozen=True)
class Sight:
    """Sight of an image by one person."""

    quality: float
    """0 to 1."""
    missing: tuple[str, ...] = ()
    """Words of the critique for what the image lacks."""


Eye = Callable[[str], Sight]
"""Returns the sight of an image, by its id."""


@dataclass(frozen=True)
class Mood:
    """The part of a person's state that a session changes."""

    quality: float | None = None
    """Quality of the latest pick; None before the first."""
    idle: int = 0
    """Turns in a row without progress."""


@dataclass(frozen=True)
class Habits:
    """Habits that people have in common."""

    threshold: float = 0.15
    """Quality below which no column is picked."""
    noise: float = 0.05
    """Standard deviation of the quality that a person sees in a column."""
    just_noticeable_difference: float = 0.05
    fatigue: float = 0.05
    """Probability to stop after a turn for each turn in a row without progress, itself included."""
    milliseconds: int = 8000
    """Median time on a turn."""


@dataclass(frozen=True)
class Person(ABC):
    """A person who answers turns."""

    eye: Eye
    habits: Habits = Habits()

    @abstractmethod
    def quality(self, sights: Sequence[Sight]) -> float:
        """Return the quality of a column from what is seen in its images."""

    @abstractmethod
    def pick(self, seen: Sequence[float], turn: int, rng: random.Random) -> int:
        """Return the place of the picked column from the qualities seen in turn `turn`."""


@dataclass(frozen=True)
class Averaging(Person):
    """A person who sees the mean of a column, and picks by softmax."""

    sharpness: float = 20.0

    def quality(self, sights: Sequence[Sight]) -> float:
        """Return the mean."""
        return float(np.mean([one.quality for one in sights]))

    def pick(self, seen: Sequence[float], turn: int, rng: random.Random) -> int:  # noqa: ARG002
        """Draw a column."""
        chances = softmax(self.sharpness * np.array(seen))
        return rng.choices(range(len(seen)), weights=chances.tolist())[0]


@dataclass(frozen=True)
class Satisficing(Person):
    """A person who looks for the best image, and takes the first column that is good enough."""

    enough: float = 0.5
    """Quality that is good enough in the first turn."""
    more: float = 0.08
    """Quality that is expected in addition in each later turn."""

    def quality(self, sights: Sequence[Sight]) -> float:
        """Return the best."""
        return max(one.quality for one in sights)

    def pick(self, seen: Sequence[float], turn: int, rng: random.Random) -> int:  # noqa: ARG002
        """Return the first column that is good enough, or else the best."""
        wanted = self.enough + self.more * (turn - 1)
        good = [place for place, quality in enumerate(seen) if quality >= wanted]
        return good[0] if good else int(np.argmax(seen))


def answer(
    person: Person, turn: Turn, mood: Mood, *, rng: random.Random
) -> tuple[TurnAnswer, Mood]:
    """Return what the person says of the turn, and their mood after it."""
    habits = person.habits
    sights = [[person.eye(one) for one in turn.candidates[k].image_ids] for k in turn.shown]
    seen = [person.quality(column) + rng.gauss(0, habits.noise) for column in sights]
    place = person.pick(seen, turn.number, rng)
    chosen = None if seen[place] < habits.threshold else turn.shown[place]
    progress: Progress | None = None
    if mood.quality is not None:
        change = seen[place] - mood.quality
        noticed = abs(change) > habits.just_noticeable_difference
        progress = "same" if not noticed else "better" if change > 0 else "worse"
    has_progress = chosen is not None and progress in (None, "better")
    idle = 0 if has_progress else mood.idle + 1
    lacks = Counter(word for one in sights[place] for word in one.missing)
    said = TurnAnswer(
        chosen=chosen,
        progress=progress,
        critique=tuple(word for word, n in lacks.most_common() if 2 * n > len(sights[place])),
        stops=rng.random() < habits.fatigue * idle,
        time_on_task_ms=round(habits.milliseconds * rng.lognormvariate(0, 0.3)),
    )
    return said, Mood(mood.quality if chosen is None else seen[place], idle)


def live_through(
    turns: Turns,
    person: Person,
    session_id: str,
    rater_id: str,
    prompt: str,
    *,
    intent: str | None,
    rng: random.Random,
) -> Session:
    """Return a session of the person, held through the functions that the page calls.

    `rater_id` is entered as simulated, and so the session is.
    """
    session, mood = turns.store.begin(session_id, rater_id, prompt, intent=intent), Mood()
    while session.ended_at is None:
        turn = turns.next_turn(session_id, rng)
        said, mood = answer(person, turn, mood, rng=rng)
        answer_id = f"{session_id} {turn.number}"
        session = turns.store.save_answer(session_id, turn.number, said, answer_id=answer_id)
    return session
