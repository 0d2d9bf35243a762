"""Predictions of policy and reference for drawn transitions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.learning.rollout import Transitions
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import log_prob, noise_per_output, step_distribution
from finetune.model.schedule import NoiseSchedule
from finetune.settings.sampler import Sampler


@dataclass(frozen=True)
class Prediction:
    """Prediction of one model for M transitions."""

    mean: Tensor
    """Mean of the next latents, [M, C, h, w]."""
    std: Tensor
    """Standard deviation of the next latents, [M, 1, 1, 1]."""
    output: Tensor
    """Output of the network with guidance, [M, C, h, w]."""


@dataclass(frozen=True)
class Step:
    """Predictions of policy and reference for a micro-batch of M transitions."""

    log_probs: Tensor
    """[M], of the policy."""
    old_log_probs: Tensor
    """[M], when they were drawn."""
    policy: Prediction
    reference: Prediction | None
    """Of the pretrained model, without gradient; None for a method that does not use it."""
    noise_per_output: Tensor
    """Factor [M, 1, 1, 1] from a difference of two outputs to one of the predicted noises."""


def predict_step(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    batch: Transitions,
    real: int,
    *,
    sampler: Sampler,
    with_reference: bool,
) -> Step:
    """Return the predictions for the first `real` transitions.

    The other rows only keep the network's batch at its fixed size. `schedule` is the model's for
    the steps of the sampler.
    """
    uncond = model.encode_prompts([""]).expand_as(batch.cond)
    latents, timesteps = batch.latents[:real], batch.timesteps[:real]

    def predict() -> Prediction:
        whole = model.predict(batch.latents, batch.timesteps, batch.cond, uncond, sampler.guidance)
        output = whole[:real]
        mean, std = step_distribution(schedule, output, timesteps, latents, eta=sampler.eta)
        return Prediction(mean, std, output)

    reference = None
    if with_reference:
        with torch.no_grad(), model.adapter_off():
            reference = predict()
    policy = predict()
    log_probs = log_prob(batch.next_latents[:real], policy.mean, policy.std)
    factor = noise_per_output(schedule, timesteps)
    return Step(log_probs, batch.log_probs[:real], policy, reference, factor)
