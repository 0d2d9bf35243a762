"""Errors of the playground's events, as messages on the page."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from data.errors import PictuneError
from pipelines.interruption import OUT_OF_MEMORY
from pipelines.play.studio import VisitorError

LOGGER = logging.getLogger(__name__)

FAILED = "The program has failed; its terminal shows where."


def message_of(error: Exception) -> str:
    """Return what a visitor reads about an error; errors of the program also go to the log."""
    if isinstance(error, VisitorError):
        return str(error)
    if isinstance(error, PictuneError):
        LOGGER.error("%s", error)  # a line, which may name files and servers
        return FAILED
    if type(error).__name__ in OUT_OF_MEMORY:
        return "Out of memory: draw fewer images, or lower images.batch and start again."
    LOGGER.error("page", exc_info=error)
    return FAILED


@contextmanager
def visible_errors() -> Iterator[None]:
    """Turn errors into messages on the page."""
    try:
        yield
    except Exception as error:
        raise gr.Error(message_of(error), print_exception=False) from error
