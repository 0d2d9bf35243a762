"""The labeling campaign of a run: its feedback store, its tasks, and the export to Parquet."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.feedback import ChecksConfig
from data.files import write_atomically
from data.kinds.registry import KINDS
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from data.store.feedback_store import FeedbackStore
from data.tables.parquet import export
from labeling_app.campaign.known_answers import read_gold
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from pipelines.settings.config import Settings


def own_images(run: RunFolder) -> pa.Table:
    """Return the run's images without those of comparisons, of the playground and of sessions."""
    return read_table(run.images_table, IMAGES).filter(pc.field("origin").is_null())


def column_of_images(run: RunFolder, name: str) -> dict[str, Any]:
    """Return the values of one column of the run's images, by image id."""
    table = read_table(run.images_table, IMAGES)
    return dict(zip(table["image_id"].to_pylist(), table[name].to_pylist(), strict=True))


def image_files(run: RunFolder) -> dict[str, Path]:
    """Return the file of each image id of the run."""
    return {image_id: run.root / path for image_id, path in column_of_images(run, "path").items()}


def images_digest(run: RunFolder) -> str:
    """Return a hash of the ids of the images with single-image tasks."""
    image_ids = sorted(row.image_id for row in set(campaign_images(run).values()))
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


def plan_digest(settings: Settings) -> str:
    """Return a hash of the settings of the raters' tasks.

    Checks and marks are not included: they may change while raters label.
    """
    checks = {*ChecksConfig.model_fields, "gold", "marks", "mark_aspects"}
    plan = settings.table("tasks", TasksConfig).model_dump_json(exclude=checks)
    return hashlib.sha256(plan.encode()).hexdigest()


def campaign_images(run: RunFolder) -> dict[str, ImageRow]:
    """Return the images of `own_images`, both by id and by their path in the run."""
    table = own_images(run)
    columns = (table[name].to_pylist() for name in ("image_id", "prompt", "round"))
    rows = [
        ImageRow(image_id, prompt, number or 1)
        for image_id, prompt, number in zip(*columns, strict=True)
    ]
    by_path = dict(zip(table["path"].to_pylist(), rows, strict=True))
    return {row.image_id: row for row in rows} | by_path


def open_store(run: RunFolder, checks: ChecksConfig = ChecksConfig()) -> FeedbackStore:  # noqa: B008 - frozen
    """Open the run's feedback store, and create it if it is missing; close it after use.

    `checks` is only needed to claim tasks.
    """
    run.labels_dir.mkdir(parents=True, exist_ok=True)
    return FeedbackStore.open(run.store_url, checks=checks)


def add_planned_tasks(store: FeedbackStore, run: RunFolder, settings: Settings) -> int:
    """Plan the tasks of the run's images; return the number of tasks added to the store.

    Raises:
        PictuneError: the file of gold answers is not valid.
    """
    config = settings.table("tasks", TasksConfig)
    images = campaign_images(run)
    planned = plan_tasks(list(images.values()), config)
    gold = read_gold(config.gold, images) if config.gold else ()
    # gold comes last: of two tasks on the same images the store takes the later task
    return store.add_tasks([*planned, *gold])


def export_labels(store: FeedbackStore, run: RunFolder) -> str:
    """Export to Parquet; return a line on it."""
    files = export(store, run).files
    labels = sum(files[f"latest/{kind.table}.parquet"].rows for kind in KINDS.values())
    return f"{labels} labels in {run.latest}"


class ImageFiles:
    """Paths of the run's image files, including images that are added while the app runs."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._read()

    def get(self, image_id: str) -> Path | None:
        """Return the image's file; None if the run does not have the image."""
        if (
            image_id not in self._files
            and self._run.images_table.stat().st_mtime_ns != self._changed_ns
        ):
            self._read()
        return self._files.get(image_id)

    def _read(self) -> None:
        changed_ns = self._run.images_table.stat().st_mtime_ns
        self._files = image_files(self._run)
        self._changed_ns = changed_ns  # last: until then, other threads read the table as well


def cookie_secret(run: RunFolder) -> bytes:
    """Return the key that signs cookies; it is saved, so that raters stay signed in."""
    path = run.labels_dir / "cookie.key"
    if not path.exists():
        with write_atomically(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()
