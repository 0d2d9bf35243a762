"""Training of the embedded model's AutoencoderKL, 64x64x3 -> 16x16x8.

As in Rombach et al. 2022 (arXiv 2112.10752), without the adversarial loss.
"""

import torch
from diffusers import AutoencoderKL
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional as F

from world.build.training import Average, steps_with_log, warmup_cosine


class AutoencoderConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the autoencoder and its training."""

    channels: tuple[int, ...] = (16, 48, 64)
    latent_channels: int = 8
    steps: int = 6500
    batch: int = 16
    learning_rate: float = 1.5e-3
    gradient_weight: float = 0.5
    """Weight of the L1 distance of the images' finite differences, which keeps edges crisp."""
    kl_weight: float = 2e-6
    latent_noise: float = 0.05
    """Standard deviation of noise on the latents, as a share of theirs: the decoder must tolerate
    the small errors of a sampler."""


def new_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """Return an untrained autoencoder of stock diffusers."""
    n = len(config.channels)
    return AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def reconstruction_loss(output: Tensor, target: Tensor, gradient_weight: float) -> Tensor:
    """Return L1 + MSE + weighted L1 of horizontal and vertical differences.

    Both images are [B, 3, H, W].
    """
    differences = ((output.diff(dim=d) - target.diff(dim=d)).abs().mean() for d in (2, 3))
    edges = sum(differences, torch.zeros(()))
    return F.l1_loss(output, target) + F.mse_loss(output, target) + gradient_weight * edges


def train_autoencoder(
    images: Tensor, config: AutoencoderConfig, *, generator: torch.Generator
) -> AutoencoderKL:
    """Train on uint8 images [N, 3, 64, 64]; return the averaged weights.

    `scaling_factor` is set so that latents have unit variance.
    """
    model = new_autoencoder(config)
    average = Average(model, 0.998)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    losses: list[float] = []
    for step in steps_with_log("autoencoder", config.steps, losses):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warmup_cosine(step, config.steps)
        chosen = torch.randint(len(images), (config.batch,), generator=generator)
        x = images[chosen].float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(x).latent_dist
            latents = posterior.sample(generator)
            noise = torch.randn(latents.shape, generator=generator)
            noise = noise * config.latent_noise * latents.detach().std()
            output = model.decode(latents + noise).sample.float()
        loss = reconstruction_loss(output, x, config.gradient_weight)
        loss = loss + config.kl_weight * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        losses.append(loss.item())
    trained = average.module
    latents = encode(trained, images[:1024], scaling_factor=1.0)
    trained.register_to_config(scaling_factor=1 / latents.std().item())
    return trained


@torch.no_grad()
def encode(model: AutoencoderKL, images: Tensor, *, scaling_factor: float | None = None) -> Tensor:
    """Return the scaled mean latents [N, C, 16, 16] of uint8 images [N, 3, 64, 64]."""
    factor = model.config.scaling_factor if scaling_factor is None else scaling_factor
    with torch.autocast("cpu", torch.bfloat16):
        means = [
            model.encode(x.float() / 127.5 - 1).latent_dist.mode().float()
            for x in images.split(256)
        ]
    return torch.cat(means) * factor


@torch.no_grad()
def decode(model: AutoencoderKL, latents: Tensor) -> Tensor:
    """Return the uint8 images [N, 3, 64, 64] of scaled latents."""
    factor = model.config.scaling_factor
    with torch.autocast("cpu", torch.bfloat16):
        out = [model.decode(z / factor).sample.float() for z in latents.split(256)]
    return ((torch.cat(out).clamp(-1, 1) + 1) * 127.5).round().byte()
