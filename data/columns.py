"""Columns of the Parquet tables: types, a description in each column, groups that tables share."""

import pyarrow as pa

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
SMALL_INTEGERS = pa.list_(pa.int8())
MOMENT = pa.timestamp("us", tz="UTC")


def column(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """Return a column that must be filled."""
    return pa.field(name, kind, nullable=False, metadata={"description": description})


def optional(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """Return a column that can be null."""
    return pa.field(name, kind, nullable=True, metadata={"description": description})


def share_bounds(name: str, share: str) -> list[pa.Field]:
    """Return the two columns with the bounds of the 95 % interval of the column `share`."""
    bounds = (("low", "lower"), ("high", "upper"))
    return [
        optional(
            f"{name}_ci_{end}", pa.float32(), f"{bound} bound of {share}, 95 % Wilson interval"
        )
        for end, bound in bounds
    ]


LABEL_IDENTITY = [
    column("label_id", TEXT, "identifies this revision of the label (UUID version 7)"),
    column("submission_id", TEXT, "made by the browser, unique: a retry is not a second label"),
    column(
        "revision",
        pa.int16(),
        "1 for the first answer of this rater to this task, then counting edits and undos",
    ),
    column("task_id", TEXT, "the task answered"),
    column("prompt_id", TEXT, "the prompt shown"),
    column("rater_id", TEXT, "salted hash of the rater"),
]

OF_REVISIONS = [
    column("shown_at", MOMENT, "when the task was handed to the rater"),
    column("submitted_at", MOMENT, "when the label was saved"),
    optional("time_on_task_ms", pa.int32(), "milliseconds as measured by the browser"),
    column("lease_late", pa.bool_(), "arrived after the rater's hold on the task had run out"),
    optional("input_mode", TEXT, "key, mouse or touch"),
    optional("app_version", TEXT, "version of the labeling app"),
    optional("guideline_version", TEXT, "version of the guidelines shown"),
    optional("session_id", TEXT, "the rater's browser session"),
    optional(
        "active_ms", pa.int32(), "milliseconds in which the page was visible and the rater not idle"
    ),
]
"""Circumstances of every revision of a label, also of one that takes the answer back."""

LABEL_CIRCUMSTANCES = [
    optional(
        "skip_reason",
        TEXT,
        "why the rater skipped it or found it bad or unsafe, in the words of label.reasons",
    ),
    optional("comment", TEXT, "free text"),
    column("source", TEXT, "human, simulated, imported or adjudicator"),
    column("is_gold", pa.bool_(), "true where the right answer is known"),
    optional(
        "gold_correct",
        pa.bool_(),
        "agrees with the right answer; null without one or when skipped, "
        "unless skip or unsafe is right",
    ),
    *OF_REVISIONS,
]

OF_COMPARISONS = [
    optional(
        "axis",
        TEXT,
        "what a comparison asks: overall, alignment, appeal, detailed or count; "
        "null for other kinds",
    ),
    optional(
        "models",
        TEXTS,
        "the model that drew each image of image_ids, as base, rwl or dpok, which raters "
        "are not told; null where no models are compared",
    ),
    optional(
        "subject",
        TEXT,
        "what is counted where the axis is count; where it is detailed, a longer text than the "
        "prompt, if there is one",
    ),
    optional(
        "reference",
        TEXT,
        "where the axis is detailed, the image that shows what the prompt describes, if any",
    ),
    optional(
        "steps",
        pa.int8(),
        "how many answers were offered about two images; null means 3, where nothing tells much "
        "better from slightly better",
    ),
]

UNSAFE_IMAGES = optional("unsafe_image_ids", TEXTS, "the images that the rater reported as unsafe")

OF_ANSWERS = [
    optional(
        "strength",
        TEXT,
        "slightly or much better, where five answers were offered; null for all others",
    ),
    optional(
        "count",
        pa.int8(),
        "how many there are in the image, 0 to 10, 10 for more as well; "
        "null for other axes and without an answer",
    ),
]
"""Columns of an answer to a comparison besides its outcome."""

RATER_QUALITY = [
    *share_bounds("gold", "gold_accuracy"),
    optional("gold_good_n", pa.int32(), "labels good or bad on gold tasks whose answer is good"),
    optional(
        "gold_good_accuracy", pa.float32(), "share of gold_good_n that say good (sensitivity)"
    ),
    *share_bounds("gold_good", "gold_good_accuracy"),
    optional("gold_bad_n", pa.int32(), "labels good or bad on gold tasks whose answer is bad"),
    optional("gold_bad_accuracy", pa.float32(), "share of gold_bad_n that say bad (specificity)"),
    *share_bounds("gold_bad", "gold_bad_accuracy"),
    optional("repeat_n", pa.int32(), "questions answered twice that can be compared"),
    optional(
        "self_consistency",
        pa.float32(),
        "mean share answered alike: the verdict, or the pairs of a ranking",
    ),
    optional("first_place_n", pa.int32(), "rankings with a single best image"),
    optional(
        "first_place_wins", pa.float32(), "share of first_place_n won by the image shown first"
    ),
    *share_bounds("first_place", "first_place_wins"),
    optional(
        "first_place_expected", pa.float32(), "the same share if the place made no difference"
    ),
    optional(
        "median_active_ms",
        pa.float32(),
        "median active time in milliseconds; null when none was measured",
    ),
    optional(
        "others_n",
        pa.int32(),
        "pairs of this rater's verdict, good or bad, and another rater's on the same task",
    ),
    optional("others_agreement", pa.float32(), "share of others_n in which the two are equal"),
    optional(
        "skill",
        pa.float32(),
        "probability of a right verdict, estimated from agreement (Dawid-Skene)",
    ),
    optional(
        "ds_sensitivity", pa.float32(), "probability of good where good is right (Dawid-Skene)"
    ),
    optional("ds_specificity", pa.float32(), "probability of bad where bad is right (Dawid-Skene)"),
]

AUDIT_COLUMNS = [
    column("sequence", pa.int64(), "counts the actions, in the order in which they were done"),
    column("at", MOMENT, "when it was done"),
    optional(
        "actor_id",
        TEXT,
        "salted hash of the admin; null for the app itself and for commands at the shell",
    ),
    column(
        "action",
        TEXT,
        "add_rater, set_password, set_role, set_status, set_share, set_paused, decide_image, "
        "put_back_all, adjudicate, withdraw_adjudication, set_overlap, add_gold, export or "
        "download",
    ),
    optional(
        "subject",
        TEXT,
        "salted hash of a rater, or the id of an image or task, as the action says; "
        "null for the campaign",
    ),
    optional("before_json", TEXT, "what was before, as JSON; null where nothing was"),
    optional("after_json", TEXT, "what is afterwards, as JSON; null where nothing is"),
]
