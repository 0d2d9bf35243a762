"""Marks on images of other tools: SDG-30K is read, Label Studio read and written, COCO written.

An image with marks becomes a bad verdict with these marks. An image on which a rater found nothing
becomes a good one.

- SDG-30K (2026, arXiv 2606.06113): JSON lines with `filepath`, `caption` and
  `ann_translated_bboxes`, a list of `box_2d` (left, upper, right, lower edge, 0 to 1000), `label`
  and `description`. The importance, which a program gave, is omitted. As in its own evaluation, the
  label `both` counts for both aspects.
- Label Studio: the JSON export, a list of tasks with `data` (`image`, `prompt` or `caption`) and
  `annotations`. Regions are key points and rectangles, in per cent of the image.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from data.files import write_json
from data.formats.latest import Exported, Latest
from data.formats.records import (
    BadRow,
    Record,
    Records,
    Row,
    SourceLabel,
    converted,
    marked,
    read_json_rows,
    source_files,
)
from data.regions import ARTIFACT, MISALIGNED, Mark, box_of, read_regions

SDG_ASPECTS = {
    "artifact": (ARTIFACT,),
    "misalignment": (MISALIGNED,),
    "both": (ARTIFACT, MISALIGNED),
}
POINTS, BOXES = "keypointlabels", "rectanglelabels"
LARGEST = 1e6
"""Largest number of a place that is read, far outside of any image."""

UPLOADS = "/data/upload/"
"""Start of the address of an image that was uploaded to Label Studio."""

MarkRow = dict[str, Any]


def read_sdg(source: Path) -> Records:
    """Read a file of JSON lines, or all such files in a folder."""
    for path in source_files(source, ".jsonl"):
        yield from converted(_json_lines(path), _sdg_record)


def _json_lines(path: Path) -> Iterator[Row | BadRow]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                values = None
            row = Row(path, number, values if isinstance(values, dict) else {})
            yield row if row.values else row.bad("(line)", "is no JSON object")


def _sdg_record(row: Row) -> Record:
    marks = []
    for number, box in enumerate(_objects(row, "ann_translated_bboxes", row.values)):
        column = f"ann_translated_bboxes[{number}]"
        flat = Row(row.path, row.number, {f"{column}.label": box.get("label")})
        edges = [value / 1000 for value in _numbers(row, f"{column}.box_2d", box.get("box_2d"), 4)]
        text = box.get("description") or box.get("desc")
        marks += [
            _box(aspect, edges) | {"comment": text}
            for aspect in SDG_ASPECTS[flat.choice(f"{column}.label", SDG_ASPECTS)]
        ]
    return _record(row, row.text("caption"), row.text("filepath"), "filepath", [marked(marks)])


def read_label_studio(source: Path) -> Records:
    """Read a JSON export, or all such files in a folder."""
    return read_json_rows(source, ("data", "annotations"), _task)


def _task(row: Row) -> Record:
    data = row.values["data"] if isinstance(row.values["data"], dict) else {}
    flat = Row(row.path, row.number, {f"data.{name}": value for name, value in data.items()})
    image = flat.text("data.image")
    if image.startswith(UPLOADS):  # the export has the file under its name alone
        image = PurePosixPath(image).name
    elif "/local-files/?d=" in image:
        image = image.partition("?d=")[2]
    prompt = "data.prompt" if flat.has("data.prompt") else "data.caption"
    annotations = _objects(row, "annotations", row.values)
    labels = [_annotation(row, *one) for one in enumerate(annotations)]
    return _record(row, flat.text(prompt), image, "data.image", labels)


def _annotation(row: Row, number: int, annotation: Mapping[str, Any]) -> SourceLabel:
    by = annotation.get("completed_by", annotation.get("rater_id"))
    rater = by.get("email") or by.get("id") if isinstance(by, dict) else by
    named = None if rater is None else str(rater)
    if annotation.get("was_cancelled"):
        return SourceLabel(answer="skip", rater=named)
    column = f"annotations[{number}].result"
    regions = enumerate(_objects(row, column, {column: annotation.get("result")}))
    marks = [mark for place, one in regions for mark in _regions(row, f"{column}[{place}]", one)]
    return marked(marks, named)


def _regions(row: Row, column: str, region: Mapping[str, Any]) -> Iterator[MarkRow]:
    """Yield a mark for each label of a region; nothing for results that are no regions."""
    kind, value = str(region.get("type")), region.get("value")
    if not kind.endswith("labels") or not isinstance(value, dict):
        return
    if kind not in (POINTS, BOXES):
        raise row.bad(column, f"is {kind}; only {POINTS} and {BOXES} can be imported")
    if value.get("rotation") or region.get("image_rotation"):
        raise row.bad(column, "is rotated; draw it again without rotation")
    names = ("x", "y", "width", "height") if kind == BOXES else ("x", "y")
    numbers = _numbers(row, column, [value.get(name) for name in names], len(names))
    left, top, *size = (number / 100 for number in numbers)
    meta = region.get("meta")
    texts = meta.get("text") if isinstance(meta, dict) else None
    comment = " ".join(map(str, texts)) if isinstance(texts, list) else texts
    for name in _listed(row, f"{column}.value.{kind}", value.get(kind)):
        aspect = MISALIGNED if name.lower() == "misalignment" else name.lower()
        place = {"kind": "point", "aspect": aspect, "x0": left, "y0": top}
        if size:
            place = _box(aspect, [left, top, min(left + size[0], 1), min(top + size[1], 1)])
        yield place | {"comment": comment or None}


def _record(
    row: Row, prompt: str, image: str, column: str, labels: Sequence[SourceLabel]
) -> Record:
    return Record(
        row=row,
        prompt=prompt,
        images=(row.image(column, image),),
        kind="binary",
        labels=tuple(labels),
        split=row.split_of_file,
    )


def _box(aspect: str, edges: Sequence[float]) -> MarkRow:
    named = dict(zip(("x0", "y0", "x1", "y1"), edges, strict=True))
    return {"kind": "box", "aspect": aspect, **named}


def _objects(row: Row, column: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = values.get(column)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise row.bad(column, "is not a list of objects")
    return found


def _listed(row: Row, column: str, names: object) -> list[str]:
    named = Row(row.path, row.number, {column: names}).listed(column, str)
    if not named:
        raise row.bad(column, "names no label")
    return named


def _numbers(row: Row, column: str, values: object, length: int) -> list[float]:
    if not isinstance(values, list) or not all(
        isinstance(one, int | float) and not isinstance(one, bool) and abs(one) <= LARGEST
        for one in values
    ):
        raise row.bad(column, f"is {str(values)[:60]}, not a list of numbers")
    if len(values) != length:
        raise row.bad(column, f"has {len(values)} numbers where {length} are wanted")
    return values


def write_label_studio(latest: Latest, folder: Path) -> Exported:
    """Write `export.json`, one task an image with one annotation a label, and `images/`.

    The format has no room for severities and for words of the prompt.
    """
    tasks, images = [], _marked_images(latest, folder)
    for number, (image, rows) in enumerate(images.items(), start=1):
        facts = latest.images[image]
        annotations = [
            {
                "rater_id": rater,  # `completed_by` is for users whom Label Studio knows
                "was_cancelled": False,
                "result": [_region(row, facts) for row in own if row["kind"] != "none"],
            }
            for (rater, _), own in groupby(rows, key=itemgetter("rater_id", "label_id"))
        ]
        data = {"image": f"images/{latest.file(image).name}", "prompt": facts["prompt"]}
        tasks.append({"id": number, "data": data, "annotations": annotations})
    write_json(folder / "export.json", tasks)
    return _exported(latest, images)


def _region(row: MarkRow, image: MarkRow) -> dict[str, Any]:
    kind = POINTS if row["x1"] is None else BOXES
    value = {"x": 100 * row["x0"], "y": 100 * row["y0"], kind: [row["aspect"]]}
    if kind == BOXES:
        size = {"width": 100 * (row["x1"] - row["x0"]), "height": 100 * (row["y1"] - row["y0"])}
        value |= size | {"rotation": 0}
    return {
        "id": f"{row['label_id']}-{row['mark_no']}",
        "type": kind,
        "from_name": "mark",
        "to_name": "image",
        "original_width": image["width"],
        "original_height": image["height"],
        "image_rotation": 0,
        "value": value,
        "meta": {"text": [row["comment"]] if row["comment"] else []},
    }


def write_coco(latest: Latest, folder: Path) -> Exported:
    """Write `annotations.json`, COCO's object detection with boxes in pixels, and `images/`.

    A point is the box around its disc. `rater_id` says whose box it is, and an image without boxes
    is one on which nobody found anything.
    """
    images = _marked_images(latest, folder)
    marks = [row for rows in images.values() for row in rows if row["kind"] != "none"]
    numbers = {image: number for number, image in enumerate(images, start=1)}
    names = {name: n for n, name in enumerate(sorted({row["aspect"] for row in marks}), start=1)}
    facts = {image: latest.images[image] for image in images}
    content = {
        "images": [
            {"id": number, "file_name": latest.file(image).name}
            | {name: facts[image][name] for name in ("width", "height")}
            for image, number in numbers.items()
        ],
        "categories": [{"id": number, "name": name} for name, number in names.items()],
        "annotations": [
            {
                "id": number,
                "image_id": numbers[row["image_id"]],
                "category_id": names[row["aspect"]],
            }
            | _pixels(row, facts[row["image_id"]])
            | {"iscrowd": 0, "rater_id": row["rater_id"]}
            for number, row in enumerate(marks, start=1)
        ],
    }
    write_json(folder / "annotations.json", content)
    return _exported(latest, images)


def _pixels(row: MarkRow, image: MarkRow) -> dict[str, Any]:
    height, width = image["height"], image["width"]
    mark = Mark.model_construct(**{name: row[name] for name in Mark.model_fields})
    left, top, right, lower = box_of(mark, height, width)
    across, down = (right - left) * width, (lower - top) * height
    return {"bbox": [left * width, top * height, across, down], "area": across * down}


def _marked_images(latest: Latest, folder: Path) -> dict[str, list[MarkRow]]:
    """Return the rows of marks by image id, each sorted by rater; copy the images."""
    by_image: dict[str, list[MarkRow]] = {}
    for row in read_regions(latest.folder).to_pylist():
        by_image.setdefault(row["image_id"], []).append(row)
    (folder / "images").mkdir()
    for image, rows in by_image.items():
        file = latest.file(image)
        shutil.copyfile(file, folder / "images" / file.name)
        rows.sort(key=itemgetter("rater_id", "label_id", "mark_no"))
    return by_image


def _exported(latest: Latest, images: Mapping[str, Sequence[MarkRow]]) -> Exported:
    looks = {row["label_id"] for rows in images.values() for row in rows}
    counts = {name: len(rows) for name, rows in latest.by_kind.items()}
    omitted = {"verdicts without marks": counts["binary"] - len(looks)}
    omitted |= {"rankings": counts["ranking"], "comparisons": counts["comparison"]}
    return Exported(rows=sum(map(len, images.values())), omitted=omitted)
