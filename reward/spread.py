"""The spread of a reward over the images of a prompt, by which several rewards become comparable.

GDPO (Liu et al. 2026, arXiv 2601.05242) divides each reward by its standard deviation in a prompt's
group of images before the rewards are added. Here the standard deviation is of images that the run
has of the prompt, so it does not change while a model is tuned: the rewards of two validations can
be compared, and images that become alike do not raise their own reward.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from data.errors import PictuneError

Examples = Mapping[str, Callable[[], Tensor]]
"""For each prompt, a function that reads images of it, [n, 3, H, W] in [0, 1]."""


@torch.no_grad()
def spread_of(
    reward: Callable[[Tensor, Sequence[str]], Tensor], examples: Examples, name: str
) -> Callable[[Sequence[str]], Tensor]:
    """Return a function from prompts to the reward's standard deviation over their images [B].

    A prompt whose images have no spread, or that has fewer than two, has the mean of the others.
    `name` is the reward's name, for errors.

    Raises:
        PictuneError: no prompt has images with a spread.
    """
    spreads: dict[str, float] = {}
    for prompt, read in examples.items():
        images = read()
        if len(images) > 1 and (spread := reward(images, [prompt] * len(images)).std()) > 0:
            spreads[prompt] = spread.item()
    if not spreads:
        raise PictuneError(
            f"{name}: has no spread over the run's images of a prompt, so it cannot be normalized; "
            "draw several images of the training prompts, or leave out options.normalize"
        )
    usual = sum(spreads.values()) / len(spreads)
    return lambda prompts: torch.tensor([spreads.get(prompt, usual) for prompt in prompts])
