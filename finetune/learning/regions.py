"""Regions: masks on the update, so that a method learns in a part of the image alone.

A mask M [N, 1, h, w] lies on the latents: 1 where an image is wrong, 0 elsewhere. Methods that
learn from images that exist skip the wrong parts of good images. Methods that draw their images
learn inside M, and pull the rest to the base (Focus-N-Fix, Xing et al. 2025, arXiv 2501.06481).

The place of a mask is the latents' grid, as every family of models takes latents [N, C, h, w];
those with tokens of several latents lay them out themselves.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Regions(NamedTuple):
    """The places where a method may change the images that it draws."""

    mask: Callable[[Tensor, Sequence[str]], Tensor]
    """Returns masks [N, 1, h, w] of the images of latents [N, C, h, w] and their prompts."""
    outside_weight: float
    """Weight of changes outside the mask."""


def latent_mask(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks [N, 1, h, w] of pixels [N, H, W], which are above 0 where an image is wrong.

    A cell counts if one of its pixels does, or a pixel of a cell beside it: a latent depends on
    pixels around its own.
    """
    cells = functional.adaptive_max_pool2d((pixels > 0).float()[:, None], size)
    return functional.max_pool2d(cells, 3, stride=1, padding=1)


def balanced(mask: Tensor) -> Tensor:
    """Return masks [N, 1, h, w] divided by the mean of each; 0 where all is masked.

    So the mean size of an update is that without a mask, and a gain is no larger learning rate.
    """
    mean = mask.mean((1, 2, 3), keepdim=True)
    return mask / torch.where(mean > 0, mean, 1)


def change_outside(images: Tensor, base: Tensor, mask: Tensor) -> Tensor:
    """Return the change [N] outside of masks [N, 1, H, W] between two images [N, 3, H, W].

    It is ||(1 - M)(base - image)||_F of Focus-N-Fix over the root of the number of values, so that
    its weight does not depend on the size of images.
    """
    change = ((1 - mask) * (base - images)).flatten(1)
    norms: Tensor = torch.linalg.vector_norm(change, dim=1)
    return norms / math.sqrt(change.shape[1])
