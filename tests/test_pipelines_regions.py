"""Marks of a run as masks of a model's latents, and the stage that tunes by them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import PictuneError
from data.regions import Mark, regions_file
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from finetune.model.diffusion import DiffusionModel
from pipelines.cli import main
from pipelines.evaluate.changes import change_of
from pipelines.evaluate.figures import Measured
from pipelines.finetune.regions import MarkedImages, fitted
from pipelines.run.image_plan import Planned
from pipelines.run.record import read_stamp
from tests.support.tiny_feedback import make_feedback
from tests.support.tiny_marks import write_marks
from tests.support.tuned_run import copy_of, words

PROMPT = "A red square."


def box(x0: float, y0: float, x1: float, y1: float) -> Mark:
    return Mark(kind="box", aspect="artifact", x0=x0, y0=y0, x1=x1, y1=y1)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = make_feedback(tmp_path / "run", images_per_prompt=3)
    shutil.copy(run.latest / "images.parquet", run.images_table)
    return run


def test_marks_are_cropped_and_scaled_with_their_image() -> None:
    # The middle 32 of 40 columns are kept, at half the size.
    found = fitted([box(0.5, 0.25, 0.6, 0.5), box(0.0, 0.0, 0.05, 0.05)], (32, 40), (16, 16))
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 8:10] = True
    assert torch.equal(found, expected)
    whole = fitted([box(0.5, 0.25, 0.75, 0.5)], (16, 16), (16, 16))
    assert whole[4:8, 8:12].all()
    assert int(whole.sum()) == 16


def test_an_images_mask_is_the_union_of_all_its_raters(run: RunFolder, sd_folder: Path) -> None:
    rows = [
        row for row in read_table(run.images_table, IMAGES).to_pylist() if row["prompt"] == PROMPT
    ]
    first, second, _ = (row["image_id"] for row in rows)
    corners = [box(0.11, 0.01, 0.12, 0.02), box(0.88, 0.97, 0.89, 0.99)]
    write_marks(
        run, [(first, corners[:1]), (first, corners[1:]), (second, []), (second, corners[:1])]
    )
    model = DiffusionModel.from_pretrained(sd_folder)
    marked = MarkedImages(run, model, [PROMPT])
    paths = [run.root / row["path"] for row in rows]
    masks = marked.of_files(paths, [PROMPT] * 3)
    assert masks.shape == (3, 1, 8, 8)
    assert masks.sum((1, 2, 3)).tolist() == [8, 4, 0]  # a corner and the cells beside it
    assert masks[0, 0, :2, :2].all()
    assert masks[0, 0, 6:, 6:].all()
    drawn = marked.of_drawn(torch.zeros(2, 4, 8, 8), [PROMPT, "A cat."])
    assert torch.equal(drawn[0], masks[0])
    assert not drawn[1].any()
    with pytest.raises(PictuneError, match=r"no mark on an image of the training prompts"):
        MarkedImages(run, model, ["A cat."])


def test_marks_that_would_be_ignored_are_refused(
    ready: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(ready, tmp_path)
    on = 'finetune.regions="marks"'
    for method, settings, message in (
        ("dpok", [on], "finetune.regions: dpok learns from whole images"),
        ("rwl", [on], f"{regions_file(run.latest)}: no such file"),
    ):
        assert main(words(run, method, settings)) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("method", ["rwl", "preference", "nft", "reward_gradient"])
def test_the_stage_tunes_by_marks(ready: RunFolder, tmp_path: Path, method: str) -> None:
    run = copy_of(ready, tmp_path)
    rows = read_table(run.images_table, IMAGES).to_pylist()
    write_marks(run, [(row["image_id"], [box(0, 0, 0.4, 0.4)]) for row in rows])
    assert main(words(run, method, ['finetune.regions="marks"'])) == 0
    first = read_stamp(run.finetune_dir(method) / "stage.json")
    write_marks(run, [(row["image_id"], [box(0.5, 0, 1, 0.4)]) for row in rows])
    assert main(words(run, method, [])) == 0  # other marks: trained again
    second = read_stamp(run.finetune_dir(method) / "stage.json")
    assert first is not None
    assert second is not None
    assert first.inputs["marks"] != second.inputs["marks"]


def test_a_change_is_told_apart_inside_and_outside_of_the_marks(run: RunFolder) -> None:
    rows = [
        row for row in read_table(run.images_table, IMAGES).to_pylist() if row["prompt"] == PROMPT
    ]
    assert change_of(run, measured(run, "dark"), measured(run, "dark")) is None  # no marks
    write_marks(run, [(rows[0]["image_id"], [box(0, 0, 0.5, 1)])])
    found = change_of(run, measured(run, "half"), measured(run, "dark"))
    assert found is not None
    assert (found.n, found.outside) == (1, 0)
    assert found.inside == pytest.approx(1)


def measured(run: RunFolder, name: str) -> Measured:
    """Return an image that is black, or white in its left half."""
    path, image = run.root / f"{name}.png", Image.new("RGB", (16, 16))
    if name == "half":
        image.paste("white", (0, 0, 8, 16))
    image.save(path)
    none: list[float] = []
    return Measured([Planned(PROMPT, 1)], [path], None, None, none, np.zeros((1, 1)), None)
