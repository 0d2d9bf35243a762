"""Settings of the model that is tuned: its arithmetic, and its adapter."""

from typing import Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator

from finetune.settings.adapter_kinds import ADAPTERS, BASE

Arithmetic = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Arithmetic of the network; "auto" depends on the device, see
`finetune.model.diffusion.arithmetic`."""


class NetworkSettings(BaseModel, frozen=True, extra="forbid"):
    """Options that change time and memory of the network, and results only by rounding."""

    channels_last: bool = False
    """Store the channels of a pixel next to each other in memory, which speeds up convolutions in
    half precision on GPUs."""
    compile: bool = False
    """Compile the network with torch.compile: this takes minutes at the start and for each new
    batch size, and then makes steps faster."""


class AdapterSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of an adapter, the trained weights beside a frozen model."""

    kind: str = "lora"
    """Kind of adapter: "lora" is low-rank matrices (Hu et al. 2021, arXiv 2106.09685), "side" a
    small network beside the frozen one, which corrects its predictions (Yang et al. 2026, arXiv
    2603.06981)."""
    share: float = Field(default=0.014, gt=0, le=1)
    """Parameters of a side network, as a share of the base's; at most so many, but a budget
    below 300,000 counts as 300,000."""
    rank: PositiveInt = 8
    """Rank of each update of a LoRA; DPOK's paper uses 4. A higher rank learns faster and drifts
    sooner."""
    alpha: PositiveFloat | None = None
    """Scale of a LoRA's update: the factor is alpha / rank. Omitted, the factor is 1."""
    feed_forward: bool = True
    """Let a LoRA adapt the transformer blocks' feed-forward layers too; DPOK's paper adapts
    attention alone."""
    steps_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the denoising steps, from the first on, in which the adapter draws. The base draws
    the later ones, which decide little of what is in the image and cost much of the KL. Papers: 1,
    which is all steps."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights over the steps (over the iterations, for methods
    that draw their images): 0.999 averages about the last thousand. The average is validated and
    saved in place of the weights; 0 switches it off."""
    start: str = BASE
    """Weights at the start of training: "base" (the pretrained model) or the folder of an adapter
    with these settings. A run's settings may also name a method such as "rwl", for the adapter that
    it trained in this run. The KL is always to the pretrained model."""

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
