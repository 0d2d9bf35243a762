"""Online policy gradient on denoising steps: the code that DPOK, DDPO and others share.

    rho = p_theta(x_{t-1} | x_t, z) / p_old(x_{t-1} | x_t, z)

Each iteration draws images, scores them, and updates the policy on the transitions. Log-
probabilities are means over the latent's dimensions, so one clip range fits every image size.
Classifier-free guidance is on in the rollout and in training. A method adds its loss, and perhaps a
value function and the reference's predictions: `PolicyGradient`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.learning.drawing import Iteration, IterationMetrics, PromptStatistics, iterate
from finetune.learning.method import REWARD_CURVE, Curve, Method, Training
from finetune.learning.rollout import (
    Rollout,
    Step,
    choose_transitions,
    collect,
    predict_step,
)
from finetune.learning.training import TrainState, adapter_optimizer, take_step
from finetune.learning.value import Critic
from finetune.model.sampler import padded_batches
from finetune.model.sampling import gaussian_kl
from finetune.model.schedule import NoiseSchedule
from finetune.settings.policy_gradient import PolicyGradientConfig, Surrogate

ADVANTAGE_CLIP = 5.0
"""Largest absolute advantage, in standard deviations; larger ones are clipped."""
STATISTICS_WINDOW = 64
"""Number of a prompt's last rewards that give its mean and standard deviation."""
KL_CURVE = Curve("KL to the base, nats", {"kl": "KL to the base"})


C = TypeVar("C", bound=PolicyGradientConfig)


@dataclass(frozen=True, kw_only=True)
class Metrics(IterationMetrics):
    """Metrics of one iteration."""

    kl: float | None
    """Upper bound of KL(tuned || pretrained) per image in nats: the chain's KL over its stochastic
    steps; None without a reference."""
    ratio_mean: float
    ratio_max: float
    first_ratio_gap: float
    """Largest |ratio - 1| before the iteration's first update; 0 unless the arithmetic differs
    between rollout and training."""
    clip_fraction: float
    value_explained_variance: float | None
    """Share of the advantages' variance that the value function predicted, on images that it was
    not trained on; None without a value function."""


@dataclass(kw_only=True)
class PolicyState(TrainState):
    """`TrainState` with each prompt's rewards and the critic (if any)."""

    statistics: PromptStatistics
    value: Critic | None = None

    def state_dict(self) -> dict[str, Any]:
        """Add the value function and the statistics."""
        return super().state_dict() | {
            "value": self.value.state_dict() if self.value else None,
            "statistics": self.statistics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.statistics.load_state_dict(state["statistics"])
        if self.value:
            self.value.load_state_dict(state["value"])


@dataclass(frozen=True)
class PolicyGradient(Generic[C]):
    """Loss, reference and critic of a policy-gradient method."""

    loss: Callable[[Step, Tensor, C], Tensor]
    """Mean loss of a micro-batch of M transitions with advantages [M]."""
    needs_reference: bool = False
    """Whether the loss needs predictions of the pretrained model."""
    critic: Callable[[Training[C]], Critic | None] = lambda _training: None
    """Returns the untrained value function; None if the method has none."""

    def method(self, paper: str, story: str, config: type[C], *, color: str) -> Method[C]:
        """Return the method for the registry; the arguments are fields of `Method`."""
        return Method(
            paper=paper,
            story=story,
            config=config,
            total_steps=lambda config: config.iterations,
            start=partial(start, self),
            train=partial(train, self),
            color=color,
            curves=(REWARD_CURVE, KL_CURVE) if self.needs_reference else (REWARD_CURVE,),
        )


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_range: float,
    *,
    surrogate: Surrogate = "ppo",
) -> Tensor:
    """Return the clipped surrogate loss; all arguments [B].

    "ppo" is PPO's min (Schulman et al. 2017, arXiv 1707.06347), which stops the gradient only if
    the ratio left the range in the direction of the advantage. "hard_clamp" clamps the ratio alone,
    as the code of DPOK's authors does: outside the range there is no gradient, not even back into
    it.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = advantage * ratio.clamp(1 - clip_range, 1 + clip_range)
    if surrogate == "hard_clamp":
        return -clipped.mean()
    return -torch.minimum(advantage * ratio, clipped).mean()


def start(algorithm: PolicyGradient[C], training: Training[C]) -> PolicyState:
    """Return the state before the first iteration.

    Raises:
        PictuneError: the sampler is deterministic, so that its steps have no densities.
    """
    config = training.config
    if training.sampler.eta == 0:
        raise PictuneError(
            "sampler.eta: is 0, and policy gradients need noise in each step; set it above 0, "
            "also in the method's own table `sampler`"
        )
    return PolicyState(
        value=algorithm.critic(training),
        model=training.model,
        optimizer=adapter_optimizer(training.model, config.learning_rate),
        statistics=PromptStatistics(window=STATISTICS_WINDOW, std_floor=config.std_floor),
    )


def train(
    algorithm: PolicyGradient[C], training: Training[C], state: PolicyState
) -> Iterator[Metrics]:
    """Train as `Method.train`, and yield metrics after every iteration."""

    def take(rate: float) -> Iteration:
        rollout = collect(training, state.statistics)
        with training.watch.part("training"):
            figures = update(algorithm, training, state, rollout, learning_rate=rate)
        return Iteration(rollout.prompts, rollout.rewards, figures)

    for found in iterate(training, state, take):
        yield Metrics(**found)


@dataclass(frozen=True)
class _Batch:
    """The transitions of one iteration, in training order."""

    rollout: Rollout
    schedule: NoiseSchedule
    pairs: Tensor
    """(sample, step) [M, 2]."""
    advantages: Tensor
    """[M]."""
    log_ratios: Tensor
    """[M]; each process fills in its own micro-batches, the rest is 0."""
    kls: Tensor
    """[M], KL to the reference in nats; filled in like `log_ratios`."""


def update(
    algorithm: PolicyGradient[C],
    training: Training[C],
    state: PolicyState,
    rollout: Rollout,
    *,
    learning_rate: float,
) -> dict[str, Tensor | None]:
    """Run the iteration's optimizer steps; return their metrics [] and gradient norm []."""
    config, model, generator = training.config, training.model, training.generator
    stochastic_steps = training.sampler.stochastic_steps
    batch, explained = _batch(training, state, rollout)
    groups = torch.arange(len(batch.pairs), device=model.device).chunk(config.updates)
    norms, clip_norm = list[Tensor](), config.clip_norm
    for group in groups:
        _backward(algorithm, training, state, batch, group)
        blame = partial(_blamed, model, batch, group)
        norms += [take_step(state, learning_rate=learning_rate, clip_norm=clip_norm, blame=blame)]
    if state.value is not None:
        state.value.fit(rollout, generator)
    ratios = model.processes.total(batch.log_ratios).exp()
    gaps = (ratios[groups[0]] - 1).abs()
    is_clipped = (ratios - 1).abs() > config.clip_range
    kl = model.processes.total(batch.kls).mean().double() * stochastic_steps
    return {
        "kl": kl if algorithm.needs_reference else None,
        "ratio_mean": ratios.mean(),
        "ratio_max": ratios.max(),
        "first_ratio_gap": gaps.max(),
        "clip_fraction": is_clipped.float().mean(),
        "gradient_norm": torch.stack(norms).mean(),
        "value_explained_variance": explained,
    }


