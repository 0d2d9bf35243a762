"""The Parquet tables: columns, types and what they mean; each column's description is stored in the file beside it.

Flat names, one row per fact, timestamps in UTC with microseconds, no pandas index. A change may only add columns that can be null; then
`SCHEMA_VERSION` goes up, and files of earlier versions are read with nulls in their place.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import PictuneError
from data.files import write_atomically

SCHEMA_VERSION = 3
"""Stored in every file's metadata under `schema_version`."""

WRITE_AGAIN = "remove it and run the stage that writes it again"

ROW_GROUP_ROWS = 100_000
"""Large enough for quick scans, small enough to skip by."""

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
SMALL_INTEGERS = pa.list_(pa.int8())
MOMENT = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _share(name: str, of: str) -> list[pa.Field]:
    """The bounds of a share's interval."""
    return [
        _column(
            f"{name}_ci_{end}",
            pa.float32(),
            f"{bound} bound of {of}, 95 % Wilson interval",
            nullable=True,
        )
        for end, bound in (("low", "lower"), ("high", "upper"))
    ]


PROMPTS = pa.schema(
    [
        _column("prompt_id", TEXT, "SHA-256 of the prompt's text in Unicode normal form C"),
        _column("prompt", TEXT, "the text given to the model"),
        _column(
            "category",
            TEXT,
            "what it asks for: object, color, count, composition, place, or a name of your own",
            nullable=True,
        ),
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
        _column(
            "model_id",
            TEXT,
            "folder or hub name of the model; null where nobody said",
            nullable=True,
        ),
        _column(
            "model_hash",
            TEXT,
            "hash of the model's weights; null for images from elsewhere",
            nullable=True,
        ),
        _column(
            "seed",
            pa.int64(),
            "seed of this image's own generator; null for images from elsewhere",
            nullable=True,
        ),
        _column(
            "steps", pa.int32(), "denoising steps; null for images from elsewhere", nullable=True
        ),
        _column(
            "guidance",
            pa.float32(),
            "classifier-free guidance scale, 1 is none; null for images from elsewhere",
            nullable=True,
        ),
        _column(
            "scheduler",
            TEXT,
            "class name of the sampler; null for images from elsewhere",
            nullable=True,
        ),
        _column(
            "eta",
            pa.float32(),
            "noise of the sampler: 0 is DDIM, 1 is DDPM; null for images from elsewhere",
            nullable=True,
        ),
        _column(
            "created_at", MOMENT, "when it was drawn; for images from elsewhere, when they came in"
        ),
        _column(
            "source_uri",
            TEXT,
            "where an image from elsewhere came from; null for our own",
            nullable=True,
        ),
        _column("license", TEXT, "the image's license, if one was named", nullable=True),
    ]
)

TASKS = pa.schema(
    [
        _column("task_id", TEXT, "identifies the task"),
        _column("kind", TEXT, "binary or ranking"),
        _column("prompt_id", TEXT, "the prompt shown"),
        _column(
            "image_ids",
            TEXTS,
            "the images shown, in the order that `ranks` and `shown_order` refer to",
        ),
        _column("overlap", pa.int16(), "how many people are wanted, and simulated raters besides"),
        _column("priority", pa.float32(), "higher is asked first"),
        _column("is_gold", pa.bool_(), "true where the right answer is known"),
        _column("gold_json", TEXT, "the right answer as JSON", nullable=True),
        _column("created_at", MOMENT, "when it was planned"),
        _column(
            "gold_source",
            TEXT,
            "where the right answer comes from; such a task is a hidden check",
            nullable=True,
        ),
        _column(
            "repeat_of", TEXT, "the task that asked the same before; null otherwise", nullable=True
        ),
        _column(
            "withheld_image_ids",
            TEXTS,
            "its images that were reported or removed: it is asked of nobody",
            nullable=True,
        ),
    ]
)

_WHO_AND_WHAT = [
    _column("label_id", TEXT, "identifies this revision of the label (UUID version 7)"),
    _column("submission_id", TEXT, "made by the browser, unique: a retry is not a second label"),
    _column(
        "revision",
        pa.int16(),
        "1 for the first answer of this rater to this task, then counting edits and undos",
    ),
    _column("task_id", TEXT, "the task answered"),
    _column("prompt_id", TEXT, "the prompt shown"),
    _column("rater_id", TEXT, "salted hash of the rater"),
]

