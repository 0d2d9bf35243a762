"""LoRA on the linear layers of a module (Hu et al. 2021, arXiv 2106.09685): W + up @ down.

`up` starts at 0. Differs from the paper in: 1. no alpha, since the learning rate does its work;
2. no dropout, since a score must not be random.

Not by peft, whose layers add the update to the output and not to the weight: two blocks of a CLIP
like ViT-B/32 on 128 images then took as long, but 1.9 GB instead of 1.1 GB above the model.
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
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight [O, I] with the update."""
        return weight + self.up @ self.down


def add_low_rank(module: nn.Module, rank: int, *, generator: torch.Generator) -> None:
    """Add a trained update to every linear layer in `module`; `generator` (CPU) draws `down`."""
    for layer in [each for each in module.modules() if isinstance(each, nn.Linear)]:
        update = LowRank(layer.weight, rank, generator=generator)
        parametrize.register_parametrization(layer, "weight", update)
