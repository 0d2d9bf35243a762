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


@contextmanager
def visible_errors() -> Iterator[None]:
    """Turn errors into messages on the page; errors of the program also go to the log."""
    try:
        yield
    except VisitorError as error:
        raise gr.Error(str(error), print_exception=False) from error
    except PictuneError as error:
        LOGGER.error("%s", error)  # noqa: TRY400 - a line, which may name files and servers
        raise gr.Error(FAILED, print_exception=False) from error
    except Exception as error:
        if type(error).__name__ in OUT_OF_MEMORY:
            message = "Out of memory: draw fewer images, or lower images.batch and start again."
            raise gr.Error(message, print_exception=False) from error
        LOGGER.exception("playground")
        raise gr.Error(FAILED, print_exception=False) from error