_CIRCUMSTANCES = [
    _column("skip_reason", TEXT, "why the rater skipped or found it unsafe", nullable=True),
    _column("comment", TEXT, "free text", nullable=True),
    _column("source", TEXT, "human, simulated or imported"),
    _column("is_gold", pa.bool_(), "true where the right answer is known"),
    _column(
        "gold_correct",
        pa.bool_(),
        "agrees with the right answer; null without one or when skipped, unless skip or unsafe is right",
        nullable=True,
    ),
    _column("shown_at", MOMENT, "when the task was handed to the rater"),
    _column("submitted_at", MOMENT, "when the label was saved"),
    _column(
        "time_on_task_ms", pa.int32(), "milliseconds as measured by the browser", nullable=True
    ),
    _column("lease_late", pa.bool_(), "arrived after the rater's hold on the task had run out"),
    _column("input_mode", TEXT, "key, mouse or touch", nullable=True),
    _column("app_version", TEXT, "version of the labeling app", nullable=True),
    _column("guideline_version", TEXT, "version of the guidelines shown", nullable=True),
    _column("session_id", TEXT, "the rater's browser session", nullable=True),
    _column(
        "active_ms",
        pa.int32(),
        "milliseconds in which the page was visible and the rater not idle",
        nullable=True,
    ),
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
        _column(
            "shown_order",
            SMALL_INTEGERS,
            "the place on the screen, from 0, of each image of image_ids",
        ),
        _column(
            "ranks",
            SMALL_INTEGERS,
            "the rank of each image of image_ids: 1 is best, equal is a tie, null is can't judge",
        ),
        _column("n_images", pa.int8(), "how many images were shown"),
        _column("n_tie_groups", pa.int8(), "how many ranks are shared by two images or more"),
        *_CIRCUMSTANCES,
        _column(
            "best_image_id",
            TEXT,
            "the image of rank 1; null when there is none or it is shared",
            nullable=True,
        ),
        _column(
            "unsafe_image_ids", TEXTS, "the images that the rater reported as unsafe", nullable=True
        ),
    ]
)

LABELS_LOG = pa.schema(
    [
        _column(
            "sequence",
            pa.int64(),
            "counts the revisions of all labels, in the order in which they were saved",
        ),
        _column("label_id", TEXT, "identifies this revision of the label (UUID version 7)"),
        _column("submission_id", TEXT, "made by the browser; undo- and a random id for an undo"),
        _column(
            "revision",
            pa.int16(),
            "1 for the first answer of this rater to this task, then counting edits and undos",
        ),
        _column("task_id", TEXT, "the task answered"),
        _column("rater_id", TEXT, "salted hash of the rater"),
        _column("kind", TEXT, "binary or ranking"),
        _column(
            "answer_json", TEXT, "the answer; null takes the answer before it back", nullable=True
        ),
        _column(
            "shown_order",
            SMALL_INTEGERS,
            "the place on the screen, from 0, of each image of the task",
        ),
        *(
            column
            for column in _CIRCUMSTANCES
            if column.name not in ("skip_reason", "comment", "source", "is_gold", "gold_correct")
        ),
    ]
)

LABELS_PAIRS = pa.schema(
    [
        _column("prompt_id", TEXT, "the prompt shown"),
        _column("image_id_0", TEXT, "one image of a ranking"),
        _column("image_id_1", TEXT, "another image of it, later in its image_ids"),
        _column(
            "label_0",
            pa.float32(),
            "1 when image_id_0 is better, 0.5 for a tie, 0 when it is worse",
        ),
        _column("rater_id", TEXT, "salted hash of the rater"),
        _column("ranking_label_id", TEXT, "the ranking that the pair is derived from"),
        _column("weight", pa.float32(), "1 over the number of pairs of the ranking"),
        _column("task_id", TEXT, "the task answered", nullable=True),
        _column("source", TEXT, "human, simulated or imported", nullable=True),
        _column(
            "left_shown",
            pa.int8(),
            "0 when image_id_0 stood before image_id_1 on the screen, else 1",
            nullable=True,
        ),
        _column("are_different", pa.bool_(), "false for a tie", nullable=True),
    ]
)

