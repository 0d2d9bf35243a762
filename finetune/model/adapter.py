"""An adapter: trainable weights beside a frozen network, as the fine-tuning methods use them."""

import json
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar, Protocol, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn

from data.errors import PictuneError
from finetune.model.family import Family
from finetune.settings.adapter_kinds import AdapterKind, adapter_file
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import share_of_steps

_STEPS_SHARE = "steps_share"
"""Name of `Adapter.steps_share` in the metadata of an adapter's file; 1 where it is missing."""


class Adapter(Protocol):
    """Trainable weights that change the output of a frozen network."""

    corrects_guided: ClassVar[bool] = False
    """Whether `corrected` changes the prediction after guidance, so that all losses need it."""
    steps_share: float = 1.0
    """Share of the denoising steps, from the first on, in which the adapter draws."""

    @classmethod
    def add(cls, family: Family, settings: AdapterSettings, *, generator: torch.Generator) -> Self:
        """Add the adapter of `settings.start`, or a new adapter, which changes nothing yet.

        Raises:
            PictuneError: the folder `settings.start` has no adapter, or one of another model or
                other settings.
        """

    @classmethod
    def load(cls, family: Family, folder: Path) -> Self:
        """Add a saved adapter to the model.

        Raises:
            PictuneError: the folder has no adapter, or a broken one, or one of another model.
        """

    def corrected(
        self,
        output: Tensor,
        latents: Tensor,  # noqa: ARG002
        timesteps: Tensor,  # noqa: ARG002
        embeddings: Tensor,  # noqa: ARG002
    ) -> Tensor:
        """Return the network's output [B, C, h, w] with guidance, as the adapter changes it.

        Latents are [B, C, h, w], timesteps [B], and the prompts' embeddings [B, L, D].
        """
        return output

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name."""

    def off(self) -> AbstractContextManager[None]:
        """Give the network its pretrained weights inside the block."""

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Scale the update inside the block: 0 gives the base, 1 the adapter as trained."""

    def at_step(self, step: int, steps: int) -> AbstractContextManager[None]:
        """Draw a step, counted from 0, inside the block: as the base after `steps_share`."""
        return nullcontext() if step < share_of_steps(steps, self.steps_share) else self.off()

    def save(self, folder: str | Path) -> Path:
        """Save the adapter; return the file's path. Equal weights give equal files."""

    def with_header(self, file: bytes) -> bytes:
        """Return a safetensors file with `steps_share` below 1 in its metadata.

        The keys of the header are in order; safetensors shuffles them.
        """
        start = 8 + int.from_bytes(file[:8], "little")
        found = json.loads(file[8:start])
        if self.steps_share < 1:
            found["__metadata__"][_STEPS_SHARE] = str(self.steps_share)
        header = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        return len(header).to_bytes(8, "little") + header + file[start:]

    def remove(self) -> None:
        """Remove the adapter from the network."""

    def leave_casts_to_autocast(self, is_on: bool) -> None:
        """Leave the casting of inputs to autocast, if that is on."""

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the weights by name, on the CPU."""
        return on_cpu(self.parameters())

    @torch.no_grad()
    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Load weights that `state` returned.

        Raises:
            PictuneError: the weights belong to other settings.
        """
        weights = self.parameters()
        if shapes(state) != shapes(weights):
            raise PictuneError(
                "checkpoint: its adapter has weights of another shape or other layers than the "
                "settings; restore them or start again"
            )
        device = next(iter(weights.values())).device
        whole = torch.cat([state[name].flatten() for name in weights])
        parts = whole.to(device, non_blocking=True).split([one.numel() for one in weights.values()])
        for weight, part in zip(weights.values(), parts, strict=True):
            weight.copy_(part.view(weight.shape))

    @contextmanager
    def with_state(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Use weights that `state` returned inside the block, and the current weights after it."""
        present = {name: one.detach().clone() for name, one in self.parameters().items()}
        self.set_state(state)
        try:
            yield
        finally:
            self.set_state(present)


def adapter_class(kind: AdapterKind) -> type[Adapter]:
    """Return the class of an adapter kind."""
    found: type[Adapter] = pkgutil.resolve_name(kind.adapter)
    return found


def steps_share_of(folder: Path) -> float:
    """Return the share of the denoising steps in which the adapter of a folder draws."""
    with safe_open(adapter_file(folder), "pt") as opened:
        return float((opened.metadata() or {}).get(_STEPS_SHARE, 1))


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the weights on the CPU, without gradient, by a single copy from the GPU."""
    if not weights:
        return {}
    whole = torch.cat([one.detach().flatten() for one in weights.values()]).cpu()
    parts = whole.split([one.numel() for one in weights.values()])
    return {
        name: part.view(one.shape).to(one.dtype, copy=True)
        for part, (name, one) in zip(parts, weights.items(), strict=True)
    }


def shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each weight, by name."""
    return {name: weight.shape for name, weight in weights.items()}
