"""What the online policy-gradient methods share: settings, state, the clipped surrogate, and the loop of drawing, scoring and updating.

    rho = p_theta(x_{t-1} | x_t, z) / p_old(x_{t-1} | x_t, z)

Log-probabilities are means over the latent's dimensions, so one clip range fits every image size. Classifier-free guidance is on in the
rollout and in training. A method adds its loss, and perhaps a value function and the reference's predictions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from finetune.advantages import PromptStatistics
from finetune.diffusion import BASE, DiffusionModel, LoraSettings, Precision
from finetune.monitors import PIXELS, Monitor
from finetune.processes import ALONE, Processes
from finetune.reward_fn import RewardFn
from finetune.rollout import (
    Rollout,
    RolloutConfig,
    Transitions,
    choose_transitions,
    collect,
    merged,
    packed,
    unpacked,
)
from finetune.sampling import log_prob, padded_batches, step_distribution
from finetune.training import (
    TrainState,
    Validation,
    ValidationConfig,
    lora_optimizer,
    schedule,
    take_step,
    validate,
)
from finetune.value import Critic

Surrogate = Literal["ppo", "hard_clamp"]


class PolicyGradientConfig(RolloutConfig, frozen=True, extra="forbid"):
    """Settings of the shared loop; DPOK's published ones stand beside ours, which are for the embedded model of 5 million parameters."""

    iterations: PositiveInt = 30
    """Rounds of drawing and training. Paper: 2000 rounds of 10 images."""
    updates: PositiveInt = 2
    """Optimizer steps per iteration, which share its transitions. Paper: 5."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's, for LoRA. Paper: 1e-5, with AdamW too."""
    warmup: NonNegativeInt = 2
    """Iterations over which the learning rate rises to its full value."""
    decay: bool = False
    """Whether the learning rate falls linearly to 0 over the iterations, for as much gain in fewer of them. Paper: no."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm. Paper: 0.1."""
    clip_range: PositiveFloat = 1e-3
    """How far the ratio of densities per dimension may leave 1; times the dimensions it is in nats. Paper: 1e-4 on 16384, so 1.6 nats."""
    replay_iterations: NonNegativeInt = 0
    """Earlier iterations whose transitions are trained on again, by their ratio to the policy that drew them; 0 is on policy. The code of
    DPOK's authors: 1 to 2, as its buffer holds 1000 transitions."""
    advantage_clip: PositiveFloat = 5.0
    """Advantages beyond this many standard deviations are cut."""
    statistics_window: PositiveInt = 64
    """Rewards per prompt from which its mean and standard deviation are taken."""
    std_floor: PositiveFloat = 0.05
    """Least standard deviation to divide rewards by, in the reward's units; keeps settled prompts from amplifying noise."""
    lora: LoraSettings = LoraSettings()
    """Which weights are trained."""
    precision: Precision = "fp32"
    """Arithmetic of the UNet; bf16 is about 1.7 times as fast on CPUs that have it, but its rounding shows in ratios and KL: about one
    nat a step. fp16 rounds finer and is for GPUs."""
    validation: ValidationConfig = ValidationConfig()
    """How the best weights are chosen, and what ends the training early."""

    @property
    def needs_reference(self) -> bool:
        """Whether the method asks the pretrained model as well."""
        raise NotImplementedError

    def loss(self, step: "Step", advantages: Tensor) -> Tensor:
        """The method's loss over a micro-batch of M transitions, a mean; advantages [M]."""
        raise NotImplementedError

    def critic(self, model: DiffusionModel, *, generator: torch.Generator) -> Critic | None:  # noqa: ARG002 - for those that have one
        """The method's value function, untrained; None for a method without one."""
        return None


@dataclass(frozen=True)
class Metrics:
    """One iteration."""

    step: int
    reward: float
    reward_by_prompt: dict[str, float]
    kl: float | None
    """Upper bound of KL(tuned || pretrained) per image in nats: the chain's KL over its stochastic steps; None without a reference."""
    ratio_mean: float
    ratio_max: float
    first_ratio_gap: float
    """Largest |ratio - 1| of fresh transitions before the iteration's first update; 0 unless the arithmetic differs between rollout and
    training."""
    clip_fraction: float
    gradient_norm: float
    value_explained_variance: float | None
    """Share of the advantages' variance that the value function foresaw, on images it had not seen (but for replayed ones); None without
    one."""
    learning_rate: float
    seconds_rollout: float
    seconds_update: float
    images_per_second: float
    """Images drawn and learned from."""
    validation_reward: float | None
    """Mean reward on the validation seeds after this iteration; None where it was not due."""


