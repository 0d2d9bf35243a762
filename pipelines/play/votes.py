"""Votes of visitors: an image of the playground is better than the others of its seed.

A vote is a comparison of the axis overall in the run's store, for each other image of the seed. It
is marked: its source is "imported", its `app_version` "playground", and so begins its rater's name.
Visitors see which model drew what, so no report of a comparison of models counts their votes.
"""

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from data.files import sha256_of
from data.formats.landing import import_records
from data.formats.records import Record, Row, SourceLabel
from data.ids import uuid7
from data.runs import RunFolder
from data.schema import COMPARISON, PLAYGROUND
from data.store.people.attempts import Limit
from labeling_app.sign_in import network_of, tidy_name
from pipelines.play import words
from pipelines.play.errors import visible_errors
from pipelines.play.studio import DrawnImage, Studio, VisitorError
from pipelines.run.campaign import column_of_images, open_store
from pipelines.run.model_hashes import weights_hash
from pipelines.settings.config import Settings

LONGEST_NAME = 64
"""Largest number of characters of a visitor's name."""
VOTES_AN_HOUR = 600
"""Largest number of votes per hour from one address."""
HOUR_S = 3600.0

VOTE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-row]");
  if (!button) return;
  const random = () => [...crypto.getRandomValues(new Uint8Array(6))];
  const fresh = () => random().map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const browser = localStorage.getItem("pictune.visitor") ?? fresh();
  localStorage.setItem("pictune.visitor", browser);
  const { row, place } = button.dataset;
  trigger("click", { row: Number(row), place: Number(place), browser });
});
"""
"""Script of the buttons; a browser without a visitor's name keeps a random one."""


class Pick(BaseModel, frozen=True, strict=True):
    """The button that a visitor pressed."""

    row: NonNegativeInt
    place: NonNegativeInt
    browser: str = Field(pattern=r"^[0-9a-f]{12}$")


def listen_to_votes(
    studio: Studio, buttons: gr.HTML, state: gr.State, name: gr.Textbox, note: gr.HTML
) -> None:
    """Save a vote whenever a visitor presses one of `words.votes`, and show the receipt."""

    def vote(
        drawing: Any,  # a Drawing; Gradio reads these types, and could not import it
        name: str,
        event: gr.EventData,
        request: gr.Request,
    ) -> tuple[Any, Any]:
        with visible_errors():
            try:
                pick = Pick.model_validate(event._data)  # noqa: SLF001 - has no public name
                rater = tidy_name(name) if name.strip() else f"visitor {pick.browser}"
                row = drawing.rows[pick.row] if drawing else []
                best = row[pick.place]
            except (IndexError, ValidationError) as error:
                raise VisitorError("Draw something first, then vote for an image.") from error
            except ValueError as error:
                raise VisitorError(f"Your name: {error}.") from error
            saved = save_vote(
                studio.run,
                studio.settings,
                row,
                best,
                visitor=rater,
                address=network_of(request.client.host),
            )
        drawing.best[pick.row] = pick.place
        return words.votes(drawing), gr.HTML(words.voted(saved, rater), visible=True)

    buttons.click(
        vote, [state, name], [buttons, note], show_progress_on=note, api_visibility="private"
    )


def save_vote(
    run: RunFolder,
    settings: Settings,
    row: Sequence[DrawnImage],
    best: DrawnImage,
    *,
    visitor: str,
    address: str,
) -> list[str]:
    """Save that `best` is better than the other images of its row; return the labels' ids.

    A later vote of the same visitor about the same two images replaces the earlier one.

    Raises:
        VisitorError: there is no other image, raters are asked about the same two images, or too
            many votes came from this address.
    """
    mine = sha256_of(best.file)
    others = {sha256_of(one.file): one for one in row if sha256_of(one.file) != mine}
    if not others:
        raise VisitorError("All images of this seed are the same.")
    origins = column_of_images(run, "origin")
    if any({origins.get(mine), origins.get(other)} == {COMPARISON} for other in others):
        raise VisitorError("Raters compare these images already, without seeing the models.")
    now = datetime.now(UTC)
    model = settings.run.model
    weights = weights_hash(model)  # reads all weights, so once
    submissions = [f"{PLAYGROUND}-{uuid.uuid4()}" for _ in others]

    def records() -> Iterator[Record]:
        for other, submission in zip(others.values(), submissions, strict=True):
            pair = (best, other)
            yield Record(
                row=Row(path=Path(PLAYGROUND), number=1, values={}),
                prompt=best.prompt,
                images=tuple(one.source(run, model, weights, PLAYGROUND) for one in pair),
                kind="comparison",
                task={"axis": "overall", "models": tuple(one.model for one in pair)},
                labels=(
                    SourceLabel(
                        answer="first",
                        rater=f"{PLAYGROUND} {visitor}",
                        submitted_at=now,
                        shown_order=(0, 1) if row.index(best) < row.index(other) else (1, 0),
                        submission_id=submission,
                        circumstances={"app_version": PLAYGROUND},
                    ),
                ),
            )

    with open_store(run) as store:
        limit = Limit(f"playground votes at {address}", VOTES_AN_HOUR, HOUR_S)
        if store.attempts.count([limit]):
            raise VisitorError(f"{VOTES_AN_HOUR} votes came from here within an hour: wait a bit.")
        import_records(records(), PLAYGROUND, run, store, now=now)
    return [uuid7(now, submission) for submission in submissions]
