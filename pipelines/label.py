"""Stage `label`: serves the labeling app until Ctrl-C; labels go to the feedback store and from there to Parquet."""

import importlib
import secrets
from pathlib import Path

from data.errors import PictuneError
from data.files import write_atomically
from data.runs import RunFolder
from data.schema import PROMPTS, read_table
from labeling_app.server import LabelConfig, serve
from labeling_app.tasks import TasksConfig
from labeling_app.training import read_training
from pipelines.config import Settings
from pipelines.exporter import Exporter
from pipelines.record import record
from pipelines.tasks import add_planned_tasks, campaign_images, image_files, open_store


def main(run: RunFolder, settings: Settings) -> None:
    """Plans the tasks, serves the app, and exports at its end.

    Raises:
        PictuneError: a file of the campaign cannot be understood, or nobody could sign in.
    """
    config = settings.table("label", LabelConfig)
    files, categories = ImageFiles(run), _categories(run)
    training = read_training(config.training, campaign_images(run)) if config.training else ()
    with open_store(run, settings.table("tasks", TasksConfig)) as store, Exporter(run, settings) as exporter:
        if not config.open and not store.raters.has_passwords():
            raise PictuneError(f"{run.root}: nobody can sign in yet; `make rater NAME=...` adds a rater, OPEN=1 lets in anyone with a name")
        add_planned_tasks(store, run, settings)
        store.set_priorities(_priorities(run, config))
        record(run, settings)
        progress = store.progress()
        print(f"label: {progress.done} of {progress.total} answers given{', anyone may sign in by name' if config.open else ''}")
        serve(
            store,
            files.get,
            config,
            secret=_cookie_secret(run),
            on_export=exporter.export,
            training=training,
            categories=categories,
            quality=lambda: exporter.quality(categories),
        )
        print(f"label: {exporter.export()}")


class ImageFiles:
    """The files of the run's images, also of those that come in while the app runs."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._read()

    def get(self, image_id: str) -> Path | None:
        """The image's file; None of an image that the run does not have."""
        if image_id not in self._files and self._run.images_table.stat().st_mtime_ns != self._changed_ns:
            self._read()
        return self._files.get(image_id)

    def _read(self) -> None:
        self._changed_ns = self._run.images_table.stat().st_mtime_ns
        self._files = image_files(self._run)


def _priorities(run: RunFolder, config: LabelConfig) -> dict[str, float]:
    if config.order == "random":
        return {}
    # imports torch, which labeling needs for nothing else
    uncertainties: dict[str, float] = importlib.import_module("pipelines.uncertainty").image_uncertainties(run)
    return uncertainties


def _categories(run: RunFolder) -> dict[str, str]:
    table = read_table(run.prompts_table, PROMPTS)
    pairs = zip(table["prompt_id"].to_pylist(), table["category"].to_pylist(), strict=True)
    return {prompt_id: category for prompt_id, category in pairs if category is not None}


def _cookie_secret(run: RunFolder) -> bytes:
    """The key that signs the raters' cookies; kept, so that they stay signed in when the app starts again."""
    path = run.labels_dir / "cookie.key"
    if not path.exists():
        with write_atomically(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()
