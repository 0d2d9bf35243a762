"""State and optimizer steps that the fine-tuning methods share."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data.errors import PictuneError
from finetune.learning.validation import Validation
from finetune.model.adapter import on_cpu
from finetune.model.diffusion import DiffusionModel

_logger = logging.getLogger(__name__)

_VALUES = ("step", "validation", "best", "monitors", "untuned", "stopped")
"""Fields with plain values to save."""


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes while a method trains, except the generator.

    Losses are backpropagated through `scaler`. With precision fp16 it multiplies them by the
    largest factor that float16 allows (Micikevicius et al. 2018, arXiv 1710.03740); otherwise it
    changes nothing.
    """

    model: DiffusionModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Number of finished iterations or steps."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean reward) of every validation so far."""
    best_adapter: dict[str, Tensor] = field(default_factory=dict)
    """Adapter of the best validation that violates no limit of `stop_on`; on a tie, the earlier."""
    best: tuple[int, float] | None = None
    """Step and mean reward of that validation."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """Moving average of the adapter's weights; empty if `ema_decay` is 0."""
    monitors: dict[str, float] = field(default_factory=dict)
    """Monitors (`finetune.learning.monitors`) at the last validation."""
    untuned: dict[str, float] = field(default_factory=dict)
    """Monitors of the untuned model."""
    stopped: str = ""
    """Reason why a guard ended the training; empty while it may continue."""
    show: Callable[[int, Tensor], None] | None = None
    """Called with the step and the samples of each validation; not part of a checkpoint."""
    groups: ClassVar[tuple[str, ...]] = ()
    """Names of a subclass's fields that hold weights to save, each a dict of tensors."""
    values: ClassVar[tuple[str, ...]] = ()
    """Names of a subclass's fields that hold plain values to save."""

    def __post_init__(self) -> None:
        """Create the scaler."""
        device = self.model.device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.model.precision == "fp16")
        # The scaler initializes at its first loss, and a process may never have a loss.
        self.scaler.scale(torch.zeros((), device=device))

    def begin(self, validator: Callable[[], Validation], *, is_tuned: bool) -> None:
        """Validate before the first step; with `is_tuned`, first without the adapter."""
        if self.validation:
            return
        if is_tuned:
            with self.model.adapter_off():
                self.untuned = validator().monitors
        self.record_validation(validator())

    def record_validation(self, found: Validation) -> float:
        """Record a validation and return its mean reward.

        The weights are kept if they are the best so far and no `stop_on` guard fired: an exploited
        reward is high, so a high reward alone proves nothing.
        """
        self.monitors = found.monitors
        if not self.untuned:
            self.untuned = found.monitors
        self.validation.append((self.step, found.reward))
        if self.show is not None:
            self.show(self.step, found.samples)
        alarms = found.rules.limits.exceeded(found.monitors, self.untuned)
        advice = "look at the samples, the reward may be exploited"
        for sentence in alarms.values():
            _logger.warning("finetune: step %d: %s; %s", self.step, sentence, advice)
        reasons = [alarms[name] for name in found.config.stop_on if name in alarms]
        if not reasons and (self.best is None or found.reward > self.best[1]):
            self.best, self.best_adapter = (self.step, found.reward), self.model.adapter.state()
        last_best = -1 if self.best is None else self.best[0]
        since_best = sum(step > last_best for step, _ in self.validation)
        patience = found.rules.patience
        if patience and since_best >= patience:
            reasons.append(f"no better validation reward in {patience} validations")
        self.stopped = "; ".join(reasons)
        return found.reward

    def update_average(self, ema_decay: float) -> None:
        """Average the weights after a step, with the decays of `EMAModel` of diffusers.

        The decay rises with the steps to `ema_decay`, as the first weights are far from the later
        ones.
        """
        if ema_decay:
            decay = min(ema_decay, self.step / (9 + self.step))
            average = self.average or self.model.adapter.parameters()
            self.average = moving_average(self.model, average, decay)

    def averaged(self) -> AbstractContextManager[None]:
        """Use the average inside the block, if there is one."""
        return self.model.adapter.with_state(self.average) if self.average else nullcontext()

    def restore_best(self) -> None:
        """Put the best weights of all validations into the model, else the average, if any."""
        if kept := self.best_adapter or self.average:
            self.model.adapter.set_state(kept)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights to save, by name."""
        found = {"adapter": self.model.adapter.state(), "best": self.best_adapter}
        found |= {group: on_cpu(getattr(self, group)) for group in ("average", *self.groups)}
        return {
            f"{group}/{name}": weight
            for group, weights in found.items()
            for name, weight in weights.items()
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what `weights` returned."""
        found: dict[str, dict[str, Tensor]] = {"adapter": {}, "best": {}, "average": {}}
        found |= {group: {} for group in self.groups}
        for place, weight in weights.items():
            group, _, name = place.partition("/")
            found[group][name] = weight
        self.model.adapter.set_state(found.pop("adapter"))
        self.best_adapter = found.pop("best")
        for group, own in found.items():
            setattr(self, group, own)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is not a weight: tensors and plain values only."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in (*_VALUES, *self.values)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty if the checkpoint is not of fp16
            self.scaler.load_state_dict(state["scaler"])
        for name in (*_VALUES, *self.values):
            setattr(self, name, state[name])


