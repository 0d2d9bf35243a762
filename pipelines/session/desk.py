"""The desk: draws the turns of all sessions, one after the other, and says how far each is."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from data.errors import PictuneError
from data.files import sha256_of
from data.formats.landing import import_records
from data.formats.records import Record, Row
from data.schema import SESSION
from data.store.feedback_store import FeedbackStore
from finetune.settings.adapter_kinds import BASE
from pipelines.play.errors import message_of
from pipelines.play.studio import DrawRequest, Studio, Tell
from pipelines.run.model_hashes import weights_hash
from pipelines.session.turns import Turns


class StudioDraw:
    """Draws images with a model of the run and adds them to the run's images."""

    def __init__(self, studio: Studio, model: str, store: FeedbackStore) -> None:
        """Draw with `model`, the base or one of the run's tuned models.

        Raises:
            PictuneError: the run has no such model.
        """
        if model not in (BASE, *studio.tuned):
            known = ", ".join((BASE, *studio.tuned))
            raise PictuneError(f"session.model: no model {model}; choose one of {known}")
        self._studio, self._model, self._store = studio, model, store
        self._weights = weights_hash(studio.settings.run.model)  # reads all weights, so once

    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        tell: Tell = lambda *_: None,
    ) -> list[list[str]]:
        """Draw as `pipelines.session.turns.Draw`; `tell` hears of the passes of the network."""
        studio, now = self._studio, datetime.now(UTC)
        folder = studio.new_folder()
        drawn = []
        for number, (prompt, own) in enumerate(zip(prompts, seeds, strict=True)):

            def of_all(done: int, of: int, before: int = number) -> None:
                tell(before * of + done, len(prompts) * of)

            wanted = DrawRequest(prompt, (self._model,), 1.0, studio.sampler, tuple(own))
            drawn.append(studio.draw(self._model, wanted, folder, of_all))

        def records() -> Iterator[Record]:
            for number, column in enumerate(drawn, start=1):
                sources = (
                    one.source(studio.run, studio.settings.run.model, self._weights, SESSION)
                    for one in column
                )
                row = Row(path=Path(SESSION), number=number, values={})
                yield Record(row=row, prompt=column[0].prompt, images=tuple(sources), kind=None)

        import_records(records(), SESSION, studio.run, self._store, now=now)
        ids = [[sha256_of(one.file) for one in column] for column in drawn]
        shutil.rmtree(folder)
        return ids


@dataclass
class Job:
    """A turn that is being drawn, waits to be, or could not be drawn."""

    done: int = 0
    """Passes of the network."""
    of: int = 0
    """All its passes; 0 while it waits."""
    error: str | None = None
    """Why the turn could not be drawn."""


class Desk:
    """Draws one turn at a time; others wait in the order in which they were asked for."""

    def __init__(self, turns: Turns, draw: Callable[..., list[list[str]]]) -> None:
        """Draw the slates of `turns` by `draw`, a `StudioDraw`."""
        self._turns, self._draw = turns, draw
        self._jobs: dict[str, Job] = {}
        self._drawing = ThreadPoolExecutor(1, "desk")

    def ask(self, session_id: str, after: int | None) -> None:
        """Have the session's next turn drawn, unless it is under way; see `Turns.next_turn`."""
        job = self._jobs.get(session_id)
        if job is None or job.error is not None:
            # at the end of the queue again after an error
            self._jobs.pop(session_id, None)
            self._jobs[session_id] = Job()
            self._drawing.submit(self._run, session_id, after)

    def find(self, session_id: str) -> tuple[Job, int] | None:
        """Return the session's job, and how many are drawn before it."""
        ahead = 0
        for key, job in list(self._jobs.items()):
            if key == session_id:
                return job, ahead
            ahead += job.error is None
        return None

    def close(self) -> None:
        """Drop what waits, and wait for the end of what is drawn; `Studio.close` ends it soon."""
        self._drawing.shutdown(cancel_futures=True)

    def _run(self, session_id: str, after: int | None) -> None:
        job = self._jobs[session_id]

        def draw(prompts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[list[str]]:
            return self._draw(prompts, seeds, tell)

        def tell(done: int, of: int) -> None:
            job.done, job.of = done, of

        try:
            rng = random.Random(random.SystemRandom().getrandbits(64))
            replace(self._turns, draw=draw).next_turn(session_id, rng, after=after)
        except Exception as error:  # noqa: BLE001 - it is told to the person, and goes to the log
            job.error = message_of(error)
        else:
            del self._jobs[session_id]