@dataclass(kw_only=True)
class PolicyState(TrainState):
    """`TrainState` with the rewards that each prompt has seen, and the value function and earlier rollouts where the method has them."""

    statistics: PromptStatistics
    value: Critic | None = None
    replay: list[Rollout] = field(default_factory=list)
    """The rollouts of the last iterations that are trained on again, oldest first."""

    def state_dict(self) -> dict[str, Any]:
        """Adds the value function, the statistics and the earlier rollouts."""
        value = self.value.state_dict() if self.value else None
        replay = [packed(rollout) for rollout in self.replay]
        return super().state_dict() | {
            "value": value,
            "statistics": self.statistics.state_dict(),
            "replay": replay,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        super().load_state_dict(state)
        self.statistics.load_state_dict(state["statistics"])
        self.replay = [unpacked(kept, self.model) for kept in state["replay"]]
        if self.value:
            self.value.load_state_dict(state["value"])


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_range: float,
    *,
    surrogate: Surrogate = "ppo",
) -> Tensor:
    """Clipped surrogate loss; all arguments [B].

    "ppo" is PPO's min (Schulman et al. 2017, arXiv 1707.06347), which stops the gradient only where the ratio has gone too far the way
    that the advantage asks for. "hard_clamp" clamps the ratio alone, as the code of DPOK's authors does: beyond the range there is no
    gradient at all, not even back.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = advantage * ratio.clamp(1 - clip_range, 1 + clip_range)
    return -(
        clipped if surrogate == "hard_clamp" else torch.minimum(advantage * ratio, clipped)
    ).mean()


def gaussian_kl(
    mean: Tensor, ref_mean: Tensor, std: Tensor, *, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """KL(N(mean, std^2) || N(ref_mean, std^2)) [B] of [B, ...]: in nats ("sum") or nats per dimension ("mean").

    0 where std is 0: a deterministic step has no finite KL, and takes no part in training either.
    """
    safe = torch.where(std > 0, std, 1)
    terms = torch.where(std > 0, ((mean - ref_mean) / safe).square() / 2, 0).flatten(1)
    return terms.sum(1) if reduction == "sum" else terms.mean(1)


@dataclass(frozen=True)
class Prediction:
    """What one model says about M transitions."""

    mean: Tensor
    """Of the next latents, [M, C, h, w]."""
    std: Tensor
    """Of the next latents, [M, 1, 1, 1]."""
    output: Tensor
    """What the UNet said, with guidance, [M, C, h, w]."""


@dataclass(frozen=True)
class Step:
    """What policy and reference say about a micro-batch of M transitions."""

    log_probs: Tensor
    """[M], of the policy."""
    old_log_probs: Tensor
    """[M], when they were drawn."""
    policy: Prediction
    reference: Prediction | None
    """Of the pretrained model, without gradient; None for a method that does not ask for it."""
    noise_per_output: Tensor
    """A difference of two outputs times this, [M, 1, 1, 1], is that of the noises that they predict."""


def start(
    model: DiffusionModel, config: PolicyGradientConfig, *, generator: torch.Generator
) -> PolicyState:
    """The state before the first iteration; the model must have its LoRA. `generator` draws the value function's weights."""
    value = config.critic(model, generator=generator)
    return PolicyState(
        model=model,
        optimizer=lora_optimizer(model, config.learning_rate),
        statistics=PromptStatistics(window=config.statistics_window, std_floor=config.std_floor),
        value=value,
    )


def train(
    model: DiffusionModel,
    prompts: Sequence[str],
    reward: RewardFn,
    config: PolicyGradientConfig,
    *,
    generator: torch.Generator,
    state: PolicyState | None = None,
    validation_prompts: Sequence[str] = (),
    monitor: Monitor = PIXELS,
    processes: Processes = ALONE,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Metrics]:
    """Trains the model's LoRA in place and yields after every iteration, when `state` may be saved; ends early when a guard says so.

    `generator` (on the CPU, the same in every process) gives all randomness. `state` comes from `start`, perhaps with a checkpoint
    loaded; left out, training starts anew. `validation_prompts` choose the best weights; left out, the training prompts do, on seeds of
    their own.
    """
    state = state or start(model, config, generator=generator)
    held_out = validation_prompts or prompts

    def validation() -> Validation:
        return validate(
            model,
            held_out,
            reward,
            config.validation,
            steps=config.steps,
            guidance=config.guidance,
            monitor=monitor,
            processes=processes,
        )

    state.begin(validation, is_tuned=config.lora.start != BASE)
    while state.step < config.iterations and not state.stopped:
        started = clock()
        rollout = collect(
            model,
            prompts,
            reward,
            config,
            statistics=state.statistics,
            generator=generator,
            processes=processes,
        )
        collected = clock()
        figures = improve(model, rollout, config, state, generator=generator, processes=processes)
        finished = clock()
        state.step += 1
        due = state.step % config.validation.every == 0 or state.step == config.iterations
        yield Metrics(
            step=state.step,
            reward=float(rollout.rewards.mean()),
            reward_by_prompt=rollout.reward_by_prompt(),
            seconds_rollout=collected - started,
            seconds_update=finished - collected,
            images_per_second=len(rollout.prompts) / max(finished - started, 1e-9),
            validation_reward=state.record_validation(validation()) if due else None,
            **figures,  # type: ignore[arg-type]
        )


