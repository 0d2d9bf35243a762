"""Training of the reward on cached embeddings (Lee et al. 2023, arXiv 2302.12192), with rankings by Bradley and Terry or others.

    loss = (y - r)^2 + auxiliary_weight * prompt classification + ranking_weight * Bradley-Terry

Differs from the paper in: 1. an ensemble of heads, each trained on its own loss, instead of one; 2. all raters of a picture count, by the
mean of their labels; 3. rankings are learned from as well; 4. early stopping and a temperature from the validation part; 5. the last
blocks of the vision tower may be trained with the head; 6. the head starts near the CLIP score (`reward/head.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from sklearn.metrics import roc_auc_score

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.calibration import fit_temperature, fit_temperature_and_slips
from reward.dataset import FeedbackDataset
from reward.evaluation import verdict_logits
from reward.examples import Examples, ExamplesConfig
from reward.model import RewardModel
from reward.objective import LabelTensors, Objective, ObjectiveConfig
from reward.sources import RewardSource

RANKINGS_A_VERDICT = 8
"""The most ranked pairs, or rankings, in a step for each labelled picture of `batch_size`."""


class RewardConfig(ExamplesConfig, ObjectiveConfig, frozen=True, extra="forbid"):
    """Settings of the reward model and its training; the table `[reward]`."""

    hidden: tuple[PositiveInt, ...] = (128, 128)
    """Widths of the head's hidden layers; the paper has two of 1,024 on CLIP ViT-L/14."""
    members: PositiveInt = 5
    """Heads in the ensemble; their mean logit is the score, their spread its uncertainty."""
    epochs: PositiveInt = 60
    """Passes over the labels at most."""
    patience: PositiveInt = 10
    """Epochs without a lower validation loss after which training stops."""
    batch_size: PositiveInt = 256
    """Labelled pictures a step; ranked pairs are spread over the same steps. There are more steps where one would get over 8 times as many
    pairs."""
    learning_rate: PositiveFloat = 1e-3
    """Of AdamW, for the head."""
    tune_learning_rate: PositiveFloat = 1e-4
    """Of AdamW, for the blocks of the backbone that `tune_last` trains."""
    weight_decay: NonNegativeFloat = 0.01
    """Of AdamW."""
    calibration: Literal["temperature", "temperature_and_slips"] = "temperature"
    """What validation labels make of logits: a temperature, or one with a rate at which raters answer the wrong way round beside it."""
    baselines: tuple[RewardSource, ...] = ()
    """Rewards from elsewhere that the model is measured beside, each by itself; see `reward/sources.py`."""
    rater_types: PositiveInt = 1
    """Groups of raters with a reward of their own, beside that of all raters; 1 makes none. Each rater should give 10 labels or more."""

    @model_validator(mode="after")
    def _types_are_of_single_raters(self) -> Self:
        if self.rater_types > 1 and self.tune_last:
            raise ValueError(
                "rater types have heads of their own on one backbone; set rater_types to 1 or tune_last to 0"
            )
        if self.rater_types > 1 and self.label_weights != "equal":
            raise ValueError(
                'who has another taste would count as unskilled; set rater_types to 1 or label_weights to "equal"'
            )
        return self


@dataclass(frozen=True)
class RewardMetrics:
    """One epoch; losses are means over its steps, None where there was nothing to measure."""

    epoch: int
    """From 1."""
    binary_loss: float | None
    prompt_loss: float | None
    ranking_loss: float | None
    val_loss: float | None
    """Of the ensemble's score, without the prompt-classification loss; decides which weights are kept."""
    val_roc_auc: float | None


def new_model(
    backbone: ClipBackbone, config: RewardConfig, *, generator: torch.Generator
) -> RewardModel:
    """An untrained model as the settings want it; `generator` (CPU) draws its weights.

    Raises:
        PictuneError: the backbone has fewer than `tune_last` blocks.
    """
    tuned = {"tune_last": config.tune_last, "lora_rank": config.lora_rank}
    return RewardModel.create(
        backbone, hidden=config.hidden, members=config.members, generator=generator, **tuned
    )


def trained(backbone: ClipBackbone, examples: Examples, config: RewardConfig) -> RewardModel:
    """A model that was trained from the seed of `config` to the end; raises what `train` raises."""
    generator = torch.Generator().manual_seed(config.seed)
    model = new_model(backbone, config, generator=generator)
    for _ in train(model, examples, config, generator=generator):
        pass
    return model


