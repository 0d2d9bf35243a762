"""The losses of the reward, as pure functions of tensors.

Lee et al. 2023 (arXiv 2302.12192):  L = E[(y - r(x, z))^2] + lambda * L_pc, where L_pc is the cross-entropy of the true prompt under
P(i | x, {z_j}) = exp(r(x, z_i) / T) / sum_j exp(r(x, z_j) / T) over the true prompt and rule-made wrong ones.
Rankings: Bradley and Terry 1952, each pair of a ranking once, a tie being half a win for either side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_loss(rewards: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (target - reward)^2 over the last dimension.

    `rewards` [..., B] in (0, 1); `targets` [B] in [0, 1], the share of raters who said good; `weights` [B], how many raters said anything.
    The mean target weighted by its number of raters has the gradient of all their labels one by one.
    """
    return (weights * (targets - rewards) ** 2).sum(-1).div(weights.sum()).mean()


def prompt_classification_loss(rewards: Tensor, present: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Weighted mean cross-entropy of telling the true prompt, at index 0, from the wrong ones.

    `rewards` [..., B, N] of N prompts for each picture; `present` bool [B, N], false where a picture has fewer than N prompts;
    `weights` [B], how many raters said good. With rewards in [0, 1] the loss cannot come near 0: at T = 2, N = 10 it stays above 1.86.
    """
    log_shares = F.log_softmax((rewards / temperature).masked_fill(~present, -torch.inf), dim=-1)
    return -(weights * log_shares[..., 0]).sum(-1).div(weights.sum()).mean()


def bradley_terry_loss(logits_0: Tensor, logits_1: Tensor, labels_0: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of "picture 0 is better", whose probability is sigmoid(logit_0 - logit_1).

    `logits_0`, `logits_1` [..., B]; `labels_0` [B]: 1 when picture 0 won, 0.5 for a tie, 0 when it lost; `weights` [B].
    """
    margin = logits_0 - logits_1
    losses = F.binary_cross_entropy_with_logits(margin, labels_0.expand_as(margin), reduction="none")
    return (weights * losses).sum(-1).div(weights.sum()).mean()
