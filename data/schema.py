"""The Parquet tables: columns, types and what they mean; each column's description is stored in the file beside it.

Flat names, one row per fact, timestamps in UTC with microseconds, no pandas index. A change may only add columns; then `SCHEMA_VERSION`
goes up.
"""

import hashlib
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import PictuneError
from data.files import write_atomically

SCHEMA_VERSION = 1
"""Stored in every file's metadata under `schema_version`."""

ROW_GROUP_ROWS = 100_000
"""Large enough for quick scans, small enough to skip by."""

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
SMALL_INTEGERS = pa.list_(pa.int8())
MOMENT = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


PROMPTS = pa.schema(
    [
        _column("prompt_id", TEXT, "SHA-256 of the prompt's text in Unicode normal form C"),
        _column("prompt", TEXT, "the text given to the model"),
        _column("category", TEXT, "what it asks for: object, color, count, composition, place, or a name of your own", nullable=True),
        _column("split", TEXT, "train, validation or test", nullable=True),
    ]
)

IMAGES = pa.schema(
    [
        _column("image_id", TEXT, "SHA-256 of the file's bytes"),
        _column("path", TEXT, "the file, relative to the run's folder"),
        _column("prompt_id", TEXT, "the prompt that it was drawn for"),
        _column("prompt", TEXT, "the text given to the model"),
        _column("width", pa.int32(), "pixels"),
        _column("height", pa.int32(), "pixels"),
        _column("format", TEXT, "png, webp or jpeg"),
        _column("model_id", TEXT, "folder or hub name of the model"),
        _column("model_hash", TEXT, "hash of the model's weights"),
        _column("seed", pa.int64(), "seed of this image's own generator"),
        _column("steps", pa.int32(), "denoising steps"),
        _column("guidance", pa.float32(), "classifier-free guidance scale; 1 is none"),
        _column("scheduler", TEXT, "class name of the sampler"),
        _column("eta", pa.float32(), "noise of the sampler: 0 is deterministic DDIM, 1 is DDPM"),
        _column("created_at", MOMENT, "when it was drawn"),
    ]
)

TASKS = pa.schema(
    [
        _column("task_id", TEXT, "identifies the task"),
        _column("kind", TEXT, "binary or ranking"),
        _column("prompt_id", TEXT, "the prompt shown"),
        _column("image_ids", TEXTS, "the images shown, in the order that `ranks` and `shown_order` refer to"),
        _column("overlap", pa.int16(), "how many raters are wanted"),
        _column("priority", pa.float32(), "higher is asked first"),
        _column("is_gold", pa.bool_(), "true where the right answer is known"),
        _column("gold_json", TEXT, "the right answer as JSON", nullable=True),
        _column("created_at", MOMENT, "when it was planned"),
    ]
)

_WHO_AND_WHAT = [
    _column("label_id", TEXT, "identifies this revision of the label (UUID version 7)"),
    _column("submission_id", TEXT, "made by the browser, unique: a retry is not a second label"),
    _column("revision", pa.int16(), "1 for the first answer of this rater to this task, then counting edits and undos"),
    _column("task_id", TEXT, "the task answered"),
    _column("prompt_id", TEXT, "the prompt shown"),
    _column("rater_id", TEXT, "salted hash of the rater"),
]

_CIRCUMSTANCES = [
    _column("skip_reason", TEXT, "why the rater skipped or found it unsafe", nullable=True),
    _column("comment", TEXT, "free text", nullable=True),
    _column("source", TEXT, "human or simulated"),
    _column("is_gold", pa.bool_(), "true where the right answer is known"),
    _column("gold_correct", pa.bool_(), "agrees with the right answer; null without one or when skipped", nullable=True),
    _column("shown_at", MOMENT, "when the task was handed to the rater"),
    _column("submitted_at", MOMENT, "when the label was saved"),
    _column("time_on_task_ms", pa.int32(), "milliseconds as measured by the browser", nullable=True),
    _column("lease_late", pa.bool_(), "arrived after the rater's hold on the task had run out"),
    _column("input_mode", TEXT, "key, mouse or touch", nullable=True),
    _column("app_version", TEXT, "version of the labeling app", nullable=True),
    _column("guideline_version", TEXT, "version of the guidelines shown", nullable=True),
    _column("session_id", TEXT, "the rater's browser session", nullable=True),
]

LABELS_BINARY = pa.schema(
    [
        *_WHO_AND_WHAT,
        _column("image_id", TEXT, "the image judged"),
        _column("label", TEXT, "good, bad, skip or unsafe"),
        *_CIRCUMSTANCES,
    ]
)

