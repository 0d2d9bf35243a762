"""Drawing in batches that a GPU's memory may not hold."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.files import sha256_of
from finetune.diffusion import DiffusionModel
from finetune.settings.sampler import Sampler
from pipelines.drawing import Drawer
from pipelines.image_plan import seeded
from tests.support.tiny_diffusion import write_tiny_diffusion

PLANNED = seeded(["A dog.", "A cat."], 5, run_seed=0)
SAMPLER = Sampler(steps=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    folder = write_tiny_diffusion(tmp_path_factory.mktemp("sd"))
    return DiffusionModel.from_pretrained(folder, device=torch.device("cpu"))


def with_memory_for(images: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the UNet run out of memory above so many images; return the sizes that it is tried with.

    The error is the one that CUDA raises; a CPU here has memory for all.
    """
    tried: list[int] = []
    predict = DiffusionModel.predict

    def predict_in_memory(model: DiffusionModel, latents: Tensor, *words: Any) -> Tensor:
        tried.append(len(latents))
        if len(latents) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(model, latents, *words)

    monkeypatch.setattr(DiffusionModel, "predict", predict_in_memory)
    return tried


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_a_batch_that_memory_does_not_hold_is_halved_for_the_rest_of_the_stage(
    model: DiffusionModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = with_memory_for(3, monkeypatch)
    drawer = Drawer(model, batch=8)
    assert drawer.draw_missing(PLANNED, tmp_path / "halved", SAMPLER) == 10
    assert tried[:4] == [8, 4, 2, 2]
    assert max(tried[2:]) == 2
    assert "4 images at once do not fit into the memory: 2 from now on" in capsys.readouterr().err
    tried.clear()
    more = seeded(["A cow."], 8, run_seed=0)
    assert drawer.draw_missing(more, tmp_path / "more", SAMPLER) == 8
    assert max(tried) == 2
    Drawer(model, batch=2).draw_missing(PLANNED, tmp_path / "twos", SAMPLER)
    assert files_in(tmp_path / "halved") == files_in(tmp_path / "twos")


def test_an_image_is_drawn_in_as_large_a_batch_whatever_is_there_already(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last bits depend on the size; with this model few of them reach a pixel.
    sizes = with_memory_for(8, monkeypatch)
    drawer = Drawer(model, batch=4)
    drawer.draw_missing(PLANNED, tmp_path, SAMPLER)
    assert sizes == [4, 4, 4, 4, 2, 2]  # each in two steps
    drawn = files_in(tmp_path)
    for missing, tried in (
        ([0, 5], [4, 4]),
        ([9], [2, 2]),
        ([1, 2, 3, 4, 6, 8], [4] * 4 + [2] * 2),
    ):
        for number in missing:
            (tmp_path / PLANNED[number].file_name).unlink()
        sizes.clear()
        drawer.draw_missing(PLANNED, tmp_path, SAMPLER)
        assert sizes == tried
        assert files_in(tmp_path) == drawn


def test_one_image_that_memory_does_not_hold_is_an_error(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory_for(0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        Drawer(model, batch=4).draw_missing(PLANNED, tmp_path, SAMPLER)
    assert not list(tmp_path.iterdir())
