"""Stage `play`: serves the playground until Ctrl-C.

It writes nothing except for images that visitors send to the run's raters.
"""

import argparse
import os
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from data.runs import RunFolder
from data.weights import check_model_folder
from pipelines.flags import stands_for_settings
from pipelines.interruption import INTERRUPTED, ends_at_once, ends_in_order
from pipelines.play.settings import PlayConfig
from pipelines.settings.config import Settings

if TYPE_CHECKING:
    from pipelines.play.studio import Studio


def main(run: RunFolder, settings: Settings) -> int:
    """Open the models and serve the page.

    Returns:
        The exit status after Ctrl-C; SIGTERM ends the process by an exception.

    Raises:
        PictuneError: a model cannot be opened, or the app cannot listen on the address.
    """
    config = settings.table("play", PlayConfig)
    check_model_folder(settings.run.model)
    with ends_at_once():
        from labeling_app.server import serve  # noqa: PLC0415 - loads Gradio
        from pipelines.play.gate import create_app  # noqa: PLC0415 - loads torch and Gradio
        from pipelines.play.studio import Studio  # noqa: PLC0415

    with TemporaryDirectory(prefix="pictune-play-") as folder, ends_in_order():
        os.environ["GRADIO_TEMP_DIR"] = folder  # otherwise Gradio's copies would stay
        studio = Studio(run, settings, Path(folder))
        with closing(studio):
            app = create_app(studio, config)
            serve(app, config, lambda address: _announce(studio, address))
    return INTERRUPTED


def _announce(studio: "Studio", address: str) -> None:
    tuned = ", ".join(studio.tuned) or "no tuned model yet"
    reward = "" if studio.reward is not None else ", no reward yet"
    print(f"play at {address} (base, {tuned}{reward}; Ctrl-C ends)", flush=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage; all of them set settings."""
    parser.add_argument("--port", type=int, help="port to listen on (play.port)")
    stands_for_settings(parser, port="play.port")