def train(
    model: RewardModel, examples: Examples, config: RewardConfig, *, generator: torch.Generator
) -> Iterator[RewardMetrics]:
    """Trains `model` in place and yields the metrics of each epoch; `generator` (CPU) orders the labels.

    The head is trained, and the blocks of the backbone that `model` was made tunable with.

    When the iterator is exhausted, the model has the weights of the epoch with the lowest validation loss (of the last epoch where
    nothing was held out) and the calibration fitted on the validation part.

    Raises:
        PictuneError: there is nothing to learn from, or the loss is no longer a number.
    """
    _check(examples.split.train)
    if model.backbone.tuned_blocks != config.tune_last or (
        config.tune_last and model.backbone.lora_rank != config.lora_rank
    ):
        raise ValueError(
            "the model was created with another tune_last or lora_rank than the settings say"
        )
    objective = Objective(model, examples, config)
    labels, held_out = objective.labels(examples.split.train), objective.labels(examples.split.val)
    if not len(labels.image) + len(labels.image_0):
        raise PictuneError(
            'reward.label_weights: no rater\'s skill is above chance; look at `make inspect`, or set it to "equal"'
        )
    image, prompt = (
        torch.cat([labels.image, labels.image_0, labels.image_1]),
        torch.cat([labels.prompt, *[labels.pair_prompt] * 2]),
    )
    model.head.center(examples.image_embeddings[image], examples.text_embeddings[prompt])
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = optimizer_of(objective, config)
    best_loss, best_epoch, best_weights = float("inf"), 0, None
    for epoch in range(1, config.epochs + 1):
        losses = train_epoch(objective, optimizer, labels, config.batch_size, generator)
        val_loss = objective.validation_loss(held_out)
        yield RewardMetrics(epoch, *losses, val_loss, _validation_auc(model, examples))
        if val_loss is not None and val_loss < best_loss:
            best_loss, best_epoch = val_loss, epoch
            best_weights = {name: weight.detach().clone() for name, weight in learned.items()}
        elif best_weights is not None and epoch - best_epoch >= config.patience:
            break
    if best_weights is not None:
        model.load_state_dict(best_weights, strict=False)
    _calibrate(model, examples, config)
    model.labels = examples.split.train.counts


def _calibrate(model: RewardModel, examples: Examples, config: RewardConfig) -> None:
    logits, good = verdict_logits(model, examples, examples.split.val)
    slips = config.calibration == "temperature_and_slips"
    temperature, slip = (
        fit_temperature_and_slips(logits, good) if slips else (fit_temperature(logits, good), 0.0)
    )
    model.temperature.fill_(temperature)
    model.slip.fill_(slip)


def optimizer_of(objective: Objective, config: RewardConfig) -> torch.optim.Optimizer:
    """AdamW for the head, the blocks of the backbone that may be trained, and how readily raters call two pictures equal."""
    groups = [
        {"params": list(objective.model.head.parameters()), "lr": config.learning_rate},
        {
            "params": list(objective.model.backbone.tuned_weights().values()),
            "lr": config.tune_learning_rate,
        },
        {"params": [objective.tie], "lr": config.learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def train_epoch(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    labels: LabelTensors,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[float | None, float | None, float | None]:
    """One pass over the labels; the mean binary, prompt-classification and ranking loss."""
    ranking_weight, verdicts = objective.config.ranking_weight, len(labels.image)
    if not verdicts and not ranking_weight:
        raise PictuneError(
            "reward: all labels are rankings and reward.ranking_weight is 0; raise it"
        )
    # A step takes in more rankings than verdicts, of which each picture has several, but not all of them where verdicts are few.
    of_rankings = (
        -(-labels.n_rankings // (RANKINGS_A_VERDICT * batch_size)) if ranking_weight else 0
    )
    steps = (
        max(-(-verdicts // batch_size), of_rankings)
        if verdicts
        else -(-len(labels.image_0) // batch_size)
    )
    orders = (
        torch.randperm(n, generator=generator).tensor_split(steps)
        for n in (len(labels.image), labels.n_rankings)
    )
    history = []
    for rows, rankings in zip(*orders, strict=True):
        device = labels.image.device
        terms = objective.training_terms(
            labels, rows.to(device), labels.pairs_of(rankings.to(device))
        )
        loss = terms.total(objective.config)
        if loss is None:
            continue
        if not loss.isfinite():
            raise PictuneError("reward: the loss is no longer a number; lower reward.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((terms.binary, terms.prompt, terms.ranking))
    binary, prompt, ranking = (
        [term.item() for term in column if term is not None]
        for column in zip(*history, strict=True)
    )
    return _mean(binary), _mean(prompt), _mean(ranking)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _validation_auc(model: RewardModel, examples: Examples) -> float | None:
    logits, good = verdict_logits(model, examples, examples.split.val)
    return float(roc_auc_score(good, logits)) if len(np.unique(good)) == 2 else None


def _check(train: FeedbackDataset) -> None:
    counts = train.counts
    if not counts["good"] + counts["bad"] + counts["pairs"]:
        raise PictuneError(
            "reward: every label is held out and none is left to learn from; lower the shares of [reward.split] or label more"
        )
    if bool(counts["good"]) != bool(counts["bad"]):
        only = "good" if counts["good"] else "bad"
        raise PictuneError(
            f"reward: all {counts[only]} labels to learn from say {only}; label pictures until both verdicts occur"
        )
