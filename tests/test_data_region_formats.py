"""Marks from other tools: each format lands once, and each fault is named.

No real file of these formats was at hand: the fixtures have the fields of SDG's evaluation code and
of Label Studio's documentation of its export.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import PictuneError
from data.formats.landing import Imported
from data.kinds.verdict import BinaryAnswer
from data.regions import Mark, read_regions
from data.store.imported import Added
from data.tables.parquet import export
from tests.support import exchange_files as files
from tests.support.data_campaign import Campaign, submission
from tests.support.exchange_run import ExchangeRun

Edges = tuple[float | None, ...]
BOX: dict[str, Any] = {
    "box_2d": [100, 200, 600, 1000],
    "label": "artifact",
    "description": "melted",
}
RECTANGLE: dict[str, Any] = {
    "type": "rectanglelabels",
    "value": {"x": 50.0, "y": 25, "width": 50.1, "height": 50, "rotation": 0},
    "image_rotation": 0,
    "meta": {"text": ["two", "tails"]},
}
RECTANGLE["value"]["rectanglelabels"] = ["Hand"]
POINT = {"type": "keypointlabels", "value": {"x": 10, "y": 20, "width": 0.3}, "meta": {"text": []}}
POINT["value"] |= {"keypointlabels": ["Misalignment", "artifact"]}  # type: ignore[operator]


def marks(exchange: ExchangeRun) -> list[tuple[str, str | None, Edges, str | None]]:
    """Return verdict, aspect, edges and comment of each mark."""
    rows = read_regions(exchange.run.latest).to_pylist()
    edges = ("x0", "y0", "x1", "y1")
    shorter = [tuple(row[name] and round(row[name], 6) for name in edges) for row in rows]
    return sorted(
        (
            (row["label"], row["aspect"], edge, row["comment"])
            for row, edge in zip(rows, shorter, strict=True)
        ),
        key=repr,
    )


def folder_with_masks(folder: Path, **masks: np.ndarray) -> Path:
    files.write_images(folder, ["1.png", "2.png", "3.png"])
    (folder / "prompt.txt").write_text("a cat")
    for name, white in masks.items():
        Image.fromarray(white.astype(np.uint8) * 255).save(folder / f"{name[1:]}.mask.png")
    return folder


def sdg(folder: Path, *rows: Any) -> Path:
    files.write_images(folder / "images", ["1.png", "2.png", "3.png"])
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "train.jsonl"


def sdg_row(number: int, *boxes: Any) -> dict[str, Any]:
    path = f"images/{number}.png"
    return {"filepath": path, "caption": "a cat", "ann_translated_bboxes": list(boxes)}


def label_studio(folder: Path, *annotations: Any, image: str = "/data/upload/3/1.png") -> Path:
    files.write_images(folder / "images", ["1.png", "2.png"])
    task = {"id": 1, "data": {"image": image, "prompt": "a cat"}, "annotations": annotations}
    return files.write_json(folder / "export.json", [task])


def annotation(*result: Any, by: Any = 10, **more: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(result), "completed_by": by} | more


def lands_once(exchange: ExchangeRun, source_format: str, source: Path, images: int) -> None:
    assert exchange.take(source_format, source).images == images
    before = exchange.files(), exchange.contents()
    assert exchange.take(source_format, source) == Imported(0, 0, Added(0, 0, 0))
    assert (exchange.files(), exchange.contents()) == before


def test_each_white_part_of_a_mask_is_a_box(tmp_path: Path, exchange: ExchangeRun) -> None:
    white = np.zeros((3, 4), bool)
    white[0, 0] = white[1, 1] = white[2, 3] = True  # the first two touch at a corner
    source = folder_with_masks(tmp_path / "mine", _1=white, _2=np.zeros((3, 4), bool))
    lands_once(exchange, "folder", source, 3)
    assert marks(exchange) == [
        ("bad", "artifact", (0, 0, 0.5, 0.666667), None),
        ("bad", "artifact", (0.75, 0.666667, 1, 1), None),
        ("good", None, (None,) * 4, None),
    ]


def test_boxes_of_sdg_are_in_thousandths_with_x_first(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    rows = [
        sdg_row(1, BOX, BOX | {"label": "misalignment"}),
        sdg_row(2),
        sdg_row(3, BOX | {"label": "both", "importance": 90}),
    ]
    lands_once(exchange, "sdg-30k", sdg(tmp_path / "sdg", *rows), 3)
    edges = (0.1, 0.2, 0.6, 1)
    wrong = [("bad", name, edges, "melted") for name in ("artifact", "misaligned")]
    assert marks(exchange) == sorted([*wrong, *wrong, ("good", None, (None,) * 4, None)], key=repr)
    assert exchange.table("prompts")["split"].tolist() == ["train"]


def test_annotations_of_label_studio_are_labels_of_their_raters(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    source = label_studio(
        tmp_path / "export",
        annotation(RECTANGLE, POINT, {"type": "choices", "value": {"choices": ["ugly"]}}),
        annotation(by={"id": 11, "email": "ben@example.org"}),
        annotation(by=12, was_cancelled=True),
    )
    lands_once(exchange, "label-studio", source, 1)
    assert marks(exchange) == [
        ("bad", "artifact", (0.1, 0.2, None, None), None),
        ("bad", "hand", (0.5, 0.25, 1, 0.75), "two tails"),
        ("bad", "misaligned", (0.1, 0.2, None, None), None),
        ("good", None, (None,) * 4, None),
    ]
    labels = exchange.table("labels_binary")
    assert sorted(labels["label"]) == ["bad", "good", "skip"]
    assert labels["rater_id"].nunique() == 3


def result(**changes: Any) -> Callable[[Path], Path]:
    return lambda folder: label_studio(folder, annotation(RECTANGLE | changes))


FAULTS: list[tuple[str, Callable[[Path], Path], str]] = [
    (
        "folder",
        lambda folder: folder_with_masks(folder, _1=np.ones((3, 3), bool)),
        r"1\.mask\.png: has 3 x 3 pixels, but its image has 4 x 3",
    ),
    (
        "folder",
        lambda folder: folder_with_masks(folder, _9=np.ones((3, 4), bool)),
        r"9\.mask\.png: is the mask of no image",
    ),
    ("sdg-30k", lambda f: sdg(f, sdg_row(1), "{"), r"jsonl: row 2, column \(line\): is no JSON"),
    ("sdg-30k", lambda f: sdg(f, {"caption": "a"}), r"row 1, column ann_translated_bboxes: is not"),
    (
        "sdg-30k",
        lambda f: sdg(f, sdg_row(1), sdg_row(2, BOX | {"label": "ugly"})),
        r"row 2, column ann_translated_bboxes\[0\]\.label: is 'ugly', not one of artifact",
    ),
    (
        "sdg-30k",
        lambda f: sdg(f, sdg_row(1, BOX | {"box_2d": [600, 0, 100, 9]})),
        r"row 1, column marks: a box needs x0 below x1",
    ),
    (
        "sdg-30k",
        lambda f: sdg(f, sdg_row(1, BOX | {"box_2d": [0, 0, 1, "9"]})),
        r"box_2d: is \[0, 0, 1, '9'\], not a list of numbers",
    ),
    ("sdg-30k", lambda f: sdg(f, sdg_row(1, BOX | {"box_2d": [1, 2]})), r"has 2 numbers where 4"),
    (
        "sdg-30k",
        lambda f: sdg(f, sdg_row(1, BOX | {"box_2d": [10**400] * 4})),
        r"not a list of num",
    ),
    (
        "label-studio",
        result(type="brushlabels"),
        r"row 1, column annotations\[0\]\.result\[0\]: is brushlabels; only keypointlabels and",
    ),
    ("label-studio", result(image_rotation=90), r"result\[0\]: is rotated"),
    ("label-studio", result(value={"x": 1}), r"result\[0\]: is \[1, None, None, None\], not a"),
    ("label-studio", lambda f: label_studio(f, image="9.png"), r"row 1, column data\.image: no im"),
    ("label-studio", lambda f: label_studio(f, {"id": 1}), r"annotations\[0\]\.result: is not a l"),
]


@pytest.mark.parametrize(("source_format", "make", "fault"), FAULTS)
def test_a_fault_of_marks_is_named_and_nothing_is_imported(
    tmp_path: Path,
    exchange: ExchangeRun,
    source_format: str,
    make: Callable[[Path], Path],
    fault: str,
) -> None:
    with pytest.raises(PictuneError, match=fault) as caught:
        exchange.take(source_format, make(tmp_path / "mine"))
    assert "\n" not in str(caught.value)
    assert not exchange.run.images_table.exists()


def test_a_mask_of_speckles_says_how_many_parts_are_too_many(
    tmp_path: Path, exchange: ExchangeRun
) -> None:
    source = folder_with_masks(tmp_path / "mine")
    Image.new("RGB", (40, 40)).save(source / "1.png")
    speckles = np.indices((40, 40)).sum(0) % 2 == 0
    speckles[::2] = speckles[:, ::2] = False
    Image.fromarray(speckles.astype(np.uint8) * 255).save(source / "1.mask.png")
    with pytest.raises(PictuneError, match=r"1\.mask\.png: has 400 white parts, more than 50"):
        exchange.take("folder", source)


@pytest.fixture
def marked(tmp_path: Path) -> ExchangeRun:
    """A run with a box and a point by one rater, and another one who found nothing."""
    campaign = Campaign(tmp_path / "marked", n_images=2)
    box = Mark(kind="box", aspect="hand", x0=0.25, y0=0.5, x1=0.75, y1=1, comment="two")
    point = Mark(kind="point", aspect="artifact", x0=0.5, y0=0)
    image_ids = set()
    for rater, own in (("anna", (box, point)), ("ben", ())):
        rater_id = campaign.store.add_rater(rater)
        claim = campaign.store.claim(rater_id, kind="binary")
        assert claim is not None
        image_ids.add(claim.task.image_ids)
        answer = BinaryAnswer(verdict="bad" if own else "good", marks=own)
        campaign.store.submit(submission(claim, rater_id, rater, answer))
    assert len(image_ids) == 1
    export(campaign.store, campaign.run)
    return ExchangeRun(campaign.run.root)


def test_label_studio_reads_back_what_was_written_for_it(
    tmp_path: Path, marked: ExchangeRun, exchange: ExchangeRun
) -> None:
    lands_once(exchange, "label-studio", marked.give("label-studio", tmp_path / "out"), 1)
    assert marks(exchange) == marks(marked)
    assert len(marks(exchange)) == 3
    assert exchange.table("labels_binary")["rater_id"].nunique() == 2
    (task,) = json.loads((tmp_path / "out" / "export.json").read_text())
    assert task["annotations"][0]["result"] or task["annotations"][1]["result"]


def test_coco_has_boxes_and_the_boxes_of_points_in_pixels(
    tmp_path: Path, marked: ExchangeRun
) -> None:
    folder = marked.give("coco", tmp_path / "out")
    coco = json.loads((folder / "annotations.json").read_text())
    (image,) = coco["images"]
    assert (image["width"], image["height"]) == (8, 8)
    assert (folder / "images" / image["file_name"]).is_file()
    names = {one["id"]: one["name"] for one in coco["categories"]}
    found = {names[one["category_id"]]: one["bbox"] for one in coco["annotations"]}
    assert found == {"hand": [2, 4, 4, 4], "artifact": pytest.approx([3.6, 0, 0.8, 0.4])}
    assert [one["area"] for one in coco["annotations"]] == pytest.approx([16, 0.32])
    assert {one["image_id"] for one in coco["annotations"]} == {image["id"]}
