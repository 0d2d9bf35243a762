"""DPOK: policy gradient with a KL penalty to the pretrained model (Fan et al. 2023, arXiv 2305.16381).

    loss = -E[min(rho * A, clip(rho, 1 - c, 1 + c) * A)] + kl_weight * E[KL(p_theta(x_{t-1} | x_t, z) || p_pretrained(x_{t-1} | x_t, z))]
    rho = p_theta(x_{t-1} | x_t, z) / p_old(x_{t-1} | x_t, z),   A = (r(x_0, z) - mean_z) / std_z - V(x_t, z, t)

Log-probabilities and the KL in the loss are means over the latent's dimensions, so one clip range and one KL weight fit every image size.
Classifier-free guidance is on in the rollout, in the policy's and in the reference's predictions.

Differs from the paper and its code in:
1. PPO's min(); they clamp the ratio alone, which also stops gradients that would bring a strayed ratio back.
2. The exact Gaussian KL, ||mean - mean_ref||^2 / (2 std^2); their code has the plain squared difference of the predicted noise.
3. Rewards are normalised per prompt before the value function sees them; it learns what that leaves, and starts at zero.
4. Advantages come from the value function of the iterations before, so the baseline does not know the action's outcome.
5. Every iteration trains on its own images only, each transition at most once; their buffer keeps 1000 transitions of older policies.
6. Transitions of different samples and timesteps share a batch.
7. Only the first steps of a trajectory are stochastic and trained on; the later ones are deterministic and count as part of what turns
   the last trained state into an image (as in MixGRPO, Li et al. 2025, arXiv 2507.21802).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from finetune.advantages import PromptStatistics
from finetune.diffusion import DiffusionModel, LoraSettings, Precision
from finetune.reward_fn import RewardFn
from finetune.rollout import Rollout, RolloutConfig, Transitions, choose_transitions, collect
from finetune.sampling import log_prob, padded_batches, step_distribution
from finetune.training import TrainState, ValidationConfig, lora_optimizer, take_step, under, validate
from finetune.value import Critic, ValueFunction


class DPOKConfig(RolloutConfig, frozen=True, extra="forbid"):
    """Settings of DPOK; the paper's stand beside ours, which are for the embedded model of 5 million parameters."""

    iterations: PositiveInt = 30
    """Rounds of drawing and training. Paper: 2000 rounds of 10 images."""
    updates: PositiveInt = 2
    """Optimizer steps per iteration, which share its transitions. Paper: 5."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's, for LoRA. Paper: 1e-5, with AdamW too."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm. Paper: 0.1."""
    clip_range: PositiveFloat = 1e-3
    """How far the ratio of densities per dimension may leave 1; times the dimensions it is in nats. Paper: 1e-4 on 16384, so 1.6 nats."""
    kl_weight: NonNegativeFloat = 0.02
    """Weight of the KL to the pretrained model; 0 trains on the reward alone. Rewards have unit spread. Paper: 0.01 to rewards times 10."""
    advantage_clip: PositiveFloat = 5.0
    """Advantages beyond this many standard deviations are cut."""
    baseline: Literal["value", "prompt_mean"] = "value"
    """What a reward is compared with: the prompt's mean and the learned value function, or the mean alone."""
    statistics_window: PositiveInt = 64
    """Rewards per prompt from which its mean and standard deviation are taken."""
    std_floor: PositiveFloat = 0.05
    """Least standard deviation to divide rewards by, in the reward's units; keeps settled prompts from amplifying noise."""
    value_learning_rate: PositiveFloat = 1e-3
    """AdamW's, for the value function. Paper: 1e-4."""
    value_steps: PositiveInt = 5
    """Steps of the value function per iteration, as in the paper."""
    value_batch: PositiveInt = 256
    """Transitions in each of them, as in the paper."""
    lora: LoraSettings = LoraSettings()
    """Which weights are trained."""
    precision: Precision = "fp32"
    """Arithmetic of the UNet; bf16 is about 1.5 times as fast on CPUs that have it, but its rounding shows in ratios and KL: about one
    nat a step."""
    validation: ValidationConfig = ValidationConfig()
    """How the best weights are chosen."""


