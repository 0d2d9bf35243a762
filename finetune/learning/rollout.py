"""Rollouts of policy gradients: trajectories with their rewards, and the steps to train on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.learning.drawing import PromptStatistics, decoded_rewards
from finetune.learning.method import Training
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import Trajectories, sample_trajectories
from finetune.model.sampling import log_prob, noise_per_output, step_distribution
from finetune.model.schedule import NoiseSchedule
from finetune.settings.sampler import Sampler, share_of_steps


@dataclass(frozen=True)
class Transitions:
    """M denoising steps, from any samples and timesteps."""

    latents: Tensor
    """x_t, [M, C, h, w]."""
    next_latents: Tensor
    """x_{t-1}, [M, C, h, w]."""
    timesteps: Tensor
    """[M]."""
    cond: Tensor
    """[M, L, D]."""
    log_probs: Tensor
    """[M], under the policy that drew the step."""


@dataclass(frozen=True)
class Rollout(Trajectories):
    """The N images of one iteration with their trajectories."""

    prompts: list[str]
    cond: Tensor
    """[N, L, D]."""
    rewards: Tensor
    """[N]."""
    returns: Tensor
    """[N]: rewards normalized per prompt."""

    def transitions(self, pairs: Tensor) -> Transitions:
        """Return the transitions of (sample, step) pairs [M, 2]."""
        sample, step = pairs.unbind(1)
        return Transitions(
            latents=self.latents[sample, step],
            next_latents=self.latents[sample, step + 1],
            timesteps=self.timesteps[step],
            cond=self.cond[sample],
            log_probs=self.log_probs[sample, step],
        )


def collect(training: Training[Any], statistics: PromptStatistics) -> Rollout:
    """Draw the iteration's images with the current policy, and score them."""
    model, generator, config = training.model, training.generator, training.config
    chosen = list(training.prompts)
    if len(chosen) > config.prompts_per_iteration:
        order = torch.randperm(len(chosen), generator=generator)[: config.prompts_per_iteration]
        chosen = [chosen[i] for i in order.tolist()]
    texts = [prompt for prompt in chosen for _ in range(config.images_per_prompt)]
    cond = model.encode_prompts(texts)
    sampler, batch = training.sampler, config.micro_batch
    with training.watch.part("drawing"):
        chains = sample_trajectories(model, cond, sampler, generator=generator, batch=batch)
    mine = model.processes.share(len(texts), batch)
    finished = chains.latents[mine.to(model.device, non_blocking=True), -1]
    found = finished.new_zeros(0)
    if len(mine):
        found = decoded_rewards(training, finished, [texts[i] for i in mine.tolist()])
    rewards = model.processes.gather(mine, found, len(texts))
    returns = statistics.normalize(texts, rewards)
    return Rollout(**vars(chains), prompts=texts, cond=cond, rewards=rewards, returns=returns)


def choose_transitions(
    samples: int, stochastic_steps: int, fraction: float, *, generator: torch.Generator
) -> Tensor:
    """Return distinct (sample, step) pairs [M, 2] in random order, `fraction` of each sample's."""
    taken = share_of_steps(stochastic_steps, fraction)
    steps = torch.rand(samples, stochastic_steps, generator=generator).argsort(1)[:, :taken]
    numbers = torch.arange(samples).repeat_interleave(taken)
    pairs = torch.stack([numbers, steps.flatten()], dim=1)
    return pairs[torch.randperm(len(pairs), generator=generator)]


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
    """[M], under the current policy."""
    old_log_probs: Tensor
    """[M], under the policy that drew the transitions."""
    policy: Prediction
    reference: Prediction | None
    """Prediction of the pretrained model, without gradient; None if the method does not use it."""
    noise_per_output: Tensor
    """Factor [M, 1, 1, 1]: a difference of outputs times it is a difference of predicted noise."""


def predict_step(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    batch: Transitions,
    real: int,
    *,
    sampler: Sampler,
    with_reference: bool,
) -> Step:
    """Return the predictions for the first `real` transitions; the others are padding.

    `schedule` is the model's noise schedule for the sampler's steps.
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
