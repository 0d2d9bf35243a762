"""Stage `rehearse`: a minute of a training, and the time and memory of all of it.

Nothing is written: the run stays as it is.
"""

import argparse
import logging

from data.runs import RunFolder
from pipelines.flags import add_method
from pipelines.interruption import ends_at_once
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings, method: str) -> None:
    """Open the run's model, draw an image, take an update, and print the estimate."""
    with ends_at_once():
        from pipelines.finetune import rehearsal  # noqa: PLC0415 - it loads torch
    logging.disable(logging.WARNING)  # of a training that is none
    try:
        for line in rehearsal.rehearse(run, settings, method):
            print(line, flush=True)
    finally:
        logging.disable(logging.NOTSET)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    add_method(parser, "the method whose training is rehearsed")
