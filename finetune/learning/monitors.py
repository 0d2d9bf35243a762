"""Measures of images that show reward exploitation, which the reward itself cannot show.

Each measure is compared with its value for the untuned model, on the same prompts and seeds.
Saturation and sharpness grow or fall when the reward prefers garish or blurred images. Diversity
falls when all images become alike. The members of a reward ensemble disagree on images unlike all
labeled images. No measure is a training objective.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from finetune.learning.reward_fn import RewardFn


@dataclass(frozen=True)
class Monitor:
    """Computes measures of images other than the reward."""

    embed: Callable[[Tensor], Tensor] | None = None
    """Returns embeddings [B, D] of images [B, 3, H, W] in [0, 1]; without it diversity is not
    measured."""
    disagreement: RewardFn | None = None
    """Returns the standard deviation [B] of the reward ensemble's members; None without an
    ensemble."""

    @torch.no_grad()
    def measure(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the measures [B, ...] for `summary` of images [B, 3, H, W] in [0, 1], by name."""
        found = {"saturation": saturation(images), "sharpness": sharpness(images)}
        if self.embed is not None:
            found["embedding"] = self.embed(images)
        if self.disagreement is not None:
            found["disagreement"] = self.disagreement(images, prompts)
        return found


PIXEL_MONITOR = Monitor()
"""Monitor that needs no model: saturation and sharpness."""


def summary(measured: Mapping[str, Tensor], prompts: Sequence[str]) -> dict[str, float]:
    """Return the mean of each measure, and the `diversity` of the embeddings."""
    names = [name for name in measured if name != "embedding"]
    read = torch.stack([measured[name].mean() for name in names]).tolist()
    means = dict(zip(names, read, strict=True))
    spread = diversity(measured["embedding"], prompts) if "embedding" in measured else None
    return means if spread is None else means | {"diversity": spread}


def saturation(images: Tensor) -> Tensor:
    """Return the mean saturation (max - min) / max, as in HSV, [B] of images [B, 3, H, W]."""
    most, least = images.amax(1), images.amin(1)
    return ((most - least) / most.clamp(min=1e-6)).flatten(1).mean(1)


def sharpness(images: Tensor) -> Tensor:
    """Return the standard deviation [B] of gray images' Laplacian (Pech-Pacheco et al. 2000)."""
    laplacian = images.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edges = functional.conv2d(images.mean(1, keepdim=True), laplacian.view(1, 1, 3, 3))
    return edges.flatten(1).std(1)


def diversity(embeddings: Tensor, prompts: Sequence[str]) -> float | None:
    """Return the mean cosine distance of embeddings [B, D] within a prompt, averaged over prompts.

    Return None if no prompt has two images.
    """
    unit = functional.normalize(embeddings.float(), dim=1)
    distances = []
    for prompt in dict.fromkeys(prompts):
        mine = unit[[i for i, other in enumerate(prompts) if other == prompt]]
        count = len(mine)
        if count > 1:
            distances.append(1 - (mine.sum(0).square().sum() - count) / (count * (count - 1)))
    return float(torch.stack(distances).mean()) if distances else None
