"""Tiny models of every family on the pretended GPU, and trainings of every method on them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finetune.model.diffusion import DiffusionModel
from finetune.settings.model import AdapterSettings, Precision
from finetune.settings.validation import ValidationConfig
from pipelines.finetune.job import watch_of
from tests.support.pretended_gpu import Counts
from tests.support.small_labels import small_labels
from tests.support.small_methods import Run
from tests.support.small_training import seeded
from tests.support.tiny_diffusion import write_tiny_diffusion, write_tiny_sdxl
from tests.support.tiny_flow import write_tiny_flux, write_tiny_sd3
from tests.support.tiny_language import LANGUAGE_WRITERS

GPU = "gpu:0"
FAMILIES: dict[str, tuple[Callable[[Path], Path], Precision]] = {
    "sd1": (write_tiny_diffusion, "fp16"),
    "sdxl": (write_tiny_sdxl, "fp16"),
    "sd3": (write_tiny_sd3, "bf16"),
    "flux": (write_tiny_flux, "bf16"),
    **{name: (LANGUAGE_WRITERS[name], "bf16") for name in ("z-image", "klein", "qwen-image")},
}
"""Each family with the precision that it is tried in; fp32 is tried in the stages."""
_NEVER = ValidationConfig(every=100, images_per_prompt=1)


def opened(folder: Path, family: str) -> DiffusionModel:
    """Open a family's folder on the pretended GPU, for images of 16x16."""
    precision = FAMILIES[family][1]
    return DiffusionModel.from_pretrained(folder, device=GPU, precision=precision, image_size=16)


def training_on_gpu(model: DiffusionModel, method: str) -> Run:
    """Return a training of 3 iterations or updates, validated before the first and at the end.

    An iteration draws in one denoising loop.
    """
    model.add_adapter(AdapterSettings(rank=2), generator=seeded())
    parts: dict[str, Any] = {}
    if method == "preference":
        latents = torch.randn(12, 4, 8, 8, generator=seeded(3)).to(GPU)
        parts["data"] = small_labels(latents=latents)
    total = "updates" if method in ("rwl", "preference") else "iterations"
    changes: dict[str, Any] = {total: 3, "validation": _NEVER}
    if method == "reward_gradient":
        changes |= {"pretraining_weight": 0.0}  # else it first draws many images of the base
    if method == "nft":
        changes |= {"noise_levels": 2, "updates": 2}
    run = Run(model, method, parts=parts, **changes)
    run.training = replace(run.training, watch=watch_of(model.device))
    return run


def of_one_iteration(
    run: Run, counts: Counts, between: Callable[[], object] = lambda: None
) -> Counter[tuple[str, str]]:
    """Take two iterations; return what the second one cost, by kind and place.

    It has no validation. `between` is called before it.
    """
    steps = run.steps()
    next(steps)
    between()
    before = counts.by_place.copy()
    next(steps)
    return counts.by_place - before
