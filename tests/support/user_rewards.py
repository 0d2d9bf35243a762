"""Rewards as a user would write them, named like `tests.support.user_rewards:brightness`."""

from collections.abc import Sequence

import torch
from torch import Tensor

NOT_A_FUNCTION = 3
SCORED: list[str] = []
"""The prompts that `noted_brightness` was called with."""


def brightness(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return images.mean(dim=(1, 2, 3))


def redness(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean(dim=(1, 2))


def first_is_brighter(images: Tensor, _prompts: Sequence[str], others: Tensor) -> Tensor:
    """Probability that the first image is better, of a judge that prefers the first place."""
    return torch.sigmoid(10 * (images - others).mean(dim=(1, 2, 3)) + 0.5)


def noted_brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    SCORED.extend(prompts)
    return brightness(images, prompts)


def not_a_number(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return images.new_full(images.shape[:1], torch.nan)


def failing(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return torch.stack([image.reshape(7, -1) for image in images])


def of_too_much_memory(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return torch.empty(len(images), 2**50)


def words(_images: Tensor, prompts: Sequence[str]) -> Tensor:
    return torch.tensor([float(len(prompt.split())) for prompt in prompts])


def words_of_two(images: Tensor, prompts: Sequence[str], _others: Tensor) -> Tensor:
    return words(images, prompts)


def of_one_number(images: Tensor, _prompts: Sequence[str]) -> float:
    return float(images.mean())


def of_wrong_shape(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return images.mean(dim=(2, 3))
