"""The Parquet tables: columns, types and their meaning, which each file stores beside the column.

Names are flat, a row is one fact, timestamps are in UTC with microseconds, and there is no pandas
index. A change may only add columns that can be null. Then `SCHEMA_VERSION` goes up, and files of
earlier versions are read with nulls in their place.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.columns import (
    AUDIT_COLUMNS,
    LABEL_CIRCUMSTANCES,
    LABEL_IDENTITY,
    MOMENT,
    OF_ANSWERS,
    OF_COMPARISONS,
    OF_REVISIONS,
    RATER_QUALITY,
    SMALL_INTEGERS,
    TEXT,
    TEXTS,
    UNSAFE_IMAGES,
    column,
    optional,
)
from data.errors import PictuneError
from data.files import write_atomically
from data.parquet_files import WRITE_AGAIN, parquet_faults

SCHEMA_VERSION = 5
"""Stored in every file's metadata under `schema_version`."""

ROW_GROUP_ROWS = 100_000
"""Large enough for quick scans, small enough to skip by."""

PROMPTS = pa.schema(
    [
        column("prompt_id", TEXT, "SHA-256 of the prompt's text in Unicode normal form C"),
        column("prompt", TEXT, "the text given to the model"),
        optional(
            "category",
            TEXT,
            "what it asks for: object, color, count, composition, place, or a name of your own",
        ),
        optional("split", TEXT, "train, validation or test"),
    ]
)

IMAGES = pa.schema(
    [
        column("image_id", TEXT, "SHA-256 of the file's bytes"),
        column("path", TEXT, "the file, relative to the run's folder"),
        column("prompt_id", TEXT, "the prompt that it was drawn for"),
        column("prompt", TEXT, "the text given to the model"),
        column("width", pa.int32(), "pixels"),
        column("height", pa.int32(), "pixels"),
        column("format", TEXT, "png, webp or jpeg"),
        optional("model_id", TEXT, "folder or hub name of the model; null where nobody said"),
        optional("model_hash", TEXT, "hash of the model's weights; null for images from elsewhere"),
        optional(
            "seed", pa.int64(), "seed of this image's own generator; null for images from elsewhere"
        ),
        optional("steps", pa.int32(), "denoising steps; null for images from elsewhere"),
        optional(
            "guidance",
            pa.float32(),
            "classifier-free guidance scale, 1 is none; null for images from elsewhere",
        ),
        optional("scheduler", TEXT, "class name of the sampler; null for images from elsewhere"),
        optional(
            "eta",
            pa.float32(),
            "noise of the sampler: 0 is DDIM, 1 is DDPM; null for images from elsewhere",
        ),
        column(
            "created_at", MOMENT, "when it was drawn; for images from elsewhere, when they came in"
        ),
        optional("source_uri", TEXT, "where an image from elsewhere came from; null for our own"),
        optional("license", TEXT, "the image's license, if one was named"),
        optional(
            "round",
            pa.int16(),
            "the round that drew it; null means 1, in earlier files and for images from elsewhere",
        ),
        optional(
            "adapter_hash",
            TEXT,
            "SHA-256 of the adapter's file of the tuned model that drew it; null for the base's",
        ),
        optional(
            "stochastic_share",
            pa.float32(),
            "share of the steps, from the first, that have this eta; null where it is not known",
        ),
        optional(
            "origin",
            TEXT,
            "comparison for an image that was drawn to compare models alone and that nothing is "
            "trained on, playground for one that somebody drew there and sent to raters; null for "
            "all others",
        ),
        optional(
            "adapter_strength",
            pa.float32(),
            "factor of the adapter's update; null means 1, as trained",
        ),
    ]
)

COMPARISON, PLAYGROUND = "comparison", "playground"
"""Values of the images' column `origin`: no plan of verdicts and rankings counts them in."""