@torch.no_grad()
def moving_average(
    model: DiffusionModel, average: Mapping[str, Tensor], decay: float
) -> dict[str, Tensor]:
    """Return `decay * average + (1 - decay) * present` for the adapter's present weights."""
    present = model.adapter.parameters()
    return {
        name: decay * weight.to(model.device) + (1 - decay) * present[name]
        for name, weight in average.items()
    }


def rate_schedule(step: int, *, warmup: int, total: int | None) -> float:
    """Return the learning rate after `step` as a share of the full rate.

    The rate rises over `warmup` steps. It falls linearly to 0 over `total` steps, if given.
    """
    return min(1.0, (step + 1) / max(1, warmup)) * (1.0 if total is None else 1 - step / total)


def adapter_optimizer(model: DiffusionModel, learning_rate: float) -> torch.optim.AdamW:
    """Return AdamW without weight decay on the adapter."""
    parameters = list(model.adapter.parameters().values())
    return torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=0.0)


def take_step(
    state: TrainState,
    *,
    learning_rate: float,
    clip_norm: float = 1.0,
    blame: Callable[[], Sequence[str]] = tuple,
) -> Tensor:
    """Step on the gradients summed over all processes; return their norm [] before clipping.

    If the loss scale was too high for float16, the scale falls and the step is skipped; the norm is
    then 0.

    Raises:
        PictuneError: the gradients are not finite at any scale. The message names the prompts that
            `blame` returns; the weights are unchanged.
    """
    groups = state.optimizer.param_groups
    parameters: list[nn.Parameter] = [weight for group in groups for weight in group["params"]]
    state.model.processes.sum_gradients(parameters)
    state.scaler.unscale_(state.optimizer)
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, clip_norm)
    is_finite = bool(norm.isfinite())
    if not is_finite and state.scaler.get_scale() <= 1:
        prompts = ", ".join(repr(prompt) for prompt in dict.fromkeys(blame()))
        where = f"step {state.step + 1}{f', for {prompts}' if prompts else ''}"
        advice = "lower learning_rate, or use precision fp32"
        raise PictuneError(f"finetune: the gradient is not finite in {where}; {advice}")
    for group in groups:
        group["lr"] = learning_rate
    if is_finite:  # `scaler.step` would wait for the device to find out again
        state.optimizer.step()
    state.scaler.update()
    state.optimizer.zero_grad()
    return norm.detach() if is_finite else torch.zeros_like(norm)
