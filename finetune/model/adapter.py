"""An adapter: what is trained on a network whose own weights stay as they are.

The fine-tuning methods know no more of it than this.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from data.errors import PictuneError
from finetune.settings.adapter_kinds import AdapterKind
from finetune.settings.model import AdapterSettings


class Adapter(Protocol):
    """Weights that change what a frozen network predicts."""

    @classmethod
    def add(
        cls, pipeline: Any, name: str, settings: AdapterSettings, *, generator: torch.Generator
    ) -> Self:
        """Add the adapter of `settings.start`, or a fresh one, which changes nothing yet.

        One of another model or of other settings is refused.
        """

    @classmethod
    def load(cls, pipeline: Any, name: str, folder: Path) -> Self:
        """Add a saved one; refuse it if it is missing, broken, or of another model."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name."""

    def off(self) -> AbstractContextManager[None]:
        """Give the network its pretrained weights inside the block."""

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Scale the update inside the block: 0 gives the base's numbers, 1 those as trained."""

    def save(self, folder: str | Path) -> Path:
        """Write it, equal ones as equal files; return the file's path."""

    def remove(self) -> None:
        """Take it off the network."""

    def leave_casts_to_autocast(self, is_on: bool) -> None:
        """Omit casts of its own where the network runs under autocast, which makes them anyway."""

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the weights by name, on the CPU."""
        return {name: one.detach().cpu().clone() for name, one in self.parameters().items()}

    @torch.no_grad()
    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Put weights from `state` in place; refuse weights of other settings."""
        weights = self.parameters()
        if shapes(state) != shapes(weights):
            raise PictuneError(
                "checkpoint: its adapter has weights of another shape or other layers than the "
                "settings; restore them or start again"
            )
        for name, weight in weights.items():
            weight.copy_(state[name])

    @contextmanager
    def with_state(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Put weights from `state` in place inside the block, and the present ones after it."""
        present = self.state()
        self.set_state(state)
        try:
            yield
        finally:
            self.set_state(present)


def adapter_class(kind: AdapterKind) -> type[Adapter]:
    """Return the class of a kind of adapter."""
    found: type[Adapter] = pkgutil.resolve_name(kind.adapter)
    return found


def shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each weight, by name."""
    return {name: weight.shape for name, weight in weights.items()}
