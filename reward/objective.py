"""What the head is trained on: labels as tensors, and the weighted sum of the losses over some of them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat
from torch import Tensor

from data.errors import PictuneError
from reward.dataset import FeedbackDataset, Numbers
from reward.examples import Examples
from reward.losses import (
    binary_cross_entropy_loss,
    binary_loss,
    bradley_terry_loss,
    davidson_loss,
    plackett_luce_loss,
    prompt_classification_loss,
    rao_kupper_loss,
)
from reward.model import RewardModel

LabelWeighting = Literal["equal", "skill", "consensus"]


class ObjectiveConfig(BaseModel, frozen=True, extra="forbid"):
    """Weights and forms of the losses."""

    auxiliary_weight: NonNegativeFloat = 0.5
    """Weight of the prompt-classification loss, the paper's lambda; 0 leaves it out."""
    temperature: PositiveFloat = 2.0
    """Divides rewards in the prompt-classification loss, the paper's T."""
    pc_on: Literal["sigmoid", "logits"] = "sigmoid"
    """What the prompt-classification loss compares: rewards in [0, 1], as the paper does, or logits, whose differences have no bound."""
    ranking_weight: NonNegativeFloat = 0.5
    """Weight of the loss on rankings; 0 leaves it out."""
    binary_loss: Literal["mse", "bce"] = "mse"
    """On single labels: squared error of the probability, as the paper has it, or cross-entropy."""
    ranking_loss: Literal["bradley_terry", "davidson", "rao_kupper", "plackett_luce"] = (
        "bradley_terry"
    )
    """On rankings: pair by pair, a tie being half a win (bradley_terry) or an outcome of its own, as likely as the labels show (davidson,
    rao_kupper); or each ranking as a whole (plackett_luce)."""
    label_weights: LabelWeighting = "equal"
    """What raters count: all the same; by their skill, nothing at the level of chance and 1 when they are never wrong; or, for single
    labels, as one answer a task, the probability of good that all of its raters agree on (Dawid-Skene)."""


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
    """[V], how many raters said good or bad, each as much as it counts."""
    image_0: Tensor
    """[K] rows of `Examples.image_embeddings`."""
    image_1: Tensor
    """[K] rows of `Examples.image_embeddings`."""
    pair_prompt: Tensor
    """[K] rows of `Examples.text_embeddings`."""
    label_0: Tensor
    """[K]: 1 when picture 0 is better, 0.5 for a tie, 0 when it is worse."""
    weight: Tensor
    """[K]: 1 over the number of pairs of the ranking, as much as the rater counts."""
    ranking: Tensor | None = None
    """[K] from 0, the ranking of each pair, whose pairs stay in one step; None where pairs are spread over the steps one by one."""

    @classmethod
    def of(
        cls,
        part: FeedbackDataset,
        device: torch.device,
        *,
        weighting: LabelWeighting = "equal",
        whole_rankings: bool = False,
        shares: tuple[Numbers, Numbers] | None = None,
    ) -> Self:
        """Joins the verdicts of `part` and copies everything to `device`.

        `shares` multiplies what each verdict [V] and each pair [K] counts; labels that count nothing are left out.

        Raises:
            PictuneError: the export has no estimates that `weighting` needs.
        """
        verdicts, pairs = part.verdicts, part.pairs
        target = _consensus(part) if weighting == "consensus" else verdicts.good
        counts, weight = _rater_weights(part, weighting)
        if shares is not None:
            counts, weight = counts * shares[0], weight * shares[1]
        keys, inverse = np.unique(
            np.stack([verdicts.image, verdicts.prompt], axis=1), axis=0, return_inverse=True
        )
        raters = np.bincount(inverse, weights=counts, minlength=len(keys)).astype(np.float32)
        good = np.bincount(inverse, weights=counts * target, minlength=len(keys)).astype(np.float32)
        kept, counted = raters > 0, weight > 0
        of_verdicts = (keys[kept, 0], keys[kept, 1], good[kept] / raters[kept], raters[kept])
        of_pairs = (
            column[counted]
            for column in (pairs.image_0, pairs.image_1, pairs.prompt, pairs.label_0, weight)
        )
        ranking = (
            np.unique(pairs.ranking[counted], return_inverse=True)[1]
            if whole_rankings and pairs.ranking is not None
            else None
        )
        columns = (torch.tensor(values, device=device) for values in (*of_verdicts, *of_pairs))
        labels = cls(*columns)
        return (
            labels
            if ranking is None
            else replace(labels, ranking=torch.tensor(ranking, device=device))
        )

    @property
    def n_rankings(self) -> int:
        """How many rankings there are, or pairs where their rankings do not matter."""
        if self.ranking is None or not len(self.ranking):
            return len(self.image_0)
        return int(self.ranking.max()) + 1

    def pairs_of(self, rankings: Tensor) -> Tensor:
        """The rows of the pairs of `rankings`, which are numbers below `n_rankings`."""
        if self.ranking is None:
            return rankings
        chosen = torch.zeros(self.n_rankings, dtype=torch.bool, device=rankings.device)
        chosen[rankings] = True
        return chosen[self.ranking].nonzero().flatten()


