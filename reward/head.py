"""A small ensemble of MLPs on CLIP embeddings.

It is computed as one batched product, so that k members cost little more than one.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ROWS = 16_384
"""Pairs of embeddings that go through the layers at a time, which bounds the memory."""


class EnsembleHead(nn.Module):
    """`members` MLPs with ReLU on [image, text, image * text, cosine], plus a slope times cosine.

    Differs from Lee et al.'s head (two layers of 1,024 on [image, text]) in: 1. the product and the
    cosine are inputs, since an MLP learns products slowly and cannot find them for a prompt that it
    never saw; 2. the inputs are scaled to unit size; 3. the cosine is added with its own slope, so
    that training starts near the CLIP score and falls back on it for new prompts.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int], members: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dim = dim
        widths = [3 * dim + 1, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(
                _uniform((members, inputs, outputs), math.sqrt(3) * bound, generator)
            )
            self.biases.append(_uniform((members, 1, outputs), bound, generator))
        self.slope = nn.Parameter(torch.ones(members, 1))

    def center(self, image: Tensor, text: Tensor) -> None:
        """Shift the logits of embeddings [B, D] to a mean of 0, where a sigmoid learns quickest."""
        with torch.no_grad():
            self.biases[-1] -= self(image, text).mean(1)[:, None, None]

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Return logits [members, B] of unit-length embeddings [B, D] of images and prompts."""
        if len(image) > ROWS:
            parts = zip(image.split(ROWS), text.split(ROWS), strict=True)
            return torch.cat([self(*part) for part in parts], dim=1)
        scale = math.sqrt(self.dim)
        product = image * text
        cosine = self._cosine(product)
        # Entries of a unit vector are about 1/sqrt(D), those of a product about 1/D, and the cosine
        # of two random vectors about 1/sqrt(D).
        inputs = torch.cat(
            [scale * image, scale * text, self.dim * product, cosine[:, None]], dim=-1
        )
        hidden = inputs.expand(self.weights[0].shape[0], -1, -1)  # [members, B, inputs]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else torch.relu(hidden)
        return hidden.squeeze(-1) + self.slope * cosine

    def _cosine(self, product: Tensor) -> Tensor:
        """Return the cosine [B], scaled to about unit spread."""
        return math.sqrt(self.dim) * product.sum(-1)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
