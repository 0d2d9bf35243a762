"""The Parquet tables: columns, types and their meaning, which each file stores beside the column.

Names are flat, a row is one fact, timestamps are in UTC with microseconds, and there is no pandas
index. A change may only add columns that can be null. Then `SCHEMA_VERSION` goes up, and files of
earlier versions are read with nulls in their place.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import PictuneError
from data.files import write_atomically

SCHEMA_VERSION = 5
"""Stored in every file's metadata under `schema_version`."""

ROW_GROUP_ROWS = 100_000
"""Rows of a row group: large enough for quick scans, small enough to skip groups."""

WRITE_AGAIN = "remove it and run the stage that writes it again"

MOMENT = pa.timestamp("us", tz="UTC")
_LISTS = {f"{name}s": pa.list_(pa.type_for_alias(name)) for name in ("string", "int8", "int16")}
_TYPES = {"moment": MOMENT, **_LISTS}


def schema_of(columns: str) -> pa.Schema:
    """Return a table's schema, written as one line a column: name, type and meaning.

    A type that ends with `?` can be null. An indented line continues the meaning.
    """
    fields = []
    for line in re.sub(r"\n +", " ", columns).split("\n"):
        if line:
            name, kind, meaning = line.split(maxsplit=2)
            of = _TYPES.get(kind.rstrip("?")) or pa.type_for_alias(kind.rstrip("?"))
            about = {"description": meaning}
            fields.append(pa.field(name, of, nullable=kind.endswith("?"), metadata=about))
    return pa.schema(fields)


LABEL_IDENTITY = """
label_id       string  identifies this revision of the label (UUID version 7)
submission_id  string  made by the browser, unique: a retry is not a second label
revision       int16   1 for the first answer of this rater to this task, then counting edits and
    undos
task_id        string  the task answered
prompt_id      string  the prompt shown
rater_id       string  salted hash of the rater
"""

OF_REVISIONS = """
shown_at           moment   when the task was handed to the rater
submitted_at       moment   when the label was saved
time_on_task_ms    int32?   milliseconds as measured by the browser
lease_late         bool     arrived after the rater's hold on the task had run out
input_mode         string?  key, mouse or touch
app_version        string?  version of the labeling app
guideline_version  string?  version of the guidelines shown
session_id         string?  the rater's browser session
active_ms          int32?   milliseconds in which the page was visible and the rater not idle
"""
"""Columns of every revision of a label, also of revisions that undo an answer."""

LABEL_CIRCUMSTANCES = f"""
skip_reason   string?  why the rater skipped it or found it bad or unsafe, in the words of
    label.reasons
comment       string?  free text
source        string   human, simulated, imported or adjudicator
is_gold       bool     true where the right answer is known
gold_correct  bool?    agrees with the right answer; null without one or when skipped, unless skip
    or unsafe is right
{OF_REVISIONS}"""

PROMPTS = schema_of("""
prompt_id  string   SHA-256 of the prompt's text in Unicode normal form C
prompt     string   the text given to the model
category   string?  what it asks for: object, color, count, composition, place, or a name of your
    own
split      string?  train, validation or test
""")

IMAGES = schema_of("""
image_id          string    SHA-256 of the file's bytes
path              string    the file, relative to the run's folder
prompt_id         string    the prompt that it was drawn for
prompt            string    the text given to the model
width             int32     pixels
height            int32     pixels
format            string    png, webp or jpeg
model_id          string?   folder or hub name of the model; null where nobody said
model_hash        string?   hash of the model's weights; null for images from elsewhere
seed              int64?    seed of this image's own generator; null for images from elsewhere
steps             int32?    denoising steps; null for images from elsewhere
guidance          float32?  classifier-free guidance scale, 1 is none; null for images from
    elsewhere
scheduler         string?   class name of the sampler; null for images from elsewhere
eta               float32?  noise of the sampler: 0 is DDIM, 1 is DDPM; null for images from
    elsewhere
created_at        moment    when it was drawn; for images from elsewhere, when they came in
source_uri        string?   where an image from elsewhere came from; null for our own
license           string?   the image's license, if one was named
round             int16?    the round that drew it; null means 1, in earlier files and for images
    from elsewhere
adapter_hash      string?   SHA-256 of the adapter's file of the tuned model that drew it; null for
    the base's
stochastic_share  float32?  share of the steps, from the first, that have this eta; null where it is
    not known
origin            string?   comparison for an image that was drawn to compare models alone and that
    nothing is trained on, playground for one that somebody drew and voted on there, session
    for one of a slate; null for all others
adapter_strength  float32?  factor of the adapter's update; null means 1, as trained
""")

COMPARISON, PLAYGROUND, SESSION = "comparison", "playground", "session"
"""Values of the images' column `origin`; such images get no verdict or ranking tasks."""

