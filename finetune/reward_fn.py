"""What fine-tuning needs of a reward, and the one place where its answers are checked."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from data.errors import PictuneError


class RewardFn(Protocol):
    """Scores finished images; higher is better. Any scale: the methods normalise it where they need to."""

    def __call__(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        """Rewards [B] of images [B, 3, H, W] in [0, 1], each drawn for the prompt at the same place."""


@torch.no_grad()
def score(reward: RewardFn, images: Tensor, prompts: Sequence[str], *, batch: int = 64) -> Tensor:
    """Rewards [N] in float32 on the images' device.

    Raises:
        PictuneError: the reward gave another number of values than there are images, or a value that is not finite.
    """
    parts = []
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        part = reward(images[start : start + batch], some).float()
        if part.shape != (len(some),):
            raise PictuneError(
                f"reward: gave shape {tuple(part.shape)} for {len(some)} images; it must give one number per image"
            )
        if not part.isfinite().all():
            worst = some[int((~part.isfinite()).nonzero()[0])]
            raise PictuneError(
                f"reward: not a finite number for an image of {worst!r}; check the reward model"
            )
        parts.append(part.to(images.device))
    return torch.cat(parts)
