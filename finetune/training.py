"""What the fine-tuning methods share: optimizer state, validation and its guards, checkpoints that a killed run continues from."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, NonNegativeInt, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from finetune.diffusion import DiffusionModel
from finetune.monitors import PIXELS, Limits, Measure, Monitor, summary
from finetune.processes import ALONE, Processes
from finetune.reward_fn import RewardFn, score
from finetune.sampling import draw

_logger = logging.getLogger(__name__)
_WEIGHTS, _REST, _MANIFEST = "weights.safetensors", "state.pt", "manifest.json"


class ValidationConfig(BaseModel, frozen=True, extra="forbid"):
    """How the tuned model is scored while it trains: the deterministic sampler (eta 0) that users run, on seeds never trained on."""

    every: PositiveInt = 5
    """Iterations (DPOK) or steps (RWL) between two validations; the untuned model and the last one are always scored."""
    images_per_prompt: PositiveInt = 8
    """Images drawn for each validation prompt; the weights with the best mean reward over them are kept."""
    seed: NonNegativeInt = 1_000_000
    """First of the seeds, the same at every validation, so that differences come from the weights."""
    batch: PositiveInt = 32
    """Images drawn at a time."""
    patience: PositiveInt | None = None
    """Validations in a row without a better reward after which the training ends; left out, it goes on."""
    limits: Limits = Limits()
    """How far saturation, sharpness, diversity and the reward ensemble's disagreement may go before there is a warning."""
    stop_on: tuple[Measure, ...] = ()
    """Those of them that end the training."""


@dataclass(frozen=True)
class Validation:
    """What one validation found."""

    reward: float
    """Mean over the images."""
    monitors: dict[str, float]
    """`finetune.monitors.summary` of the images."""
    config: ValidationConfig
    """The settings that it was done with."""


