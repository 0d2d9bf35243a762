"""Mean and spread of a reward over a prompt's images, by which several rewards become comparable.

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


Scale = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Turns prompts into a reward's mean and standard deviation [B] over the images of each prompt."""


@torch.no_grad()
def scale_of(
    reward: Callable[[Tensor, Sequence[str]], Tensor], examples: Examples, name: str
) -> Scale:
    """Return the reward's mean and standard deviation over the images of each prompt.

    A prompt whose images have no spread, or that has fewer than two, has the means of the others.
    `name` is the reward's name, for errors.

    Raises:
        PictuneError: no prompt has images with a spread.
    """
    scales: dict[str, Tensor] = {}
    for prompt, read in examples.items():
        images = read()
        if len(images) > 1 and (rewards := reward(images, [prompt] * len(images))).std() > 0:
            scales[prompt] = torch.stack([rewards.mean(), rewards.std()])
    if not scales:
        raise PictuneError(
            f"{name}: has no spread over the run's images of a prompt, so it cannot be normalized; "
            "draw several images of the training prompts, or leave out options.normalize and "
            "finetune.combine"
        )
    usual = torch.stack([*scales.values()]).mean(0)

    def scale(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        mean, spread = torch.stack([scales.get(prompt, usual) for prompt in prompts]).unbind(1)
        return mean, spread

    return scale
