"""The interface of a reward, and the checks of its values."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from data.errors import PictuneError


class RewardFn(Protocol):
    """Scores finished images; higher is better, on any scale."""

    def __call__(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        """Return rewards [B] of images [B, 3, H, W] in [0, 1] for their prompts, in order."""


@torch.no_grad()
def score(reward: RewardFn, images: Tensor, prompts: Sequence[str], *, batch: int = 64) -> Tensor:
    """Return rewards [N] in float32 of images [N, 3, H, W] in [0, 1], on their device.

    Raises:
        PictuneError: the reward returned another shape, or a value that is not finite.
    """
    starts = range(0, len(prompts), batch)
    parts = [slice(start, start + batch) for start in starts]
    return torch.cat([_checked(reward, images[part], prompts[part]) for part in parts])


def score_with_gradient(
    reward: RewardFn,
    latents: Tensor,
    prompts: Sequence[str],
    images_of: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return rewards [N] of the images of latents [N, ...], and each reward's gradient [N, ...].

    The gradient is to the latents. The autograd graph of decoder and reward is freed here.

    Raises:
        PictuneError: the reward has no gradient to the pixels, or as `score`.
    """
    leaf, gradient = latents.detach().requires_grad_(), None
    with torch.enable_grad():
        rewards = _checked(reward, images_of(leaf), prompts)
        if rewards.requires_grad:
            (gradient,) = torch.autograd.grad(rewards.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise PictuneError(f"reward: {_NO_GRADIENT}")
    return rewards.detach(), gradient


def check_differentiable(
    reward: RewardFn, size: tuple[int, int], prompt: str, *, device: torch.device
) -> None:
    """Refuse a reward without a gradient to the pixels, tested on two images of noise.

    Raises:
        PictuneError: the gradient is missing, or 0 at every pixel.
    """
    noise = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    _, gradient = score_with_gradient(reward, noise, [prompt] * 2, lambda images: images)
    if not gradient.any():
        raise PictuneError(f"reward: its gradient is 0 at every pixel; {_ADVICE}")


_ADVICE = "name a differentiable one in finetune.rewards, or tune by another method"
_NO_GRADIENT = f"has no gradient to the pixels, as behind bytes or image files; {_ADVICE}"


def _checked(reward: RewardFn, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return rewards [B] in float32 on the images' device, or refuse them."""
    rewards = reward(images, prompts).float()
    if rewards.shape != (len(prompts),):
        raise PictuneError(
            f"reward: returned shape {tuple(rewards.shape)} for {len(prompts)} images; "
            "it must return one number per image"
        )
    if not rewards.isfinite().all():
        worst = prompts[int((~rewards.isfinite()).nonzero()[0])]
        raise PictuneError(
            f"reward: not a finite number for an image of {worst!r}; check the reward model"
        )
    return rewards.to(images.device)
