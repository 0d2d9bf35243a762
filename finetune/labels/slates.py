"""Labels as the methods that learn from them take them: slates of images that share their prompt.

A slate is a ranking, or a good and a bad image of one prompt, so that one code path serves both.
"""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slates:
    """R slates of up to M images of one prompt each, on the CPU."""

    image: Tensor
    """[R, M] rows of `LabeledImages.latents`."""
    ranks: Tensor
    """[R, M] in float: lower is better, equal is a tie, NaN is no image or one without a rank."""
    prompt: Tensor
    """[R] into `LabeledImages.prompts`."""
    weight: Tensor
    """[R], how much each counts."""

    def __len__(self) -> int:
        return len(self.image)

    def where(self, chosen: Tensor) -> Self:
        """Return some of the slates."""
        return type(self)(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @property
    def present(self) -> Tensor:
        """Bool [R, M], true where there is an image with a rank."""
        return ~self.ranks.isnan()

    @property
    def decided(self) -> Tensor:
        """Bool [R], true where one image is better than another."""
        return better_pairs(self.ranks).flatten(1).any(1)


@dataclass(frozen=True)
class Verdicts:
    """V images with what raters said of each for its prompt, on the CPU."""

    image: Tensor
    """[V] rows of `LabeledImages.latents`."""
    prompt: Tensor
    """[V] into `LabeledImages.prompts`."""
    good: Tensor
    """[V] in [0, 1], share of the raters who said good."""
    weight: Tensor
    """[V], number of the raters, weighed as the settings say."""

    def __len__(self) -> int:
        return len(self.image)

    def where(self, chosen: Tensor) -> Self:
        """Return some of the verdicts."""
        return type(self)(*(getattr(self, each.name)[chosen] for each in fields(self)))


@dataclass(frozen=True)
class Labels:
    """Rankings and verdicts."""

    rankings: Slates
    verdicts: Verdicts


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images with their labels."""

    latents: Tensor
    """[N, C, h, w], from `DiffusionModel.encode_images`."""
    prompts: tuple[str, ...]
    """The distinct prompts."""
    taught: Labels
    """Labels to learn from."""
    held_out: Labels
    """Verdicts on images that `taught` does not know, and rankings with such an image."""
    rewards: Tensor | None = None
    """[N] by the reward, on the CPU, NaN for images that are not in `held_out`; None without a
    reward."""


def better_pairs(ranks: Tensor) -> Tensor:
    """Return bool [..., M, M], true at (i, j) where image i is better than j by `ranks` [..., M].

    Images of rank NaN are neither better nor worse.
    """
    return ranks[..., :, None] < ranks[..., None, :]


def draw_rankings(rankings: Slates, count: int, *, generator: torch.Generator) -> Slates:
    """Return so many of the rankings, each drawn by its weight."""
    return rankings.where(
        torch.multinomial(rankings.weight, count, replacement=True, generator=generator)
    )


def winners_of(verdicts: Verdicts) -> Tensor:
    """Return the probability [V] of each image to be drawn as the good one of a pair.

    Each prompt with a good image and another, bad one counts the same; all are 0 without any.
    """
    weight = verdicts.weight * verdicts.good
    is_bad = (verdicts.weight * (1 - verdicts.good) > 0).long()
    others_bad = _sum_by(verdicts.prompt, is_bad)[verdicts.prompt] - is_bad
    weight = weight * (others_bad > 0)
    share = weight / _sum_by(verdicts.prompt, weight)[verdicts.prompt]
    share = share.nan_to_num(0.0)
    return share / share.sum().clamp(min=1e-30)


def draw_pairs(verdicts: Verdicts, count: int, *, generator: torch.Generator) -> Slates:
    """Return so many pairs of a good and a bad image of one prompt.

    A pair is two verdicts of opposite sense by any raters, so where raters differ about an image it
    is the good one of some pairs and the bad one of others.
    """
    share = winners_of(verdicts)
    good = torch.multinomial(share, count, replacement=True, generator=generator)
    bad_weight = verdicts.weight * (1 - verdicts.good)
    fits = verdicts.prompt[good, None] == verdicts.prompt[None, :]
    fits[torch.arange(count), good] = False
    bad = torch.multinomial(bad_weight * fits, 1, generator=generator).squeeze(1)
    return Slates(
        image=torch.stack([verdicts.image[good], verdicts.image[bad]], dim=1),
        ranks=torch.tensor([0.0, 1.0]).expand(count, 2),
        prompt=verdicts.prompt[good],
        weight=torch.ones(count),
    )


def draw_verdicts(verdicts: Verdicts, count: int, *, generator: torch.Generator) -> Verdicts:
    """Return so many of the verdicts, each drawn by its weight."""
    return verdicts.where(
        torch.multinomial(verdicts.weight, count, replacement=True, generator=generator)
    )


def _sum_by(prompt: Tensor, values: Tensor) -> Tensor:
    """Return the sums of `values` [V] by prompt."""
    length = int(prompt.max()) + 1 if len(prompt) else 0
    return values.new_zeros(length).index_add(0, prompt, values)


def agreement(scores: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many pairs of the rankings the scores order alike, and how many there are.

    Both arguments are [..., M]. Equal scores are half alike, and pairs that tie in `ranks` are not
    counted.
    """
    pairs = better_pairs(ranks)
    margins = scores[..., :, None] - scores[..., None, :]
    return ((margins.sign() + 1) / 2)[pairs].sum(), pairs.sum()
