"""Measures of images that show when a policy exploits its reward, which the reward itself cannot.

Each is compared with the untuned model's on the same prompts and seeds. Saturation and sharpness
run away when the reward likes garish or blurred images, diversity falls when one image answers for
all, and the members of a reward ensemble disagree where they have seen no labels. `stale_reward` is
not relative: it is the share of labeled images that vouch for the model's mean reward (see
`finetune.staleness`). None of them is trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional

from finetune.reward_fn import RewardFn

Measure = Literal["saturation", "sharpness", "diversity", "disagreement", "stale_reward"]
STALE_REWARD: Measure = "stale_reward"


class Limits(BaseModel, frozen=True, extra="forbid"):
    """Bounds of the measures; but for the last, relative to those of the untuned model."""

    saturation: float = Field(default=1.5, gt=1)
    """Factor by which the colors' mean saturation may grow or fall."""
    sharpness: float = Field(default=2.0, gt=1)
    """Factor by which the mean sharpness may grow or fall."""
    diversity: float = Field(default=0.6, gt=0, lt=1)
    """Least share of the untuned model's diversity; with the demo's settings and three seeds RWL,
    NFT and preference kept 0.54 to 0.96 of it."""
    disagreement: float = Field(default=2.0, gt=1)
    """Factor by which the reward ensemble's disagreement may grow."""
    stale_reward: float = Field(default=0.1, ge=0, lt=1)
    """Least effective sample size of a prompt's labeled images, as a share of them, when they are
    reweighted to the mean reward of the tuned model's; below it is time to label."""

    def exceeded(
        self, present: Mapping[str, float], untuned: Mapping[str, float]
    ) -> dict[Measure, str]:
        """Return the measures beyond their limits, each with a sentence.

        A measure that the untuned model does not have is not judged, nor is the staleness of a
        reward that the untuned model's images exceed as well.
        """
        bounds: dict[Measure, tuple[float, float]] = {
            "saturation": (1 / self.saturation, self.saturation),
            "sharpness": (1 / self.sharpness, self.sharpness),
            "diversity": (self.diversity, float("inf")),
            "disagreement": (0, self.disagreement),
        }
        found: dict[Measure, str] = {}
        for name, (least, most) in bounds.items():
            if name not in present or not untuned.get(name):
                continue
            ratio = present[name] / untuned[name]
            if not least <= ratio <= most:
                limit = f"at least {least:.2g}" if ratio < least else f"at most {most:.2g}"
                values = f"{present[name]:.3g} from {untuned[name]:.3g}, {limit}"
                found[name] = f"{name} is {ratio:.2f} times the untuned model's ({values})"
        share, before = (one.get(STALE_REWARD, 1.0) for one in (present, untuned))
        if share < self.stale_reward <= before:
            found[STALE_REWARD] = (
                "label now: hardly any labeled image scores as high as the model's, an effective "
                f"share of {share:.2g} (stale_reward, at least {self.stale_reward:.2g})"
            )
        return found


@dataclass(frozen=True)
class Monitor:
    """Measures images beside their reward."""

    embed: Callable[[Tensor], Tensor] | None = None
    """Returns embeddings [B, D] of images [B, 3, H, W] in [0, 1]; without it diversity is not
    measured."""
    disagreement: RewardFn | None = None
    """Returns the standard deviation [B] of the reward ensemble's members; None without an
    ensemble."""

    @torch.no_grad()
    def measure(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the measures that `summary` needs of images [B, 3, H, W] in [0, 1], a row each."""
        found = {"saturation": saturation(images), "sharpness": sharpness(images)}
        if self.embed is not None:
            found["embedding"] = self.embed(images)
        if self.disagreement is not None:
            found["disagreement"] = self.disagreement(images, prompts)
        return found


PIXEL_MONITOR = Monitor()
"""Monitor that needs no model: saturation and sharpness."""


def summary(measured: Mapping[str, Tensor], prompts: Sequence[str]) -> dict[str, float]:
    """Return means over the images that were measured, and the `diversity` of their embeddings."""
    means = {name: float(values.mean()) for name, values in measured.items() if name != "embedding"}
    spread = diversity(measured["embedding"], prompts) if "embedding" in measured else None
    return means if spread is None else means | {"diversity": spread}


def saturation(images: Tensor) -> Tensor:
    """Return the mean saturation [B] in [0, 1] of images [B, 3, H, W].

    It is (max - min) / max of each pixel's channels, as in HSV.
    """
    most, least = images.amax(1), images.amin(1)
    return ((most - least) / most.clamp(min=1e-6)).flatten(1).mean(1)


def sharpness(images: Tensor) -> Tensor:
    """Return the standard deviation [B] of the Laplacian of images [B, 3, H, W] in gray.

    This measure of focus is that of Pech-Pacheco et al. 2000.
    """
    laplacian = images.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edges = functional.conv2d(images.mean(1, keepdim=True), laplacian.view(1, 1, 3, 3))
    return edges.flatten(1).std(1)


def diversity(embeddings: Tensor, prompts: Sequence[str]) -> float | None:
    """Return the mean cosine distance of two images of the same prompt, averaged over prompts.

    `embeddings` are [B, D]. None where no prompt has two images.
    """
    unit = functional.normalize(embeddings.float(), dim=1)
    distances = []
    for prompt in dict.fromkeys(prompts):
        mine = unit[[i for i, other in enumerate(prompts) if other == prompt]]
        count = len(mine)
        if count > 1:
            distances.append(1 - (mine.sum(0).square().sum() - count) / (count * (count - 1)))
    return float(torch.stack(distances).mean()) if distances else None
