"""Stage `label`: serve the labeling app until Ctrl-C.

Labels go to the feedback store, and are exported to Parquet.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from data.errors import PictuneError
from data.files import locked
from data.runs import RunFolder
from data.schema import PROMPTS, read_table
from data.store.feedback_store import FeedbackStore
from labeling_app.app_state import AppState
from labeling_app.campaign.comparisons import CompareConfig, read_wordings
from labeling_app.campaign.known_answers import read_training
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.settings import LabelConfig
from pipelines.collect.exporter import Exporter
from pipelines.flags import stands_for_settings
from pipelines.interruption import INTERRUPTED, TERMINATED, ends_at_once, ends_in_order
from pipelines.run.campaign import (
    ImageFiles,
    add_planned_tasks,
    campaign_images,
    cookie_secret,
    open_store,
)
from pipelines.run.record import record
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings) -> int:
    """Plan the tasks, serve the app until Ctrl-C or SIGTERM, then export; return the exit status.

    Raises:
        PictuneError: a file of the campaign is not valid, nobody could sign in, or another app
            serves these labels.
    """
    config = settings.table("label", LabelConfig)
    tasks = settings.table("tasks", TasksConfig)
    files, categories = ImageFiles(run), _categories(run)
    wordings = read_wordings(settings.table("compare", CompareConfig))
    training = read_training(config.training, campaign_images(run)) if config.training else ()
    with (
        ends_in_order(),
        open_store(run, tasks) as store,
        _served_alone(store) as note,
        closing(Exporter(run)) as exporter,
    ):
        if not config.open and not store.raters.has_passwords():
            raise PictuneError(
                f"{run.root}: nobody can sign in yet; `make rater NAME=...` adds a rater, "
                "OPEN=1 lets in anyone with a name"
            )
        with ends_at_once():
            from labeling_app.server import create_app, serve  # noqa: PLC0415 - loads Gradio

        add_planned_tasks(store, run, settings)
        store.comparisons.set_wordings(wordings)
        progress = store.progress()
        by_name = ", anyone may sign in by name" if config.open else ""
        print(f"label: {progress.done} of {progress.total} answers given{by_name}")

        def announce(address: str) -> None:
            note(f"label at {address}")
            record(run, settings)  # only after the app listens: until then a setting may be wrong
            ending = "Ctrl-C ends; every answer is saved as it is given"
            print(f"label at {address} ({ending})", flush=True)

        status = INTERRUPTED  # the server returns after Ctrl-C
        try:
            state = AppState(
                store,
                files.get,
                config,
                tasks=tasks,
                on_export=exporter.export,
                training=training,
                categories=categories,
                quality=exporter.quality,
                tables=run.latest,
            )
            serve(create_app(state, cookie_secret(run)), config, announce)
        except SystemExit as ending:
            if ending.code != TERMINATED:
                raise
            status = TERMINATED
        print(f"label: {exporter.export()}")
        return status


@contextmanager
def _served_alone(store: FeedbackStore) -> Iterator[Callable[[str], None]]:
    """Lock an SQLite file, so that one app at a time serves its labels.

    The lock ends with the process, also after a kill. A database server may have several apps.
    Yields the function that records the app's address.

    Raises:
        PictuneError: another app serves these labels; the message names it.
    """
    database = store.database
    if not database.is_sqlite:
        yield lambda _address: None
        return
    lock = Path(f"{database.engine.url.database}.lock")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(locked(lock, wait=False))
        except BlockingIOError as error:
            other = lock.read_text(encoding="utf-8") or "about to start"
            advice = "stop that one, or use another RUN="
            raise PictuneError(
                f"{lock}: another `make label` serves these labels ({other}); {advice}"
            ) from error

        def note(address: str) -> None:
            file.truncate(0)
            file.write(f"process {os.getpid()}, {address}")
            file.flush()

        note("about to start")
        yield note


def _categories(run: RunFolder) -> dict[str, str]:
    table = read_table(run.prompts_table, PROMPTS)
    pairs = zip(table["prompt_id"].to_pylist(), table["category"].to_pylist(), strict=True)
    return {prompt_id: category for prompt_id, category in pairs if category is not None}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage; all of them set settings."""
    parser.add_argument("--port", type=int, help="port to listen on (label.port)")
    parser.add_argument(
        "--open",
        action="store_const",
        const=True,
        help="anyone may sign in by name alone (label.open)",
    )
    stands_for_settings(parser, port="label.port", open="label.open")
