"""The benchmark of drawing compares like with like."""

from pathlib import Path

import torch

from benchmarks.bench_drawing import Work, compare
from finetune.model.diffusion import DiffusionModel
from finetune.settings.sampler import Sampler
from pipelines.run.image_plan import seeded
from tests.support.tiny_diffusion import write_tiny_diffusion


def test_all_loops_draw_the_same_images(tmp_path: Path) -> None:
    folder = write_tiny_diffusion(tmp_path / "sd", scheduler="ddim")
    model = DiffusionModel.from_pretrained(folder, device=torch.device("cpu"))
    planned = seeded(["A dog.", "A cat."], 3, run_seed=0)
    figures = compare(Work(model, planned, Sampler(steps=3), batch=4), rounds=1)
    assert figures["largest_difference_of_a_pixel"] <= 1
    assert all(figures[name]["images_per_second"] > 0 for name in ("ours", "ours_in_turn", "plain"))