def _rater_weights(part: FeedbackDataset, weighting: LabelWeighting) -> tuple[Numbers, Numbers]:
    """What the rater of each verdict [V] counts, and each pair [K] with its ranking's weight."""
    verdicts, pairs = part.verdicts, part.pairs
    if weighting != "skill":
        return np.ones(len(verdicts), np.float32), pairs.weight
    if verdicts.skill is None or pairs.skill is None:
        raise PictuneError(
            'reward.label_weights: no rater\'s skill is known; let two raters or more answer the same tasks, or set it to "equal"'
        )
    above_chance = [np.clip(2 * skill - 1, 0, 1) for skill in (verdicts.skill, pairs.skill)]
    known = np.concatenate(above_chance)
    known = known[np.isfinite(known)]
    # Who shares no task with others counts as much as the others do on average.
    usual = float(known.mean()) if len(known) else 1.0
    counts, of_pairs = (
        np.where(np.isfinite(each), each, usual).astype(np.float32) for each in above_chance
    )
    return counts, pairs.weight * of_pairs


def _consensus(part: FeedbackDataset) -> Numbers:
    """The probability of good that the raters of each verdict's task agree on, [V]; the verdict itself where it has none."""
    p_good = part.verdicts.p_good
    if p_good is None:
        raise PictuneError(
            'reward.label_weights: the export has no consensus.parquet; export the labels again, or set it to "equal"'
        )
    return np.where(np.isfinite(p_good), p_good, part.verdicts.good)


