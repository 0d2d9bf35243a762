"""The head that predicts maps: the share of raters who would mark each place of an image.

A small head reads the patch tokens of the reward's frozen CLIP and the prompt's embedding. It is
trained on marks as RichHF's heatmaps are (Liang et al. 2024, arXiv 2312.10240). That model reads
all words beside the patches; here the prompt scales and shifts the patches' channels (FiLM, Perez
et al. 2018, arXiv 1709.07871).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.quality.regions import MAP_SIZE
from data.regions import Box
from reward.clip.backbone import ClipBackbone, Preprocessing

WIDTH = 64
"""Channels of the head."""


class MapHead(nn.Module):
    """Linear layer and two 3x3 convolutions on the patches' square, with FiLM by the prompt.

    With tokens of length 1,024 and prompts of length 768 it has 0.24M parameters.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: ClipBackbone, aspects: Sequence[str], *, generator: torch.Generator
    ) -> None:
        """Make an untrained head on the CPU, with a map of each aspect.

        `generator` (CPU) draws its weights.
        """
        super().__init__()
        self.aspects = tuple(aspects)
        """What the marks speak of, in the order of the maps."""
        _, tokens = backbone.patch_shape
        # torch's own weights would be drawn from its global generator
        empty: Any = nn.utils.skip_init
        self.enter = empty(nn.Linear, tokens, WIDTH)
        self.film = empty(nn.Linear, backbone.dim, 2 * WIDTH)
        self.convolutions = nn.ModuleList(
            empty(nn.Conv2d, WIDTH, WIDTH, 3, padding=1, padding_mode="replicate")
            for _ in range(2)  # zeros would fade maps at the edges
        )
        self.leave = empty(nn.Conv2d, WIDTH, len(self.aspects), 1)
        for weight in self.parameters():
            bound = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        self.register_buffer("mean", torch.zeros(tokens))
        self.register_buffer("std", torch.ones(tokens))

    @torch.no_grad()
    def center(self, tokens: Tensor, share: Tensor) -> None:
        """Standardize by tokens [B, P, W] of images, and begin at the mean `share` [A] of marks."""
        std, mean = torch.std_mean(tokens, dim=(0, 1), correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-4, std, 1.0))  # a constant channel
        self.leave.bias.copy_(torch.logit(share, eps=1e-4))

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Return maps [B, A, MAP_SIZE, MAP_SIZE] in (0, 1) of tokens [B, P, W], prompts [B, D]."""
        side = round(tokens.shape[1] ** 0.5)
        hidden = self.enter((tokens - self.mean) / self.std).mT.unflatten(2, (side, side))
        scale, shift = self.film(text * text.shape[1] ** 0.5)[..., None, None].chunk(2, dim=1)
        hidden = torch.relu(hidden * (1 + scale) + shift)
        for convolution in self.convolutions:
            hidden = torch.relu(convolution(hidden))
        maps = functional.interpolate(
            self.leave(hidden), size=MAP_SIZE, mode="bilinear", align_corners=False
        )
        return torch.sigmoid(maps)

    @torch.no_grad()
    def predict(self, backbone: ClipBackbone, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return maps [B, A, H, W] in [0, 1] of images [B, 3, H, W] in [0, 1] for their prompts.

        A map is 0 where CLIP does not see the image, as at the ends of one that is not square.
        """
        tokens = backbone.patch_tokens(backbone.preprocess(images.to(backbone.device).float()))
        maps = self(tokens, backbone.text_embedding(prompts))
        height, width = images.shape[-2:]
        return on_image(maps, seen_part(backbone.preprocess, height, width), height, width)


def seen_part(steps: Preprocessing, height: int, width: int) -> Box:
    """Return the part of an image that CLIP sees, in fractions of the image."""
    if steps.shortest_edge is None:
        return 0, 0, 1, 1
    shorter = min(height, width) * steps.crop / steps.shortest_edge
    left, top = ((1 - shorter / side) / 2 for side in (width, height))
    return left, top, 1 - left, 1 - top


def on_image(maps: Tensor, part: Box, height: int, width: int) -> Tensor:
    """Return maps [B, A, S, S] of a part of images at the images' size, [B, A, H, W]."""
    left, top, right, bottom = (
        round(edge * side) for edge, side in zip(part, (width, height) * 2, strict=True)
    )
    size = (bottom - top, right - left)
    inside = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return functional.pad(inside, (left, width - right, top, height - bottom))
