"""The training objective: the weighted sum of the losses over some of the labels."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reward.dataset import FeedbackDataset, Numbers
from reward.learning.examples import Examples
from reward.learning.label_tensors import LabelTensors
from reward.learning.losses import (
    binary_cross_entropy_loss,
    binary_loss,
    bradley_terry_loss,
    davidson_loss,
    plackett_luce_loss,
    prompt_classification_loss,
    rao_kupper_loss,
)
from reward.model import RewardModel
from reward.settings import ObjectiveConfig

WITH_TIES: dict[str, Callable[..., Tensor]] = {
    "davidson": davidson_loss,
    "rao_kupper": rao_kupper_loss,
}
"""Losses on pairs in which a tie is an outcome of its own."""


@dataclass(frozen=True, eq=False)
class Terms:
    """The parts of a loss, each a scalar; None where there is no label to compute it from."""

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
    tie: Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))
    """Tendency of raters to call two images equal, learned with the weights where `ranking_loss`
    has ties as an outcome of their own."""

    def labels(
        self, part: FeedbackDataset, *, shares: tuple[Numbers, Numbers] | None = None
    ) -> LabelTensors:
        """Return the labels of `part` as tensors; `shares` as in `LabelTensors.from_part`."""
        # With trained blocks, a ranking's images go through them once if its pairs stay together.
        tuned = self.model.backbone.tuned_blocks > 0
        return LabelTensors.from_part(
            part,
            self.model.backbone.device,
            weighting=self.config.label_weights,
            whole_rankings=tuned or self.config.ranking_loss == "plackett_luce",
            shares=shares,
        )

    def training_terms(self, labels: LabelTensors, rows: Tensor, rankings: Tensor) -> Terms:
        """Return each member's own losses, averaged over the members.

        They are on the verdicts `rows` of `labels`, and on its `rankings`, numbers below
        `labels.n_rankings`.
        """
        image, prompt = labels.image[rows], labels.prompt[rows]
        pairs = labels.pairs_of(rankings)
        chosen = labels.image_0[pairs], labels.image_1[pairs]
        images = self.examples.embeddings_by(self.model.backbone, torch.cat([image, *chosen]))
        good, raters = labels.good[rows], labels.raters[rows]
        binary = auxiliary = ranking = None
        if len(rows):
            binary = self._binary_loss(self._member_logits(images[image], prompt), good, raters)
        judged = (good > 0) & (self.examples.wrong[prompt] >= 0).any(-1)
        if self.config.auxiliary_weight and judged.any():
            good_labels = (good * raters)[judged]
            auxiliary = self._prompt_term(images[image[judged]], prompt[judged], good_labels)
        if self.config.ranking_weight and len(pairs):
            if self.config.ranking_loss == "plackett_luce":
                ranking = self._rankings_term(images, labels, rankings)
            else:
                ranking = self._pairs_term(images, labels, pairs)
        return Terms(binary, auxiliary, ranking)

    @torch.no_grad()
    def validation_loss(self, labels: LabelTensors) -> float | None:
        """Return the loss of the ensemble's score on all `labels`; None without labels.

        The prompt-classification term is omitted. Rankings count pair by pair, also for
        `plackett_luce`, whose probabilities for two images are those of Bradley and Terry: the
        split may have cut a ranking.
        """
        rows = torch.cat([labels.image, labels.image_0, labels.image_1])
        images = self.examples.embeddings_by(self.model.backbone, rows)
        binary = ranking = None
        if len(labels.image):
            logits = self._member_logits(images[labels.image], labels.prompt).mean(0)
            binary = self._binary_loss(logits, labels.good, labels.raters)
        if self.config.ranking_weight and len(labels.image_0):
            logits_0 = self._member_logits(images[labels.image_0], labels.pair_prompt).mean(0)
            logits_1 = self._member_logits(images[labels.image_1], labels.pair_prompt).mean(0)
            ranking = self._pair_loss(logits_0, logits_1, labels.label_0, labels.weight)
        total = Terms(binary, None, ranking).total(self.config)
        return None if total is None else total.item()

    def _binary_loss(self, logits: Tensor, good: Tensor, raters: Tensor) -> Tensor:
        if self.config.binary_loss == "bce":
            return binary_cross_entropy_loss(logits, good, raters)
        return binary_loss(torch.sigmoid(logits), good, raters)

    def _pair_loss(
        self, logits_0: Tensor, logits_1: Tensor, label_0: Tensor, weight: Tensor
    ) -> Tensor:
        if self.config.ranking_loss in WITH_TIES:
            loss = WITH_TIES[self.config.ranking_loss]
            return loss(logits_0, logits_1, label_0, weight, self.tie)
        return bradley_terry_loss(logits_0, logits_1, label_0, weight)

    def _prompt_term(self, image: Tensor, prompt: Tensor, good_labels: Tensor) -> Tensor:
        wrong = self.examples.wrong[prompt]
        true = prompt[:, None]
        texts = torch.cat([true, wrong.clamp(min=0)], dim=1)  # [B, N], the true prompt first
        present = torch.cat([torch.ones_like(true, dtype=torch.bool), wrong >= 0], dim=1)
        repeated = image.repeat_interleave(texts.shape[1], dim=0)
        logits = self._member_logits(repeated, texts.flatten()).unflatten(-1, texts.shape)
        rewards = torch.sigmoid(logits) if self.config.prompt_loss_on == "sigmoid" else logits
        temperature = self.config.prompt_temperature
        return prompt_classification_loss(rewards, present, good_labels, temperature)

    def _pairs_term(self, images: Tensor, labels: LabelTensors, pairs: Tensor) -> Tensor:
        prompt = labels.pair_prompt[pairs]
        logits_0 = self._member_logits(images[labels.image_0[pairs]], prompt)
        logits_1 = self._member_logits(images[labels.image_1[pairs]], prompt)
        return self._pair_loss(logits_0, logits_1, labels.label_0[pairs], labels.weight[pairs])

    def _rankings_term(self, images: Tensor, labels: LabelTensors, rankings: Tensor) -> Tensor:
        some = labels.padded_rankings.where(rankings.sort().values)
        prompt = some.prompt[:, None].expand_as(some.present)
        scored = self._member_logits(images[some.image[some.present]], prompt[some.present])
        logits = scored.new_zeros(len(scored), *some.present.shape)
        logits[:, some.present] = scored
        return plackett_luce_loss(logits, some.ranks, some.present, some.weight)

    def _member_logits(self, image: Tensor, prompt: Tensor) -> Tensor:
        """Return [members, B] of image features [B, F] and rows [B] of `text_embeddings`."""
        texts = self.examples.text_embeddings[prompt]
        return self.model.member_logits(image_features=image, text_embeddings=texts)
