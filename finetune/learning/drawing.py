"""Online training images: prompts, drawing, rewards, advantages and metrics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.learning.method import Metrics, Training, steps
from finetune.learning.reward_fn import score
from finetune.learning.training import TrainState
from finetune.model.sampler import draw_latents


class PromptStatistics:
    """The last `window` rewards of each prompt, as in DDPO (Black et al. 2023, arXiv 2305.13301).

    Easy prompts get higher rewards than hard ones. Normalized per prompt, all prompts have the same
    influence. The standard deviation that rewards are divided by is at least `std_floor`, in the
    reward's units.
    """

    def __init__(self, *, window: int, std_floor: float) -> None:
        """Start without rewards."""
        self.window, self.std_floor = window, std_floor
        self._rewards: dict[str, Tensor] = {}

    def normalize(self, prompts: Sequence[str], rewards: Tensor) -> Tensor:
        """Add rewards [N]; return (reward - mean) / std [N] by the statistics of each prompt."""
        advantages = torch.empty_like(rewards)
        for prompt in dict.fromkeys(prompts):
            rows = torch.tensor([i for i, other in enumerate(prompts) if other == prompt])
            mine = rows.to(rewards.device, non_blocking=True)
            seen = torch.cat(
                [self._rewards.get(prompt, rewards.new_empty(0)).to(rewards.device), rewards[mine]]
            )
            seen = seen[-max(self.window, len(mine)) :]
            self._rewards[prompt] = seen
            std = seen.std(correction=0).clamp(min=self.std_floor)
            advantages[mine] = (rewards[mine] - seen.mean()) / std
        return advantages

    def state_dict(self) -> dict[str, Tensor]:
        """Return the remembered rewards by prompt."""
        return dict(self._rewards)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._rewards = dict(state)


def prompts_of(prompts: Sequence[str], count: int, step: int) -> list[str]:
    """Return `count` prompts, or all, for the iteration after `step`.

    The prompts are taken in turn, so that each is drawn equally often.
    """
    count = min(count, len(prompts))
    chosen = {(step + i * len(prompts) // count) % len(prompts) for i in range(count)}
    return [prompts[i] for i in sorted(chosen)]


def draw_scored(
    training: Training[Any], prompts: Sequence[str], *, batch: int
) -> tuple[Tensor, Tensor]:
    """Draw images as `draw_shared` does; return latents [N, C, h, w] and rewards [N]."""

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
    """Draw an image of each prompt with the current weights and new seeds, in all processes.

    Each process draws its own batches of `batch` images. `measure` turns latents [M, C, h, w] and
    their prompts into tensors [M, ...]. The result holds these tensors for all images, [N, ...], in
    the order of the prompts.
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


@dataclass(frozen=True, kw_only=True)
class IterationMetrics(Metrics):
    """Metrics of one iteration of an online method."""

    reward: float
    """Mean reward of the training images."""
    reward_by_prompt: dict[str, float]


class Iteration(NamedTuple):
    """Result of one iteration."""

    prompts: Sequence[str]
    """Prompts of the N images."""
    rewards: Tensor
    """[N]."""
    figures: dict[str, Any]
    """Further metrics, particular to the method; tensors [] are read together at the report."""


def iterate(
    training: Training[Any], state: TrainState, take: Callable[[float], Iteration]
) -> Iterator[dict[str, Any]]:
    """Run the remaining iterations, as `steps` does; yield fields of `IterationMetrics`."""
    total, decays = training.config.iterations, training.config.decay
    for (done,), common in steps(training, state, take, total=total, decays=decays):
        figures = done.figures | {"reward": done.rewards.mean()}
        on_device = {name: one for name, one in figures.items() if isinstance(one, Tensor)}
        # One read for all, since each one waits for the device.
        read = torch.stack([*on_device.values(), *done.rewards]).tolist()
        values: dict[str, list[float]] = {}
        for prompt, value in zip(done.prompts, read[len(on_device) :], strict=True):
            values.setdefault(prompt, []).append(value)
        yield {
            **common,
            **figures,
            **dict(zip(on_device, read, strict=False)),
            "reward_by_prompt": {one: sum(mine) / len(mine) for one, mine in values.items()},
        }
