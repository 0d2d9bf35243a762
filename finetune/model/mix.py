"""Several adapters of one network, mixed in drawing (Cheng et al. 2025, arXiv 2505.18547).

With weights w_i, the base's prediction b and the prediction f_i of adapter i alone, all guided:

    sum:        prediction = (1 - sum_i w_i) * b + sum_i w_i * f_i
    one a step: prediction = f_i with probability w_i, b with probability 1 - sum_i w_i

Weights that do not sum to 1 leave the rest to the base; in a sum the rest may be negative. A weight
of 0 costs nothing. The sum is DB-MPA of the paper, and DB-KLA for one adapter. It needs a pass for
each adapter. One adapter a step is DB-MPA-LS: its mean over the random choices is the sum, for the
price of one adapter. Each image has its own choices.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from math import fsum
from typing import ClassVar

import torch
from torch import Tensor

from finetune.model.adapter import Adapter

Predict = Callable[[Adapter | None, Tensor | slice], Tensor]
"""Returns the guided prediction of some rows by one adapter alone, or by the base."""
_ROUNDING = 1e-9
"""Largest distance of the weights' sum to 1 that is rounding."""


class Mix:
    """Adapters with weights, for drawing alone."""

    corrects_guided: ClassVar[bool] = True

    def __init__(self, parts: Sequence[tuple[Adapter, float]], *, one_a_step: bool) -> None:
        """Take the adapters, all added to the same network, and their weights."""
        self.parts, self.one_a_step = parts, one_a_step
        self._is_on = True

    def predicted(self, predict: Predict, like: Tensor, choices: Tensor | None) -> Tensor:
        """Return the prediction [B, C, h, w] of the mix.

        Args:
            predict: see `Predict`.
            like: latents [B, C, h, w].
            choices: uniform random numbers in [0, 1), [B], which choose the adapter of each image.

        Raises:
            ValueError: one adapter a step, but there are no choices.
        """
        shares = self._shares()
        if not self.one_a_step or len(shares) == 1:
            terms = [share * predict(part, slice(None)) for part, share in shares]
            return reduce(torch.add, terms)
        if choices is None:
            raise ValueError("a mix of one adapter a step predicts with choices alone")
        bounds = torch.tensor([share for _, share in shares], dtype=choices.dtype).cumsum(0)
        chosen = torch.bucketize(choices, bounds, right=True).clamp(max=len(shares) - 1)
        output = torch.empty_like(like, dtype=torch.float32)
        for number, (part, _) in enumerate(shares):
            rows = (chosen == number).nonzero()[:, 0].to(like.device)
            if len(rows):
                output[rows] = predict(part, rows)
        return output

    def _shares(self) -> list[tuple[Adapter | None, float]]:
        """Return the adapters that count and their weights, and the base with the rest."""
        if not self._is_on:
            return [(None, 1.0)]
        rest = 1 - fsum(weight for _, weight in self.parts)
        base = [(None, rest)] if abs(rest) > _ROUNDING else []
        return [*((part, weight) for part, weight in self.parts if weight), *base]

    @contextmanager
    def alone(self, chosen: Adapter | None) -> Iterator[None]:
        """Switch off all adapters but the chosen one inside the block."""
        with ExitStack() as others:
            for part, _ in self.parts:
                if part is not chosen:
                    others.enter_context(part.off())
            yield

    @contextmanager
    def off(self) -> Iterator[None]:
        """Predict as the base inside the block."""
        before, self._is_on = self._is_on, False
        try:
            yield
        finally:
            self._is_on = before

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Scale the update of each adapter inside the block; 0 is the base."""
        with ExitStack() as scaled:
            if strength == 0:
                scaled.enter_context(self.off())
            for part, _ in self.parts:
                scaled.enter_context(part.at_strength(strength))
            yield

    @contextmanager
    def at_step(self, step: int, steps: int) -> Iterator[None]:
        """Draw a step inside the block, each adapter in its own share of the steps."""
        with ExitStack() as parts:
            for part, _ in self.parts:
                parts.enter_context(part.at_step(step, steps))
            yield

    def remove(self) -> None:
        """Remove the adapters from the network."""
        for part, _ in self.parts:
            part.remove()

    def leave_casts_to_autocast(self, is_on: bool) -> None:
        """Leave the casting of inputs to autocast, if that is on."""
        for part, _ in self.parts:
            part.leave_casts_to_autocast(is_on)