TASKS = schema_of("""
task_id             string    identifies the task
kind                string    binary, ranking or comparison
prompt_id           string    the prompt shown
image_ids           strings   the images shown, in the order that `ranks` and `shown_order` refer to
overlap             int16     how many people are wanted, and simulated raters besides
priority            float32   higher is asked first
is_gold             bool      true where the right answer is known
gold_json           string?   the right answer as JSON
created_at          moment    when it was planned
gold_source         string?   where the right answer comes from; such a task is a hidden check
repeat_of           string?   the task that asked the same before; null otherwise
withheld_image_ids  strings?  its images that were reported or removed: it is asked of nobody
axis                string?   what a comparison asks: overall, alignment, appeal, detailed or count;
    null for other kinds
models              strings?  the model that drew each image of image_ids, as base, rwl or dpok,
    which raters are not told; null where no models are compared
subject             string?   what is counted where the axis is count; where it is detailed, a
    longer text than the prompt, if there is one
reference           string?   where the axis is detailed, the image that shows what the prompt
    describes, if any
steps               int8?     how many answers were offered about two images; null means 3, where
    nothing tells much better from slightly better
""")

LABELS_BINARY = schema_of(f"""
{LABEL_IDENTITY}
image_id  string  the image judged
label     string  good, bad, skip or unsafe
{LABEL_CIRCUMSTANCES}
""")

LABELS_RANKING = schema_of(f"""
{LABEL_IDENTITY}
image_ids         strings   the images judged
shown_order       int8s     the place on the screen, from 0, of each image of image_ids
ranks             int8s     the rank of each image of image_ids: 1 is best, equal is a tie, null is
    can't judge
n_images          int8      how many images were shown
n_tie_groups      int8      how many ranks are shared by two images or more
{LABEL_CIRCUMSTANCES}
best_image_id     string?   the image of rank 1; null when there is none or it is shared
unsafe_image_ids  strings?  the images that the rater reported as unsafe
""")

LABELS_COMPARISONS = schema_of(f"""
{LABEL_IDENTITY}
axis              string    what was asked: overall, alignment, appeal, detailed or count
wording           string?   SHA-256 of the file with the axis's wording that the rater saw; null for
    labels from elsewhere
image_ids         strings   the two images compared; one where the axis is count
models            strings   the model that drew each image of image_ids, as base, rwl or dpok
shown_order       int8s     the place on the screen, from 0 at the left, of each image of image_ids
answer            string    first or second of image_ids is better, tie, both_bad, skip or unsafe;
    count where the axis is count
strength          string?   slightly or much better, where five answers were offered; null for all
    others
count             int8?     how many there are in the image, 0 to 10, 10 for more as well; null for
    other axes and without an answer
{LABEL_CIRCUMSTANCES}
unsafe_image_ids  strings?  the images that the rater reported as unsafe
""")

LABELS_LOG = schema_of(f"""
sequence       int64    counts the revisions of all labels, in the order in which they were saved
label_id       string   identifies this revision of the label (UUID version 7)
submission_id  string   made by the browser; undo- and a random id for an undo
revision       int16    1 for the first answer of this rater to this task, then counting edits and
    undos
task_id        string   the task answered
rater_id       string   salted hash of the rater
kind           string   binary, ranking or comparison
answer_json    string?  the answer; null takes the answer before it back
shown_order    int8s    the place on the screen, from 0, of each image of the task
{OF_REVISIONS}
""")

LABELS_PAIRS = schema_of("""
prompt_id         string   the prompt shown
image_id_0        string   one image of a ranking
image_id_1        string   another image of it, later in its image_ids
label_0           float32  1 when image_id_0 is better, 0.5 for a tie, 0 when it is worse
rater_id          string   salted hash of the rater
ranking_label_id  string   the ranking that the pair is derived from
weight            float32  1 over the number of pairs of the ranking
task_id           string?  the task answered
source            string?  human, simulated, imported or adjudicator
left_shown        int8?    0 when image_id_0 stood before image_id_1 on the screen, else 1
are_different     bool?    false for a tie
""")

