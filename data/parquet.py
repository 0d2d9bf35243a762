"""Parquet from the feedback store: a projection that can be made again at any time, never the place where labels are kept.

`labels/latest/` holds one file per table with the live labels; `labels/parts/` holds every revision, in files of `PART_ROWS` sequence
numbers that are written once, when their range is full. The same store and the same images give the same bytes. The manifest is written
last: it names every file with its rows and hash, and `verify` compares it with the store.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.files import sha256_of, write_json
from data.rows import TableRow, label_rows, live_labels, log_rows, pair_rows, rater_rows, task_rows
from data.runs import RunFolder
from data.schema import (
    IMAGES,
    LABELS_BINARY,
    LABELS_LOG,
    LABELS_PAIRS,
    LABELS_RANKING,
    PROMPTS,
    RATERS,
    SCHEMA_VERSION,
    TASKS,
    read_table,
    write_table,
)
from data.store import FeedbackStore
from data.tables import labels, task_images

PART_ROWS = 1000
"""Sequence numbers per file of `labels/parts/`."""

MANIFEST = "_manifest.json"


class ExportedFile(BaseModel, frozen=True, extra="forbid"):
    """One file of an export."""

    rows: int
    sha256: str


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What an export wrote; as JSON it is `labels/latest/_manifest.json`."""

    schema_version: int
    last_sequence: int
    """The highest sequence number of a label that the export saw; 0 when there was none."""
    files: dict[str, ExportedFile]
    """By path relative to `labels/`."""


def export(store: FeedbackStore, run: RunFolder) -> Manifest:
    """Writes the run's images, prompts and feedback to `labels/latest/`, and full parts to `labels/parts/`.

    Labels of images that are gone are exported like all others; `verify` tells of them.

    Raises:
        PictuneError: the run's `images.parquet` or `prompts.parquet` is missing or broken, or a file cannot be written.
    """
    tables = {"images": read_table(run.images_table, IMAGES), "prompts": read_table(run.prompts_table, PROMPTS)}
    files = {}
    with store.database.read(settled=labels) as connection:
        last = connection.scalar(sa.select(sa.func.max(labels.c.sequence))) or 0
        for path in _write_full_parts(connection, store, run, last):
            files[path.relative_to(run.labels_dir).as_posix()] = _exported(path, pq.read_metadata(path).num_rows)
        all_tasks = task_rows(connection)
        live = list(live_labels(connection, all_tasks, store.public_rater_id))
        rankings = label_rows(live, "ranking")
        tables["tasks"] = _table(all_tasks, TASKS)
        tables["labels_binary"] = _table(label_rows(live, "binary"), LABELS_BINARY)
        tables["labels_ranking"] = _table(rankings, LABELS_RANKING)
        tables["labels_pairs"] = _table(pair_rows(rankings), LABELS_PAIRS)
        tables["raters"] = _table(rater_rows(connection, live, store.public_rater_id), RATERS)
    for name, table in tables.items():
        path = run.latest / f"{name}.parquet"
        write_table(table, table.schema, path)
        files[path.relative_to(run.labels_dir).as_posix()] = _exported(path, table.num_rows)
    manifest = Manifest(schema_version=SCHEMA_VERSION, last_sequence=last, files=files)
    write_json(run.latest / MANIFEST, manifest.model_dump())
    return manifest


def read_manifest(run: RunFolder) -> Manifest:
    """The manifest of the run's last export.

    Raises:
        PictuneError: there is none, or it is broken.
    """
    path = run.latest / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PictuneError(f"{path}: {error.strerror}; export the labels first") from error
    except ValidationError as error:
        raise PictuneError(f"{path}: not a manifest; export the labels again") from error


def verify(store: FeedbackStore, run: RunFolder) -> list[str]:
    """What is wrong with the run's labels and their export, one line each; empty when all is well."""
    images = read_table(run.images_table, IMAGES)
    return [*_image_faults(run, images), *_orphans(store, images), *_export_faults(store, run)]


def _write_full_parts(connection: sa.Connection, store: FeedbackStore, run: RunFolder, last: int) -> Iterator[Path]:
    for first in range(1, last - PART_ROWS + 2, PART_ROWS):
        end = first + PART_ROWS - 1
        path = run.parts / f"labels-{first:09d}-{end:09d}.parquet"
        if not path.exists():
            write_table(_table(log_rows(connection, first, end, store.public_rater_id), LABELS_LOG), LABELS_LOG, path)
        yield path


def _table(rows: Sequence[TableRow], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def _exported(path: Path, rows: int) -> ExportedFile:
    return ExportedFile(rows=rows, sha256=sha256_of(path))


def _image_faults(run: RunFolder, images: pa.Table) -> Iterator[str]:
    for image_id, name in zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True):
        path = run.root / name
        if not path.is_file():
            yield f"{path}: the image is gone; draw the run's images again"
        elif sha256_of(path) != image_id:
            yield f"{path}: the image is not the one that was labeled; its bytes have changed"


def _orphans(store: FeedbackStore, images: pa.Table) -> Iterator[str]:
    known = set(images["image_id"].to_pylist())
    query = (
        sa.select(task_images.c.image_id, sa.func.count()).join(labels, labels.c.task_id == task_images.c.task_id).where(labels.c.is_live)
    )
    with store.database.read() as connection:
        labeled = connection.execute(query.group_by(task_images.c.image_id).order_by(task_images.c.image_id)).all()
    for image_id, count in labeled:
        if image_id not in known:
            yield f"image {image_id}: {count} labels refer to it but images.parquet does not have it; draw the run's images again"


def _export_faults(store: FeedbackStore, run: RunFolder) -> Iterator[str]:
    try:
        manifest = read_manifest(run)
    except PictuneError as error:
        yield str(error)
        return
    for name, file in manifest.files.items():
        path = run.labels_dir / name
        if not path.is_file():
            yield f"{path}: the file is gone; export the labels again"
        elif sha256_of(path) != file.sha256:
            yield f"{path}: not as it was exported; remove it and export the labels again"
    with store.database.read() as connection:
        last = connection.scalar(sa.select(sa.func.max(labels.c.sequence))) or 0
        kinds = connection.scalars(sa.select(labels.c.kind).where(labels.c.is_live))
        counts = Counter(kinds)
    if last != manifest.last_sequence:
        yield f"{run.latest}: {last - manifest.last_sequence} revisions of labels are newer than the export; export the labels again"
        return
    for kind in ("binary", "ranking"):
        exported = manifest.files.get(f"latest/labels_{kind}.parquet")
        if exported is None or exported.rows != counts[kind]:
            yield f"{run.latest}: the store has {counts[kind]} live {kind} labels, the export another number; export them again"
