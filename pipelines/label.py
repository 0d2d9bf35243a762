"""Stage `label`: serves the labeling app until Ctrl-C; labels go to the feedback store and from there to Parquet."""

import secrets

from data.files import write_atomically
from data.parquet import export
from data.runs import RunFolder
from data.store import FeedbackStore
from labeling_app.server import LabelConfig, serve
from pipelines.config import Settings
from pipelines.record import record
from pipelines.tasks import add_planned_tasks, export_labels, image_files, open_store


def main(run: RunFolder, settings: Settings) -> None:
    """Plans the tasks, serves the app, and exports at its end."""
    files = image_files(run)
    record(run, settings)
    with open_store(run) as store:
        add_planned_tasks(store, run, settings)
        progress = store.progress()
        print(f"label: {progress.done} of {progress.total} answers given")
        serve(store, files.get, settings.table("label", LabelConfig), secret=_cookie_secret(run), on_export=lambda: _export(store, run))
        print(f"label: {export_labels(store, run)}")


def _export(store: FeedbackStore, run: RunFolder) -> None:
    export(store, run)


def _cookie_secret(run: RunFolder) -> bytes:
    """The key that signs the raters' cookies; kept, so that they stay signed in when the app starts again."""
    path = run.labels_dir / "cookie.key"
    if not path.exists():
        with write_atomically(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()