def _batch(
    training: Training[C], state: PolicyState, rollout: Rollout
) -> tuple[_Batch, Tensor | None]:
    """Return the transitions to train on, and the explained variance of the value function."""
    sampler, generator = training.sampler, training.generator
    steps, share = sampler.stochastic_steps, None
    fraction = training.config.timestep_fraction
    pairs = choose_transitions(len(rollout.prompts), steps, fraction, generator=generator)
    pairs = pairs.to(training.model.device, non_blocking=True)
    advantages = rollout.returns[:, None].expand(-1, steps)  # [N, S]
    if state.value is not None:
        advantages = advantages - state.value.values(rollout)
        unexplained = advantages.var(0) / rollout.returns.var().clamp(min=1e-12)
        share = (1 - unexplained).mean()
    advantages = advantages.clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)[pairs[:, 0], pairs[:, 1]]
    zeros = torch.zeros_like(advantages)
    schedule = training.model.schedule(sampler.steps)
    return _Batch(rollout, schedule, pairs, advantages, zeros, zeros.clone()), share


def _backward(
    algorithm: PolicyGradient[C],
    training: Training[C],
    state: PolicyState,
    batch: _Batch,
    group: Tensor,
) -> None:
    """Compute gradients, ratios and KLs for this process's share of the group's rows."""
    config, model = training.config, training.model
    for number, (rows, real) in enumerate(padded_batches(group, config.micro_batch)):
        if not model.processes.has(number):
            continue
        kept = rows[:real]
        transitions = batch.rollout.transitions(batch.pairs[rows])
        step = predict_step(
            model,
            batch.schedule,
            transitions,
            real,
            sampler=training.sampler,
            with_reference=algorithm.needs_reference,
        )
        loss = algorithm.loss(step, batch.advantages[kept], config) * (real / len(group))
        state.scaler.scale(loss).backward()
        batch.log_ratios[kept] = step.log_probs.detach() - step.old_log_probs
        if step.reference is not None:
            mean = step.policy.mean.detach()
            batch.kls[kept] = gaussian_kl(mean, step.reference.mean, step.policy.std)


def _blamed(model: Any, batch: _Batch, group: Tensor) -> Sequence[str]:
    """Return the prompts with non-finite transitions; if there are none, all prompts."""
    is_broken = ~model.processes.total(batch.log_ratios[group] + batch.kls[group]).isfinite()
    rows = group[is_broken] if is_broken.any() else group
    return [batch.rollout.prompts[i] for i in batch.pairs[rows, 0].tolist()]
