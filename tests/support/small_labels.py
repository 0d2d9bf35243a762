"""Small trainings on labels of made-up latents."""

from typing import Any

import torch
from torch import Tensor

from finetune.labels.rankings import LabeledImages, Labels, Rankings, Verdicts
from finetune.settings.preference import PreferenceConfig
from finetune.settings.validation import ValidationConfig
from tests.support.small_training import seeded

PROMPTS = ("a cat", "a dog")
SMALL = PreferenceConfig(
    updates=4,
    batch=8,
    micro_batch=4,
    report_every=1,
    warmup=0,
    validation=ValidationConfig(every=2, images_per_prompt=2),
)


def rankings_of(*ranks: list[float], images: list[list[int]], prompt: list[int]) -> Rankings:
    """Return rankings of equal weight with these ranks and images."""
    count = len(ranks)
    return Rankings(
        torch.tensor(images), torch.tensor(prompt), torch.ones(count), torch.tensor(ranks)
    )


def no_rankings() -> Rankings:
    """Return no rankings."""
    none = torch.zeros(0, dtype=torch.long)
    return Rankings(none.view(0, 2), none, torch.zeros(0), torch.zeros(0, 2))


def verdicts_of(good: list[float], prompt: list[int], first: int = 0) -> Verdicts:
    """Return verdicts of one rater each on images from number `first` on."""
    image = torch.arange(first, first + len(good))
    return Verdicts(image, torch.tensor(prompt), torch.ones(len(good)), torch.tensor(good))


def no_verdicts() -> Verdicts:
    """Return no verdicts."""
    none = torch.zeros(0, dtype=torch.long)
    return Verdicts(none, none, torch.zeros(0), torch.zeros(0))


def small_labels(*, latents: Tensor | None = None, **parts: Any) -> LabeledImages:
    """Return 12 random latents of two prompts with rankings and verdicts of each.

    `parts` replaces `taught` or `held_out`.
    """
    nan = torch.nan
    rankings = rankings_of(
        [0.0, 1.0, 2.0],
        [1.0, 0.0, nan],
        images=[[0, 2, 4], [1, 3, 0]],
        prompt=[0, 1],
    )
    taught = Labels(rankings, verdicts_of([1.0, 0.0, 0.5, 1.0, 0.0], [0, 0, 0, 1, 1], first=3))
    pair = rankings_of([0.0, 1.0], images=[[8, 0]], prompt=[0])
    held_out = Labels(pair, verdicts_of([1.0, 0.0], [1, 1], first=9))
    if latents is None:
        latents = torch.randn(12, 4, 8, 8, generator=seeded(3))
    given = {"taught": taught, "held_out": held_out} | parts
    return LabeledImages(latents=latents, prompts=PROMPTS, **given)