LABELS_RANKING = pa.schema(
    [
        *_WHO_AND_WHAT,
        _column("image_ids", TEXTS, "the images judged"),
        _column("shown_order", SMALL_INTEGERS, "the place on the screen, from 0, of each image of image_ids"),
        _column("ranks", SMALL_INTEGERS, "the rank of each image of image_ids: 1 is best, equal is a tie, null is can't judge"),
        _column("n_images", pa.int8(), "how many images were shown"),
        _column("n_tie_groups", pa.int8(), "how many ranks are shared by two images or more"),
        *_CIRCUMSTANCES,
    ]
)

LABELS_LOG = pa.schema(
    [
        _column("sequence", pa.int64(), "counts the revisions of all labels, in the order in which they were saved"),
        _column("label_id", TEXT, "identifies this revision of the label (UUID version 7)"),
        _column("submission_id", TEXT, "made by the browser; undo- and the label's id for an undo"),
        _column("revision", pa.int16(), "1 for the first answer of this rater to this task, then counting edits and undos"),
        _column("task_id", TEXT, "the task answered"),
        _column("rater_id", TEXT, "salted hash of the rater"),
        _column("kind", TEXT, "binary or ranking"),
        _column("answer_json", TEXT, "the answer; null takes the answer before it back", nullable=True),
        _column("shown_order", SMALL_INTEGERS, "the place on the screen, from 0, of each image of the task"),
        *(column for column in _CIRCUMSTANCES if column.name not in ("skip_reason", "comment", "source", "is_gold", "gold_correct")),
    ]
)

LABELS_PAIRS = pa.schema(
    [
        _column("prompt_id", TEXT, "the prompt shown"),
        _column("image_id_0", TEXT, "one image of a ranking"),
        _column("image_id_1", TEXT, "another image of it, later in its image_ids"),
        _column("label_0", pa.float32(), "1 when image_id_0 is better, 0.5 for a tie, 0 when it is worse"),
        _column("rater_id", TEXT, "salted hash of the rater"),
        _column("ranking_label_id", TEXT, "the ranking that the pair is derived from"),
        _column("weight", pa.float32(), "1 over the number of pairs of the ranking"),
    ]
)

RATERS = pa.schema(
    [
        _column("rater_id", TEXT, "salted hash of the rater"),
        _column("source", TEXT, "human or simulated"),
        _column("joined_at", MOMENT, "when the rater was added"),
        _column("n", pa.int32(), "live labels"),
        _column("n_skipped", pa.int32(), "live labels that are skip, unsafe, or a ranking without any rank"),
        _column("gold_n", pa.int32(), "live labels on gold tasks that can be right or wrong"),
        _column("gold_accuracy", pa.float32(), "share of gold_n that are right; null without any", nullable=True),
        _column("median_ms", pa.float32(), "median time on task in milliseconds; null when none was measured", nullable=True),
    ]
)


def prompt_id(prompt: str) -> str:
    """The prompt's identity: SHA-256 of its text in Unicode normal form C."""
    return hashlib.sha256(unicodedata.normalize("NFC", prompt).encode()).hexdigest()


def write_table(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Writes `table` atomically as Parquet with exactly the columns and types of `schema`.

    Raises:
        PictuneError: columns are missing, unknown or of another type, or a column that must be filled has nulls.
    """
    if set(table.column_names) != set(schema.names):
        different = sorted(set(table.column_names) ^ set(schema.names))
        raise PictuneError(f"{path}: the columns {', '.join(different)} are missing or unknown; give exactly those of data/schema.py")
    empty = [field.name for field in schema if not field.nullable and table.column(field.name).null_count]
    if empty:
        raise PictuneError(f"{path}: the columns {', '.join(empty)} have empty values; fill them, see data/schema.py")
    try:
        cast = table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PictuneError(f"{path}: {error}; give the column types of data/schema.py") from error
    described = cast.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
    with write_atomically(path) as temporary:
        pq.write_table(described, temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Reads a Parquet file that `write_table` wrote; columns that a newer version added are left out.

    Raises:
        PictuneError: the file is missing, is not Parquet, or lacks columns of `schema`.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        return table.select(schema.names).cast(schema)
    except FileNotFoundError as error:
        raise PictuneError(f"{path}: no such file; run the stage that writes it first") from error
    except (pa.ArrowInvalid, KeyError) as error:
        reason = str(error).strip("\"'").splitlines()[0]
        raise PictuneError(f"{path}: not the table it should be ({reason}); remove it and run the stage that writes it again") from error
