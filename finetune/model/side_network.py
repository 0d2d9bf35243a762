"""A side network, a kind of adapter: a small network corrects what the frozen network predicts.

    prediction = base + strength * side(x_t, t, z, base, x_0),   x_0 = clean estimate by the base

It is the side network of Diffusion Controller (Yang et al. 2026, arXiv 2603.06981). `base` is the
base's prediction with guidance, so the strength scales the correction of what is drawn. The last
layer starts at zero, and no weight of the base changes: strength 0 is the base, bit for bit.

A correction of the guided prediction must also be trained on the guided prediction. So losses that
compare predictions with a denoising target use the sampler's guidance here, where those of LoRA use
none (`DiffusionModel.predict_denoising`). Without guidance in training, the correction would be
added to another prediction than it was trained on, and guidance would sharpen twice: in the images
that are learned from, and again in drawing. In what follows, s is the correction, b the base's
guided prediction, and E the mean over clean images x_0 that a noisy image may come from:

- RWL: b + s goes to E_w[target | x_t], the denoiser of the weighted images. With weights exp(r / T)
  on images of the base, it is the denoiser of p_base exp(r / T) / Z, whatever their guidance.
  Without guidance s is then -spread grad log h_t, for a base that predicts noise; with guidance it
  also holds the distance of b to the denoiser of the images that b draws.
  `tests/test_finetune_side_theory.py` measures both.
- NFT, preference: losses in b + s as in their files, with the guided prediction as the policy.
- KL-O, NFT's `kl_weight`: the mean of s^2, since the base has the same guidance.
- DPOK, DDPO, reward_gradient: the policy draws with b + s, as all sampling does.

Differs from the paper, whose code is not published, in:
1. The network is a UNet of diffusers with two levels, and attention to the prompt on the lower one.
2. It has the largest width that fits the budget; `LEAST_PARAMETERS` bounds the budget from below.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from data.errors import PictuneError
from data.files import write_atomically
from data.weights import check_finite
from finetune.model.adapter import Adapter, shapes
from finetune.model.family import Family
from finetune.model.sampling import clean_latents
from finetune.settings.adapter_kinds import ADAPTERS, BASE
from finetune.settings.model import AdapterSettings

SIDE_FILE = ADAPTERS["side"].file
LEAST_PARAMETERS = 300_000
"""Smallest budget of parameters. 1.4 % of the embedded model would be 74,000: this is a guess at
what is useful there, and not measured."""
_WIDTHS = range(4, 2048, 4)
"""Channels of the upper level; normalizations have four groups, attention four heads."""


class SideNetwork(Adapter):
    """A small UNet beside the frozen network of a pipeline."""

    corrects_guided = True

    def __init__(self, family: Family, config: dict[str, Any]) -> None:
        """Take the model's family and the arguments of the UNet."""
        device = family.pipeline.device
        self.config, self.strength = config, 1.0
        self.schedule = family.schedule(1, device)  # its noise levels do not depend on the steps
        self.network: Any = UNet2DConditionModel(**config).to(device)

    @classmethod
    def add(cls, family: Family, settings: AdapterSettings, *, generator: torch.Generator) -> Self:
        """Add the side network of `settings.start`, or a new one, drawn by `generator`.

        Raises:
            PictuneError: the folder `settings.start` has no side network, or one of another model
                or another size.
        """
        config = _config(family, settings.share)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            side = cls(family, config)
        nn.init.zeros_(side.network.conv_out.weight)
        nn.init.zeros_(side.network.conv_out.bias)
        if settings.start != BASE:
            started = cls.load(family, Path(settings.start)).state()
            if shapes(started) != shapes(side.parameters()):
                raise PictuneError(
                    f"{Path(settings.start) / SIDE_FILE}: its size is not that of the setting "
                    "`adapter.share`; make them alike"
                )
            side.set_state(started)
        return side

    @classmethod
    def load(cls, family: Family, folder: Path) -> Self:
        """Add a saved side network.

        Raises:
            PictuneError: the folder has none, or a broken one, or one of another model.
        """
        file, expected = folder / SIDE_FILE, _inputs(family)
        try:
            with safe_open(file, "pt") as opened:
                config = json.loads(opened.metadata()["config"])
            if found := {key: config[key] for key in expected if config[key] != expected[key]}:
                raise ValueError(f"{found} where the model has {expected}")  # noqa: TRY301
            side = cls(family, config)
            side.network.load_state_dict(load_file(file))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise PictuneError(
                f"{file}: does not fit this model ({reason}); it was made for another one"
            ) from error
        check_finite(side.parameters(), str(file))
        return side

    @override
    def corrected(
        self, output: Tensor, latents: Tensor, timesteps: Tensor, embeddings: Tensor
    ) -> Tensor:
        """Return the guided output plus the strength times the correction."""
        if self.strength == 0:
            return output
        latents = latents.float()
        clean = clean_latents(self.schedule, output, timesteps, latents)
        seen = torch.cat([latents, output, clean], dim=1)
        correction: Tensor = self.network(seen, timesteps, embeddings.float()).sample
        return output + self.strength * correction

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the weights by name."""
        return dict(self.network.named_parameters())

    def off(self) -> AbstractContextManager[None]:
        """Leave the correction out inside the block."""
        return self.at_strength(0.0)

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Multiply the correction by the strength inside the block."""
        before, self.strength = self.strength, strength
        try:
            yield
        finally:
            self.strength = before

    def save(self, folder: str | Path) -> Path:
        """Save the weights, with the arguments of the UNet as metadata."""
        file = Path(folder) / SIDE_FILE
        with write_atomically(file) as temporary:
            save_file(self.state(), temporary, {"config": json.dumps(self.config)})
            temporary.write_bytes(self.with_header(temporary.read_bytes()))
        return file

    def remove(self) -> None:
        """Do nothing: the base's network knows nothing of the side network."""

    def leave_casts_to_autocast(self, is_on: bool) -> None:
        """Do nothing: the side network always computes in float32."""


def _inputs(family: Family) -> dict[str, Any]:
    """Return the arguments of the UNet that depend on the model: channels, and width of text."""
    channels = family.latent_channels
    with torch.no_grad():
        text = family.encode([""], family.pipeline.device)
    return {
        "in_channels": 3 * channels,
        "out_channels": channels,
        "encoder_hid_dim": text.shape[-1],
    }


def _config(family: Family, share: float) -> dict[str, Any]:
    """Return the arguments of the widest UNet within this share of the base's parameters."""
    budget = share * sum(weight.numel() for weight in family.network.parameters())
    budget, inputs, low, high = max(budget, LEAST_PARAMETERS), _inputs(family), 1, len(_WIDTHS)
    while high - low > 1:  # the first width is always taken
        middle = (low + high) // 2
        with torch.device("meta"):
            network: Any = UNet2DConditionModel(**inputs, **_of_width(_WIDTHS[middle]))
        fits = sum(weight.numel() for weight in network.parameters()) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return inputs | _of_width(_WIDTHS[low])


def _of_width(width: int) -> dict[str, Any]:
    return {
        "block_out_channels": [width, 2 * width],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 2 * width,
        "encoder_hid_dim_type": "text_proj",
    }
