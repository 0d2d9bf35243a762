"""Pick-a-Pic v1 and v2 (Kirstain et al. 2023, arXiv 2305.01569): Parquet with pairs of images.

A row is one pair of images of a prompt, with their bytes. A labeled row becomes an answered ranking
of two images; a row without a label becomes a ranking that nobody has answered yet.
`__index_level_0__`, an index that leaked into the published files, is omitted.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.formats.latest import Exported, Latest
from data.formats.records import Ranks, Record, Records, Row, SourceImage, SourceLabel, read_parquet
from data.schema import LABELS_PAIRS

COLUMNS = pa.schema(
    [
        ("are_different", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("caption", pa.string()),
        ("created_at", pa.timestamp("ns")),
        ("has_label", pa.bool_()),
        ("image_0_uid", pa.string()),
        ("image_0_url", pa.string()),
        ("image_1_uid", pa.string()),
        ("image_1_url", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.int64()),
        ("user_id", pa.int64()),
        ("num_example_per_prompt", pa.int64()),
    ]
)
REQUIRED_COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label")

RANKS_BY_LABELS: dict[tuple[float, float], Ranks] = {
    (1.0, 0.0): (1, 2),
    (0.0, 1.0): (2, 1),
    (0.5, 0.5): (1, 1),
}
ROWS_AT_ONCE = 256
"""Number of rows, with their images, that an export holds in memory at the same time."""


def read(source: Path) -> Records:
    """Read the rows of a Parquet file, or of all Parquet files in a folder."""
    return read_parquet(source, REQUIRED_COLUMNS, COLUMNS.names, _record)


def _record(row: Row) -> Record:
    """Return a row as a ranking of its two images."""
    labeled = row.choice("has_label", (True, False))
    return Record(
        row=row,
        prompt=row.text("caption"),
        images=(_image(row, 0), _image(row, 1)),
        kind="ranking",
        split=row.split_of_file,
        labels=(_label(row),) if labeled else (),
    )


def _image(row: Row, number: int) -> SourceImage:
    """Return image 0 or 1 of a row, with the row's facts about the image."""
    column = f"jpg_{number}"
    content = row.values[column]
    if not isinstance(content, bytes):
        raise row.bad(column, "has no image bytes; the editions without images cannot be imported")
    facts = {
        "model_id": row.optional_text(f"model_{number}"),
        "source_uri": row.optional_text(f"image_{number}_url"),
    }
    return SourceImage(column=column, content=content, facts=facts)


def _label(row: Row) -> SourceLabel:
    """Return the answer of a labeled row, as ranks of its two images."""
    row.choice("label_0", (1.0, 0.5, 0.0))
    labels = (row.values["label_0"], row.values["label_1"])
    if labels not in RANKS_BY_LABELS:
        raise row.bad("label_1", f"is {labels[1]} where label_0 is {labels[0]}; they add up to 1")
    best = row.values.get("best_image_uid")
    worse = row.values.get(f"image_{int(labels[0])}_uid")
    if best is not None and best == worse and 0.5 not in labels:
        raise row.bad("best_image_uid", "is the image that label_0 and label_1 call the worse one")
    return SourceLabel(
        answer=RANKS_BY_LABELS[labels],
        rater=str(row.integer("user_id")),
        submitted_at=_created_at(row),
        number=str(row.values.get("ranking_id")),
    )


def _created_at(row: Row) -> datetime | None:
    """Return the moment in UTC, to the microsecond; for nanoseconds pyarrow uses pandas' type."""
    moment = row.values.get("created_at")
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise row.bad("created_at", "is not a time")
    plain = datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=moment.tzinfo or UTC)
    return plain.astimezone(UTC)


def write(latest: Latest, folder: Path) -> Exported:
    """Write one Parquet file a split: pairs out of rankings, and unanswered rankings of two images.

    The format has no room for verdicts on single images and for images without a rank.
    """
    rows = [*_labeled_rows(latest), *_open_rows(latest)]
    _write_by_split(latest, rows, folder)
    ranks = [row["ranks"] for row in latest.by_kind["ranking"]]
    return Exported(
        rows=len(rows),
        omitted={
            "verdicts on single images": len(latest.by_kind["binary"]),
            "rankings without a rank": sum(not any(one) for one in ranks),
            "comparisons": len(latest.by_kind["comparison"]),
        },
    )


def _write_by_split(latest: Latest, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write one Parquet file for each split of the prompts."""
    per_prompt = Counter(row["caption"] for row in rows)
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        row["num_example_per_prompt"] = per_prompt[row["caption"]]
        by_split.setdefault(row["split"] or "pairs", []).append(row)
    for split, part in by_split.items():
        with pq.ParquetWriter(folder / f"{split}.parquet", COLUMNS, compression="zstd") as writer:
            for start in range(0, len(part), ROWS_AT_ONCE):
                whole = [row | _bytes(latest, row) for row in part[start : start + ROWS_AT_ONCE]]
                writer.write_table(pa.Table.from_pylist(whole, schema=COLUMNS))


def _bytes(latest: Latest, row: Mapping[str, Any]) -> dict[str, bytes]:
    return {f"jpg_{n}": latest.file(row[f"image_{n}_uid"]).read_bytes() for n in (0, 1)}


def _labeled_rows(latest: Latest) -> Iterator[dict[str, Any]]:
    rankings = {row["label_id"]: row for row in latest.by_kind["ranking"]}
    for pair in latest.rows("labels_pairs", LABELS_PAIRS):
        images, label_0 = (pair["image_id_0"], pair["image_id_1"]), pair["label_0"]
        if pair["left_shown"] == 1:
            images, label_0 = images[::-1], 1 - label_0
        yield _labeled_row(latest, rankings[pair["ranking_label_id"]], images, label_0)


def _open_rows(latest: Latest) -> Iterator[dict[str, Any]]:
    answered = {row["task_id"] for row in latest.by_kind["ranking"]}
    for task in latest.tasks:
        is_pair = task["kind"] == "ranking" and len(task["image_ids"]) == 2
        if is_pair and task["task_id"] not in answered:
            asked_at = task["created_at"]
            yield _row(latest, task["prompt_id"], task["image_ids"], task["task_id"], asked_at)


def _labeled_row(
    latest: Latest, label: Mapping[str, Any], images: Sequence[str], label_0: float
) -> dict[str, Any]:
    """Return the row of a label that prefers the first image by 1, 0.5 (a tie) or 0.

    The images' bytes and the columns that count rows are added later.
    """
    row = _row(latest, label["prompt_id"], images, label["label_id"], label["submitted_at"])
    return row | {
        "best_image_uid": {1.0: images[0], 0.0: images[1]}.get(label_0, ""),
        "are_different": label_0 != 0.5,
        "has_label": True,
        "user_id": _number_of(label["rater_id"]),
        "label_0": label_0,
        "label_1": 1 - label_0,
    }


def _row(
    latest: Latest, prompt_id: str, images: Sequence[str], name: str, moment: datetime
) -> dict[str, Any]:
    prompt = latest.prompts[prompt_id]
    row: dict[str, Any] = {
        "caption": prompt["prompt"],
        "split": prompt["split"],
        "ranking_id": _number_of(name),
        "created_at": moment.replace(tzinfo=None),
        "has_label": False,
    }
    for number, image_id in enumerate(images):
        image = latest.images[image_id]
        row |= {
            f"image_{number}_uid": image_id,
            f"image_{number}_url": image["source_uri"],
            f"model_{number}": image["model_id"],
        }
    return row


def _number_of(text: str) -> int:
    """Return a whole number within the format's int64 that is always the same for this text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
