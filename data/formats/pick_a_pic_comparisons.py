"""Comparisons of models in Pick-a-Pic's form of a pair, beside `data.formats.pick_a_pic`.

A row is one person's answer about two images of a prompt by `model_0` and `model_1`. The published
files have no columns `axis` and `answer`: the axis is then overall, and `label_0` and `label_1` are
the answer. Comparisons are never used for training: `data.formats.pick_a_pic` reads the same pairs
as rankings for training.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.comparisons import AXES
from data.formats import pick_a_pic
from data.formats.latest import Exported, Latest
from data.formats.records import Record, Records, Row, SourceLabel, read_parquet
from data.schema import COMPARISON

COLUMNS = pa.schema([*pick_a_pic.COLUMNS, ("axis", pa.string()), ("answer", pa.string())])
REQUIRED_COLUMNS = (*pick_a_pic.REQUIRED_COLUMNS, "model_0", "model_1")
OF_TWO_IMAGES = tuple(axis for axis in AXES if axis != "count")
ANSWERS = ("first", "second", "tie", "both_bad")
LABELS = {"first": 1.0, "second": 0.0, "tie": 0.5, "both_bad": 0.5}
"""Value of the column `label_0` for each answer; the format cannot distinguish "both bad" from a
tie."""


def read(source: Path) -> Records:
    """Read the rows of a Parquet file, or of all Parquet files in a folder."""
    return read_parquet(source, REQUIRED_COLUMNS, COLUMNS.names, _record)


def _record(row: Row) -> Record:
    record = pick_a_pic.record_of(row)
    axis = row.choice("axis", OF_TWO_IMAGES) if row.has("axis") else "overall"
    return replace(
        record,
        images=tuple(
            replace(image, facts={**image.facts, "origin": COMPARISON}) for image in record.images
        ),
        kind="comparison",
        labels=tuple(_label(row, label) for label in record.labels),
        task={"axis": axis, "models": (row.text("model_0"), row.text("model_1"))},
    )


def _label(row: Row, ranked: SourceLabel) -> SourceLabel:
    """Return the answer of a row from the ranks of its two images."""
    labeled = {(1, 2): "first", (2, 1): "second", (1, 1): "tie"}[tuple(ranked.answer)]  # type: ignore[index]
    answer = row.choice("answer", ANSWERS) if row.has("answer") else labeled
    if LABELS[answer] != LABELS[labeled]:
        raise row.bad("answer", f"is {answer}, but label_0 and label_1 say {labeled}")
    return replace(ranked, answer=answer)


def write(latest: Latest, folder: Path) -> Exported:
    """Write the answered comparisons of two images, one Parquet file for each split.

    The left image comes first in its row.
    """
    given = [row for row in latest.by_kind["comparison"] if row["answer"] in ANSWERS]
    pick_a_pic.write_by_split(latest, [_row(latest, row) for row in given], folder, COLUMNS)
    counts = sum(row["answer"] == "count" for row in latest.by_kind["comparison"])
    return Exported(
        rows=len(given),
        omitted={
            "verdicts on single images": len(latest.by_kind["binary"]),
            "rankings": len(latest.by_kind["ranking"]),
            "counts in single images": counts,
            "skipped comparisons": len(latest.by_kind["comparison"]) - len(given) - counts,
        },
    )


def _row(latest: Latest, comparison: dict[str, Any]) -> dict[str, Any]:
    answer, step = comparison["answer"], 1
    if comparison["shown_order"][0] == 1:
        step = -1
        answer = {"first": "second", "second": "first"}.get(answer, answer)
    images, models = comparison["image_ids"][::step], comparison["models"][::step]
    row = pick_a_pic.labeled_row(latest, comparison, images, LABELS[answer])
    named = {"model_0": models[0], "model_1": models[1]}
    return row | named | {"axis": comparison["axis"], "answer": answer}
