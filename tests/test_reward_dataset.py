import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import IMAGES, TASKS, prompt_id, read_table, write_table
from reward.dataset import FeedbackDataset
from tests.support.tiny_feedback import NOON, image_row, make_feedback, pair_row, verdict_row, write

PROMPT = "A red ball."


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_feedback(tmp_path / "run", images_per_prompt=2)


def _images(run: RunFolder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run.latest / "images.parquet", IMAGES).to_pylist()
    return rows


def _load(run: RunFolder) -> FeedbackDataset:
    return FeedbackDataset.from_latest(run.latest, run.root)


def test_labels_point_at_their_images_and_prompts(run: RunFolder) -> None:
    dataset = _load(run)
    by_id = {row["image_id"]: row for row in _images(run)}
    for image, prompt in zip(dataset.verdicts.image, dataset.verdicts.prompt, strict=True):
        row = by_id[dataset.image_ids[image]]
        assert dataset.prompts[prompt] == row["prompt"]
        assert dataset.paths[image] == run.root / row["path"]
        assert dataset.categories[prompt] in row["prompt"]
    assert dataset.counts == {"good": 15, "bad": 15, "pairs": 0, "images": 30, "prompts": 15}


def test_skips_and_unsafe_images_are_not_bad(run: RunFolder) -> None:
    images = _images(run)[:4]
    labels = ["good", "skip", "unsafe", "bad"]
    verdicts = [
        verdict_row(row["image_id"], PROMPT, label)
        for row, label in zip(images, labels, strict=True)
    ]
    write(run, images=images, prompts={PROMPT: "color"}, verdicts=verdicts, pairs=[])
    dataset = _load(run)
    assert [dataset.image_ids[i] for i in dataset.verdicts.image] == [
        images[0]["image_id"],
        images[3]["image_id"],
    ]
    assert dataset.verdicts.good.tolist() == [1, 0]
    assert len(dataset.image_ids) == 2


def test_the_same_asked_again_is_not_another_rater(run: RunFolder) -> None:
    images = _images(run)[:3]
    ids = [row["image_id"] for row in images]
    verdicts = [
        verdict_row(image_id, PROMPT, label)
        for image_id, label in zip(ids, (True, False, False), strict=True)
    ]
    verdicts += [{**verdict_row(ids[0], PROMPT, False), "task_id": "again"}]
    pairs = [
        {**pair_row(PROMPT, ids[0], ids[1], 1.0), "task_id": task} for task in ("first", "again")
    ]
    write(run, images=images, prompts={PROMPT: "color"}, verdicts=verdicts, pairs=pairs)
    asked = {
        "kind": "binary",
        "prompt_id": prompt_id(PROMPT),
        "image_ids": ids[:1],
        "overlap": 1,
        "priority": 0.0,
        "is_gold": False,
    }
    tasks = [
        {"task_id": task, "repeat_of": of, **asked, "created_at": NOON}
        for task, of in (("first", None), ("again", "first"))
    ]
    write_table(pa.Table.from_pylist(tasks, schema=TASKS), TASKS, run.latest / "tasks.parquet")
    dataset = _load(run)
    assert dataset.verdicts.good.tolist() == [1, 0, 0]
    assert len(dataset.pairs) == 1


def test_rankings_alone_are_a_dataset(run: RunFolder) -> None:
    images = _images(run)[:2]
    pairs = [pair_row(PROMPT, images[0]["image_id"], images[1]["image_id"], 0.5)]
    write(run, images=images, prompts={PROMPT: "color"}, verdicts=[], pairs=pairs)
    dataset = _load(run)
    assert len(dataset.verdicts) == 0
    assert dataset.pairs.label_0.tolist() == [0.5]
    assert dataset.pairs.weight.dtype == np.float32


def _without_labels(run: RunFolder) -> None:
    write(run, images=_images(run), prompts={PROMPT: "color"}, verdicts=[], pairs=[])


def _of_an_unknown_image(run: RunFolder) -> None:
    first, *images = _images(run)
    verdicts = [verdict_row(first["image_id"], PROMPT, True)]
    write(run, images=images, prompts={PROMPT: "color"}, verdicts=verdicts, pairs=[])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without_labels, "no label says good"),
        (_of_an_unknown_image, r"1 images that images\.parquet does not list"),
        (lambda run: next(run.images_dir.iterdir()).unlink(), "files of 1 labeled images are gone"),
        (lambda run: shutil.rmtree(run.latest), r"labels_binary\.parquet"),
    ],
    ids=range(4),
)
def test_labels_that_cannot_be_learned_from_are_one_clear_line(
    run: RunFolder, damage: Callable[[RunFolder], None], reason: str
) -> None:
    damage(run)
    with pytest.raises(PictuneError, match=reason):
        _load(run)


def test_an_image_of_two_prompts_is_one_image(run: RunFolder) -> None:
    row = _images(run)[0]
    path = run.root / row["path"]
    rows = [image_row(path, run.root, prompt) for prompt in (PROMPT, "A blue ball.")]
    verdicts = [
        verdict_row(row["image_id"], prompt, label)
        for prompt, label in ((PROMPT, True), ("A blue ball.", False))
    ]
    write(
        run,
        images=rows,
        prompts={PROMPT: "color", "A blue ball.": "color"},
        verdicts=verdicts,
        pairs=[],
    )
    dataset = _load(run)
    assert len(dataset.image_ids) == 1
    assert len(set(dataset.verdicts.prompt.tolist())) == 2
