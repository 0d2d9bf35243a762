"""The training objective: a weighted sum of losses, which are pure functions of tensors.

Single labels: L = E[(y - r(x, z))^2] of Lee et al. 2023 (arXiv 2302.12192), without the paper's
prompt-classification loss, which brought nothing (docs/reward.md). Rankings, pair by pair: Bradley
and Terry 1952, with a tie as half a win for either side.
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
    ranking: Tensor | None

    def total(self, config: ObjectiveConfig) -> Tensor | None:
        """Return the weighted sum of the terms that are present."""
        weighted = ((self.binary, 1.0), (self.ranking, config.ranking_weight))
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
        binary = ranking = None
        if len(rows):
            rewards = torch.sigmoid(self._logits_at(labels.image[rows], labels.prompt[rows]))
            binary = binary_loss(rewards, *self._moved(labels.good[rows], labels.raters[rows]))
        if self.config.ranking_weight and len(pairs):
            ranking = self._pairs_term(labels, pairs)
        return Terms(binary, ranking)

    @torch.no_grad()
    def validation_loss(self, labels: LabelTensors) -> float | None:
        """Return the loss of the ensemble's score on all `labels`; None without labels.

        Rankings are scored pair by pair, since the split may have separated their images.
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
        total = Terms(binary, ranking).total(self.config)
        return None if total is None else total.item()

    def _pairs_term(self, labels: LabelTensors, pairs: Tensor) -> Tensor:
        prompt = labels.pair_prompt[pairs]
        logits_0 = self._logits_at(labels.image_0[pairs], prompt)
        logits_1 = self._logits_at(labels.image_1[pairs], prompt)
        moved = self._moved(labels.label_0[pairs], labels.weight[pairs])
        return bradley_terry_loss(logits_0, logits_1, *moved)

    def _logits_at(self, image: Tensor, prompt: Tensor) -> Tensor:
        """Return [members, B] of rows [B] of `image_features` and rows [B] of `text_embeddings`."""
        image, prompt = self._moved(image, prompt)
        return self.model.member_logits(
            image_features=self.examples.image_features[image],
            text_embeddings=self.examples.text_embeddings[prompt],
        )

    def _moved(self, *labels: Tensor) -> list[Tensor]:
        """Return parts of the labels on the model's device, without waiting for it."""
        device = self.model.backbone.device
        return [one.to(device, non_blocking=True) for one in labels]
