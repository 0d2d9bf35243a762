"""HPDv2 (Wu et al. 2023, arXiv 2306.09341): JSON rows with several images of a prompt.

The image files are beside the JSON file. `train.json` has two images and the preferred one in each
row. `test.json` has a ranking pooled over raters and, in `raw_annotations`, each rater's ranking.
The raters' rankings become the labels; without them, the pooled ranking does.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from data.formats.latest import Exported, Latest
from data.formats.records import Record, Records, Row, SourceLabel, ranking_record, read_json_rows


def read(source: Path) -> Records:
    """Read the rows of a JSON file, or of all JSON files in a folder."""
    return read_json_rows(source, ("prompt",), _record_of)


def _record_of(row: Row) -> Record:
    return _record_of_train(row) if row.has("human_preference") else _record_of_test(row)


def _record_of_train(row: Row) -> Record:
    paths = row.listed("file_path", str)
    preference = row.listed("human_preference", int, length=len(paths))
    if sorted(preference) != [0] * (len(paths) - 1) + [1]:
        raise row.bad(
            "human_preference",
            f"is {preference}; one image is preferred (1), the others are not (0)",
        )
    ranks = tuple(1 if is_preferred else 2 for is_preferred in preference)
    label = SourceLabel(answer=ranks, rater=row.optional_text("user_hash"))
    return ranking_record(row, "file_path", paths, [label])


def _record_of_test(row: Row) -> Record:
    paths = row.listed("image_path", str)
    pooled = row.listed("rank", int, length=len(paths))
    annotations = row.values.get("raw_annotations") or []
    if not isinstance(annotations, list):
        raise row.bad("raw_annotations", "is not a list")
    labels = [_annotation(row, number, one, len(paths)) for number, one in enumerate(annotations)]
    if not labels:
        labels = [SourceLabel(answer=tuple(pooled), rater=None)]
    return ranking_record(row, "image_path", paths, labels)


def _annotation(row: Row, number: int, annotation: object, length: int) -> SourceLabel:
    column = f"raw_annotations[{number}]"
    if not isinstance(annotation, dict):
        raise row.bad(column, "is not an object with rank and user_hash")
    flat = Row(row.path, row.number, {f"{column}.rank": annotation.get("rank")})
    ranks = flat.listed(f"{column}.rank", int, length=length)
    rater = annotation.get("user_hash")
    return SourceLabel(answer=tuple(ranks), rater=None if rater is None else str(rater))


def write(latest: Latest, folder: Path) -> Exported:
    """Write `test.json` with one row for each ranking task, and its images in `test/`.

    The format has no room for verdicts on single images and for rankings that leave an image
    without a rank; they are omitted.
    """
    whole = [row for row in latest.by_kind["ranking"] if None not in row["ranks"]]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in whole:
        by_task.setdefault(row["task_id"], []).append(row)
    images = folder / "test"
    rows = [
        _row(latest, task, by_task[task["task_id"]], images)
        for task in latest.tasks
        if task["task_id"] in by_task
    ]
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    (folder / "test.json").write_text(text, encoding="utf-8")
    omitted = {
        "verdicts on single images": len(latest.by_kind["binary"]),
        "rankings with an unranked image": len(latest.by_kind["ranking"]) - len(whole),
        "comparisons": len(latest.by_kind["comparison"]),
    }
    return Exported(rows=len(rows), omitted=omitted)


def _row(
    latest: Latest, task: dict[str, Any], labels: list[dict[str, Any]], images: Path
) -> dict[str, Any]:
    """Return the row of a task; copy its images to the folder `images`."""
    images.mkdir(exist_ok=True)
    files = [latest.file(image_id) for image_id in task["image_ids"]]
    for file in files:
        shutil.copyfile(file, images / file.name)
    means = [
        sum(ranks) / len(labels) for ranks in zip(*(one["ranks"] for one in labels), strict=True)
    ]
    return {
        "prompt": latest.prompts[task["prompt_id"]]["prompt"],
        "image_path": [file.name for file in files],
        "rank": [sorted(set(means)).index(mean) + 1 for mean in means],
        "raw_annotations": [{"rank": one["ranks"], "user_hash": one["rater_id"]} for one in labels],
    }
