"""Staleness of a reward: how far the model has left the images that people labeled.

Reinforcement learning as inference (VMBPO, Chow et al. 2020, arXiv 2006.05443) alternates two
steps. The E-step weighs the images x_1 ... x_n at hand by w_i ~ exp(r_i / b): of all weights with
mean reward m, these have the least KL to equal weights,

    min { KL(w || 1/n) : sum w_i r_i = m } = log n - H(w),    w_i ~ exp(r_i / b),

where b > 0 is chosen such that the mean is m. The M-step trains the policy on the weighted images.
The same formula measures how far a reward can be trusted: let the images be a prompt's labeled
images, and m the mean reward of the tuned model's images. Then the KL above is the least KL of any
policy that reaches m by choosing among labeled images, and Kish's effective sample size

    ESS = (sum w)^2 / sum w^2

is the number of labeled images that support the mean m. With equal weights, ESS is n. ESS falls as
the model's mean reward approaches the reward of the best labeled image. No weights reach a higher
mean: there the reward extrapolates beyond all labeled images, ESS is 0 and the KL infinite. Then
new images should be drawn with the current weights and labeled.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DOUBLINGS = 60
"""Steps of doubling 1 / b to bracket it, and as many steps of bisection."""


def effective_sample_size(weights: Tensor) -> float:
    """Return Kish's (sum w)^2 / sum w^2 of weights [N], divided by N; 0 if all weights are 0."""
    if not weights.any():
        return 0.0
    return float(weights.sum().square() / weights.square().sum() / len(weights))


def weights_of_mean(rewards: Tensor, mean: float) -> Tensor:
    """Return weights [N] ~ exp(r / b), b > 0, with sum 1, whose mean of `rewards` [N] is `mean`.

    The weights are equal if the rewards' unweighted mean is at least `mean`. They are 0 if no
    weights reach `mean`.
    """
    values = rewards.double().cpu()
    if mean <= float(values.mean()):
        return torch.full_like(values, 1 / len(values))
    if mean > float(values.max()):
        return torch.zeros_like(values)
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
    return weights(upper)


def stalest_prompt(
    labeled: Mapping[str, Tensor], rewards: Tensor, prompts: Sequence[str]
) -> tuple[str, float] | None:
    """Return the prompt with the least effective sample size of labeled images, and that size.

    The size is a share of the prompt's labeled images. Return None if no prompt has any.

    Args:
        labeled: rewards [n] of the labeled images of each prompt.
        rewards: [N], of the model's images.
        prompts: the prompt of each of the model's images.
    """
    shares, rewards = {}, rewards.cpu()
    for prompt in dict.fromkeys(prompts):
        if prompt in labeled:
            rows = [i for i, other in enumerate(prompts) if other == prompt]
            # A mean in float32 may round to above the best reward, which no weights reach.
            mean = float(rewards[rows].double().mean())
            shares[prompt] = effective_sample_size(weights_of_mean(labeled[prompt], mean))
    return min(shares.items(), key=lambda pair: pair[1], default=None)
