"""Shared parts of the embedded models' trainers: learning rate, averaged weights, log."""

import copy
import math
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def warmup_cosine(
    step: int, steps: int, *, warmup: int = 200, hold: float = 0.4, floor: float = 0.01
) -> float:
    """Return the factor of the learning rate at a step.

    It rises linearly, is flat until the share `hold` of the steps, then falls as a cosine to
    `floor`.
    """
    rise = min(1.0, (step + 1) / warmup)
    progress = max(0.0, (step / steps - hold) / (1 - hold))
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class Average(Generic[M]):
    """Exponential moving average of a module's weights; `module` is the averaged copy."""

    def __init__(self, module: M, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, module: M) -> None:
        """Move the average towards `module`.

        The first updates count more, so that the initial weights fade.
        """
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        for kept, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(buffer)


def steps_with_log(name: str, steps: int, losses: list[float]) -> Iterator[int]:
    """Yield the steps; print the mean of the last losses every 100 steps."""
    began = time.monotonic()
    for step in range(steps):
        yield step
        if (step + 1) % 100 == 0:
            mean, pace = sum(losses[-100:]) / 100, (time.monotonic() - began) / (step + 1)
            print(f"{name} step {step + 1}/{steps} loss {mean:.4f} {pace:.3f} s/step", flush=True)
