"""The losses of the reward, as pure functions of tensors.

Lee et al. 2023 (arXiv 2302.12192):  L = E[(y - r(x, z))^2] + lambda * L_pc, where L_pc is the
cross-entropy of the true prompt, among rule-made wrong ones, under
P(i | x, {z_j}) = exp(r(x, z_i) / T) / sum_j exp(r(x, z_j) / T).
Rankings, pair by pair: Bradley and Terry 1952, a tie being half a win for either side; Rao and
Kupper 1967 and Davidson 1970, where a tie is an outcome of its own. As a whole: Plackett 1975 and
Luce 1959, with ties as in Breslow 1974.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_loss(rewards: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of (target - reward)^2 over the last dimension.

    `rewards` [..., B] in (0, 1); `targets` [B] in [0, 1], the share of raters who said good;
    `weights` [B], the number of raters. The mean target weighted by its number of raters has the
    same gradient as all their labels one by one.
    """
    return (weights * (targets - rewards) ** 2).sum(-1).div(weights.sum()).mean()


def binary_cross_entropy_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean cross-entropy of targets over the last dimension.

    Arguments as for `binary_loss`, with `logits` [..., B] in place of rewards.
    """
    losses = F.binary_cross_entropy_with_logits(logits, targets.expand_as(logits), reduction="none")
    return (weights * losses).sum(-1).div(weights.sum()).mean()


def prompt_classification_loss(
    rewards: Tensor, present: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Return the weighted mean cross-entropy of the true prompt, at index 0, among the wrong ones.

    `rewards` [..., B, N] of N prompts for each image; `present` bool [B, N], false where an image
    has fewer than N prompts; `weights` [B], the number of raters who said good. With rewards in
    [0, 1] the loss cannot come near 0: at T = 2, N = 10 it stays above 1.86.
    """
    log_shares = F.log_softmax((rewards / temperature).masked_fill(~present, -torch.inf), dim=-1)
    return -(weights * log_shares[..., 0]).sum(-1).div(weights.sum()).mean()


def bradley_terry_loss(
    logits_0: Tensor, logits_1: Tensor, labels_0: Tensor, weights: Tensor
) -> Tensor:
    """Return the weighted mean cross-entropy of P(image 0 is better) = sigmoid(logit_0 - logit_1).

    `logits_0`, `logits_1` [..., B]; `labels_0` [B]: 1 when image 0 won, 0.5 for a tie, 0 when it
    lost; `weights` [B].
    """
    margin = logits_0 - logits_1
    losses = F.binary_cross_entropy_with_logits(
        margin, labels_0.expand_as(margin), reduction="none"
    )
    return (weights * losses).sum(-1).div(weights.sum()).mean()


def davidson_loss(
    logits_0: Tensor, logits_1: Tensor, labels_0: Tensor, weights: Tensor, tie: Tensor
) -> Tensor:
    """Return the weighted mean cross-entropy with ties as an outcome of their own, as Davidson.

    P(0 wins) : P(1 wins) : P(tie) = p_0 : p_1 : nu sqrt(p_0 p_1) with p = exp(logit) and
    nu = exp(`tie`). `tie` is a scalar, the other arguments are those of `bradley_terry_loss`, which
    this loss equals without ties as `tie` goes to -infinity.
    """
    half = (logits_0 - logits_1) / 2
    wins, loses, ties = F.log_softmax(
        torch.stack([half, -half, torch.zeros_like(half) + tie]), dim=0
    )
    return _three_way_loss(wins, loses, ties, labels_0, weights)


def rao_kupper_loss(
    logits_0: Tensor, logits_1: Tensor, labels_0: Tensor, weights: Tensor, tie: Tensor
) -> Tensor:
    """Return the weighted mean cross-entropy with ties as an outcome of their own, as Rao & Kupper.

    P(0 wins) = p_0 / (p_0 + theta p_1), P(1 wins) likewise, with log theta = softplus(`tie`): a
    rater sees a difference of logits only above a threshold of about log theta. Arguments as for
    `davidson_loss`.
    """
    threshold = F.softplus(tie)
    margin = logits_0 - logits_1
    wins, loses = F.logsigmoid(margin - threshold), F.logsigmoid(-margin - threshold)
    # (theta^2 - 1) P(0 wins) P(1 wins), with theta^2 drawn into the two probabilities: it alone
    # would overflow.
    ties = (
        torch.log(-torch.expm1(-2 * threshold))
        + F.logsigmoid(threshold - margin)
        + F.logsigmoid(threshold + margin)
    )
    return _three_way_loss(wins, loses, ties, labels_0, weights)


def plackett_luce_loss(logits: Tensor, ranks: Tensor, present: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over rankings of the cross-entropy of choosing the next best image.

    A ranking is a row of choices, each among the images that are left; its loss is the mean over
    them. Images that tie are each chosen among all that are no better. For two images it equals
    `bradley_terry_loss`. `logits` [..., R, M] of up to M images in each of R rankings; `ranks`
    [R, M], lower is better, equal is a tie; `present` bool [R, M], false where a ranking has fewer
    images; `weights` [R].
    """
    no_better = ranks[:, None, :] >= ranks[:, :, None]
    left = present[:, None, :] & present[:, :, None] & no_better  # [R, choice, image]
    open_choices = left.sum(-1) > 1
    chances = logits[..., None, :].masked_fill(~left, -torch.inf)
    # An absent row would be the log of 0, whose gradient is not a number.
    chances = chances.masked_fill(~present[:, :, None], 0.0)
    losses = (torch.logsumexp(chances, dim=-1) - logits) * open_choices
    by_ranking = losses.sum(-1) / open_choices.sum(-1).clamp(min=1)
    return (weights * by_ranking).sum(-1).div(weights.sum()).mean()


def _three_way_loss(
    wins: Tensor, loses: Tensor, ties: Tensor, labels_0: Tensor, weights: Tensor
) -> Tensor:
    """Return the weighted mean cross-entropy, given log-probabilities [..., B] of the outcomes.

    A label between 0.5 and 0 or 1 is a mean of several.
    """
    lead = 2 * labels_0 - 1
    losses = -(lead.clamp(min=0) * wins + (-lead).clamp(min=0) * loses + (1 - lead.abs()) * ties)
    return (weights * losses).sum(-1).div(weights.sum()).mean()
