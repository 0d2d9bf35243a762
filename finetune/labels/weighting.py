"""Weights of training images, and the objective that each kind of weight maximizes.

Training on images x drawn from the base p(x | z), weighted by w, pulls the model towards q = p w /
E_p[w]. Each kind of weight maximizes the reward E_q[r] under another penalty for the distance of q
to p:

- "raw", max(r, 0): Lee et al. 2023 (arXiv 2302.12192). With `kl = "kl-d"` it is max(r + gamma, 0),
  and if no weight is cut off at 0, q is exactly the optimum of E_q[r] - (E_p[r] + gamma) / 2 *
  chi^2(q || p): gamma is the strength of the penalty. One round reaches E_p[r (r + gamma)] / E_p[r
  + gamma] at best.
- "exp", exp(r / b): the optimum of E_q[r] under KL(q || p) <= kl_budget, over images and prompts
  together, so that prompts with higher rewards also gain; b is chosen such that the KL equals the
  budget (the E-step of reinforcement learning as inference, Chow et al. 2020, arXiv 2006.05443; the
  KL case of Diffusion Controller, Yang et al. 2026, arXiv 2603.06981).
- "softmax", exp(r / temperature) with mean 1 for every prompt: the optimum of E_q[r] - temperature
  * KL(q || p) for each prompt, so that prompts keep their shares (the weights of DDPO's baseline
  RWR, Black et al. 2023, arXiv 2305.13301).
- "top", equal weights for each prompt's best images, 0 for the others (images that tie for the last
  places share their weight): the optimum of E_q[r] when no density may rise above 1 / top_share
  times p.

`kl` is DPOK's penalty in supervised training (Fan et al. 2023, arXiv 2305.16381): "kl-d" adds gamma
to every weight, an upper bound of gamma * KL(p || tuned), which pulls to the base's images; "kl-o"
adds gamma times the squared difference to the base's predictions to the loss instead (see
`finetune.methods.reward_weighted`).
"""

import math
from collections.abc import Sequence

import torch
from scipy.optimize import brentq
from torch import Tensor

from finetune.settings.reward_weighted import WeightingConfig


def sample_weights(rewards: Tensor, prompts: Sequence[str], config: WeightingConfig) -> Tensor:
    """Return non-negative weights [N] of rewards [N].

    "exp" weights have mean 1 before "kl-d" adds gamma; "softmax" and "top" weights have mean 1 for
    every prompt.
    """
    if config.weighting == "raw":
        weights = rewards
    elif config.weighting == "exp":
        weights = _within_budget(rewards, config.kl_budget)
    else:
        weights = torch.zeros_like(rewards)
        for prompt in dict.fromkeys(prompts):
            rows = torch.tensor(
                [i for i, other in enumerate(prompts) if other == prompt], device=rewards.device
            )
            if config.weighting == "softmax":
                weights[rows] = torch.softmax(rewards[rows] / config.temperature, dim=0) * len(rows)
            else:
                weights[rows] = _top(rewards[rows], math.ceil(config.top_share * len(rows)))
    return (weights + (config.gamma if config.kl == "kl-d" else 0.0)).clamp(min=0)


def effective_sample_size(weights: Tensor) -> float:
    """Return Kish's (sum w)^2 / sum w^2 of weights [N], divided by N; 0 if all weights are 0."""
    if not weights.any():
        return 0.0
    return float(weights.sum().square() / weights.square().sum() / len(weights))


def _top(rewards: Tensor, kept: int) -> Tensor:
    """Return weights [N] of mean 1 on the best `kept`; ties for the last places share them."""
    last = rewards.topk(kept).values[-1]
    above, ties = (rewards > last).to(rewards.dtype), (rewards == last).to(rewards.dtype)
    return (above + ties * (kept - above.sum()) / ties.sum()) * (len(rewards) / kept)


def _within_budget(rewards: Tensor, kl_budget: float) -> Tensor:
    """Return exp(r / b) scaled to mean 1, where b makes the KL to equal weights the budget.

    If the KL stays below the budget for every b, only the best images have weight.
    """
    values = rewards.double()
    spread = float(values.max() - values.min())
    if spread == 0:
        return torch.ones_like(rewards)

    def share(log_b: float) -> Tensor:
        return torch.softmax(values / math.exp(log_b), dim=0)

    def excess(log_b: float) -> float:
        return math.log(len(values)) - float(torch.special.entr(share(log_b)).sum()) - kl_budget

    # The KL grows with 1 / b, its slope (the variance over b) being at most spread^2 / 4b: at the
    # upper end it is within the budget.
    lower, upper = math.log(spread) - 20, math.log(spread / math.sqrt(8 * kl_budget))
    log_b = (
        brentq(excess, lower, upper, xtol=1e-10) if lower < upper and excess(lower) > 0 else lower
    )
    return (share(log_b) * len(values)).to(rewards.dtype)
