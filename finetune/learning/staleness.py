"""Staleness of a reward: how far the model has left the images that people labeled.

Reinforcement learning as inference (VMBPO, Chow et al. 2020, arXiv 2006.05443) alternates two
steps. The E-step weighs the images x_1 ... x_n at hand by w_i ~ exp(r_i / b): of all weights whose
mean reward is m, those have the least KL to equal weights,

    min { KL(w || 1/n) : sum w_i r_i = m } = log n - H(w),    w_i ~ exp(r_i / b),

with the b > 0 for which the mean is m. The M-step draws the policy towards them. Read backwards,
this tells how much a reward's word is worth: let the images be those of a prompt that people
labeled, and m the mean reward of the tuned model's images. Then the KL above is the least that any
policy needs to reach m by choosing among labeled images, and Kish's effective sample size

    ESS = (sum w)^2 / sum w^2

is the number of labeled images that vouch for it. With all weights equal it is n. It falls as the
model's mean reward nears that of the best labeled image, and nothing vouches for a mean above that:
there the reward speaks of images that no label has seen, ESS is 0 and the KL infinite. Then it is
time to draw images with the present weights and to label them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.labels.weighting import effective_sample_size

DOUBLINGS = 60
"""Steps in which 1 / b grows, and then in which it is narrowed down."""


@dataclass(frozen=True)
class Tilt:
    """Weights of labeled images that bring their mean reward to another one."""

    weights: Tensor
    """[N], of sum 1; all 0 where no weights reach that mean."""

    @property
    def effective_share(self) -> float:
        """Effective sample size as a share of N."""
        return effective_sample_size(self.weights) if self.weights.any() else 0.0

    @property
    def kl(self) -> float:
        """KL to equal weights, in nats."""
        if not self.weights.any():
            return float("inf")
        return math.log(len(self.weights)) - float(torch.special.entr(self.weights).sum())


def tilt(rewards: Tensor, mean: float) -> Tilt:
    """Return the weights ~ exp(r / b), b > 0, that give `rewards` [N] this mean.

    They are equal where the mean is not above that of the rewards.
    """
    values = rewards.double().cpu()
    if mean <= float(values.mean()):
        return Tilt(torch.full_like(values, 1 / len(values)))
    if mean > float(values.max()):
        return Tilt(torch.zeros_like(values))
    scaled = (values - values.max()) / (values.max() - values.min())

    def weights(inverse: float) -> Tensor:
        return torch.softmax(scaled * inverse, dim=0)

    def reached(inverse: float) -> bool:
        return float((weights(inverse) * values).sum()) >= mean

    upper = 1.0
    for _ in range(DOUBLINGS):
        if reached(upper):
            break
        upper *= 2
    lower = 0.0
    for _ in range(DOUBLINGS):
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if reached(middle) else (middle, upper)
    return Tilt(weights(upper))


def least_vouched(
    labeled: Mapping[str, Tensor], rewards: Tensor, prompts: Sequence[str]
) -> tuple[str, float] | None:
    """Return the prompt whose labeled images vouch least for the model, with their share.

    Args:
        labeled: rewards [n] of the labeled images of each prompt.
        rewards: [N], of the model's images.
        prompts: the prompt of each of these.

    Returns:
        The prompt with the least effective sample size, as a share of its labeled images; None
        where no prompt has any.
    """
    shares = {}
    for prompt in dict.fromkeys(prompts):
        if prompt in labeled:
            rows = [i for i, other in enumerate(prompts) if other == prompt]
            # A mean in float32 may round to above the best reward, which nothing vouches for.
            mean = float(rewards[rows].double().mean())
            shares[prompt] = tilt(labeled[prompt], mean).effective_share
    return min(shares.items(), key=lambda pair: pair[1], default=None)