@dataclass(kw_only=True)
class TrainState:
    """All that changes while a method trains, beside the generator.

    Losses are backpropagated through `scaler`, which enlarges those of precision fp16 as far as float16 goes (Micikevicius et al. 2018,
    arXiv 1710.03740), and leaves all others alone.
    """

    model: DiffusionModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Finished iterations or steps."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean reward) of every validation so far."""
    best_lora: dict[str, Tensor] = field(default_factory=dict)
    """The adapters of the best validation that no guard objected to; the earlier one when two are equal."""
    best: tuple[int, float] | None = None
    """Its step and mean reward."""
    monitors: dict[str, float] = field(default_factory=dict)
    """What `finetune.monitors` saw at the last validation."""
    untuned: dict[str, float] = field(default_factory=dict)
    """What it saw of the untuned model."""
    stopped: str = ""
    """Why a guard ended the training; empty while it may go on."""

    def __post_init__(self) -> None:
        """Makes the scaler."""
        device = self.model.device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.model.precision == "fp16")
        self.scaler.scale(
            torch.zeros((), device=device)
        )  # it starts with its first loss, and some process may never have one

    def begin(self, validation: Callable[[], Validation], *, is_tuned: bool) -> None:
        """The first validation, where there was none yet; if the adapters are tuned already, the untuned model is looked at as well."""
        if self.validation:
            return
        if is_tuned:
            with self.model.adapters_off():
                self.untuned = validation().monitors
        self.record_validation(validation())

    def record_validation(self, found: Validation) -> float:
        """Lets the guards judge the present weights, keeps them when no earlier ones were as good, and gives their reward back.

        What a guard in `stop_on` objects to is never kept: where a reward is exploited, it is highest.
        """
        self.monitors = found.monitors
        if not self.untuned:
            self.untuned = found.monitors
        self.validation.append((self.step, found.reward))
        alarms = found.config.limits.exceeded(found.monitors, self.untuned)
        for sentence in alarms.values():
            _logger.warning(
                "finetune: step %d: %s; look at the samples, the reward may be exploited",
                self.step,
                sentence,
            )
        reasons = [alarms[name] for name in found.config.stop_on if name in alarms]
        if not reasons and (self.best is None or found.reward > self.best[1]):
            self.best, self.best_lora = (self.step, found.reward), self.model.lora_state()
        since_best = (
            len(self.validation)
            if self.best is None
            else sum(step > self.best[0] for step, _ in self.validation)
        )
        if found.config.patience and since_best >= found.config.patience:
            reasons.append(f"no better validation reward in {found.config.patience} validations")
        self.stopped = "; ".join(reasons)
        return found.reward

    def restore_best(self) -> None:
        """Puts the best weights of all validations into the model."""
        if self.best_lora:
            self.model.set_lora_state(self.best_lora)

    def weights(self) -> dict[str, Tensor]:
        """Weights to save, by name."""
        present = {f"lora/{name}": weight for name, weight in self.model.lora_state().items()}
        return present | {f"best/{name}": weight for name, weight in self.best_lora.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes back what `weights` gave."""
        self.model.set_lora_state(under("lora/", weights))
        self.best_lora = under("best/", weights)

    def state_dict(self) -> dict[str, Any]:
        """Everything that is not a weight: tensors and plain values only."""
        guards = {"monitors": self.monitors, "untuned": self.untuned, "stopped": self.stopped}
        found = {"validation": self.validation, "best": self.best}
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **found,
            **guards,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.validation = [(step, reward) for step, reward in state["validation"]]
        self.best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self.monitors, self.untuned, self.stopped = (
            state["monitors"],
            state["untuned"],
            state["stopped"],
        )


def schedule(step: int, *, warmup: int, total: int | None) -> float:
    """The share of the full learning rate for the step after `step`: rises over `warmup` steps and falls to 0 over `total`, if given."""
    return min(1.0, (step + 1) / max(1, warmup)) * (1.0 if total is None else 1 - step / total)


def lora_optimizer(model: DiffusionModel, learning_rate: float) -> torch.optim.AdamW:
    """AdamW without weight decay on the adapters.

    Raises:
        ValueError: the model has no adapters; call `add_lora` first.
    """
    parameters = list(model.lora_parameters().values())
    if not parameters:
        raise ValueError("the model has no LoRA to train; call add_lora first")
    return torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=0.0)


def take_step(
    state: TrainState,
    *,
    learning_rate: float,
    clip_norm: float,
    blame: Callable[[], Sequence[str]] = tuple,
    processes: Processes = ALONE,
) -> Tensor:
    """One optimizer step on the gradients at hand, summed over the processes; gives their norm before clipping.

    Where they are not finite because the losses were scaled up too far, the scale falls and the step is left out: its norm is 0.

    Raises:
        PictuneError: the gradients are not finite at any scale; names the prompts that `blame` gives. The weights stay as they were.
    """
    parameters: list[nn.Parameter] = [
        p for group in state.optimizer.param_groups for p in group["params"]
    ]
    processes.sum_gradients(parameters)
    state.scaler.unscale_(state.optimizer)
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, clip_norm)
    is_finite = bool(norm.isfinite())
    if not is_finite and state.scaler.get_scale() <= 1:
        prompts = ", ".join(repr(prompt) for prompt in dict.fromkeys(blame()))
        where = f"step {state.step + 1}{f', for {prompts}' if prompts else ''}"
        raise PictuneError(
            f"finetune: the gradient is not finite in {where}; lower learning_rate, or use precision fp32"
        )
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    return norm.detach() if is_finite else torch.zeros_like(norm)


def validate(
    model: DiffusionModel,
    prompts: Sequence[str],
    reward: RewardFn,
    config: ValidationConfig,
    *,
    steps: int,
    guidance: float,
    monitor: Monitor = PIXELS,
    processes: Processes = ALONE,
) -> Validation:
    """Scores the present weights on the fixed validation seeds, drawn with deterministic DDIM."""
    texts = [prompt for prompt in prompts for _ in range(config.images_per_prompt)]
    seeds = [config.seed + i for _ in prompts for i in range(config.images_per_prompt)]
    rows = processes.share(len(texts), config.batch)
    some = rows.tolist() or [
        0
    ]  # a process without a batch draws one image for its shapes, and drops it
    mine = [texts[i] for i in some]
    images = draw(
        model,
        mine,
        seeds=[seeds[i] for i in some],
        steps=steps,
        guidance=guidance,
        eta=0.0,
        batch=config.batch,
    )
    starts = range(0, len(mine), config.batch)
    parts = [
        monitor.measure(images[i : i + config.batch], mine[i : i + config.batch]) for i in starts
    ]
    measured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    found = {"reward": score(reward, images, mine), **measured}
    found = {
        name: processes.gather(rows, values[: len(rows)], len(texts))
        for name, values in found.items()
    }
    return Validation(float(found.pop("reward").mean()), summary(found, texts), config)


def save_checkpoint(
    folder: Path, state: TrainState, generator: torch.Generator, *, keep: int = 2
) -> Path:
    """Writes `folder/step-<n>/` and removes all but it and those just before; a checkpoint counts only once its manifest is there."""
    place = folder / f"step-{state.step:07d}"
    (place / _MANIFEST).unlink(missing_ok=True)
    with write_atomically(place / _WEIGHTS) as temporary:
        save_file(state.weights(), temporary)
    with write_atomically(place / _REST) as temporary:
        torch.save({"generator": generator.get_state(), **state.state_dict()}, temporary)
    write_json(place / _MANIFEST, {name: sha256_of(place / name) for name in (_WEIGHTS, _REST)})
    saved = sorted(folder.glob("step-*"))
    now = (
        saved.index(place) + 1
    )  # later ones are damaged, or this training would have gone on from there
    for other in [*saved[: max(0, now - keep)], *saved[now:]]:
        shutil.rmtree(other)
    return place


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; unfinished and damaged ones are passed over with a warning."""
    for place in sorted(folder.glob("step-*"), reverse=True):
        if _is_whole(place):
            return place
        _logger.warning("%s: unfinished or damaged checkpoint; taking the one before", place)
    return None


def load_latest(folder: Path, state: TrainState, generator: torch.Generator) -> bool:
    """Puts the newest whole checkpoint into `state` and `generator`; False when there is none."""
    place = latest_checkpoint(folder)
    if place is None:
        return False
    rest = torch.load(place / _REST, weights_only=True)
    generator.set_state(rest.pop("generator"))
    state.load_weights(load_file(place / _WEIGHTS))
    state.load_state_dict(rest)
    return True


def _is_whole(place: Path) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        return all(sha256_of(place / name) == manifest[name] for name in (_WEIGHTS, _REST))
    except (OSError, ValueError, KeyError):
        return False


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names start with `prefix`, without it."""
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }
