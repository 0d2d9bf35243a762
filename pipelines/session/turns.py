"""Turns of a session: the functions that the page and simulated people call.

Expanders propose candidates, a policy values them, a slate is drawn with stated probabilities, and
its images are drawn. The slate is saved before it is shown, its answer before the next is drawn.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data.sessions import COLUMN_IMAGES, COLUMNS, Candidate, Session, Turn
from data.store.sessions import SessionRefused, Sessions, open_turn
from pipelines.run.image_plan import LARGEST_SEED
from reward.sessions.slates import Policy, draw_slate

Propose = Callable[[Session, str, random.Random], Sequence[Candidate]]
"""Returns candidates of several categories for a turn that begins with a prompt. The session has
the answered turns that lead to this one."""

Draw = Callable[[Sequence[str], Sequence[Sequence[int]]], Sequence[Sequence[str]]]
"""Draws images of each prompt, one for each of its seeds; returns their ids. When it returns, the
images are on disk and known to the run."""


@dataclass(frozen=True)
class Turns:
    """Draws the turns of sessions, which the store begins and whose answers it saves."""

    store: Sessions
    propose: Propose
    policy: Policy
    draw: Draw
    columns: int = COLUMNS
    """Largest number of candidates of a slate."""
    images: int = COLUMN_IMAGES
    """Images of a candidate."""

    def next_turn(self, session_id: str, rng: random.Random, *, after: int | None = None) -> Turn:
        """Return the turn that waits for its answer, or draw and save the next one.

        Args:
            session_id: the session.
            rng: draws candidates, slate and seeds.
            after: an answered turn to go on from, or 0 for the prompt of the session; None goes on
                from the latest turn.

        Raises:
            SessionRefused: the session is not known or has ended, or has no such turn.
            PictuneError: nothing was proposed, or the images cannot be drawn.
        """
        session = self.store.get(session_id)
        if (waiting := open_turn(session)) is not None:
            return waiting
        if session.ended_at is not None:
            raise SessionRefused(f"session {session_id}: has ended; begin a new one")
        if after is None:
            after = session.turns[-1].number if session.turns else 0
        if after not in {0, *(one.number for one in session.turns)}:
            raise SessionRefused(f"session {session_id}: has no turn {after} to go on from")
        path = session.path_to(after)
        prompt = next_prompt(path)
        candidates = self.propose(path, prompt, rng)
        slate = draw_slate(
            candidates,
            self.policy.values(path, prompt, candidates),
            temperature=self.policy.temperature,
            rng=rng,
            columns=self.columns,
        )
        shown = [number for number, one in enumerate(slate) if one.place is not None]
        seeds = [[rng.randrange(LARGEST_SEED) for _ in range(self.images)] for _ in shown]
        drawn = self.draw([slate[number].prompt for number in shown], seeds)
        images = dict(zip(shown, map(tuple, drawn), strict=True))
        return self.store.save_slate(
            session_id,
            [replace(one, image_ids=images.get(k, ())) for k, one in enumerate(slate)],
            after=after,
            prompt=prompt,
            policy=self.policy.name,
        )


def next_prompt(path: Session) -> str:
    """Return the prompt that the next turn begins with: of the latest pick, if there is one."""
    if not path.turns:
        return path.prompt
    last = path.turns[-1]
    if last.answer is None or last.answer.chosen is None:
        return last.prompt
    return last.candidates[last.answer.chosen].prompt
