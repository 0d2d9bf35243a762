"""The part of the admin page for looking at labels: filters, and images with all their answers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import gradio as gr
from pydantic import BaseModel

from data.feedback import Source
from data.kinds.registry import KINDS, reported_images
from data.store.views.overview import AnswerGroup, GivenLabel
from labeling_app.admin import tables
from labeling_app.admin.board import Board, Call, Snapshot, Update, gallery
from labeling_app.admin.figures import WantedLabels


class WantedTime(BaseModel, frozen=True):
    """The time of the filters, without its time zone."""

    until: datetime | None = None


ABOUT_LABELS = (
    "The newest label first; under each image are all answers to its task. Reported images are "
    "blurred until you point at them."
)
NO_LABELS = "There are no such labels."
ANY = ("any", "")
"""Choice of a filter that excludes nothing."""
REPORTED = "#reported"
"""End of the address of reported images, which the style sheet blurs."""


def labels(board: Board) -> dict[str, Any]:
    """Build the filters and the gallery; return the filters by field of `WantedLabels`."""

    def look(call: Call, *given: object) -> Update:
        return {board.wanted: _wanted(dict(zip(filters, given, strict=True)), call.zone)}

    def older(_call: Call, wanted: object, before: object) -> Update:
        fields = WantedLabels.model_validate(wanted).model_dump() | {"before": before}
        return {board.wanted: _json(fields)}

    def newest(call: Call, wanted: object) -> Update:
        return older(call, wanted, None)

    filters = _filters()
    board.show_quality(
        filters["rater"], lambda quality: gr.update(choices=[ANY, *tables.people(quality)])
    )
    about = gr.Markdown(elem_classes="soft")
    images = gallery("Labeled images", columns=4, name="labels")
    before = gr.Number(visible="hidden", label="Before")
    with gr.Row(elem_classes="actions"):
        to_older, to_newest = gr.Button("Older"), gr.Button("Newest")
    board.show(about, lambda now: ABOUT_LABELS if now.labels.tasks else NO_LABELS)
    board.show(images, lambda now: gr.update(value=_images(now), visible=bool(now.labels.tasks)))
    board.show(before, lambda now: now.labels.next_before)
    board.show(to_older, lambda now: gr.update(interactive=now.labels.next_before is not None))
    board.show(to_newest, lambda now: gr.update(interactive=_before(now) is not None))
    for name, field in filters.items():
        changed = field.submit if name in ("words", "until") else field.input
        board.on(changed, look, [*filters.values()], [board.wanted], last_counts=True)
    board.on(to_older.click, older, [board.wanted, before], [board.wanted])
    board.on(to_newest.click, newest, [board.wanted], [board.wanted])
    return filters


def _filters() -> dict[str, Any]:
    def choice(label: str, values: Sequence[str]) -> Any:
        return gr.Dropdown([ANY, *values], value="", label=label, min_width=150)

    with gr.Row():
        return {
            "rater": choice("Of the rater", ()),
            "source": choice("Source", get_args(Source)),
            "kind": choice("Kind", tuple(KINDS)),
            "answer": choice("Answer", get_args(AnswerGroup)),
            "words": gr.Textbox(label="Words of the prompt (Enter)", max_length=200),
            "until": gr.Textbox(label="Given until, as 2026-01-31 14:30", max_length=40),
        }


def _wanted(given: dict[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """Return the fields of `WantedLabels` that have a value; a time gets its time zone."""
    fields = {name: value for name, value in given.items() if value}
    until = WantedTime.model_validate(fields).until
    return _json(fields | {"until": until and until.replace(tzinfo=zone)})


def _json(fields: dict[str, Any]) -> dict[str, Any]:
    return WantedLabels.model_validate(fields).model_dump(mode="json", exclude_none=True)


def _before(now: Snapshot) -> object:
    return now.wanted.get("before") if isinstance(now.wanted, dict) else None


def _images(now: Snapshot) -> list[tuple[str, str]]:
    """Return address and caption of each image."""
    return [
        (
            now.origin
            + tables.THUMBNAIL.format(image_id)
            + _with_marks(given)
            + _mark(given, image_id),
            f"{given[0].task.prompt}\n{_answers(given, place)}",
        )
        for given in now.labels.tasks
        for place, image_id in enumerate(given[0].task.image_ids)
    ]


def _with_marks(given: Sequence[GivenLabel]) -> str:
    """Return the end of an address that has the raters' marks drawn over the image."""
    marks = [mark for one in given for mark in getattr(one.answer, "marks", None) or ()]
    edges = [(one.x0, one.y0, one.x1 or one.x0, one.y1 or one.y0) for one in marks]
    told = [("edges", f"{edge:.3f}") for each in edges for edge in each]
    return f"?{urlencode(told)}" if told else ""


def _mark(given: Sequence[GivenLabel], image_id: str) -> str:
    reported = (reported_images(one.answer, one.task.image_ids) for one in given)
    return REPORTED if any(image_id in images for images in reported) else ""


def _answers(given: Sequence[GivenLabel], place: int) -> str:
    """Return the answers of all raters: to a ranking, the rank of this image."""
    parts = []
    for one in given:
        text = tables.answer_text(one)
        words = text.split(" ")
        if one.task.kind == "ranking" and place < len(words):
            text = f"rank {words[place]}"
        said = ": ".join(part for part in (text, tables.remarks(one)) if part)
        parts.append(f"{tables.rater_text(one)}: {said}")
    return "\n".join(parts)