@dataclass(frozen=True, eq=False)
class Terms:
    """The parts of a loss, each a scalar; None where there is no label that it could be computed from."""

    binary: Tensor | None
    prompt: Tensor | None
    ranking: Tensor | None

    def total(self, config: ObjectiveConfig) -> Tensor | None:
        """The weighted sum of the terms that there are."""
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
    """How readily raters call two pictures equal, learned with the weights where `ranking_loss` has ties as an outcome of their own."""

    def labels(
        self, part: FeedbackDataset, *, shares: tuple[Numbers, Numbers] | None = None
    ) -> LabelTensors:
        """The labels of `part` as the losses want them; `shares` as in `LabelTensors.of`."""
        # Where blocks are trained, a ranking's pictures go through them once if its pairs stay together.
        whole = self.config.ranking_loss == "plackett_luce" or self.model.backbone.tuned_blocks > 0
        device, weighting = self.model.backbone.device, self.config.label_weights
        return LabelTensors.of(
            part, device, weighting=weighting, whole_rankings=whole, shares=shares
        )

    def training_terms(self, labels: LabelTensors, rows: Tensor, pairs: Tensor) -> Terms:
        """Each member's own losses, averaged over the members, on the verdicts `rows` and the ranked pairs `pairs` of `labels`."""
        image, prompt = labels.image[rows], labels.prompt[rows]
        chosen = labels.image_0[pairs], labels.image_1[pairs]
        images = self.examples.images_seen_by(self.model.backbone, torch.cat([image, *chosen]))
        good, raters = labels.good[rows], labels.raters[rows]
        binary = auxiliary = ranking = None
        if len(rows):
            binary = self._binary_loss(self._member_logits(images[image], prompt), good, raters)
        judged = (good > 0) & (self.examples.wrong[prompt] >= 0).any(-1)
        if self.config.auxiliary_weight and judged.any():
            auxiliary = self._prompt_term(
                images[image[judged]], prompt[judged], (good * raters)[judged]
            )
        if self.config.ranking_weight and len(pairs):
            whole = self.config.ranking_loss == "plackett_luce"
            ranking = (self._ranking_term if whole else self._pairs_term)(images, labels, pairs)
        return Terms(binary, auxiliary, ranking)

    @torch.no_grad()
    def validation_loss(self, labels: LabelTensors) -> float | None:
        """The loss of the ensemble's score on all `labels`, without the prompt-classification term; None without labels.

        Rankings count pair by pair, also for `plackett_luce`, whose chances for two pictures are those of Bradley and Terry: a ranking may
        reach over two parts of the split.
        """
        images = self.examples.images_seen_by(
            self.model.backbone, torch.cat([labels.image, labels.image_0, labels.image_1])
        )
        binary = ranking = None
        if len(labels.image):
            binary = self._binary_loss(
                self._member_logits(images[labels.image], labels.prompt).mean(0),
                labels.good,
                labels.raters,
            )
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
        with_ties: dict[str, Callable[..., Tensor]] = {
            "davidson": davidson_loss,
            "rao_kupper": rao_kupper_loss,
        }
        if self.config.ranking_loss in with_ties:
            return with_ties[self.config.ranking_loss](
                logits_0, logits_1, label_0, weight, self.tie
            )
        return bradley_terry_loss(logits_0, logits_1, label_0, weight)

    def _prompt_term(self, image: Tensor, prompt: Tensor, good_labels: Tensor) -> Tensor:
        wrong = self.examples.wrong[prompt]
        texts = torch.cat(
            [prompt[:, None], wrong.clamp(min=0)], dim=1
        )  # [B, N], the true prompt first
        present = torch.cat([torch.ones_like(prompt[:, None], dtype=torch.bool), wrong >= 0], dim=1)
        logits = self._member_logits(
            image.repeat_interleave(texts.shape[1], dim=0), texts.flatten()
        ).unflatten(-1, texts.shape)
        rewards = torch.sigmoid(logits) if self.config.pc_on == "sigmoid" else logits
        return prompt_classification_loss(rewards, present, good_labels, self.config.temperature)

    def _pairs_term(self, images: Tensor, labels: LabelTensors, pairs: Tensor) -> Tensor:
        prompt = labels.pair_prompt[pairs]
        logits_0 = self._member_logits(images[labels.image_0[pairs]], prompt)
        logits_1 = self._member_logits(images[labels.image_1[pairs]], prompt)
        return self._pair_loss(logits_0, logits_1, labels.label_0[pairs], labels.weight[pairs])

    def _ranking_term(self, images: Tensor, labels: LabelTensors, pairs: Tensor) -> Tensor:
        rankings, group = (pairs if labels.ranking is None else labels.ranking[pairs]).unique(
            return_inverse=True
        )
        shown = torch.cat([labels.image_0[pairs], labels.image_1[pairs]])
        pictures, at = torch.stack([group.repeat(2), shown], dim=1).unique(
            dim=0, return_inverse=True
        )  # sorted by ranking
        row = pictures[:, 0]
        sizes = torch.bincount(row)
        column = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
        # In a ranking the picture that wins more pairs, ties being half a win, is the better one.
        wins = labels.label_0.new_zeros(len(row)).index_add(
            0, at, torch.cat([labels.label_0[pairs], 1 - labels.label_0[pairs]])
        )
        prompt = torch.zeros_like(row).index_copy(0, at, labels.pair_prompt[pairs].repeat(2))
        logits = self._member_logits(images[pictures[:, 1]], prompt)
        shape = (len(rankings), int(sizes.max()))
        padded = logits.new_zeros(len(logits), *shape)
        padded[:, row, column] = logits
        ranks = wins.new_zeros(shape).index_put((row, column), -wins)
        present = torch.zeros(shape, dtype=torch.bool, device=row.device).index_put(
            (row, column), torch.ones_like(row, dtype=torch.bool)
        )
        weights = labels.weight.new_zeros(len(rankings)).index_add(0, group, labels.weight[pairs])
        return plackett_luce_loss(padded, ranks, present, weights)

    def _member_logits(self, image: Tensor, prompt: Tensor) -> Tensor:
        """[members, B] of picture embeddings [B, D] and rows [B] of the prompts' embeddings."""
        return self.model.member_logits(
            image_embeddings=image, text_embeddings=self.examples.text_embeddings[prompt]
        )
