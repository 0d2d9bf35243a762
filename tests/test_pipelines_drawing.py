"""Drawing, measuring and encoding in batches that a GPU's memory may not hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.files import sha256_of
from data.runs import RunFolder
from finetune.model.diffusion import DiffusionModel
from finetune.settings.sampler import Sampler
from pipelines.evaluate.text import metrics_file, read_evaluation
from pipelines.run.drawing import Batches, Drawer
from pipelines.run.image_plan import seeded
from reward.clip.backbone import ClipBackbone
from tests.support.demo_run import command, copy_without
from tests.support.tiny_diffusion import write_tiny_diffusion
from tests.support.tuned_run import copy_of

PLANNED = seeded(["A dog.", "A cat."], 5, run_seed=0)
SAMPLER = Sampler(steps=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    folder = write_tiny_diffusion(tmp_path_factory.mktemp("sd"))
    return DiffusionModel.from_pretrained(folder, device=torch.device("cpu"))


def with_memory_for(
    images: int,
    monkeypatch: pytest.MonkeyPatch,
    owner: type = DiffusionModel,
    name: str = "predict",
) -> list[int]:
    """Let a method run out of memory above so many images; return the sizes that it is tried with.

    The error is the one that CUDA raises; a CPU here has memory for all.
    """
    tried: list[int] = []
    plain = getattr(owner, name)

    def in_memory(self: Any, rows: Tensor, *words: Any, **more: Any) -> Tensor:
        tried.append(len(rows))
        if len(rows) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        result: Tensor = plain(self, rows, *words, **more)
        return result

    monkeypatch.setattr(owner, name, in_memory)
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


def test_batches_become_smaller_for_the_rest_and_keep_the_order() -> None:
    tried: list[Sequence[int]] = []

    def squares(rows: slice) -> list[int]:
        tried.append(range(10)[rows])
        if len(tried[-1]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [number**2 for number in tried[-1]]

    parts = list(Batches(8).over(10, squares, "squares"))
    assert [len(numbers) for numbers in tried] == [8, 4, 2, 2, 2, 2, 2]
    assert [one for part in parts for one in part] == [number**2 for number in range(10)]


@pytest.mark.slow
def test_an_evaluation_ends_where_memory_does_not_hold_its_batches(
    demo_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(demo_run, tmp_path)
    metrics_file(run).unlink()  # its images stay: others would differ by rounding
    chained = with_memory_for(3, monkeypatch)
    measured = with_memory_for(3, monkeypatch, ClipBackbone, "image_features")
    assert command(run, "evaluate") == 0
    assert max(chained) > 3
    assert max(measured) > 3
    for one, whole in zip(
        read_evaluation(run).results, read_evaluation(demo_run).results, strict=True
    ):
        assert (one.model, one.eta) == (whole.model, whole.eta)
        assert (one.kl is None) == (whole.kl is None)
        rewards = [[image.reward for image in result.images] for result in (one, whole)]
        assert rewards[0] == pytest.approx(rewards[1], abs=2e-4)  # they have four digits


@pytest.mark.slow
def test_a_training_encodes_its_images_where_memory_does_not_hold_a_batch(
    demo_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_without(demo_run, tmp_path, "evaluation", "finetune")
    encoded = with_memory_for(3, monkeypatch, DiffusionModel, "encode_images")
    assert command(run, "finetune", "--method", "rwl") == 0
    assert max(encoded) > 3
