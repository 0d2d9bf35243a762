"""Rollouts: images of the present policy with their rewards, trajectories and advantages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from finetune.learning.advantages import PromptStatistics
from finetune.learning.method import Training
from finetune.learning.reward_fn import score
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import Trajectories, draw_latents, sample_trajectories
from finetune.settings.policy_gradient import RolloutConfig
from finetune.settings.sampler import Sampler, share_of_steps


@dataclass(frozen=True)
class Transitions:
    """M denoising steps of any samples and timesteps."""

    latents: Tensor
    """x_t, [M, C, h, w]."""
    next_latents: Tensor
    """x_{t-1}, [M, C, h, w]."""
    timesteps: Tensor
    """[M]."""
    cond: Tensor
    """[M, L, D]."""
    log_probs: Tensor
    """[M]: of the step when it was drawn."""


@dataclass(frozen=True)
class Rollout:
    """The N images of one iteration."""

    prompts: list[str]
    cond: Tensor
    """[N, L, D]."""
    trajectories: Trajectories
    rewards: Tensor
    """[N]."""
    returns: Tensor
    """[N]: rewards normalized per prompt."""

    def transitions(self, pairs: Tensor) -> Transitions:
        """Return the transitions of (sample, step) pairs [M, 2]."""
        sample, step = pairs.unbind(1)
        chain = self.trajectories
        return Transitions(
            latents=chain.latents[sample, step],
            next_latents=chain.latents[sample, step + 1],
            timesteps=chain.timesteps[step],
            cond=self.cond[sample],
            log_probs=chain.log_probs[sample, step],
        )

    def reward_by_prompt(self) -> dict[str, float]:
        """Return the mean reward of each prompt."""
        return mean_by_prompt(self.prompts, self.rewards)


def mean_by_prompt(prompts: Sequence[str], rewards: Tensor) -> dict[str, float]:
    """Return the mean of the rewards [N] of each prompt."""
    values: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, rewards.tolist(), strict=True):
        values.setdefault(prompt, []).append(value)
    return {prompt: sum(mine) / len(mine) for prompt, mine in values.items()}


def merged(rollouts: Sequence[Rollout]) -> Rollout:
    """Return the images of several iterations, of equally many steps each, as one rollout."""
    if len(rollouts) == 1:
        return rollouts[0]
    chains = [one.trajectories for one in rollouts]
    latents = torch.cat([chain.latents for chain in chains])
    log_probs = torch.cat([chain.log_probs for chain in chains])
    return Rollout(
        prompts=[prompt for one in rollouts for prompt in one.prompts],
        cond=torch.cat([one.cond for one in rollouts]),
        trajectories=Trajectories(latents, log_probs, chains[0].timesteps),
        rewards=torch.cat([one.rewards for one in rollouts]),
        returns=torch.cat([one.returns for one in rollouts]),
    )


def packed(rollout: Rollout) -> dict[str, Any]:
    """Return the part of a rollout that a checkpoint keeps: plain values and tensors on the CPU."""
    tensors = {
        "latents": rollout.trajectories.latents,
        "log_probs": rollout.trajectories.log_probs,
        "rewards": rollout.rewards,
        "returns": rollout.returns,
    }
    on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
    return {"prompts": rollout.prompts} | on_cpu


def unpacked(kept: dict[str, Any], model: DiffusionModel) -> Rollout:
    """Return the rollout that `packed` was called with."""
    prompts: list[str] = kept["prompts"]
    tensors = {name: one.to(model.device) for name, one in kept.items() if name != "prompts"}
    timesteps = model.schedule(tensors["log_probs"].shape[1]).timesteps
    chain = Trajectories(tensors["latents"], tensors["log_probs"], timesteps)
    cond = model.encode_prompts(prompts)
    return Rollout(prompts, cond, chain, tensors["rewards"], tensors["returns"])


def collect(training: Training[Any], statistics: PromptStatistics) -> Rollout:
    """Draw the iteration's images with the present policy and score them.

    `statistics` are updated with their rewards. The training's config is a `RolloutConfig`.
    """
    model, generator = training.model, training.generator
    config: RolloutConfig = training.config
    chosen = list(training.prompts)
    if len(chosen) > config.prompts_per_iteration:
        order = torch.randperm(len(chosen), generator=generator)[: config.prompts_per_iteration]
        chosen = [chosen[i] for i in order.tolist()]
    texts = [prompt for prompt in chosen for _ in range(config.images_per_prompt)]
    cond = model.encode_prompts(texts)
    sampler, batch = training.sampler, config.micro_batch
    with training.watch.part("drawing"):
        trajectories = _trajectories(model, cond, sampler, generator=generator, batch=batch)
    mine = model.processes.share(len(texts), batch)
    finished = trajectories.latents[mine.to(model.device), -1]
    found = finished.new_zeros(0)
    if len(mine):
        found = decoded_rewards(training, finished, [texts[i] for i in mine.tolist()])
    rewards = model.processes.gather(mine, found, len(texts))
    return Rollout(texts, cond, trajectories, rewards, statistics.normalize(texts, rewards))


def prompts_of(prompts: Sequence[str], count: int, step: int) -> list[str]:
    """Return `count` prompts, or all if there are fewer, for the iteration after `step`.

    They are spread evenly over the list and move on with the step, so that each gets its turn as
    often as the others.
    """
    count = min(count, len(prompts))
    chosen = {(step + i * len(prompts) // count) % len(prompts) for i in range(count)}
    return [prompts[i] for i in sorted(chosen)]


def draw_scored(
    training: Training[Any], prompts: Sequence[str], *, batch: int
) -> tuple[Tensor, Tensor]:
    """Draw an image of each prompt with the model as it is, on fresh seeds, and score it.

    Each process draws its own batches of `batch` images. Return latents [N, C, h, w] and rewards
    [N].
    """

    def with_rewards(latents: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return latents, decoded_rewards(training, latents, texts)

    latents, rewards = draw_shared(training, prompts, with_rewards, batch=batch)
    return latents, rewards


def decoded_rewards(training: Training[Any], latents: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return the rewards [N] of the images of latents [N, C, h, w]."""
    assert training.reward is not None
    with training.watch.part("decoding"):
        images = training.model.decode(latents)
    with training.watch.part("reward"):
        return score(training.reward, images, prompts)