TASKS = pa.schema(
    [
        column("task_id", TEXT, "identifies the task"),
        column("kind", TEXT, "binary, ranking or comparison"),
        column("prompt_id", TEXT, "the prompt shown"),
        column(
            "image_ids",
            TEXTS,
            "the images shown, in the order that `ranks` and `shown_order` refer to",
        ),
        column("overlap", pa.int16(), "how many people are wanted, and simulated raters besides"),
        column("priority", pa.float32(), "higher is asked first"),
        column("is_gold", pa.bool_(), "true where the right answer is known"),
        optional("gold_json", TEXT, "the right answer as JSON"),
        column("created_at", MOMENT, "when it was planned"),
        optional(
            "gold_source", TEXT, "where the right answer comes from; such a task is a hidden check"
        ),
        optional("repeat_of", TEXT, "the task that asked the same before; null otherwise"),
        optional(
            "withheld_image_ids",
            TEXTS,
            "its images that were reported or removed: it is asked of nobody",
        ),
        *OF_COMPARISONS,
    ]
)

LABELS_BINARY = pa.schema(
    [
        *LABEL_IDENTITY,
        column("image_id", TEXT, "the image judged"),
        column("label", TEXT, "good, bad, skip or unsafe"),
        *LABEL_CIRCUMSTANCES,
    ]
)

LABELS_RANKING = pa.schema(
    [
        *LABEL_IDENTITY,
        column("image_ids", TEXTS, "the images judged"),
        column(
            "shown_order",
            SMALL_INTEGERS,
            "the place on the screen, from 0, of each image of image_ids",
        ),
        column(
            "ranks",
            SMALL_INTEGERS,
            "the rank of each image of image_ids: 1 is best, equal is a tie, null is can't judge",
        ),
        column("n_images", pa.int8(), "how many images were shown"),
        column("n_tie_groups", pa.int8(), "how many ranks are shared by two images or more"),
        *LABEL_CIRCUMSTANCES,
        optional(
            "best_image_id", TEXT, "the image of rank 1; null when there is none or it is shared"
        ),
        UNSAFE_IMAGES,
    ]
)

LABELS_COMPARISONS = pa.schema(
    [
        *LABEL_IDENTITY,
        column("axis", TEXT, "what was asked: overall, alignment, appeal, detailed or count"),
        optional(
            "wording",
            TEXT,
            "SHA-256 of the file with the axis's wording that the rater saw; "
            "null for labels from elsewhere",
        ),
        column("image_ids", TEXTS, "the two images compared; one where the axis is count"),
        column(
            "models", TEXTS, "the model that drew each image of image_ids, as base, rwl or dpok"
        ),
        column(
            "shown_order",
            SMALL_INTEGERS,
            "the place on the screen, from 0 at the left, of each image of image_ids",
        ),
        column(
            "answer",
            TEXT,
            "first or second of image_ids is better, tie, both_bad, skip or unsafe; "
            "count where the axis is count",
        ),
        *OF_ANSWERS,
        *LABEL_CIRCUMSTANCES,
        UNSAFE_IMAGES,
    ]
)

LABELS_LOG = pa.schema(
    [
        column(
            "sequence",
            pa.int64(),
            "counts the revisions of all labels, in the order in which they were saved",
        ),
        column("label_id", TEXT, "identifies this revision of the label (UUID version 7)"),
        column("submission_id", TEXT, "made by the browser; undo- and a random id for an undo"),
        column(
            "revision",
            pa.int16(),
            "1 for the first answer of this rater to this task, then counting edits and undos",
        ),
        column("task_id", TEXT, "the task answered"),
        column("rater_id", TEXT, "salted hash of the rater"),
        column("kind", TEXT, "binary, ranking or comparison"),
        optional("answer_json", TEXT, "the answer; null takes the answer before it back"),
        column(
            "shown_order",
            SMALL_INTEGERS,
            "the place on the screen, from 0, of each image of the task",
        ),
        *OF_REVISIONS,
    ]
)

LABELS_PAIRS = pa.schema(
    [
        column("prompt_id", TEXT, "the prompt shown"),
        column("image_id_0", TEXT, "one image of a ranking"),
        column("image_id_1", TEXT, "another image of it, later in its image_ids"),
        column(
            "label_0",
            pa.float32(),
            "1 when image_id_0 is better, 0.5 for a tie, 0 when it is worse",
        ),
        column("rater_id", TEXT, "salted hash of the rater"),
        column("ranking_label_id", TEXT, "the ranking that the pair is derived from"),
        column("weight", pa.float32(), "1 over the number of pairs of the ranking"),
        optional("task_id", TEXT, "the task answered"),
        optional("source", TEXT, "human, simulated, imported or adjudicator"),
        optional(
            "left_shown",
            pa.int8(),
            "0 when image_id_0 stood before image_id_1 on the screen, else 1",
        ),
        optional("are_different", pa.bool_(), "false for a tie"),
    ]
)