@dataclass(frozen=True)
class Metrics:
    """One iteration of DPOK."""

    step: int
    reward: float
    reward_by_prompt: dict[str, float]
    kl: float
    """Upper bound of KL(tuned || pretrained) per image in nats: the chain's KL over its stochastic steps."""
    ratio_mean: float
    ratio_max: float
    first_ratio_gap: float
    """Largest |ratio - 1| before the iteration's first update; 0 unless the arithmetic differs between rollout and training."""
    clip_fraction: float
    gradient_norm: float
    value_explained_variance: float | None
    """Share of the advantages' variance that the value function foresaw, on images it had not seen; None without one."""
    learning_rate: float
    seconds_rollout: float
    seconds_update: float
    validation_reward: float | None
    """Mean reward on the validation seeds after this iteration; None where it was not due."""


@dataclass(kw_only=True)
class DPOKState(TrainState):
    """`TrainState` with the value function and the rewards that each prompt has seen."""

    statistics: PromptStatistics
    value: Critic | None

    def weights(self) -> dict[str, Tensor]:
        """Adds the value function's."""
        value = self.value.network.state_dict() if self.value else {}
        return super().weights() | {f"value/{name}": weight for name, weight in value.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes back what `weights` gave."""
        super().load_weights(weights)
        if self.value:
            self.value.network.load_state_dict(under("value/", weights))

    def state_dict(self) -> dict[str, Any]:
        """Adds the value function's optimizer and the statistics."""
        optimizer = self.value.optimizer.state_dict() if self.value else None
        return super().state_dict() | {"value_optimizer": optimizer, "statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        super().load_state_dict(state)
        self.statistics.load_state_dict(state["statistics"])
        if self.value:
            self.value.optimizer.load_state_dict(state["value_optimizer"])


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347); all arguments [B]."""
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(advantage * ratio, advantage * clipped).mean()


def gaussian_kl(mean: Tensor, ref_mean: Tensor, std: Tensor, *, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """KL(N(mean, std^2) || N(ref_mean, std^2)) [B] of [B, ...]: in nats ("sum") or nats per dimension ("mean").

    0 where std is 0: a deterministic step has no finite KL, and takes no part in training either.
    """
    safe = torch.where(std > 0, std, 1)
    terms = torch.where(std > 0, ((mean - ref_mean) / safe).square() / 2, 0).flatten(1)
    return terms.sum(1) if reduction == "sum" else terms.mean(1)


def start(model: DiffusionModel, config: DPOKConfig, *, generator: torch.Generator) -> DPOKState:
    """The state before the first iteration; the model must have its LoRA."""
    value = None
    if config.baseline == "value":
        text_width = model.encode_prompts([""]).shape[-1]
        network = ValueFunction(model.latent_shape[0], text_width, generator=generator).to(model.device)
        value = Critic(network, torch.optim.AdamW(network.parameters(), config.value_learning_rate))
    return DPOKState(
        model=model,
        optimizer=lora_optimizer(model, config.learning_rate),
        statistics=PromptStatistics(window=config.statistics_window, std_floor=config.std_floor),
        value=value,
    )


def train(
    model: DiffusionModel,
    prompts: Sequence[str],
    reward: RewardFn,
    config: DPOKConfig,
    *,
    generator: torch.Generator,
    state: DPOKState | None = None,
    validation_prompts: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Metrics]:
    """Trains the model's LoRA in place and yields after every iteration, when `state` may be saved.

    `generator` (on the CPU) gives all randomness. `state` comes from `start`, perhaps with a checkpoint loaded; left out, training
    starts anew. `validation_prompts` choose the best weights; left out, the training prompts do, on seeds of their own.
    """
    state = state or start(model, config, generator=generator)
    held_out = validation_prompts or prompts

    def validation_reward() -> float:
        state.record_validation(validate(model, held_out, reward, config.validation, steps=config.steps, guidance=config.guidance))
        return state.validation[-1][1]

    if not state.validation:
        validation_reward()
    while state.step < config.iterations:
        started = clock()
        rollout = collect(model, prompts, reward, config, statistics=state.statistics, generator=generator)
        collected = clock()
        figures = improve(model, rollout, config, state, generator=generator)
        finished = clock()
        state.step += 1
        due = state.step % config.validation.every == 0 or state.step == config.iterations
        yield Metrics(
            step=state.step,
            reward=float(rollout.rewards.mean()),
            reward_by_prompt=rollout.reward_by_prompt(),
            seconds_rollout=collected - started,
            seconds_update=finished - collected,
            validation_reward=validation_reward() if due else None,
            **figures,  # type: ignore[arg-type]
        )


def improve(
    model: DiffusionModel, rollout: Rollout, config: DPOKConfig, state: DPOKState, *, generator: torch.Generator
) -> dict[str, float | None]:
    """The iteration's optimizer steps; gives the part of `Metrics` that they decide."""
    pairs = choose_transitions(len(rollout.prompts), config, generator=generator).to(model.device)
    advantages, explained = _advantages(rollout.transitions(pairs), config, state.value)
    learning_rate = config.learning_rate * min(1.0, (state.step + 1) / max(1, config.warmup))
    scheduler = model.scheduler(config.steps)
    records, norms = [], []
    groups = torch.arange(len(pairs), device=model.device).chunk(config.updates)
    for group in groups:
        for rows, real in padded_batches(group, config.micro_batch):
            step = _evaluate(model, scheduler, rollout.transitions(pairs[rows]), real, config)
            loss = policy_loss(step.log_probs, step.old_log_probs, advantages[rows[:real]], config.clip_range)
            loss = loss + config.kl_weight * gaussian_kl(step.mean, step.ref_mean, step.std, reduction="mean").mean()
            (loss * (real / len(group))).backward()
            records.append((step.log_probs.detach() - step.old_log_probs, gaussian_kl(step.mean, step.ref_mean, step.std).detach()))
        norms.append(take_step(state, learning_rate=learning_rate, clip_norm=config.clip_norm))
    if state.value is not None:
        _fit_value(rollout, config, state.value, generator)
    ratios, kls = torch.cat([ratio for ratio, _ in records]).exp(), torch.cat([kl for _, kl in records])
    return {
        "kl": float(kls.mean()) * config.stochastic_steps,
        "ratio_mean": float(ratios.mean()),
        "ratio_max": float(ratios.max()),
        "first_ratio_gap": float((ratios[: len(groups[0])] - 1).abs().max()),
        "clip_fraction": float(((ratios - 1).abs() > config.clip_range).float().mean()),
        "gradient_norm": float(torch.stack(norms).mean()),
        "value_explained_variance": explained,
        "learning_rate": learning_rate,
    }


def _advantages(transitions: Transitions, config: DPOKConfig, value: Critic | None) -> tuple[Tensor, float | None]:
    """Advantages [M], and the share of their variance that the value function foresaw."""
    target, explained = transitions.advantages, None
    if value is not None:
        residual = target - value.predict(transitions)
        explained = float(1 - residual.var() / target.var().clamp(min=1e-12))
        target = residual
    return target.clamp(-config.advantage_clip, config.advantage_clip), explained


@dataclass(frozen=True)
class _Step:
    """What policy and reference say about a micro-batch of transitions."""

    log_probs: Tensor
    old_log_probs: Tensor
    mean: Tensor
    ref_mean: Tensor
    std: Tensor


def _evaluate(model: DiffusionModel, scheduler: DDIMScheduler, batch: Transitions, real: int, config: DPOKConfig) -> _Step:
    """Both models' step distributions; rows after the first `real` only keep the UNet's batch at its fixed size."""
    uncond = model.encode_prompts([""]).expand_as(batch.cond)

    def distribution() -> tuple[Tensor, Tensor]:
        output = model.predict(batch.latents, batch.timesteps, batch.cond, uncond, config.guidance)
        return step_distribution(scheduler, output[:real], batch.timesteps[:real], batch.latents[:real], eta=config.eta)

    with torch.no_grad(), model.adapters_off():
        ref_mean, _ = distribution()
    mean, std = distribution()
    return _Step(log_prob(batch.next_latents[:real], mean, std), batch.log_probs[:real], mean, ref_mean, std)


def _fit_value(rollout: Rollout, config: DPOKConfig, value: Critic, generator: torch.Generator) -> None:
    """Teaches the value function the normalised rewards from random noisy latents of their trajectories."""
    for _ in range(config.value_steps):
        sample = torch.randint(len(rollout.prompts), (config.value_batch,), generator=generator)
        step = torch.randint(config.stochastic_steps, (config.value_batch,), generator=generator)
        value.learn(rollout.transitions(torch.stack([sample, step], dim=1).to(rollout.rewards.device)))
