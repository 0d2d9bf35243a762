"""Comparison of store, Parquet and image files: `verify` reports all differences."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import sqlalchemy as sa

from data.errors import PictuneError
from data.files import locked_to_read, sha256_of
from data.image_files import check_image
from data.kinds.registry import KINDS
from data.regions import LABELS_REGIONS, REGIONS_TABLE
from data.runs import RunFolder
from data.schema import AUDIT, IMAGES, LABELS_LOG, PROMPTS, TASKS, read_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, session_candidates, task_images, tasks
from data.store.views import rows
from data.store.views.sessions import SESSION_TABLES, session_tables
from data.tables.parquet import MANIFEST, PART_ROWS, Manifest, last_sequence, read_manifest

MOST_IDS_NAMED = 3
"""Largest number of ids in one line; further ids are only counted."""


@contextmanager
def store_to_read(run: RunFolder) -> Iterator[FeedbackStore]:
    """Open the run's store read-only.

    An SQLite file is copied first, so that it can lie on a read-only disk.
    """
    url = sa.make_url(run.store_url)
    if url.get_backend_name() != "sqlite":
        with FeedbackStore.open(run.store_url) as store:
            yield store
        return
    assert url.database is not None
    with TemporaryDirectory(prefix="pictune-") as folder:
        _copy(Path(url.database), copy := Path(folder) / "feedback.db")
        with FeedbackStore.open(f"sqlite:///{copy}") as store:
            yield store


def _copy(database: Path, copy: Path) -> None:
    """Copy all commits, including commits that are only in the write-ahead log."""
    # Without a log no process has the database open. `immutable` then keeps SQLite from creating a
    # log.
    immutable = "" if database.with_name(f"{database.name}-wal").exists() else "&immutable=1"
    read_only = f"{database.resolve().as_uri()}?mode=ro{immutable}"
    try:
        with (
            closing(sqlite3.connect(read_only, uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise PictuneError(
            f"{database}: cannot be copied to {copy.parent} for the check ({error}); free that disk"
        ) from error


def verify(store: FeedbackStore, run: RunFolder) -> list[str]:
    """Return the faults of the run's images, labels and export, one line each.

    Every image file is hashed and opened, and every exported file is hashed. The exported tables of
    tasks and labels are compared with the store.

    Raises:
        PictuneError: the run's `images.parquet` or `prompts.parquet` is missing or broken.
    """
    images, prompts = read_table(run.images_table, IMAGES), read_table(run.prompts_table, PROMPTS)
    # The export comes first: hashing the images takes long, and raters may add labels meanwhile.
    with locked_to_read(run.export_lock):
        export_faults = list(_export_faults(store, run))
    return [
        *_image_faults(run, images),
        *_orphans(store, images, prompts),
        *_unknown_prompts(run, images, prompts),
        *export_faults,
    ]


def _image_faults(run: RunFolder, images: pa.Table) -> Iterator[str]:
    for image in images.select(["image_id", "path"]).to_pylist():
        path = run.root / image["path"]
        if not path.is_file():
            yield f"{path}: the image is gone; draw the run's images again"
        elif sha256_of(path) != image["image_id"]:
            yield f"{path}: the image is not the one that was labeled; its bytes have changed"
        else:
            try:
                check_image(path, "bring a whole file in, under an image id of its own")
            except PictuneError as error:
                yield str(error)


def _orphans(store: FeedbackStore, images: pa.Table, prompts: pa.Table) -> Iterator[str]:
    """Find live labels of images and prompts that are not in the run's tables."""
    with store.database.read() as connection:
        for name, table, column, task_id in (
            ("image", images, task_images.c.image_id, task_images.c.task_id),
            ("prompt", prompts, tasks.c.prompt_id, tasks.c.task_id),
        ):
            known = set(table[f"{name}_id"].to_pylist())
            counts = sa.select(column, sa.func.count()).join(labels, labels.c.task_id == task_id)
            live = counts.where(labels.c.is_live).group_by(column).order_by(column)
            for key, count in connection.execute(live).all():
                if key not in known:
                    yield (
                        f"{name} {key}: {count} labels refer to it but {name}s.parquet does not "
                        "have it; draw the run's images again"
                    )
        known = set(images["image_id"].to_pylist())
        for shown in connection.scalars(sa.select(session_candidates.c.image_ids)):
            for image_id in set(shown) - known:
                yield f"image {image_id}: a session showed it but images.parquet does not have it"