RATERS = pa.schema(
    [
        column("rater_id", TEXT, "salted hash of the rater"),
        column("source", TEXT, "human, simulated, imported or adjudicator"),
        column("joined_at", MOMENT, "when the rater was added"),
        column("n", pa.int32(), "live labels"),
        column(
            "n_skipped",
            pa.int32(),
            "live labels that are skip, unsafe, or a ranking without any rank",
        ),
        column("gold_n", pa.int32(), "live labels on gold tasks that can be right or wrong"),
        optional("gold_accuracy", pa.float32(), "share of gold_n that are right; null without any"),
        optional(
            "median_ms",
            pa.float32(),
            "median time on task in milliseconds; null when none was measured",
        ),
        optional("status", TEXT, "active or paused"),
        *RATER_QUALITY,
    ]
)

CONSENSUS = pa.schema(
    [
        column("task_id", TEXT, "the task answered"),
        column("image_id", TEXT, "the image judged"),
        column(
            "method",
            TEXT,
            "mv (majority vote) and ds (Dawid-Skene) for binary tasks, borda for rankings",
        ),
        column(
            "source",
            TEXT,
            "whose labels: human, simulated, imported, or adjudicator, whose answer decides",
        ),
        column(
            "value",
            pa.float32(),
            "mv, ds: 1 good, 0 bad, 0.5 undecided; "
            "borda: mean share of the others that it beats, ties half",
        ),
        optional(
            "p_good",
            pa.float32(),
            "probability that it is good: share of votes, or Dawid-Skene's; null for rankings",
        ),
        column("n_raters", pa.int32(), "raters whose answers count; skips and repeats do not"),
        optional(
            "entropy",
            pa.float32(),
            "of p_good, in bits: 0 is certain, 1 is undecided; null for rankings",
        ),
    ]
)

AUDIT = pa.schema(AUDIT_COLUMNS)


def prompt_id(prompt: str) -> str:
    """Return the prompt's identity: SHA-256 of its text in Unicode normal form C."""
    return hashlib.sha256(unicodedata.normalize("NFC", prompt).encode()).hexdigest()


def write_table(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Write `table` atomically as Parquet with exactly the columns and types of `schema`.

    Raises:
        PictuneError: columns are missing, unknown or of another type, or a column that must be
            filled has nulls.
    """
    write_batches([table], schema, path)


def write_batches(batches: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    """Write tables one after the other as `write_table` does; return the number of rows.

    Each table becomes one row group or more. The schema's metadata is kept.

    Raises:
        PictuneError: as `write_table`; then nothing is written.
    """
    about = {"schema_version": str(SCHEMA_VERSION), **(schema.metadata or {})}
    described, rows = schema.with_metadata(about), 0
    with (
        write_atomically(path) as temporary,
        pq.ParquetWriter(temporary, described, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_table(_fitted(batch, described, path), row_group_size=ROW_GROUP_ROWS)
            rows += batch.num_rows
    return rows


def _fitted(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    if set(table.column_names) != set(schema.names):
        different = ", ".join(sorted(set(table.column_names) ^ set(schema.names)))
        raise PictuneError(
            f"{path}: the columns {different} are missing or unknown; "
            "give exactly those of data/schema.py"
        )
    required = [field.name for field in schema if not field.nullable]
    empty = ", ".join(name for name in required if table.column(name).null_count)
    if empty:
        raise PictuneError(
            f"{path}: the columns {empty} have empty values; fill them, see data/schema.py"
        )
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PictuneError(f"{path}: {error}; give the column types of data/schema.py") from error


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a Parquet file that `write_table` wrote.

    Columns that a newer version added are omitted. Columns of `schema` that are newer than the file
    are null.

    Raises:
        PictuneError: the file is missing, is not Parquet or damaged, or lacks columns of `schema`
            that must be filled.
    """
    if not path.exists():
        raise PictuneError(f"{path}: no such file; run the stage that writes it first")
    with parquet_faults(path, "the table it should be", WRITE_AGAIN):
        table = pq.read_table(path, partitioning=None)
        for field in schema:
            if field.nullable and field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        table = table.select(schema.names).cast(schema)
        table.validate(full=True)  # a damaged text would otherwise fail wherever it is used first
        return table