def draw_shared(
    training: Training[Any],
    prompts: Sequence[str],
    measure: Callable[[Tensor, Sequence[str]], tuple[Tensor, ...]],
    *,
    batch: int,
) -> list[Tensor]:
    """Draw an image of each prompt with the model as it is, on fresh seeds, in all processes.

    Each process draws its own batches of `batch` images. `measure` returns tensors [M, ...] of
    latents [M, C, h, w] and their prompts; they are returned as [N, ...], in the prompts' order.
    """
    model = training.model
    seeds = torch.randint(2**62, (len(prompts),), generator=training.generator).tolist()
    rows, drawn = model.processes.share_to_draw(len(prompts), batch)
    mine, own_seeds = [prompts[i] for i in drawn], [seeds[i] for i in drawn]
    names = iter(mine)
    with training.watch.part("drawing"):
        parts = [
            measure(part, list(islice(names, len(part))))
            for part in draw_latents(model, mine, training.sampler, seeds=own_seeds, batch=batch)
        ]
    return [
        model.processes.gather(rows, torch.cat(found)[: len(rows)], len(prompts))
        for found in zip(*parts, strict=True)
    ]


def _trajectories(
    model: DiffusionModel,
    cond: Tensor,
    sampler: Sampler,
    *,
    generator: torch.Generator,
    batch: int,
) -> Trajectories:
    """Return one chain per prompt embedding in `cond` [N, L, D].

    Each process draws its own batches, and gets those of the others.
    """
    shape = (len(cond), sampler.steps + 1, *model.latent_shape)
    latents = cond.new_zeros(shape, dtype=torch.float32)
    log_probs = cond.new_zeros(len(cond), sampler.steps, dtype=torch.float32)
    for number, rows in enumerate(torch.arange(len(cond), device=cond.device).split(batch)):
        if not model.processes.has(number):
            # Draw the noise that its process draws, so that the generators stay alike.
            for _ in range(1 + sampler.stochastic_steps):
                noise_shape = (len(rows), *model.latent_shape)
                torch.randn(noise_shape, generator=generator, device=generator.device)
            continue
        drawn = sample_trajectories(model, cond[rows], sampler, generator=generator, batch=batch)
        latents[rows], log_probs[rows] = drawn.latents, drawn.log_probs
    timesteps = model.schedule(sampler.steps).timesteps
    total = model.processes.total
    return Trajectories(total(latents), total(log_probs), timesteps)


def choose_transitions(
    samples: int, stochastic_steps: int, fraction: float, *, generator: torch.Generator
) -> Tensor:
    """Return random (sample, step) pairs [M, 2] in random order, no pair twice.

    They hold, for every sample, `fraction` of its stochastic steps.
    """
    taken = share_of_steps(stochastic_steps, fraction)
    steps = torch.rand(samples, stochastic_steps, generator=generator).argsort(1)[:, :taken]
    numbers = torch.arange(samples).repeat_interleave(taken)
    pairs = torch.stack([numbers, steps.flatten()], dim=1)
    return pairs[torch.randperm(len(pairs), generator=generator)]
