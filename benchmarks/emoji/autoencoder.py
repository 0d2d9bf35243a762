"""Training of the embedded model's AutoencoderKL, 64x64x3 -> 16x16x8.

As in Rombach et al. 2022 (arXiv 2112.10752), without the adversarial loss.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from benchmarks.emoji.training import Average, steps_with_log, warmup_cosine

CHANNELS = (16, 48, 64)
LATENT_CHANNELS = 8
STEPS = 6500
BATCH = 16
LEARNING_RATE = 1.5e-3
GRADIENT_WEIGHT = 0.5
"""Weight of the L1 distance of the images' finite differences, which keeps edges crisp."""
KL_WEIGHT = 2e-6
LATENT_NOISE = 0.05
"""Standard deviation of noise on the latents, as a share of theirs: the decoder must tolerate
the small errors of a sampler."""


def new_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder of stock diffusers."""
    n = len(CHANNELS)
    return AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
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


def train_autoencoder(images: Tensor, *, generator: torch.Generator) -> AutoencoderKL:
    """Train on uint8 images [N, 3, 64, 64]; return the averaged weights.

    `scaling_factor` is set so that latents have unit variance.
    """
    model = new_autoencoder()
    average = Average(model, 0.998)
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0
    )
    losses: list[float] = []
    for step in steps_with_log("autoencoder", STEPS, losses):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warmup_cosine(step, STEPS)
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        x = images[chosen].float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(x).latent_dist
            latents = posterior.sample(generator)
            noise = torch.randn(latents.shape, generator=generator)
            noise = noise * LATENT_NOISE * latents.detach().std()
            output = model.decode(latents + noise).sample.float()
        loss = reconstruction_loss(output, x, GRADIENT_WEIGHT)
        loss = loss + KL_WEIGHT * posterior.kl().mean()
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
