"""Stage `session`: serves the page of sessions until Ctrl-C."""

import argparse
import os
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from data.errors import PictuneError
from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from data.weights import check_model_folder
from labeling_app.settings import LabelConfig, ServerConfig
from pipelines.flags import stands_for_settings
from pipelines.interruption import INTERRUPTED, ends_at_once, ends_in_order
from pipelines.play.settings import PlayConfig
from pipelines.run.campaign import ImageFiles, cookie_secret, open_store, own_images
from pipelines.run.prompts import read_prompts
from pipelines.session.expanders import Rules
from pipelines.session.language_model import LanguageModel
from pipelines.session.settings import SessionConfig
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings) -> int:
    """Open the model and serve the page.

    Returns:
        The exit status after Ctrl-C; SIGTERM ends the process by an exception.

    Raises:
        PictuneError: a setting is wrong, the model cannot be opened, nobody could sign in, or the
            app cannot listen on the address.
    """
    config, server = settings.table("session", SessionConfig), settings.table("play", PlayConfig)
    check_model_folder(settings.run.model)
    intents = [] if config.intents is None else read_prompts(config.intents)
    rules = Rules(vocabulary(run))
    name = config.language_model
    propose = rules if name is None else LanguageModel(name, rules)
    with open_store(run) as store:
        label = _who_may_enter(run, store, settings.table("label", LabelConfig), server)
        with ends_at_once():
            from labeling_app.app_state import AppState  # noqa: PLC0415 - loads FastAPI
            from labeling_app.server import serve  # noqa: PLC0415 - loads Gradio
            from pipelines.play.studio import Studio  # noqa: PLC0415 - loads torch
            from pipelines.session.desk import Desk, StudioDraw  # noqa: PLC0415
            from pipelines.session.policies import open_policy  # noqa: PLC0415
            from pipelines.session.server import SessionPage, create_app  # noqa: PLC0415
            from pipelines.session.turns import Turns  # noqa: PLC0415

        with TemporaryDirectory(prefix="pictune-session-") as folder, ends_in_order():
            os.environ["GRADIO_TEMP_DIR"] = folder
            policy = open_policy(config.policy, run, settings)
            studio = Studio(run, settings, Path(folder), measures=False)
            draw = StudioDraw(studio, config.model, store)
            turns = Turns(store.sessions, propose, policy, draw, images=config.images)
            desk = Desk(turns, draw)
            page = SessionPage(
                AppState(store, ImageFiles(run).get, label),
                turns,
                desk,
                tuple(one.text for one in intents),
                config.show_prompts,
                run.root.name,
            )
            with closing(desk), closing(studio):
                app = create_app(page, server, cookie_secret(run))
                who = "anyone may enter" if label.open else "raters sign in"
                about = f"{config.model} draws, {who}; Ctrl-C ends"
                serve(app, server, lambda at: print(f"session at {at} ({about})", flush=True))
    return INTERRUPTED


def vocabulary(run: RunFolder) -> list[str]:
    """Return the prompts of the run's images, without those of sessions and visitors."""
    return sorted(set(own_images(run)["prompt"].to_pylist()))


def _who_may_enter(
    run: RunFolder, store: FeedbackStore, label: LabelConfig, server: ServerConfig
) -> LabelConfig:
    """Return the raters' settings; a name is enough where nobody has a password on this machine."""
    if label.open or store.raters.has_passwords():
        return label
    if not server.is_local:
        raise PictuneError(
            f"{run.root}: nobody can sign in yet; `make rater NAME=...` adds a rater, "
            "label.open = true lets in anyone with a name"
        )
    return label.model_copy(update={"open": True})


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage; all of them set settings."""
    parser.add_argument("--port", type=int, help="port to listen on (play.port)")
    stands_for_settings(parser, port="play.port")
