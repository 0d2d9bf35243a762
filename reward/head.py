"""A small ensemble of MLPs on the features of a CLIP.

All members are computed in one batched product, so k members cost little more than one.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ROWS = 16_384
"""Rows per pass through the layers, which bounds the memory."""


class EnsembleHead(nn.Module):
    """`members` MLPs with ReLU on features of image and prompt, plus a slope times cosine.

    Differs from Lee et al.'s head (two layers of 1,024 on the embeddings of image and text) in:
    1. the image's pooled patches are also inputs, since the embedding drops details that captions
       seldom mention; 2. the product of the embeddings and their cosine are also inputs, since an
       MLP learns products slowly and not at all for unseen prompts; 3. the image's features are
       standardized over the labeled images, and the other inputs are scaled to about unit size; 4.
       the cosine is added with a slope of its own, so that training starts near the CLIP score and
       new prompts fall back on it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        dim: int,
        features: int,
        hidden: Sequence[int],
        members: int,
        *,
        generator: torch.Generator,
    ) -> None:
        """Make an untrained head.

        Args:
            dim: length D of the embeddings.
            features: length F of an image's features; the first D are its embedding.
            hidden: widths of the hidden layers.
            members: MLPs in the ensemble.
            generator: on the CPU; draws the initial weights.
        """
        super().__init__()
        self.dim, self.hidden, self.members = dim, tuple(hidden), members
        widths = [features + 2 * dim + 1, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(
                _uniform((members, inputs, outputs), math.sqrt(3) * bound, generator)
            )
            self.biases.append(_uniform((members, 1, outputs), bound, generator))
        self.slope = nn.Parameter(torch.ones(members, 1))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @torch.no_grad()
    def center(self, image: Tensor, text: Tensor) -> None:
        """Standardize by these image features [B, F], and shift the logits to a mean of 0.

        At 0 the sigmoid has its largest gradient. `text` are the prompts' embeddings [B, D].
        """
        self.mean.copy_(image.mean(0))
        std = image.std(0, correction=0)
        self.std.copy_(torch.where(std > 1e-4, std, 1.0))  # a constant feature
        self.biases[-1] -= self(image, text).mean(1)[:, None, None]

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return logits [members, B] of image features [B, F] and prompt embeddings [B, D]."""
        if len(image) > ROWS:
            parts = zip(image.split(ROWS), text.split(ROWS), strict=True)
            return torch.cat([self(*part) for part in parts], dim=1)
        product = image[:, : self.dim] * text
        cosine = math.sqrt(self.dim) * product.sum(-1)
        # Entries of a unit vector are about 1/sqrt(D), entries of a product 1/D, and the cosine
        # of two random vectors about 1/sqrt(D).
        inputs = torch.cat(
            [
                (image - self.mean) / self.std,
                math.sqrt(self.dim) * text,
                self.dim * product,
                cosine[:, None],
            ],
            dim=-1,
        )
        hidden = inputs.expand(self.members, -1, -1)  # [members, B, inputs]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else torch.relu(hidden)
        return hidden.squeeze(-1) + self.slope * cosine


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