RATERS = pa.schema(
    [
        _column("rater_id", TEXT, "salted hash of the rater"),
        _column("source", TEXT, "human, simulated or imported"),
        _column("joined_at", MOMENT, "when the rater was added"),
        _column("n", pa.int32(), "live labels"),
        _column(
            "n_skipped",
            pa.int32(),
            "live labels that are skip, unsafe, or a ranking without any rank",
        ),
        _column("gold_n", pa.int32(), "live labels on gold tasks that can be right or wrong"),
        _column(
            "gold_accuracy",
            pa.float32(),
            "share of gold_n that are right; null without any",
            nullable=True,
        ),
        _column(
            "median_ms",
            pa.float32(),
            "median time on task in milliseconds; null when none was measured",
            nullable=True,
        ),
        _column("status", TEXT, "active or paused", nullable=True),
        *_share("gold", "gold_accuracy"),
        _column(
            "gold_good_n",
            pa.int32(),
            "labels good or bad on gold tasks whose answer is good",
            nullable=True,
        ),
        _column(
            "gold_good_accuracy",
            pa.float32(),
            "share of gold_good_n that say good (sensitivity)",
            nullable=True,
        ),
        *_share("gold_good", "gold_good_accuracy"),
        _column(
            "gold_bad_n",
            pa.int32(),
            "labels good or bad on gold tasks whose answer is bad",
            nullable=True,
        ),
        _column(
            "gold_bad_accuracy",
            pa.float32(),
            "share of gold_bad_n that say bad (specificity)",
            nullable=True,
        ),
        *_share("gold_bad", "gold_bad_accuracy"),
        _column(
            "repeat_n", pa.int32(), "questions answered twice that can be compared", nullable=True
        ),
        _column(
            "self_consistency",
            pa.float32(),
            "mean share answered alike: the verdict, or the pairs of a ranking",
            nullable=True,
        ),
        _column("first_place_n", pa.int32(), "rankings with a single best image", nullable=True),
        _column(
            "first_place_wins",
            pa.float32(),
            "share of first_place_n won by the image shown first",
            nullable=True,
        ),
        *_share("first_place", "first_place_wins"),
        _column(
            "first_place_expected",
            pa.float32(),
            "the same share if the place made no difference",
            nullable=True,
        ),
        _column(
            "median_active_ms",
            pa.float32(),
            "median active time in milliseconds; null when none was measured",
            nullable=True,
        ),
        _column(
            "others_n",
            pa.int32(),
            "pairs of this rater's verdict, good or bad, and another rater's on the same task",
            nullable=True,
        ),
        _column(
            "others_agreement",
            pa.float32(),
            "share of others_n in which the two are equal",
            nullable=True,
        ),
        _column(
            "skill",
            pa.float32(),
            "probability of a right verdict, estimated from agreement (Dawid-Skene)",
            nullable=True,
        ),
        _column(
            "ds_sensitivity",
            pa.float32(),
            "probability of good where good is right (Dawid-Skene)",
            nullable=True,
        ),
        _column(
            "ds_specificity",
            pa.float32(),
            "probability of bad where bad is right (Dawid-Skene)",
            nullable=True,
        ),
    ]
)

CONSENSUS = pa.schema(
    [
        _column("task_id", TEXT, "the task answered"),
        _column("image_id", TEXT, "the image judged"),
        _column(
            "method",
            TEXT,
            "mv (majority vote) and ds (Dawid-Skene) for binary tasks, borda for rankings",
        ),
        _column("source", TEXT, "whose labels: human, simulated or imported"),
        _column(
            "value",
            pa.float32(),
            "mv, ds: 1 good, 0 bad, 0.5 undecided; borda: mean share of the others that it beats, ties half",
        ),
        _column(
            "p_good",
            pa.float32(),
            "probability that it is good: share of votes, or Dawid-Skene's; null for rankings",
            nullable=True,
        ),
        _column("n_raters", pa.int32(), "raters whose answers count; skips and repeats do not"),
        _column(
            "entropy",
            pa.float32(),
            "of p_good, in bits: 0 is certain, 1 is undecided; null for rankings",
            nullable=True,
        ),
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
    write_batches([table], schema, path)


def write_batches(batches: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    """Writes tables one after the other as `write_table` does, each as a row group or more; returns how many rows.

    Raises:
        PictuneError: as `write_table`; then nothing is written.
    """
    described = schema.with_metadata({"schema_version": str(SCHEMA_VERSION)})
    rows = 0
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
        different = sorted(set(table.column_names) ^ set(schema.names))
        raise PictuneError(
            f"{path}: the columns {', '.join(different)} are missing or unknown; give exactly those of data/schema.py"
        )
    empty = [
        field.name for field in schema if not field.nullable and table.column(field.name).null_count
    ]
    if empty:
        raise PictuneError(
            f"{path}: the columns {', '.join(empty)} have empty values; fill them, see data/schema.py"
        )
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PictuneError(f"{path}: {error}; give the column types of data/schema.py") from error


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Reads a Parquet file that `write_table` wrote.

    Columns that a newer version added are left out; those of `schema` that are newer than the file are null.

    Raises:
        PictuneError: the file is missing, is not Parquet or damaged, or lacks columns of `schema` that must be filled.
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


def read_metadata(path: Path) -> pq.FileMetaData:
    """What a Parquet file says of itself: rows, columns and types.

    Raises:
        PictuneError: the file is missing or is not Parquet.
    """
    with parquet_faults(path, "the table it should be", WRITE_AGAIN):
        return pq.read_metadata(path)


@contextmanager
def parquet_faults(path: Path, wanted: str, advice: str) -> Iterator[None]:
    """Makes one line, which names the file, of all that pyarrow raises over one that is missing, damaged or something else."""
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise PictuneError(
                f"{path}: cannot be read ({os.strerror(error.errno)}); make it readable, or {advice}"
            ) from error
        reason = next(iter(str(error).strip("\"'\n ").splitlines()), type(error).__name__)
        raise PictuneError(f"{path}: not {wanted} ({reason}); {advice}") from error
