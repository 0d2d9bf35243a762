"""Settings of the model that is tuned: its arithmetic, and its adapter."""

from typing import Literal

from pydantic import BaseModel, PositiveFloat, PositiveInt, field_validator

from finetune.settings.adapter_kinds import ADAPTERS, BASE

Arithmetic = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""An arithmetic; "auto" suits the device, see `finetune.model.diffusion.arithmetic`."""


class NetworkSettings(BaseModel, frozen=True, extra="forbid"):
    """Ways to run the network: other time and memory, the same results except for rounding."""

    channels_last: bool = False
    """Keep the channels of a pixel side by side in memory, which suits the convolutions of GPUs in
    half precision."""
    compile: bool = False
    """Compile the network by torch.compile: minutes at the start and for each new batch size,
    quicker steps then."""


class AdapterSettings(BaseModel, frozen=True, extra="forbid"):
    """Trained weights beside a frozen model, its adapter."""

    kind: str = "lora"
    """Kind: "lora" are low-rank matrices (Hu et al. 2021, arXiv 2106.09685)."""
    rank: PositiveInt = 8
    """Rank of each update; DPOK's paper uses 4. A higher rank learns faster and drifts sooner."""
    alpha: PositiveFloat | None = None
    """The update is scaled by alpha / rank; omitted, alpha is the rank, so that the scale is 1."""
    feed_forward: bool = True
    """Also adapt the transformer blocks' feed-forward layers; DPOK's paper adapts attention
    alone."""
    start: str = BASE
    """Weights that training starts from: "base", the pretrained model, or the folder of an
    adapter of these settings. In a run's settings also a method, as "rwl": the adapter that it
    trained in this run. The KL is to the pretrained model either way."""

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        if kind not in ADAPTERS:
            raise ValueError(f"is none of {', '.join(ADAPTERS)}")
        return kind

    @property
    def scale(self) -> float:
        """Factor of the update, alpha / rank."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank
