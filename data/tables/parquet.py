"""Export of the feedback store to Parquet.

The store alone keeps the labels; the export can be made again at any time. `labels/latest` is a
link to the newest folder of `labels/snapshots/`, which has one file per table with the live labels.
The link moves when all files are on disk, so that a reader never sees a partial export.
`labels/parts/` has every revision, in files of `PART_ROWS` sequence numbers, each written once when
its range is full. The same store and the same images lead to the same bytes. The manifest names
every file with its rows and hash; `data.tables.verification` compares it with the store.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from data import schema
from data.errors import PictuneError
from data.files import locked, new_folder, replace_link, sha256_of, write_json
from data.kinds.registry import KINDS
from data.quality.consensus import consensus
from data.quality.judgments import Judgments
from data.quality.rater_table import rater_quality
from data.regions import LABELS_REGIONS, regions_file
from data.runs import RunFolder
from data.schema import read_metadata, read_table, write_batches, write_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels
from data.store.views import rows
from data.store.views.sessions import session_tables

PART_ROWS = 1000
"""Number of sequence numbers per file of `labels/parts/`."""

MANIFEST = "_manifest.json"


class ExportedFile(BaseModel, frozen=True, extra="forbid"):
    """One file of an export."""

    rows: int
    sha256: str


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """Description of an export; its JSON is `labels/latest/_manifest.json`."""

    schema_version: int
    export_id: str
    """Hash of the tables' hashes, and the name of the folder in `labels/snapshots/`."""
    inputs: str
    """Hash of the inputs of the tables: equal inputs make equal tables."""
    last_sequence: int
    """Highest sequence number of a label in the export; 0 without labels."""
    files: dict[str, ExportedFile]
    """Files by path relative to `labels/`."""


def export(store: FeedbackStore, run: RunFolder) -> Manifest:
    """Write the run's images, prompts and feedback to `labels/latest/` and full parts beside it.

    Labels of images that are gone are exported like all others; `verify` reports them. An export
    that is up to date stays as it is.

    Raises:
        PictuneError: the run's `images.parquet` or `prompts.parquet` is missing or broken, or a
            file cannot be written.
    """
    known = {
        "prompts": read_table(run.prompts_table, schema.PROMPTS),
        "images": read_table(run.images_table, schema.IMAGES),
    }
    # a short transaction, since it blocks PostgreSQL's writers
    with store.database.read(settled=labels) as connection:
        settled = last_sequence(connection)
    with locked(run.export_lock), store.database.read() as connection:
        earlier = None
        with suppress(PictuneError):
            earlier = read_manifest(run)
        parts = dict(_full_parts(connection, store, run, settled, earlier))
        last, tasks = last_sequence(connection), rows.task_table(connection)
        audit = rows.audit_table(connection, store.public_rater_id)
        # counted too, as PostgreSQL may commit a lower sequence number later
        revisions = connection.scalar(sa.select(sa.func.count()).select_from(labels))
        raters = rows.rater_facts(connection, store.public_rater_id)
        slates = session_tables(connection, raters)
        facts = (last, revisions, list(raters.values()), sorted(parts))
        inputs = _digest((*known.values(), tasks, audit, *slates.values()), facts)
        if earlier is not None and earlier.inputs == inputs and _is_intact(run, earlier):
            return earlier
        with new_folder(run.snapshots) as folder:
            for name, table in known.items():
                write_table(table, table.schema, folder / f"{name}.parquet")
            write_table(audit, schema.AUDIT, folder / "audit.parquet")
            for name, table in slates.items():
                write_table(table, table.schema, folder / f"{name}.parquet")
            _write_feedback(connection, folder, tasks, raters)
            manifest = _manifest_of(folder, inputs, last, parts)
            write_json(folder / MANIFEST, manifest.model_dump())
            _switch(run, folder, manifest.export_id)
    return manifest


def read_manifest(run: RunFolder) -> Manifest:
    """Read the manifest of the run's last export.

    Raises:
        PictuneError: the manifest is missing or broken.
    """
    path = run.latest / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PictuneError(f"{path}: {error.strerror}; export the labels first") from error
    except ValidationError as error:
        raise PictuneError(f"{path}: not a manifest; export the labels again") from error


def learned_from_digest(run: RunFolder) -> str:
    """Return a hash of the last export's labels that training uses.

    Comparisons of models are excluded, since training never uses them.

    Raises:
        PictuneError: there is no export, or its manifest is broken.
    """
    files = read_manifest(run).files
    names = ("labels_binary", "labels_ranking", "labels_pairs")
    hashes = [files[f"latest/{name}.parquet"].sha256 for name in names]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def last_sequence(connection: sa.Connection) -> int:
    """Return the highest sequence number of a label; 0 without labels."""
    return connection.scalar(sa.select(sa.func.max(labels.c.sequence))) or 0


