"""HPDv2 (Wu et al. 2023, arXiv 2306.09341): JSON rows with several images of a prompt.

The image files are beside it. `train.json` has two images a row and which of them was preferred.
`test.json` has a ranking pooled over raters and, in `raw_annotations`, each rater's own. Where
raters are listed their rankings are the labels, otherwise the pooled one is.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.formats.latest import Exported, Latest
from data.formats.reading import find_image, json_rows, source_files, split_of
from data.formats.records import BadRow, Record, Row, SourceImage, SourceLabel, made


def read(source: Path) -> Iterator[Record | BadRow]:
    """Read the rows of a JSON file, or of all in a folder."""
    for path in source_files(source, ".json"):
        yield from made(json_rows(path, ("prompt",)), _record_of)


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
    return _record(row, "file_path", paths, (label,), {})


def _record_of_test(row: Row) -> Record:
    paths = row.listed("image_path", str)
    pooled = row.listed("rank", int, length=len(paths))
    annotations = row.values.get("raw_annotations") or []
    if not isinstance(annotations, list):
        raise row.bad("raw_annotations", "is not a list")
    labels = [_annotation(row, number, one, len(paths)) for number, one in enumerate(annotations)]
    if not labels:
        labels = [SourceLabel(answer=tuple(pooled), rater=None)]
    return _record(row, "image_path", paths, tuple(labels), {"rank": pooled})


def _annotation(row: Row, number: int, annotation: object, length: int) -> SourceLabel:
    column = f"raw_annotations[{number}]"
    if not isinstance(annotation, dict):
        raise row.bad(column, "is not an object with rank and user_hash")
    flat = Row(row.path, row.number, {f"{column}.rank": annotation.get("rank")})
    ranks = flat.listed(f"{column}.rank", int, length=length)
    rater = annotation.get("user_hash")
    return SourceLabel(
        answer=tuple(ranks),
        rater=None if rater is None else str(rater),
        fields={"rank": ranks, "user_hash": rater},
    )


def _record(
    row: Row, column: str, paths: list[str], labels: tuple[SourceLabel, ...], fields: dict[str, Any]
) -> Record:
    columns = [f"{column}[{number}]" for number in range(len(paths))]
    images = [
        SourceImage(column=name, content=find_image(row, name, path))
        for name, path in zip(columns, paths, strict=True)
    ]
    return Record(
        row=row,
        prompt=row.text("prompt"),
        images=tuple(images),
        kind="ranking",
        labels=labels,
        split=split_of(row.path),
        fields=fields | {"image_path": paths},
    )


def write(latest: Latest, folder: Path) -> Exported:
    """Write `test.json` with one row for each ranking task, and its images in `test/`.

    A ranking in which an image has no rank has no place in this format, nor have verdicts on single
    images.
    """
    whole = [row for row in latest.rankings if None not in row["ranks"]]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in whole:
        by_task.setdefault(row["task_id"], []).append(row)
    names = _Names(latest, folder / "test")
    rows = [
        _row(latest, task, by_task[task["task_id"]], names)
        for task in latest.tasks
        if task["task_id"] in by_task
    ]
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    (folder / "test.json").write_text(text, encoding="utf-8")
    omitted = {
        "verdicts on single images": len(latest.verdicts),
        "rankings with an unranked image": len(latest.rankings) - len(whole),
        "comparisons": len(latest.comparisons),
    }
    return Exported(rows=len(rows), omitted=omitted)


class _Names:
    """File names of exported images: the name that an image came with, if no other image has it."""

    def __init__(self, latest: Latest, folder: Path) -> None:
        self._latest = latest
        self._folder = folder
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()

    def put(self, image_id: str, wanted: str | None) -> str:
        """Copy the image to the folder, once; return its name there."""
        if image_id not in self._names:
            file = self._latest.file(image_id)
            name = f"{image_id}{file.suffix}"
            if wanted and wanted not in self._taken and wanted == Path(wanted).name:
                name = wanted
            self._names[image_id] = name
            self._taken.add(name)
            self._folder.mkdir(exist_ok=True)
            shutil.copyfile(file, self._folder / name)
        return self._names[image_id]


def _row(
    latest: Latest, task: dict[str, Any], labels: list[dict[str, Any]], names: _Names
) -> dict[str, Any]:
    image_ids = task["image_ids"]
    kept = latest.fields("hpdv2", "task", task["task_id"])
    annotations = [_annotation_of(latest, label) for label in labels]
    kept_of_label = latest.fields("hpdv2", "label", labels[0]["submission_id"])
    is_pooled = len(labels) == 1 and "rater_is_unknown" in kept_of_label
    by_image = zip(*(label["ranks"] for label in labels), strict=True)
    means = [sum(ranks) / len(labels) for ranks in by_image]
    wanted = kept.get("image_path") or [None] * len(image_ids)
    paths = [names.put(image_id, name) for image_id, name in zip(image_ids, wanted, strict=True)]
    return {
        "prompt": latest.prompts[task["prompt_id"]]["prompt"],
        "image_path": paths,
        "rank": kept.get("rank") or [sorted(set(means)).index(mean) + 1 for mean in means],
        "raw_annotations": [] if is_pooled else annotations,
    }


def _annotation_of(latest: Latest, label: dict[str, Any]) -> dict[str, Any]:
    kept = latest.fields("hpdv2", "label", label["submission_id"])
    return {
        "rank": kept.get("rank", label["ranks"]),
        "user_hash": kept.get("user_hash", label["rater_id"]),
    }