def _unknown_prompts(run: RunFolder, images: pa.Table, prompts: pa.Table) -> Iterator[str]:
    lost = set(images["prompt_id"].to_pylist()) - set(prompts["prompt_id"].to_pylist())
    for prompt_id in sorted(lost):
        yield (
            f"{run.prompts_table}: lacks prompt {prompt_id}, which images.parquet refers to; "
            "draw the run's images again"
        )


def _export_faults(store: FeedbackStore, run: RunFolder) -> Iterator[str]:
    try:
        manifest = read_manifest(run)
    except PictuneError as error:
        yield str(error)
        return
    sound = []
    for name, file in manifest.files.items():
        path = run.labels_dir / name
        if not path.is_file():
            yield f"{path}: the file is gone; export the labels again"
        elif sha256_of(path) != file.sha256:
            yield f"{path}: not as it was exported; remove it and export the labels again"
        else:
            sound.append(name)
    yield from _unknown_files(run, manifest)
    with store.database.read() as connection:
        newer = last_sequence(connection) - manifest.last_sequence
        if newer:
            yield (
                f"{run.latest}: {newer} revisions of labels are newer than the export; "
                "export the labels again"
            )
        else:
            yield from _differing_tables(connection, store, run, manifest, sound)


def _unknown_files(run: RunFolder, manifest: Manifest) -> Iterator[str]:
    for folder in (run.latest, run.parts):
        for path in sorted(folder.glob("*.parquet")):
            name = path.relative_to(run.labels_dir).as_posix()
            if not path.name.startswith(".") and name not in manifest.files:
                yield (
                    f"{path}: the export does not know this file; "
                    "move it away, readers would take it for labels"
                )


def _differing_tables(
    connection: sa.Connection,
    store: FeedbackStore,
    run: RunFolder,
    manifest: Manifest,
    sound: list[str],
) -> Iterator[str]:
    known_tasks = rows.task_table(connection)
    facts, public = rows.task_facts(known_tasks), store.public_rater_id
    raters, audit = rows.rater_facts(connection, public), rows.audit_table(connection, public)
    expected = {"tasks": (TASKS, known_tasks), "audit": (AUDIT, audit)}
    for name, kind in KINDS.items():
        expected[kind.table] = kind.schema, rows.label_table(connection, name, facts, raters)
    marks = list(rows.region_batches(connection, facts, raters))
    if marks or f"latest/{REGIONS_TABLE}.parquet" in manifest.files:
        stored = pa.concat_tables([LABELS_REGIONS.empty_table(), *marks])
        expected[REGIONS_TABLE] = LABELS_REGIONS, stored
    slates = session_tables(connection, raters)
    if slates or "latest/sessions.parquet" in manifest.files:
        for name, schema in SESSION_TABLES.items():
            expected[name] = schema, slates.get(name, schema.empty_table())
    for name, (schema, table) in expected.items():
        file = f"latest/{name}.parquet"
        path = run.labels_dir / file
        if file in sound:
            yield from _difference(path, read_table(path, schema), table)
        elif file not in manifest.files:
            yield f"{run.latest / MANIFEST}: does not name {name}.parquet; export the labels again"
    parts = sorted(name for name in manifest.files if name.startswith("parts/"))
    for number, name in enumerate(parts):
        first = number * PART_ROWS + 1
        if name in sound:
            path = run.labels_dir / name
            log = rows.log_table(connection, first, first + PART_ROWS - 1, store.public_rater_id)
            yield from _difference(path, read_table(path, LABELS_LOG), log)


def _difference(path: Path, exported: pa.Table, stored: pa.Table) -> Iterator[str]:
    """Report values of the first column whose rows differ in an exported table and the store."""
    if exported.equals(stored):
        return
    key = stored.column_names[0]
    there, here = (_rows_by(key, table) for table in (exported, stored))
    different = [row for row in here if row in there and here[row] != there[row]]
    for found, what in (
        ([row for row in here if row not in there], "are in the store but not here"),
        ([row for row in there if row not in here], "are not in the store"),
        (different, "are not as the store has them"),
    ):
        if found:
            more = ", ..." if len(found) > MOST_IDS_NAMED else ""
            named = ", ".join(map(str, found[:MOST_IDS_NAMED])) + more
            yield (
                f"{path}: {len(found)} rows {what} ({key} {named}); "
                "remove the file and export the labels again"
            )


def _rows_by(key: str, table: pa.Table) -> dict[object, list[dict[str, object]]]:
    rows = defaultdict(list)
    for row in table.to_pylist():
        rows[row[key]].append(row)
    return rows