def _is_intact(run: RunFolder, manifest: Manifest) -> bool:
    """Whether `labels/latest` has all tables of the manifest, unchanged."""
    return run.latest.is_symlink() and all(
        (path := run.labels_dir / name).is_file() and sha256_of(path) == file.sha256
        for name, file in manifest.files.items()
        if name.startswith("latest/")
    )


def _full_parts(
    connection: sa.Connection,
    store: FeedbackStore,
    run: RunFolder,
    last: int,
    earlier: Manifest | None,
) -> Iterator[tuple[str, ExportedFile]]:
    """Write the missing parts whose range is full; yield all parts."""
    for killed in run.parts.glob(".tmp-*"):
        killed.unlink()
    for first in range(1, last - PART_ROWS + 2, PART_ROWS):
        end = first + PART_ROWS - 1
        path = run.parts / f"labels-{first:09d}-{end:09d}.parquet"
        name = path.relative_to(run.labels_dir).as_posix()
        known = earlier.files.get(name) if earlier is not None and path.exists() else None
        if not path.exists():
            log = rows.log_table(connection, first, end, store.public_rater_id)
            write_table(log, schema.LABELS_LOG, path)
        yield name, known or _described(path)


def _digest(tables: Iterable[pa.Table], facts: object) -> str:
    digest = hashlib.sha256(repr((schema.SCHEMA_VERSION, facts)).encode())
    for table in tables:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        digest.update(sink.getvalue())
    return digest.hexdigest()


def _write_feedback(
    connection: sa.Connection,
    folder: Path,
    tasks: pa.Table,
    raters: Mapping[str, rows.RaterFacts],
) -> None:
    write_table(tasks, schema.TASKS, folder / "tasks.parquet")
    facts = rows.task_facts(tasks)
    for name, kind in KINDS.items():
        batches = rows.label_batches(connection, name, facts, raters)
        write_batches(batches, kind.schema, folder / f"{kind.table}.parquet")
    marks = rows.region_batches(connection, facts, raters)
    for first in marks:  # no file without marks
        write_batches(chain([first], marks), LABELS_REGIONS, regions_file(folder))
    rankings = pq.ParquetFile(folder / "labels_ranking.parquet")
    groups = (rankings.read_row_group(number) for number in range(rankings.num_row_groups))
    pairs = rows.pair_batches(groups)
    write_batches(pairs, schema.LABELS_PAIRS, folder / "labels_pairs.parquet")
    judgments = Judgments.read(folder)
    quality = rater_quality(judgments, list(raters.values()))
    write_table(quality, schema.RATERS, folder / "raters.parquet")
    write_table(consensus(judgments), schema.CONSENSUS, folder / "consensus.parquet")


def _described(path: Path) -> ExportedFile:
    return ExportedFile(rows=read_metadata(path).num_rows, sha256=sha256_of(path))


def _manifest_of(folder: Path, inputs: str, last: int, parts: dict[str, ExportedFile]) -> Manifest:
    tables = {path.name: _described(path) for path in sorted(folder.iterdir())}
    lines = "".join(f"{name} {file.sha256}\n" for name, file in tables.items())
    return Manifest(
        schema_version=schema.SCHEMA_VERSION,
        export_id=hashlib.sha256(lines.encode()).hexdigest()[:16],
        inputs=inputs,
        last_sequence=last,
        files=parts | {f"latest/{name}": file for name, file in tables.items()},
    )


def _switch(run: RunFolder, folder: Path, export_id: str) -> None:
    """Make the new tables the latest; keep the previous tables for readers that still use them."""
    before = run.latest.resolve().name
    new = run.snapshots / export_id
    if new.exists():  # the same tables, but damaged later
        for path in folder.iterdir():
            path.replace(new / path.name)
    else:
        folder.rename(new)
    # a plain folder, as exports were before there were snapshots
    if run.latest.is_dir() and not run.latest.is_symlink():
        before = f"before-{export_id}"
        run.latest.rename(run.snapshots / before)
    replace_link(run.latest, new)
    for old in run.snapshots.iterdir():
        if old.is_dir() and old.name not in (before, export_id):
            _remove(old)


def _remove(snapshot: Path) -> None:
    """Remove the files of an export; other files in its folder stay."""
    for path in [*snapshot.glob("*.parquet"), *snapshot.glob(f"*{MANIFEST}")]:
        path.unlink()
    with suppress(OSError):
        snapshot.rmdir()
