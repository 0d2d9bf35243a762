"""The training objective: a weighted sum of losses, which are pure functions of tensors.

Lee et al. 2023 (arXiv 2302.12192):  L = E[(y - r(x, z))^2] + lambda * L_pc, where L_pc is the
cross-entropy of the true prompt among wrong prompts made by rules, under P(i | x, {z_j}) = exp(r(x,
z_i) / T) / sum_j exp(r(x, z_j) / T). Rankings, pair by pair: Bradley and Terry 1952, with a tie as
half a win for either side.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reward.dataset import FeedbackDataset, Numbers
from reward.learning.examples import Examples
from reward.learning.label_tensors import LabelTensors
from reward.model import RewardModel
from reward.settings import ObjectiveConfig


def binary_loss(rewards: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of (target - reward)^2 over the last dimension.

    `rewards` [..., B] in (0, 1); `targets` [B] in [0, 1], the share of raters who answered "good";
    `weights` [B], the number of raters. A mean target weighted by its number of raters has the same
    gradient as the single labels.
    """
    return (weights * (targets - rewards) ** 2).sum(-1).div(weights.sum()).mean()


def prompt_classification_loss(
    rewards: Tensor, present: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Return the weighted mean cross-entropy of the true prompt (index 0) among wrong prompts.

    `rewards` [..., B, N] of N prompts for each image; `present` bool [B, N], false where an image
    has fewer than N prompts; `weights` [B], the number of raters who answered "good". With rewards
    in [0, 1] the loss cannot reach 0: at T = 2, N = 10 it stays above 1.86.
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


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a loss, each a scalar; None for a term without labels."""

    binary: Tensor | None
    prompt: Tensor | None
    ranking: Tensor | None

    def total(self, config: ObjectiveConfig) -> Tensor | None:
        """Return the weighted sum of the terms that are present."""
        weighted = (
            (self.binary, 1.0),
            (self.prompt, config.auxiliary_weight),
            (self.ranking, config.ranking_weight),
        )
        present = [weight * term for term, weight in weighted if term is not None]
        return torch.stack(present).sum() if present else None


@dataclass(frozen=True, eq=False)
class Objective:
    """The losses of `model` on labels of `examples`."""

    model: RewardModel
    examples: Examples
    config: ObjectiveConfig

    def labels(self, part: FeedbackDataset, *, shares: Numbers | None = None) -> LabelTensors:
        """Return the labels of `part` as tensors; `shares` as in `LabelTensors.from_part`."""
        return LabelTensors.from_part(part, weighting=self.config.label_weights, shares=shares)

    def training_terms(self, labels: LabelTensors, rows: Tensor, pairs: Tensor) -> Terms:
        """Return the mean over the members of each member's losses.

        The losses are on the verdicts `rows` of `labels` and on its ranked `pairs`, by number.
        """
        image, prompt = labels.image[rows], labels.prompt[rows]
        good, raters = labels.good[rows], labels.raters[rows]
        binary = auxiliary = ranking = None
        if len(rows):
            rewards = torch.sigmoid(self._logits_at(image, prompt))
            binary = binary_loss(rewards, *self._moved(good, raters))
        judged = (good > 0) & (self.examples.wrong[prompt] >= 0).any(-1)
        if self.config.auxiliary_weight and judged.any():
            good_labels = (good * raters)[judged]
            auxiliary = self._prompt_term(image[judged], prompt[judged], good_labels)
        if self.config.ranking_weight and len(pairs):
            ranking = self._pairs_term(labels, pairs)
        return Terms(binary, auxiliary, ranking)

    @torch.no_grad()
    def validation_loss(self, labels: LabelTensors) -> float | None:
        """Return the loss of the ensemble's score on all `labels`; None without labels.

        The prompt-classification term is omitted. Rankings are scored pair by pair, since the split
        may have separated their images.
        """
        binary = ranking = None
        if len(labels.image):
            logits = self._logits_at(labels.image, labels.prompt).mean(0)
            good, raters = self._moved(labels.good, labels.raters)
            binary = binary_loss(torch.sigmoid(logits), good, raters)
        if self.config.ranking_weight and len(labels.image_0):
            logits_0 = self._logits_at(labels.image_0, labels.pair_prompt).mean(0)
            logits_1 = self._logits_at(labels.image_1, labels.pair_prompt).mean(0)
            moved = self._moved(labels.label_0, labels.weight)
            ranking = bradley_terry_loss(logits_0, logits_1, *moved)
        total = Terms(binary, None, ranking).total(self.config)
        return None if total is None else total.item()

    def _prompt_term(self, image: Tensor, prompt: Tensor, good_labels: Tensor) -> Tensor:
        wrong = self.examples.wrong[prompt]
        true = prompt[:, None]
        texts = torch.cat([true, wrong.clamp(min=0)], dim=1)  # [B, N], the true prompt first
        present = torch.cat([torch.ones_like(true, dtype=torch.bool), wrong >= 0], dim=1)
        (image,) = self._moved(image)
        repeated = self.examples.image_features[image].repeat_interleave(texts.shape[1], dim=0)
        logits = self._member_logits(repeated, texts.flatten()).unflatten(-1, texts.shape)
        temperature = self.config.prompt_temperature
        present, good_labels = self._moved(present, good_labels)
        return prompt_classification_loss(torch.sigmoid(logits), present, good_labels, temperature)

    def _pairs_term(self, labels: LabelTensors, pairs: Tensor) -> Tensor:
        prompt = labels.pair_prompt[pairs]
        logits_0 = self._logits_at(labels.image_0[pairs], prompt)
        logits_1 = self._logits_at(labels.image_1[pairs], prompt)
        moved = self._moved(labels.label_0[pairs], labels.weight[pairs])
        return bradley_terry_loss(logits_0, logits_1, *moved)

    def _logits_at(self, image: Tensor, prompt: Tensor) -> Tensor:
        """Return [members, B] of rows [B] of `image_features` and rows [B] of `text_embeddings`."""
        (image,) = self._moved(image)
        return self._member_logits(self.examples.image_features[image], prompt)

    def _member_logits(self, image: Tensor, prompt: Tensor) -> Tensor:
        """Return [members, B] of image features [B, F] and rows [B] of `text_embeddings`."""
        (prompt,) = self._moved(prompt)
        texts = self.examples.text_embeddings[prompt]
        return self.model.member_logits(image_features=image, text_embeddings=texts)

    def _moved(self, *labels: Tensor) -> list[Tensor]:
        """Return parts of the labels on the model's device, without waiting for it."""
        device = self.model.backbone.device
        return [one.to(device, non_blocking=True) for one in labels]
