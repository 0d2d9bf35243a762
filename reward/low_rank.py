"""LoRA on the linear layers of a module (Hu et al. 2021, arXiv 2106.09685): W + up @ down, where `up` starts at 0.

Differs from the paper in: 1. no alpha, since the learning rate does its work; 2. no dropout, since a score must not be random.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """A trained update of rank `rank` to a weight."""

    def __init__(self, weight: Tensor, rank: int, *, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        bound = 1 / inputs**0.5
        self.down = nn.Parameter(
            torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator).to(weight.device)
        )
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight [O, I] with the update."""
        return weight + self.up @ self.down


def add_low_rank(module: nn.Module, rank: int, *, generator: torch.Generator) -> None:
    """Gives every linear layer in `module` an update; only the updates are trained. `generator` (CPU) draws `down`."""
    for layer in [each for each in module.modules() if isinstance(each, nn.Linear)]:
        parametrize.register_parametrization(
            layer, "weight", LowRank(layer.weight, rank, generator=generator)
        )
