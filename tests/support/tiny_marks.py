"""Marks on images as an export has them."""

from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa

from data.regions import LABELS_REGIONS, Mark, regions_file
from data.runs import RunFolder
from data.schema import LABELS_BINARY, read_table, write_table
from tests.support.tiny_feedback import NOON


def write_marks(
    run: RunFolder, labels: Iterable[tuple[str, list[Mark]]], *, is_of_verdicts: bool = False
) -> None:
    """Write the marks of labels, each an image's id and one rater's marks of it.

    Each is by a rater of its own, or else by the image's next rater with a verdict "bad".
    """
    rows, bad = [], defaultdict[str, list[dict[str, str]]](list)
    if is_of_verdicts:
        for row in read_table(run.latest / "labels_binary.parquet", LABELS_BINARY).to_pylist():
            if row["label"] == "bad":
                own = {name: row[name] for name in ("rater_id", "prompt_id", "task_id")}
                bad[row["image_id"]].append(own)
    for number, (image_id, marks) in enumerate(labels):
        about = {
            "label_id": f"{number}",
            "submission_id": f"{number}",
            "revision": 1,
            "task_id": f"task of {image_id}",
            "prompt_id": "prompt",
            "rater_id": f"rater {number}",
            "image_id": image_id,
            "label": "bad",
            "source": "simulated",
            "submitted_at": NOON,
        } | (bad[image_id].pop(0) if is_of_verdicts else {})
        rows += [
            about | one.model_dump() | {"mark_no": place}
            for place, one in enumerate(marks, start=1)
        ] or [about | {"kind": "none", "mark_no": 0}]
    table = pa.Table.from_pylist(rows, schema=LABELS_REGIONS)
    write_table(table, LABELS_REGIONS, regions_file(run.latest))
