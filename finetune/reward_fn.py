"""The reward as fine-tuning sees it, and the one place where its values are checked."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from data.errors import PictuneError


class RewardFn(Protocol):
    """Scores finished images; higher is better.

    Any scale will do: the methods normalize it where they need to.
    """

    def __call__(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        """Return rewards [B] of images [B, 3, H, W] in [0, 1] for their prompts, in order."""


@torch.no_grad()
def score(reward: RewardFn, images: Tensor, prompts: Sequence[str], *, batch: int = 64) -> Tensor:
    """Return rewards [N] in float32 on the images' device.

    Raises:
        PictuneError: the reward returned another number of values than there are images, or a value
            that is not finite.
    """
    parts = []
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        part = reward(images[start : start + batch], some).float()
        if part.shape != (len(some),):
            raise PictuneError(
                f"reward: returned shape {tuple(part.shape)} for {len(some)} images; "
                "it must return one number per image"
            )
        if not part.isfinite().all():
            worst = some[int((~part.isfinite()).nonzero()[0])]
            raise PictuneError(
                f"reward: not a finite number for an image of {worst!r}; check the reward model"
            )
        parts.append(part.to(images.device))
    return torch.cat(parts)
