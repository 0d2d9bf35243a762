"""Staleness of a reward: how far the model has left the images that people labeled.

Reinforcement learning as inference (VMBPO, Chow et al. 2020, arXiv 2006.05443) alternates two
steps. The E-step weighs the images x_1 ... x_n at hand by w_i ~ exp(r_i / b): of all weights whose
mean reward is m, those have the least KL to equal weights,

    min { KL(w || 1/n) : sum w_i r_i = m } = log n - H(w),    w_i ~ exp(r_i / b),

with the b > 0 for which the mean is m. The M-step draws the policy towards them. Read backwards,
this tells how much a reward's word is worth: let the images be a prompt's labeled
images, and m the mean reward of the tuned model's images. Then the KL above is the least that any
policy needs to reach m by choosing among labeled images, and Kish's effective sample size

    ESS = (sum w)^2 / sum w^2

is the number of labeled images that support it. With all weights equal it is n. It falls as the
model's mean reward nears the reward of the best labeled image. No weights reach a mean above that:
there the reward speaks of images that no label has seen, ESS is 0 and the KL infinite. Then it is
time to draw images with the present weights and to label them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DOUBLINGS = 60
"""Steps in which 1 / b grows, and then in which it is narrowed down."""


def effective_sample_size(weights: Tensor) -> float:
    """Return Kish's (sum w)^2 / sum w^2 of weights [N], as a share of N; 0 of zeros alone."""
    if not weights.any():
        return 0.0
    return float(weights.sum().square() / weights.square().sum() / len(weights))


def weights_of_mean(rewards: Tensor, mean: float) -> Tensor:
    """Return the weights [N] ~ exp(r / b), b > 0, of sum 1, that give `rewards` [N] this mean.

    They are equal where the rewards' own mean is no lower, and 0 where no weights reach it.
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
    """Return the prompt whose labeled images have the least effective sample size, and its share.

    `labeled` has rewards [n] by prompt; `rewards` [N] are of the model's images of `prompts`.
    """
    shares = {}
    for prompt in dict.fromkeys(prompts):
        if prompt in labeled:
            rows = [i for i, other in enumerate(prompts) if other == prompt]
            # A mean in float32 may round to above the best reward, which no weights reach.
            mean = float(rewards[rows].double().mean())
            shares[prompt] = effective_sample_size(weights_of_mean(labeled[prompt], mean))
    return min(shares.items(), key=lambda pair: pair[1], default=None)
