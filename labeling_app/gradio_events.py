"""Checks of the events of Gradio's pages.

Events that no page sends are refused; Gradio would answer them with a traceback. Only checked
fields are passed on, so that no event can name files.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import gradio as gr
from fastapi import HTTPException
from pydantic import BaseModel, Field, JsonValue, ValidationError

Session = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Event(BaseModel, frozen=True):
    """Body of an event."""

    fn_index: int
    data: list[JsonValue]
    """Values of the event's inputs."""
    session_hash: Session | None = None
    trigger_id: int | None = None
    event_data: JsonValue = None


def checked(body: bytes, events: Mapping[int, Any]) -> bytes:
    """Return the checked body of one of `events`, reduced to the fields that pages send.

    Raises:
        HTTPException: 422, no page sends this event.
    """
    try:
        event = Event.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, "no event of this page") from error
    known = events.get(event.fn_index)
    if known is None or known.fn is None or len(event.data) != len(known.inputs):
        raise HTTPException(422, "no event of this page, or not its inputs")
    if known.preprocess:  # without it, handlers check their input
        for block, value in zip(known.inputs, event.data, strict=True):
            if not _fits(block, value):
                raise HTTPException(422, f"not a value of {block.label or 'this page'}")
    return event.model_dump_json().encode()


def _fits(block: Any, value: JsonValue) -> bool:
    """Whether a component accepts the value: a number, a text or a list of these, never a file."""
    if isinstance(block, gr.State):
        return value is None  # stored in the page
    if any(isinstance(one, list | dict) for one in (value if isinstance(value, list) else [value])):
        return False
    if isinstance(block, gr.Textbox):
        return isinstance(value, str)
    if isinstance(block, gr.Slider):
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_number = is_whole or (isinstance(value, float) and block.step % 1 != 0)
        # also false for NaN
        return is_number and block.minimum <= value <= block.maximum  # type: ignore[operator]
    try:
        block.preprocess(value)
    except Exception:  # noqa: BLE001 - each component has its own
        return False
    return True