def improve(
    model: DiffusionModel,
    fresh: Rollout,
    config: PolicyGradientConfig,
    state: PolicyState,
    *,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> dict[str, float | None]:
    """The iteration's optimizer steps on the `fresh` rollout and those of the state; gives the part of `Metrics` that they decide."""
    rollout = merged([*state.replay, fresh])
    pairs = choose_transitions(len(rollout.prompts), config, generator=generator).to(model.device)
    whole, explained = _advantages(rollout, config, state.value)
    advantages = whole[pairs[:, 0], pairs[:, 1]]
    learning_rate = config.learning_rate * schedule(
        state.step, warmup=config.warmup, total=config.iterations if config.decay else None
    )
    scheduler = model.scheduler(config.steps)
    log_ratios, kls = torch.zeros_like(advantages), torch.zeros_like(advantages)
    norms = []
    groups = torch.arange(len(pairs), device=model.device).chunk(config.updates)
    for group in groups:
        for number, (rows, real) in enumerate(padded_batches(group, config.micro_batch)):
            if not processes.has(number):
                continue
            kept = rows[:real]
            step = _evaluate(model, scheduler, rollout.transitions(pairs[rows]), real, config)
            state.scaler.scale(config.loss(step, advantages[kept]) * (real / len(group))).backward()
            log_ratios[kept] = step.log_probs.detach() - step.old_log_probs
            if step.reference is not None:
                kls[kept] = gaussian_kl(
                    step.policy.mean.detach(), step.reference.mean, step.policy.std
                )

        def blame(group: Tensor = group) -> list[str]:
            """The prompts whose transitions are not finite, or all of the step's where they all are."""
            broken = ~processes.total(log_ratios[group] + kls[group]).isfinite()
            rows = group[broken] if broken.any() else group
            return [rollout.prompts[i] for i in pairs[rows, 0].tolist()]

        norms.append(
            take_step(
                state,
                learning_rate=learning_rate,
                clip_norm=config.clip_norm,
                blame=blame,
                processes=processes,
            )
        )
    if state.value is not None:
        state.value.fit(fresh, generator)
    state.replay = (
        [*state.replay, fresh][-config.replay_iterations :] if config.replay_iterations else []
    )
    ratios = processes.total(log_ratios).exp()
    first = groups[0]
    is_fresh = pairs[first, 0] >= len(rollout.prompts) - len(fresh.prompts)
    return {
        "kl": float(processes.total(kls).mean()) * config.stochastic_steps
        if config.needs_reference
        else None,
        "ratio_mean": float(ratios.mean()),
        "ratio_max": float(ratios.max()),
        "first_ratio_gap": float(torch.where(is_fresh, (ratios[first] - 1).abs(), 0).max()),
        "clip_fraction": float(((ratios - 1).abs() > config.clip_range).float().mean()),
        "gradient_norm": float(torch.stack(norms).mean()),
        "value_explained_variance": explained,
        "learning_rate": learning_rate,
    }


def _advantages(
    rollout: Rollout, config: PolicyGradientConfig, value: Critic | None
) -> tuple[Tensor, float | None]:
    """Advantages [N, S], and the share of the returns' variance that the value function foresaw, the mean over steps."""
    advantages, explained = rollout.returns[:, None].expand(-1, config.stochastic_steps), None
    if value is not None:
        advantages = advantages - value.values(rollout)
        explained = float((1 - advantages.var(0) / rollout.returns.var().clamp(min=1e-12)).mean())
    return advantages.clamp(-config.advantage_clip, config.advantage_clip), explained


def _evaluate(
    model: DiffusionModel,
    scheduler: DDIMScheduler,
    batch: Transitions,
    real: int,
    config: PolicyGradientConfig,
) -> Step:
    """Both models' step distributions; rows after the first `real` only keep the UNet's batch at its fixed size."""
    uncond = model.encode_prompts([""]).expand_as(batch.cond)
    latents, timesteps = batch.latents[:real], batch.timesteps[:real]

    def predict() -> Prediction:
        output = model.predict(batch.latents, batch.timesteps, batch.cond, uncond, config.guidance)[
            :real
        ]
        mean, std = step_distribution(scheduler, output, timesteps, latents, eta=config.eta)
        return Prediction(mean, std, output)

    reference = None
    if config.needs_reference:
        with torch.no_grad(), model.adapters_off():
            reference = predict()
    policy = predict()
    log_probs = log_prob(batch.next_latents[:real], policy.mean, policy.std)
    return Step(
        log_probs, batch.log_probs[:real], policy, reference, noise_per_output(scheduler, timesteps)
    )


def noise_per_output(scheduler: DDIMScheduler, timesteps: Tensor) -> Tensor:
    """By what a difference of two UNet outputs at timesteps [M] is multiplied to give that of the predicted noises, [M, 1, 1, 1]."""
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    factors: dict[str, Tensor] = {
        "epsilon": torch.ones_like(alphas),
        "v_prediction": alphas.sqrt(),
        "sample": -(alphas / (1 - alphas)).sqrt(),
    }
    return factors[scheduler.config.prediction_type]
