"""Reward-weighted likelihood (Lee et al. 2023): learn from existing images, the better ones more.

    loss = E_(x,z)~rewarded[ w(r(x, z)) * ||target - prediction(x_t, t, z)||^2 ]
           + beta * E_(x,z)~pretraining[ ||target - prediction||^2 ]

The paper is arXiv 2302.12192. The denoising error stands for -log p(x | z); its target is the
noise, the velocity or the image, as the model's schedule says. `finetune/labels/weighting.py`
explains which weights w there are, and which objective each one solves. With `kl = "kl-o"` (Fan et
al. 2023, arXiv 2305.16381) the loss has a third term,
gamma * E_(x,z)~rewarded[ ||prediction - pretrained prediction||^2 ].

Differs from the papers in:
1. LoRA instead of all weights, so that the reference model stays at hand.
2. Images are drawn with probability proportional to their weight and count equally: the same
   expected gradient with less variance, and no time spent on images that weigh nothing. KL-O is
   taken on those that are drawn, which are the target of the tuned model.
3. Some prompts are left empty, so that classifier-free guidance goes on working.
4. `timestep_power` above 0 draws more of the noisy timesteps, where the sampler decides what is in
   the image; the papers draw all alike.
5. With masks, the squared errors of the first two terms have a weight at each place: 0 inside the
   parts that people marked as wrong, and the same elsewhere, with mean 1 over an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.labels.weighted_batches import (
    Batch,
    WeightedData,
    WeightedImages,
    draw_batch,
    weighted_images,
)
from finetune.learning.method import Curve, Method, Training, steps
from finetune.learning.method import Metrics as CommonMetrics
from finetune.learning.training import TrainState, adapter_optimizer, take_step
from finetune.model.denoising import denoising_target, weighted_denoising_loss
from finetune.model.diffusion import DiffusionModel
from finetune.model.schedule import NoiseSchedule
from finetune.settings.reward_weighted import RewardWeightedConfig


@dataclass(frozen=True, kw_only=True)
class Metrics(CommonMetrics):
    """Metrics of the steps since the last report."""

    loss: float
    """Mean weighted denoising error of the rewarded images."""
    pretraining_loss: float | None
    """Mean denoising error of the pretraining images, before beta; None when beta is 0."""
    kl_loss: float | None
    """Mean squared difference to the base's predictions, before gamma; None without KL-O."""
    reward: float
    """Mean reward of the rewarded images."""
    effective_sample_size: float
    """(sum w)^2 / sum w^2 over the number of images, in (0, 1]: the share of the images that really
    counts."""


class Losses(NamedTuple):
    """The terms of the loss, each with its weight."""

    rewarded: Tensor
    """Loss of the rewarded images."""
    pretraining: Tensor
    """beta times the loss of the pretraining images."""
    kl: Tensor
    """gamma times KL-O."""


def start(training: Training[RewardWeightedConfig]) -> TrainState:
    """Return the state before the first step."""
    optimizer = adapter_optimizer(training.model, training.config.learning_rate)
    return TrainState(model=training.model, optimizer=optimizer)


def train(training: Training[RewardWeightedConfig], state: TrainState) -> Iterator[Metrics]:
    """Train as `Method.train`, and yield metrics every `report_every` steps."""
    config, beta = training.config, training.config.pretraining_weight
    given: WeightedData = training.data
    # The pretraining images are the same images, drawn evenly.
    images = weighted_images(given, given if beta else None, config, device=training.model.device)
    schedule = training.model.schedule(training.sampler.steps)

    def take(rate: float) -> Tensor:
        with training.watch.part("training"):
            return update(training, state, images, schedule, learning_rate=rate)

    reports = steps(training, state, take, total=config.updates, report_every=config.report_every)
    for records, common in reports:
        loss, pretraining, kl, norm = torch.stack(records).mean(0).tolist()
        yield Metrics(
            **common,
            loss=loss,
            pretraining_loss=pretraining / beta if beta else None,
            kl_loss=kl / config.gamma if config.kl == "kl-o" else None,
            reward=images.reward,
            effective_sample_size=images.effective_sample_size,
            gradient_norm=norm,
        )


def update(
    training: Training[RewardWeightedConfig],
    state: TrainState,
    images: WeightedImages,
    schedule: NoiseSchedule,
    *,
    learning_rate: float,
) -> Tensor:
    """Take one optimizer step; return its losses as in `Losses` and the gradient's norm, [4]."""
    config, model = training.config, training.model
    batch = draw_batch(images, config, schedule, generator=training.generator)
    total = torch.zeros(len(Losses._fields), device=model.device)
    # Every process gets rewarded and pretraining rows alike.
    for rows in model.processes.batches(len(batch.latents), config.micro_batch):
        losses = batch_losses(model, schedule, batch, rows, config, mean_weight=images.mean_weight)
        stacked = torch.stack(losses)
        state.scaler.scale(stacked.sum()).backward()
        total += stacked.detach()
    norm = take_step(
        state,
        learning_rate=learning_rate,
        blame=lambda: batch.texts,
    )
    return torch.stack([*model.processes.total(total), norm])


def batch_losses(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    batch: Batch,
    rows: Tensor,
    config: RewardWeightedConfig,
    *,
    mean_weight: float,
) -> Losses:
    """Return the part of these rows [M] in the batch's losses.

    The sum over all rows is the batch's. `rows` are in order, so that rewarded ones come first.
    """
    part = rows.to(batch.latents.device, non_blocking=True)
    latents, noise, timesteps = batch.latents[part], batch.noise[part], batch.timesteps[part]
    places = batch.places[part]
    n = batch.rewarded
    k = int((rows < n).sum())
    target = denoising_target(schedule, latents, noise, timesteps)
    noisy = schedule.add_noise(latents, noise, timesteps)
    cond = model.encode_prompts([batch.texts[i] for i in rows.tolist()])
    prediction = model.predict_denoising(noisy, timesteps, cond)
    ones = torch.ones(len(rows), device=latents.device)
    rewarded = pretraining = kl = torch.zeros((), device=latents.device)
    if k:
        weights = mean_weight * ones[:k]
        losses = weighted_denoising_loss(prediction[:k], target[:k], weights, places[:k])
        rewarded = losses * (k / n)
    if k and config.kl == "kl-o":
        with torch.no_grad(), model.adapter_off():
            base = model.predict_denoising(noisy[:k], timesteps[:k], cond[:k])
        weights = config.gamma * ones[:k]
        kl = weighted_denoising_loss(prediction[:k], base, weights) * (k / n)
    if len(rows) > k:
        share = (len(rows) - k) / (len(batch.latents) - n)
        weights = config.pretraining_weight * ones[k:]
        losses = weighted_denoising_loss(prediction[k:], target[k:], weights, places[k:])
        pretraining = losses * share
    return Losses(rewarded, pretraining, kl)


METHOD = Method(
    paper="Lee et al. 2023, arXiv 2302.12192",
    story="learns from the images that exist, the better ones more",
    config=RewardWeightedConfig,
    total_steps=lambda config: config.updates,
    start=start,
    train=train,
    color="#3b7dd8",
    curves=(
        Curve("reward", {"validation_reward": "validation"}),
        Curve("loss", {"loss": "denoising", "pretraining_loss": "pretraining"}),
    ),
)
