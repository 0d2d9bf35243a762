"""What the stages `label` and `simulate` share: the run's feedback store with its tasks, and the export to Parquet."""

import hashlib
from pathlib import Path

from data.feedback import ChecksConfig
from data.parquet import export
from data.publication import DatasetConfig, publish
from data.rows import ANSWERS
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from data.store import FeedbackStore
from labeling_app.tasks import ImageRow, TasksConfig, plan_tasks
from labeling_app.training import read_gold
from pipelines.config import Settings


def image_files(run: RunFolder) -> dict[str, Path]:
    """The file of each image id of the run."""
    table = read_table(run.images_table, IMAGES)
    return {
        image_id: run.root / path
        for image_id, path in zip(
            table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True
        )
    }


def images_digest(run: RunFolder) -> str:
    """Hash of which images the run has."""
    image_ids = sorted(read_table(run.images_table, IMAGES)["image_id"].to_pylist())
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


def plan_digest(settings: Settings) -> str:
    """Hash of the settings that say what is asked of raters; checks aside, which come and go while they label."""
    plan = settings.table("tasks", TasksConfig).model_dump_json(
        exclude={*ChecksConfig.model_fields, "gold"}
    )
    return hashlib.sha256(plan.encode()).hexdigest()


def campaign_images(run: RunFolder) -> dict[str, ImageRow]:
    """The run's images by id and by their path in the run."""
    table = read_table(run.images_table, IMAGES)
    rows = [
        ImageRow(*pair)
        for pair in zip(table["image_id"].to_pylist(), table["prompt"].to_pylist(), strict=True)
    ]
    return {row.image_id: row for row in rows} | dict(
        zip(table["path"].to_pylist(), rows, strict=True)
    )


def open_store(run: RunFolder, checks: ChecksConfig = ChecksConfig()) -> FeedbackStore:  # noqa: B008 - frozen
    """The run's feedback store, made if it is not there; close it after use. `checks` concerns those who claim tasks."""
    run.labels_dir.mkdir(parents=True, exist_ok=True)
    return FeedbackStore.open(run.store_url, checks=checks)


def add_planned_tasks(store: FeedbackStore, run: RunFolder, settings: Settings) -> int:
    """Plans the tasks of all images of the run and adds those that are not in the store yet; returns how many.

    Raises:
        PictuneError: the file of gold cannot be understood.
    """
    config = settings.table("tasks", TasksConfig)
    images = campaign_images(run)
    planned = plan_tasks(list(images.values()), config)
    # gold comes last: of two tasks about the same images the store takes the later one
    return store.add_tasks([*planned, *(read_gold(config.gold, images) if config.gold else ())])


def export_labels(store: FeedbackStore, run: RunFolder, settings: Settings) -> str:
    """Exports to Parquet, and copies that to `[dataset] target` if there is one; returns a line that says what was written."""
    files = export(store, run).files
    target = settings.table("dataset", DatasetConfig).target
    if target is not None:
        publish(run, target)
    return f"{sum(files[f'latest/labels_{kind}.parquet'].rows for kind in ANSWERS)} labels in {run.latest}"
