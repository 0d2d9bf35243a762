"""What the head is trained on: labels as tensors, and the weighted sum of the losses over some of them."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat
from torch import Tensor

from reward.dataset import FeedbackDataset
from reward.examples import Examples
from reward.losses import binary_loss, bradley_terry_loss, prompt_classification_loss
from reward.model import RewardModel


class ObjectiveConfig(BaseModel, frozen=True, extra="forbid"):
    """Weights and forms of the losses."""

    auxiliary_weight: NonNegativeFloat = 0.5
    """Weight of the prompt-classification loss, the paper's lambda; 0 leaves it out."""
    temperature: PositiveFloat = 2.0
    """Divides rewards in the prompt-classification loss, the paper's T."""
    pc_on: Literal["sigmoid", "logits"] = "sigmoid"
    """What the prompt-classification loss compares: rewards in [0, 1], as the paper does, or logits, whose differences have no bound."""
    ranking_weight: NonNegativeFloat = 0.5
    """Weight of the loss on ranked pairs; 0 leaves it out."""


@dataclass(frozen=True, eq=False)
class LabelTensors:
    """The labels of one part on the model's device; the verdicts of all raters on one picture and prompt are joined."""

    image: Tensor
    """[V] rows of `Examples.image_embeddings`."""
    prompt: Tensor
    """[V] rows of `Examples.text_embeddings`."""
    good: Tensor
    """[V], share of raters who said good."""
    raters: Tensor
    """[V], how many raters said good or bad."""
    image_0: Tensor
    """[K] rows of `Examples.image_embeddings`."""
    image_1: Tensor
    """[K] rows of `Examples.image_embeddings`."""
    pair_prompt: Tensor
    """[K] rows of `Examples.text_embeddings`."""
    label_0: Tensor
    """[K]: 1 when picture 0 is better, 0.5 for a tie, 0 when it is worse."""
    weight: Tensor
    """[K]: 1 over the number of pairs of the ranking."""

    @classmethod
    def of(cls, part: FeedbackDataset, device: torch.device) -> Self:
        """Joins the verdicts of `part` and copies everything to `device`."""
        verdicts, pairs = part.verdicts, part.pairs
        keys, inverse = np.unique(np.stack([verdicts.image, verdicts.prompt], axis=1), axis=0, return_inverse=True)
        raters = np.bincount(inverse, minlength=len(keys)).astype(np.float32)
        good = np.bincount(inverse, weights=verdicts.good, minlength=len(keys)).astype(np.float32) / raters
        of_pairs = (pairs.image_0, pairs.image_1, pairs.prompt, pairs.label_0, pairs.weight)
        return cls(*(torch.tensor(values, device=device) for values in (keys[:, 0], keys[:, 1], good, raters, *of_pairs)))


@dataclass(frozen=True, eq=False)
class Terms:
    """The parts of a loss, each a scalar; None where there is no label that it could be computed from."""

    binary: Tensor | None
    prompt: Tensor | None
    ranking: Tensor | None

    def total(self, config: ObjectiveConfig) -> Tensor | None:
        """The weighted sum of the terms that there are."""
        weighted = ((self.binary, 1.0), (self.prompt, config.auxiliary_weight), (self.ranking, config.ranking_weight))
        present = [weight * term for term, weight in weighted if term is not None]
        return torch.stack(present).sum() if present else None


@dataclass(frozen=True, eq=False)
class Objective:
    """The losses of `model` on labels of `examples`."""

    model: RewardModel
    examples: Examples
    config: ObjectiveConfig

    def training_terms(self, labels: LabelTensors, rows: Tensor, pairs: Tensor) -> Terms:
        """Each member's own losses, averaged over the members, on the verdicts `rows` and the ranked pairs `pairs` of `labels`."""
        image, prompt = labels.image[rows], labels.prompt[rows]
        good, raters = labels.good[rows], labels.raters[rows]
        binary = auxiliary = None
        if len(rows):
            binary = binary_loss(torch.sigmoid(self._member_logits(image, prompt)), good, raters)
        judged = (good > 0) & (self.examples.wrong[prompt] >= 0).any(-1)
        if self.config.auxiliary_weight and judged.any():
            auxiliary = self._prompt_term(image[judged], prompt[judged], (good * raters)[judged])
        ranking = self._ranking_term(labels, pairs) if self.config.ranking_weight and len(pairs) else None
        return Terms(binary, auxiliary, ranking)

    @torch.no_grad()
    def validation_loss(self, labels: LabelTensors) -> float | None:
        """The loss of the ensemble's score on all `labels`, without the prompt-classification term; None without labels."""
        binary = ranking = None
        if len(labels.image):
            rewards = torch.sigmoid(self._member_logits(labels.image, labels.prompt).mean(0))
            binary = binary_loss(rewards, labels.good, labels.raters)
        if self.config.ranking_weight and len(labels.image_0):
            logits_0 = self._member_logits(labels.image_0, labels.pair_prompt).mean(0)
            logits_1 = self._member_logits(labels.image_1, labels.pair_prompt).mean(0)
            ranking = bradley_terry_loss(logits_0, logits_1, labels.label_0, labels.weight)
        total = Terms(binary, None, ranking).total(self.config)
        return None if total is None else total.item()

    def _prompt_term(self, image: Tensor, prompt: Tensor, good_labels: Tensor) -> Tensor:
        wrong = self.examples.wrong[prompt]
        texts = torch.cat([prompt[:, None], wrong.clamp(min=0)], dim=1)  # [B, N], the true prompt first
        present = torch.cat([torch.ones_like(prompt[:, None], dtype=torch.bool), wrong >= 0], dim=1)
        logits = self._member_logits(image.repeat_interleave(texts.shape[1]), texts.flatten()).unflatten(-1, texts.shape)
        rewards = torch.sigmoid(logits) if self.config.pc_on == "sigmoid" else logits
        return prompt_classification_loss(rewards, present, good_labels, self.config.temperature)

    def _ranking_term(self, labels: LabelTensors, pairs: Tensor) -> Tensor:
        prompt = labels.pair_prompt[pairs]
        logits_0 = self._member_logits(labels.image_0[pairs], prompt)
        logits_1 = self._member_logits(labels.image_1[pairs], prompt)
        return bradley_terry_loss(logits_0, logits_1, labels.label_0[pairs], labels.weight[pairs])

    def _member_logits(self, image: Tensor, prompt: Tensor) -> Tensor:
        """[members, B] for rows of the embeddings."""
        chosen = self.examples.image_embeddings[image], self.examples.text_embeddings[prompt]
        return self.model.member_logits(image_embeddings=chosen[0], text_embeddings=chosen[1])
