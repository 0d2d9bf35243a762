"""What the stages `label` and `simulate` share: the run's feedback store with its tasks, and the export to Parquet."""

import hashlib
from pathlib import Path

from data.parquet import export
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from data.store import FeedbackStore
from labeling_app.tasks import ImageRow, TasksConfig, plan_tasks
from pipelines.config import Settings


def image_files(run: RunFolder) -> dict[str, Path]:
    """The file of each image id of the run."""
    table = read_table(run.images_table, IMAGES)
    return {image_id: run.root / path for image_id, path in zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True)}


def images_digest(run: RunFolder) -> str:
    """Hash of which images the run has."""
    image_ids = sorted(read_table(run.images_table, IMAGES)["image_id"].to_pylist())
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


def open_store(run: RunFolder) -> FeedbackStore:
    """The run's feedback store, made if it is not there; close it after use."""
    run.labels_dir.mkdir(parents=True, exist_ok=True)
    return FeedbackStore.open(run.store_url)


def add_planned_tasks(store: FeedbackStore, run: RunFolder, settings: Settings) -> int:
    """Plans the tasks of all images of the run and adds those that are not in the store yet; returns how many."""
    table = read_table(run.images_table, IMAGES)
    rows = [ImageRow(*pair) for pair in zip(table["image_id"].to_pylist(), table["prompt"].to_pylist(), strict=True)]
    return store.add_tasks(plan_tasks(rows, settings.table("tasks", TasksConfig)))


def export_labels(store: FeedbackStore, run: RunFolder) -> str:
    """Exports to Parquet; returns a line that says what was written."""
    export(store, run)
    return f"{store.progress().done} labels in {run.latest}"
