"""Training of the reward on cached embeddings (Lee et al. 2023, arXiv 2302.12192).

    loss = (y - r)^2 + auxiliary_weight * prompt classification + ranking_weight * rankings

Differs from the paper in: 1. an ensemble of heads, each trained on its own loss, instead of one;
2. an image's label is the mean over its raters; 3. rankings are training data too, by the loss of
   Bradley and Terry; 4. early stopping and a temperature from the validation part;
5. the head starts near the CLIP score (`EnsembleHead`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data.errors import PictuneError
from reward.calibration import fit_temperature
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset
from reward.learning.examples import Examples, verdict_logits
from reward.learning.label_tensors import LabelTensors
from reward.learning.objective import Objective
from reward.model import RewardModel
from reward.settings import RewardConfig

PAIRS_PER_VERDICT = 8
"""Largest number of ranked pairs per step for each labeled image of `batch_size`."""

PATIENCE = 10
"""Epochs without a lower validation loss after which training stops."""
WEIGHT_DECAY = 0.01
"""Weight decay of AdamW."""


@dataclass(frozen=True)
class RewardMetrics:
    """Metrics of one epoch, means over its steps; None for terms without labels."""

    epoch: int
    """Number of the epoch, from 1."""
    binary_loss: float | None
    prompt_loss: float | None
    ranking_loss: float | None
    val_loss: float | None
    """Loss of the ensemble's score without the prompt-classification loss; the weights with its
    lowest value are kept."""


def new_model(
    backbone: ClipBackbone, config: RewardConfig, *, generator: torch.Generator
) -> RewardModel:
    """Return an untrained model by the settings; `generator` (CPU) draws its weights."""
    return RewardModel.create(
        backbone, hidden=config.hidden, members=config.members, generator=generator
    )


def train_from_scratch(
    backbone: ClipBackbone, examples: Examples, config: RewardConfig
) -> RewardModel:
    """Return a new, fully trained model from the seed of `config`; raises as `train` does."""
    generator = torch.Generator().manual_seed(config.seed)
    model = new_model(backbone, config, generator=generator)
    for _ in train(model, examples, config, generator=generator):
        pass
    return model


def train(
    model: RewardModel, examples: Examples, config: RewardConfig, *, generator: torch.Generator
) -> Iterator[RewardMetrics]:
    """Train `model` in place and yield the metrics of each epoch.

    `generator` (CPU) orders the labels. At the end of the iterator, the model has the weights of
    the epoch with the lowest validation loss (without validation labels: of the last epoch) and the
    calibration of the validation part.

    Raises:
        PictuneError: there are no labels to learn from, or the loss is NaN.
    """
    _check_labels(examples.split.train)
    objective = Objective(model, examples, config)
    labels, held_out = objective.labels(examples.split.train), objective.labels(examples.split.val)
    if not len(labels.image) + len(labels.image_0):
        raise PictuneError(
            "reward.label_weights: no rater's skill is above chance; look at `make inspect`, or "
            'set it to "equal"'
        )
    image = torch.cat([labels.image, labels.image_0, labels.image_1])
    prompt = torch.cat([labels.prompt, labels.pair_prompt, labels.pair_prompt])
    model.head.center(examples.image_features[image], examples.text_embeddings[prompt])
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = optimizer_of(objective, config)
    best_loss, best_epoch, best_weights = float("inf"), 0, None
    for epoch in range(1, config.epochs + 1):
        losses = train_epoch(objective, optimizer, labels, config.batch_size, generator)
        val_loss = objective.validation_loss(held_out)
        yield RewardMetrics(epoch, *losses, val_loss)
        if val_loss is not None and val_loss < best_loss:
            best_loss, best_epoch = val_loss, epoch
            best_weights = {name: weight.detach().clone() for name, weight in learned.items()}
        elif best_weights is not None and epoch - best_epoch >= PATIENCE:
            break
    if best_weights is not None:
        model.load_state_dict(best_weights, strict=False)
    model.temperature.fill_(fit_temperature(*verdict_logits(model, examples, examples.split.val)))
    model.labels = examples.split.train.counts


def optimizer_of(objective: Objective, config: RewardConfig) -> torch.optim.Optimizer:
    """Return AdamW for the head."""
    head = objective.model.head.parameters()
    return torch.optim.AdamW(head, config.learning_rate, weight_decay=WEIGHT_DECAY)


def train_epoch(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    labels: LabelTensors,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[float | None, float | None, float | None]:
    """Pass over the labels once; return the mean binary, prompt-classification and ranking loss."""
    steps = steps_per_epoch(labels, batch_size, ranking_weight=objective.config.ranking_weight)
    orders = (
        torch.randperm(n, generator=generator).tensor_split(steps)
        for n in (len(labels.image), len(labels.image_0))
    )
    history = []
    for rows, pairs in zip(*orders, strict=True):
        terms = objective.training_terms(labels, rows, pairs)
        loss = terms.total(objective.config)
        if loss is None:
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((terms.binary, terms.prompt, terms.ranking))
    # Read here, since each read waits for the device.
    binary, prompt, ranking = (
        torch.stack(present).tolist()
        if (present := [one for one in column if one is not None])
        else []
        for column in zip(*history, strict=True)
    )
    if not np.isfinite([*binary, *prompt, *ranking]).all():
        raise PictuneError("reward: the loss is no longer a number; lower reward.learning_rate")
    return _mean(binary), _mean(prompt), _mean(ranking)


def steps_per_epoch(labels: LabelTensors, batch_size: int, *, ranking_weight: float) -> int:
    """Return the number of steps over which verdicts and rankings are spread.

    A step has at most `batch_size` verdicts and at most 8 times as many rankings: an image occurs
    in several rankings, but with few verdicts they must not all be in one step. With 100 verdicts,
    9,000 pairs and a `batch_size` of 256 there are max(1, ceil(9,000 / 2,048)) = 5 steps. Without
    verdicts a step has at most `batch_size` pairs.

    Raises:
        PictuneError: there are no labels to learn from.
    """
    verdicts = len(labels.image)
    if not verdicts and not ranking_weight:
        raise PictuneError(
            "reward: all labels are rankings and reward.ranking_weight is 0; raise it"
        )
    if not verdicts:
        return math.ceil(len(labels.image_0) / batch_size)
    for_verdicts = math.ceil(verdicts / batch_size)
    if not ranking_weight:
        return for_verdicts
    return max(for_verdicts, math.ceil(len(labels.image_0) / (PAIRS_PER_VERDICT * batch_size)))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _check_labels(train: FeedbackDataset) -> None:
    counts = train.counts
    if not counts["good"] + counts["bad"] + counts["pairs"]:
        raise PictuneError(
            "reward: every label is held out and none is left to learn from; lower the shares of "
            "[reward.split] or label more"
        )
    if bool(counts["good"]) != bool(counts["bad"]):
        only = "good" if counts["good"] else "bad"
        raise PictuneError(
            f"reward: all {counts[only]} labels to learn from say {only}; label images until both "
            "verdicts occur"
        )