RATERS = schema_of("""
rater_id              string    salted hash of the rater
source                string    human, simulated, imported or adjudicator
joined_at             moment    when the rater was added
n                     int32     live labels
n_skipped             int32     live labels that are skip, unsafe, or a ranking without any rank
gold_n                int32     live labels on gold tasks that can be right or wrong
gold_accuracy         float32?  share of gold_n that are right; null without any
median_ms             float32?  median time on task in milliseconds; null when none was measured
status                string?   active, paused or left_out (then no labels table has the rater)
gold_ci_low           float32?  lower bound of gold_accuracy, 95 % Wilson interval
gold_ci_high          float32?  upper bound of gold_accuracy, 95 % Wilson interval
gold_good_n           int32?    labels good or bad on gold tasks whose answer is good
gold_good_accuracy    float32?  share of gold_good_n that say good (sensitivity)
gold_good_ci_low      float32?  lower bound of gold_good_accuracy, 95 % Wilson interval
gold_good_ci_high     float32?  upper bound of gold_good_accuracy, 95 % Wilson interval
gold_bad_n            int32?    labels good or bad on gold tasks whose answer is bad
gold_bad_accuracy     float32?  share of gold_bad_n that say bad (specificity)
gold_bad_ci_low       float32?  lower bound of gold_bad_accuracy, 95 % Wilson interval
gold_bad_ci_high      float32?  upper bound of gold_bad_accuracy, 95 % Wilson interval
repeat_n              int32?    questions answered twice that can be compared
self_consistency      float32?  mean share answered alike: the verdict, or the pairs of a ranking
first_place_n         int32?    rankings with a single best image
first_place_wins      float32?  share of first_place_n won by the image shown first
first_place_ci_low    float32?  lower bound of first_place_wins, 95 % Wilson interval
first_place_ci_high   float32?  upper bound of first_place_wins, 95 % Wilson interval
first_place_expected  float32?  the same share if the place made no difference
median_active_ms      float32?  median active time in milliseconds; null when none was measured
others_n              int32?    pairs of this rater's verdict, good or bad, and another rater's on
    the same task
others_agreement      float32?  share of others_n in which the two are equal
skill                 float32?  probability of a right verdict, estimated from agreement
    (Dawid-Skene)
ds_sensitivity        float32?  probability of good where good is right (Dawid-Skene)
ds_specificity        float32?  probability of bad where bad is right (Dawid-Skene)
""")

CONSENSUS = schema_of("""
task_id   string    the task answered
image_id  string    the image judged
method    string    mv (majority vote) and ds (Dawid-Skene) for binary tasks, borda for rankings
source    string    whose labels: human, simulated, imported, or adjudicator, whose answer decides
value     float32   mv, ds: 1 good, 0 bad, 0.5 undecided; borda: mean share of the others that it
    beats, ties half
p_good    float32?  probability that it is good: share of votes, or Dawid-Skene's; null for rankings
n_raters  int32     raters whose answers count; skips and repeats do not
entropy   float32?  of p_good, in bits: 0 is certain, 1 is undecided; null for rankings
""")

AUDIT = schema_of("""
sequence     int64    counts the actions, in the order in which they were done
at           moment   when it was done
actor_id     string?  salted hash of the admin; null for the app itself and for commands at the
    shell
action       string   add_rater, set_password, set_role, set_status, set_paused,
    decide_image, put_back_all, adjudicate, withdraw_adjudication, set_overlap, export or download
subject      string?  salted hash of a rater, or the id of an image or task, as the action says;
    null for the campaign
before_json  string?  what was before, as JSON; null where nothing was
after_json   string?  what is afterwards, as JSON; null where nothing is
""")


def prompt_id(prompt: str) -> str:
    """Return the prompt's identity: SHA-256 of its text in Unicode normal form C."""
    return hashlib.sha256(unicodedata.normalize("NFC", prompt).encode()).hexdigest()


def write_table(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Write `table` atomically as Parquet with the columns and types of `schema`.

    Raises:
        ValueError: a column has another type, or a column that must be filled has nulls.
        KeyError: a column is missing.
    """
    write_batches([table], schema, path)


def write_batches(batches: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    """Write tables one after the other, atomically; return the number of rows.

    Each table becomes one row group or more. The schema's metadata is kept.
    """
    about = {"schema_version": str(SCHEMA_VERSION), **(schema.metadata or {})}
    described, rows = schema.with_metadata(about), 0
    with (
        write_atomically(path) as temporary,
        pq.ParquetWriter(temporary, described, compression="zstd") as writer,
    ):
        for batch in batches:
            fitted = batch.select(described.names).cast(described)
            writer.write_table(fitted, row_group_size=ROW_GROUP_ROWS)
            rows += batch.num_rows
    return rows


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a Parquet file that `write_table` wrote.

    Columns that `schema` does not know are omitted. Columns that the file does not have are null.

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
        table.validate(full=True)  # without this check, a damaged text fails at its first use
        return table


def read_metadata(path: Path) -> pq.FileMetaData:
    """Return the metadata of a Parquet file: rows, columns and types.

    Raises:
        PictuneError: the file is missing or is not Parquet.
    """
    with parquet_faults(path, "the table it should be", WRITE_AGAIN):
        return pq.read_metadata(path)


@contextmanager
def parquet_faults(path: Path, wanted: str, advice: str) -> Iterator[None]:
    """Turn every error of pyarrow about the file `path` into one line that names the file.

    Args:
        path: the file; it may be missing, damaged or not Parquet.
        wanted: names what the file should be, for the error.
        advice: ends the error.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno)
            raise PictuneError(
                f"{path}: cannot be read ({reason}); make it readable, or {advice}"
            ) from error
        reason = next(iter(str(error).strip("\"'\n ").splitlines()), type(error).__name__)
        raise PictuneError(f"{path}: not {wanted} ({reason}); {advice}") from error
