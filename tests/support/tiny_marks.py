"""Marks on images as an export has them."""

from collections.abc import Iterable

import pyarrow as pa

from data.regions import LABELS_REGIONS, Mark, regions_file
from data.runs import RunFolder
from data.schema import write_table
from tests.support.tiny_feedback import NOON


def write_marks(run: RunFolder, labels: Iterable[tuple[str, list[Mark]]]) -> None:
    """Write the marks of labels, each an image's id and one rater's marks of it."""
    rows = []
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
        }
        rows += [
            about | one.model_dump() | {"mark_no": place}
            for place, one in enumerate(marks, start=1)
        ] or [about | {"kind": "none", "mark_no": 0}]
    table = pa.Table.from_pylist(rows, schema=LABELS_REGIONS)
    write_table(table, LABELS_REGIONS, regions_file(run.latest))
