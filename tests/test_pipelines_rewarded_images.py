"""Images that RWL learns from."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import COMPARISON, IMAGES, PLAYGROUND, SESSION, read_table, write_table
from finetune.labels.weighted_batches import WeightedData
from finetune.model.diffusion import DiffusionModel
from finetune.settings.sampler import Sampler
from pipelines.finetune.training_data import (
    Encoder,
    rewarded_images,
    run_images,
)
from pipelines.run.campaign import images_digest
from pipelines.run.image_io import load_fitted, load_image
from tests.support.small_training import redness
from tests.support.tiny_feedback import image_row, make_feedback, verdict_row, write

RED, BLUE = "A red ball.", "A blue ball."


@pytest.fixture(scope="module")
def encoder(sd_folder: Path) -> Encoder:
    return Encoder(DiffusionModel.from_pretrained(sd_folder), Sampler(steps=2), batch=2)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Four images of each prompt, of which the first is labeled."""
    run = make_feedback(tmp_path / "run", images_per_prompt=4)
    paths = sorted(run.images_dir.iterdir(), key=lambda path: int(path.stem))[:8]
    rows = [
        image_row(path, run.root, prompt)
        for path, prompt in zip(paths, [RED] * 4 + [BLUE] * 4, strict=True)
    ]
    verdicts = [
        verdict_row(str(rows[i]["image_id"]), prompt, label=True)
        for i, prompt in ((0, RED), (4, BLUE))
    ]
    write(run, images=rows, prompts={RED: "red", BLUE: "blue"}, verdicts=verdicts, pairs=[])
    shutil.copy(run.latest / "images.parquet", run.images_table)
    return run


def learned_from(run: RunFolder, prompt: str, encoder: Encoder) -> WeightedData:
    """Return what the method gets, with nothing drawn beside the run's images."""
    folder = run.root / "scored"
    return rewarded_images(run, [prompt], encoder, redness, scored=[], folder=folder)


def test_images_are_scored_and_encoded_at_the_models_own_size(
    run: RunFolder, encoder: Encoder
) -> None:
    data = learned_from(run, RED, encoder)
    assert data.latents.shape == (4, 4, 8, 8)
    paths = [path for path, _ in run_images(run, [RED])]
    images = torch.stack([load_fitted(path, (16, 16)) for path in paths])
    torch.testing.assert_close(data.rewards, redness(images, [RED] * 4))


@pytest.mark.parametrize("origin", [COMPARISON, PLAYGROUND, SESSION])
def test_images_that_were_drawn_for_people_are_not_learned_from(
    run: RunFolder, origin: str
) -> None:
    before = images_digest(run)
    table = read_table(run.images_table, IMAGES).to_pylist()
    strange = table[0] | {"image_id": "strange", "path": "images/strange.png", "origin": origin}
    write_table(pa.Table.from_pylist([*table, strange], IMAGES), IMAGES, run.images_table)
    assert len(run_images(run, [RED])) == 4
    assert images_digest(run) == before


def test_settings_that_leave_no_image_are_named(run: RunFolder, encoder: Encoder) -> None:
    with pytest.raises(PictuneError, match=r"set finetune\.scored_per_prompt"):
        learned_from(run, "Other.", encoder)


def test_an_image_of_another_size_is_scaled_to_cover_and_keeps_its_middle(tmp_path: Path) -> None:
    wide = Image.new("RGB", (60, 20), "blue")
    wide.paste("red", (20, 0, 40, 20))
    wide.save(tmp_path / "wide.png")
    fitted = load_fitted(tmp_path / "wide.png", (10, 10))
    torch.testing.assert_close(
        fitted[:, 4:6, 4:6], torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 2, 2)
    )
    assert torch.equal(
        load_fitted(tmp_path / "wide.png", (20, 60)), load_image(tmp_path / "wide.png")
    )
