"""Trainings on a tiny model, with everything that a test does not name filled in."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.labels.rankings import LabeledImages
from finetune.labels.weighted_batches import WeightedData
from finetune.learning.method import Method, Training, new_training
from finetune.learning.monitors import PIXEL_MONITOR, Monitor
from finetune.learning.reward_fn import RewardFn
from finetune.model.diffusion import DiffusionModel
from finetune.settings.method import MethodConfig
from finetune.settings.model import AdapterSettings, Precision
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationRules

NO_SAMPLES = torch.zeros(0, 0, 3, 1, 1)
"""Samples of a validation that only its figures matter of."""


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Reward the amount of red."""
    assert len(prompts) == len(images)
    return images[:, 0].mean((1, 2))


def seeded(seed: int = 0) -> torch.Generator:
    """Return a new generator with this seed."""
    return torch.Generator().manual_seed(seed)


def draw_by_stock(pipeline: Any, seed: int) -> Tensor:
    """Return an image of "a dog" by 4 steps of a stock pipeline with the scheduler that it has."""
    images: Tensor = pipeline(
        "a dog",
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=torch.randn((1, 4, 8, 8), generator=seeded(seed)),
        height=16,
        width=16,
        output_type="pt",
    ).images
    return images


def open_with_adapter(
    folder: Path,
    settings: AdapterSettings | None = None,
    *,
    precision: Precision = "fp32",
    generator: torch.Generator | None = None,
    image_size: int | None = None,
) -> DiffusionModel:
    """Open a model and add a LoRA: of rank 2 and drawn from seed 0, where nothing else is named."""
    model = DiffusionModel.from_pretrained(folder, precision=precision, image_size=image_size)
    model.add_adapter(settings or AdapterSettings(rank=2), generator=generator or seeded())
    return model


def perturb(
    model: DiffusionModel, amount: float = 0.1, *, generator: torch.Generator | None = None
) -> None:
    """Add noise of this size to all adapters, so that they change the predictions."""
    generator = generator or seeded(1)
    for weight in model.adapter.parameters().values():
        weight.data.add_(amount * torch.randn(weight.shape, generator=generator))


def training_of(
    model: DiffusionModel,
    config: MethodConfig,
    *,
    prompts: Sequence[str] = ("a cat", "a dog"),
    reward: RewardFn | None = redness,
    sampler: Sampler | None = None,
    generator: torch.Generator | None = None,
    watched: Sequence[str] = (),
    monitor: Monitor = PIXEL_MONITOR,
    data: WeightedData | LabeledImages | None = None,
    rules: ValidationRules | None = None,
) -> Training[Any]:
    """Return a training with seed 0; validation is on the `watched` prompts, else on all."""
    training = new_training(
        model,
        prompts,
        reward,
        config,
        generator=generator or seeded(),
        sampler=sampler or Sampler(steps=3),
        validation_prompts=watched,
        monitor=monitor,
        rules=rules or ValidationRules(),
    )
    return replace(training, data=data)


def trained(method: Method[Any], training: Training[Any]) -> Iterator[Any]:
    """Train from the start on, and yield metrics."""
    return method.train(training, method.start(training))
