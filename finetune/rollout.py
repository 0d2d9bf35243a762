"""What online methods learn from: images of the present policy with their trajectories, rewards and advantages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from torch import Tensor

from finetune.advantages import PromptStatistics
from finetune.diffusion import DiffusionModel
from finetune.processes import ALONE, Processes
from finetune.reward_fn import RewardFn, score
from finetune.sampling import Trajectories, part_of, sample_trajectories


class RolloutConfig(BaseModel, frozen=True, extra="forbid"):
    """How an online method draws, and which of the drawn transitions it learns from."""

    prompts_per_iteration: PositiveInt = 4
    """Different prompts drawn for in one iteration, at random when there are more."""
    images_per_prompt: PositiveInt = 16
    """Images of each prompt in one iteration. DPOK's paper: 10 in all for one prompt, 45 for many."""
    steps: PositiveInt = 20
    """Sampler steps of a trajectory. Paper: 50."""
    guidance: PositiveFloat = 2.0
    """Classifier-free guidance scale; 1 switches it off. Paper: 7.5."""
    eta: float = Field(default=1.0, gt=0, le=1)
    """Noise of the sampler's steps; 1 is ancestral sampling, as in the paper."""
    stochastic_share: float = Field(default=0.6, gt=0, le=1)
    """Share of a trajectory's steps, from its start, that draw noise and can be trained on. The later ones are deterministic: they finish
    the picture as the sampler of users does, and their noise would be so small that ratios run away. Paper: 1."""
    timestep_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each trajectory's stochastic steps that is trained on, drawn at random. Less is quicker and noisier."""
    micro_batch: PositiveInt = 32
    """Rows of one UNet call (twice that with guidance), in rollout and training; bounds the memory. No padding if it divides the images."""

    @property
    def stochastic_steps(self) -> int:
        """How many steps of a trajectory are stochastic."""
        return part_of(self.steps, self.stochastic_share)


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
    """[N]: rewards normalised per prompt."""

    def transitions(self, pairs: Tensor) -> Transitions:
        """The transitions of (sample, step) pairs [M, 2]."""
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
        """Mean reward of each prompt."""
        values: dict[str, list[float]] = {}
        for prompt, value in zip(self.prompts, self.rewards.tolist(), strict=True):
            values.setdefault(prompt, []).append(value)
        return {prompt: sum(mine) / len(mine) for prompt, mine in values.items()}


def merged(rollouts: Sequence[Rollout]) -> Rollout:
    """The images of several iterations, of as many steps each, as one."""
    if len(rollouts) == 1:
        return rollouts[0]
    chains = [one.trajectories for one in rollouts]
    latents, log_probs = (
        torch.cat([chain.latents for chain in chains]),
        torch.cat([chain.log_probs for chain in chains]),
    )
    return Rollout(
        prompts=[prompt for one in rollouts for prompt in one.prompts],
        cond=torch.cat([one.cond for one in rollouts]),
        trajectories=Trajectories(latents, log_probs, chains[0].timesteps),
        rewards=torch.cat([one.rewards for one in rollouts]),
        returns=torch.cat([one.returns for one in rollouts]),
    )


def packed(rollout: Rollout) -> dict[str, Any]:
    """What a checkpoint keeps of a rollout: plain values and tensors on the CPU."""
    chain = rollout.trajectories
    tensors = {
        "latents": chain.latents,
        "log_probs": chain.log_probs,
        "rewards": rollout.rewards,
        "returns": rollout.returns,
    }
    return {"prompts": rollout.prompts} | {name: tensor.cpu() for name, tensor in tensors.items()}


def unpacked(kept: dict[str, Any], model: DiffusionModel) -> Rollout:
    """The rollout that `packed` gave."""
    tensors = {name: tensor.to(model.device) for name, tensor in kept.items() if name != "prompts"}
    timesteps = model.scheduler(tensors["log_probs"].shape[1]).timesteps
    chain = Trajectories(tensors["latents"], tensors["log_probs"], timesteps)
    return Rollout(
        kept["prompts"],
        model.encode_prompts(kept["prompts"]),
        chain,
        tensors["rewards"],
        tensors["returns"],
    )


def collect(
    model: DiffusionModel,
    prompts: Sequence[str],
    reward: RewardFn,
    config: RolloutConfig,
    *,
    statistics: PromptStatistics,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> Rollout:
    """Draws the iteration's images with the present policy and scores them; `statistics` takes in their rewards."""
    chosen = list(prompts)
    if len(chosen) > config.prompts_per_iteration:
        order = torch.randperm(len(chosen), generator=generator)[: config.prompts_per_iteration]
        chosen = [chosen[i] for i in order.tolist()]
    texts = [prompt for prompt in chosen for _ in range(config.images_per_prompt)]
    cond = model.encode_prompts(texts)
    trajectories = _trajectories(model, cond, config, generator, processes)
    mine = processes.share(len(texts), config.micro_batch)
    finished = trajectories.latents[mine.to(model.device), -1]
    found = (
        score(reward, model.decode(finished), [texts[i] for i in mine.tolist()])
        if len(mine)
        else finished.new_zeros(0)
    )
    rewards = processes.gather(mine, found, len(texts))
    return Rollout(texts, cond, trajectories, rewards, statistics.normalise(texts, rewards))


def _trajectories(
    model: DiffusionModel,
    cond: Tensor,
    config: RolloutConfig,
    generator: torch.Generator,
    processes: Processes,
) -> Trajectories:
    """One chain per prompt embedding in `cond` [N, L, D], each process's batches drawn by it."""
    latents = cond.new_zeros(len(cond), config.steps + 1, *model.latent_shape, dtype=torch.float32)
    log_probs = cond.new_zeros(len(cond), config.steps, dtype=torch.float32)
    for number, rows in enumerate(
        torch.arange(len(cond), device=cond.device).split(config.micro_batch)
    ):
        if not processes.has(number):
            for _ in range(
                1 + config.stochastic_steps
            ):  # the noise that its process draws, so that the generators stay alike
                torch.randn(
                    (len(rows), *model.latent_shape), generator=generator, device=generator.device
                )
            continue
        drawn = sample_trajectories(
            model,
            cond[rows],
            steps=config.steps,
            guidance=config.guidance,
            eta=config.eta,
            generator=generator,
            stochastic_steps=config.stochastic_steps,
            batch=config.micro_batch,
        )
        latents[rows], log_probs[rows] = drawn.latents, drawn.log_probs
    return Trajectories(
        processes.total(latents),
        processes.total(log_probs),
        model.scheduler(config.steps).timesteps,
    )


def choose_transitions(
    samples: int, config: RolloutConfig, *, generator: torch.Generator
) -> Tensor:
    """Random (sample, step) pairs [M, 2] in random order: for every sample the configured share of its stochastic steps, no pair twice."""
    taken = part_of(config.stochastic_steps, config.timestep_fraction)
    steps = torch.rand(samples, config.stochastic_steps, generator=generator).argsort(1)[:, :taken]
    pairs = torch.stack([torch.arange(samples).repeat_interleave(taken), steps.flatten()], dim=1)
    return pairs[torch.randperm(len(pairs), generator=generator)]
