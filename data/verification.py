"""Whether store, Parquet and image files agree: `verify` compares all of it and tells of everything that does not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import sqlalchemy as sa

from data.errors import PictuneError
from data.files import locked_to_read, sha256_of
from data.image_files import open_image
from data.parquet import MANIFEST, PART_ROWS, Manifest, last_sequence, read_manifest
from data.rows import ANSWERS, label_batches, log_table, rater_facts, task_facts, task_table
from data.runs import RunFolder
from data.schema import (
    IMAGES,
    LABELS_BINARY,
    LABELS_LOG,
    LABELS_RANKING,
    PROMPTS,
    TASKS,
    read_table,
)
from data.store import FeedbackStore
from data.tables import labels, task_images, tasks

NAMED = 3
"""How many ids a line names before it only counts."""


@contextmanager
def store_to_read(run: RunFolder) -> Iterator[FeedbackStore]:
    """The run's store for reading alone: of an SQLite file a copy, so that a disk that cannot be written will do."""
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
    """Copies what is committed, also what stands in the write-ahead log alone."""
    # Without a log nobody has it open, and SQLite, which would make one to read, is told that nothing will change.
    immutable = "" if database.with_name(f"{database.name}-wal").exists() else "&immutable=1"
    try:
        with (
            closing(
                sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro{immutable}", uri=True)
            ) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise PictuneError(
            f"{database}: cannot be copied to {copy.parent} for the check ({error}); free that disk"
        ) from error


def verify(store: FeedbackStore, run: RunFolder) -> list[str]:
    """What is wrong with the run's images, its labels and their export, one line each; empty when all is well.

    Every image file is hashed and opened, every exported file is hashed, and what it says of tasks and labels is compared with the store.

    Raises:
        PictuneError: the run's `images.parquet` or `prompts.parquet` is missing or broken.
    """
    images, prompts = read_table(run.images_table, IMAGES), read_table(run.prompts_table, PROMPTS)
    with locked_to_read(
        run.export_lock
    ):  # first: hashing the images takes long, and raters are at work
        of_export = list(_export_faults(store, run))
    return [*_image_faults(run, images), *_orphans(store, run, images, prompts), *of_export]


def _image_faults(run: RunFolder, images: pa.Table) -> Iterator[str]:
    for image_id, name in zip(
        images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True
    ):
        path = run.root / name
        if not path.is_file():
            yield f"{path}: the image is gone; draw the run's images again"
        elif sha256_of(path) != image_id:
            yield f"{path}: the image is not the one that was labeled; its bytes have changed"
        else:
            yield from _damage(path)


def _damage(path: Path) -> Iterator[str]:
    try:
        with open_image(path) as image:
            image.verify()
    except PictuneError as error:
        yield str(error)
    except (OSError, SyntaxError):  # a broken PNG is a SyntaxError
        yield f"{path}: cannot be read as an image; bring a whole file in, under an image id of its own"


def _orphans(
    store: FeedbackStore, run: RunFolder, images: pa.Table, prompts: pa.Table
) -> Iterator[str]:
    known_images, known_prompts = (
        set(images["image_id"].to_pylist()),
        set(prompts["prompt_id"].to_pylist()),
    )
    of_image = sa.select(task_images.c.image_id, sa.func.count()).join(
        labels, labels.c.task_id == task_images.c.task_id
    )
    of_prompt = sa.select(tasks.c.prompt_id, sa.func.count()).join(
        labels, labels.c.task_id == tasks.c.task_id
    )
    with store.database.read() as connection:
        counts = [
            connection.execute(
                query.where(labels.c.is_live).group_by(column).order_by(column)
            ).all()
            for query, column in (
                (of_image, task_images.c.image_id),
                (of_prompt, tasks.c.prompt_id),
            )
        ]
    for image_id, count in counts[0]:
        if image_id not in known_images:
            yield f"image {image_id}: {count} labels refer to it but images.parquet does not have it; draw the run's images again"
    for prompt_id, count in counts[1]:
        if prompt_id not in known_prompts:
            yield f"prompt {prompt_id}: {count} labels refer to it but prompts.parquet does not have it; draw the run's images again"
    lost = set(images["prompt_id"].to_pylist()) - known_prompts
    for prompt_id in sorted(lost):
        yield f"{run.prompts_table}: lacks prompt {prompt_id}, which images.parquet refers to; draw the run's images again"


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
            yield f"{run.latest}: {newer} revisions of labels are newer than the export; export the labels again"
        else:
            yield from _differing_tables(connection, store, run, manifest, sound)


def _unknown_files(run: RunFolder, manifest: Manifest) -> Iterator[str]:
    for folder in (run.latest, run.parts):
        for path in sorted(folder.glob("*.parquet")):
            if (
                not path.name.startswith(".")
                and path.relative_to(run.labels_dir).as_posix() not in manifest.files
            ):
                yield f"{path}: the export does not know this file; move it away, readers would take it for labels"


def _differing_tables(
    connection: sa.Connection,
    store: FeedbackStore,
    run: RunFolder,
    manifest: Manifest,
    sound: list[str],
) -> Iterator[str]:
    known_tasks = task_table(connection)
    facts, raters = task_facts(known_tasks), rater_facts(connection, store.public_rater_id)
    expected = {"tasks": known_tasks}
    expected["labels_binary"] = pa.concat_tables(
        [LABELS_BINARY.empty_table(), *label_batches(connection, "binary", facts, raters)]
    )
    expected["labels_ranking"] = pa.concat_tables(
        [LABELS_RANKING.empty_table(), *label_batches(connection, "ranking", facts, raters)]
    )
    schemas = {"tasks": TASKS, **{f"labels_{kind}": schema for kind, schema in ANSWERS.items()}}
    for name, table in expected.items():
        file = f"latest/{name}.parquet"
        if file in sound:
            yield from _difference(
                run.labels_dir / file, read_table(run.labels_dir / file, schemas[name]), table
            )
        elif file not in manifest.files:
            yield f"{run.latest / MANIFEST}: does not name {name}.parquet; export the labels again"
    for number, name in enumerate(
        sorted(name for name in manifest.files if name.startswith("parts/"))
    ):
        first = number * PART_ROWS + 1
        if name in sound:
            log = log_table(connection, first, first + PART_ROWS - 1, store.public_rater_id)
            yield from _difference(
                run.labels_dir / name, read_table(run.labels_dir / name, LABELS_LOG), log
            )


def _difference(path: Path, exported: pa.Table, stored: pa.Table) -> Iterator[str]:
    """What a table says that the store does not; the first column of TASKS and the first of labels' tables identify the row."""
    if exported.equals(stored):
        return
    key = stored.column_names[0]
    there, here = (
        dict(zip(table[key].to_pylist(), table.to_pylist(), strict=True))
        for table in (exported, stored)
    )
    different = [row for row in here if row in there and here[row] != there[row]]
    for rows, what in (
        ([row for row in here if row not in there], "are in the store but not here"),
        ([row for row in there if row not in here], "are not in the store"),
        (different, "are not as the store has them"),
    ):
        if rows:
            yield f"{path}: {len(rows)} rows {what} ({key} {_named(rows)}); remove the file and export the labels again"


def _named(rows: list[object]) -> str:
    return ", ".join(map(str, rows[:NAMED])) + (", ..." if len(rows) > NAMED else "")
