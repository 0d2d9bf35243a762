"""Training of the embedded text-to-image model: UNet and text encoder together.

Both learn from latents of captioned renders, by v-prediction (Salimans & Ho 2022, arXiv 2202.00512)
with min-SNR weights (Hang et al. 2023, arXiv 2303.09556). Some captions are empty for
classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598). The weights are averaged.
"""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.emoji.tokenizer import MAX_TOKENS, token_ids
from benchmarks.emoji.training import Average, steps_with_log, warmup_cosine

UNET_CHANNELS = (48, 96, 128)
TEXT_WIDTH = 128
TEXT_LAYERS = 3
SCENES = 40_000
CAPTIONS = 4
"""Number of different captions of each scene."""
STEPS = 9000
BATCH = 32
LEARNING_RATE = 6e-4
LEARNING_RATE_HOLD = 0.6
"""Share of the steps before the learning rate falls."""
EMPTY_CAPTIONS = 0.1
"""Share of captions left empty, so that the model also learns to draw without one."""
MIN_SNR = 5.0
AVERAGE_DECAY = 0.999


def new_scheduler() -> DDIMScheduler:
    """Return the noise schedule of Stable Diffusion with v-prediction.

    The last step ends at the first training timestep, not at zero noise.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # unused with trailing spacing, but what Stable Diffusion pipelines expect
        timestep_spacing="trailing",
    )


def new_unet(latent_channels: int) -> UNet2DConditionModel:
    """Return an untrained UNet with attention at 8x8 and 4x4."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=UNET_CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    # on CPU the backward pass of bf16 SDPA is slower than plain products
    unet.set_attn_processor(AttnProcessor())
    return unet


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained CLIP text model for the tokenizer's vocabulary."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")
    return model


class Base(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = unet
        self.text: CLIPTextModel = text


def train_base(
    latents: Tensor,
    captions: Tensor,
    tokenizer: CLIPTokenizer,
    *,
    seed: int,
) -> Base:
    """Train on captions [K, N, L] of latents [N, C, h, w]; return the averaged weights."""
    torch.manual_seed(seed)
    model = Base(new_unet(latents.shape[1]), new_text_encoder(tokenizer))
    average = Average(model, AVERAGE_DECAY)
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    scheduler, empty = new_scheduler(), token_ids(tokenizer, [""])[0]
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weights = snr.clamp(max=MIN_SNR) / (snr + 1)  # min-SNR for v-prediction
    n = BATCH
    losses: list[float] = []
    for step in steps_with_log("base", STEPS, losses):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warmup_cosine(step, STEPS, hold=LEARNING_RATE_HOLD)
        chosen = torch.randint(latents.shape[0], (n,), generator=generator)
        x = latents[chosen]
        ids = captions[torch.randint(captions.shape[0], (n,), generator=generator), chosen].clone()
        ids[torch.rand(n, generator=generator) < EMPTY_CAPTIONS] = empty
        noise = torch.randn(x.shape, generator=generator)
        t = torch.randint(1000, (n,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            text = model.text(ids).last_hidden_state
            predicted = model.unet(scheduler.add_noise(x, noise, t), t, text).sample
        velocity = scheduler.get_velocity(x, noise, t)
        error = (predicted.float() - velocity).square().mean((1, 2, 3))
        loss = (weights[t] * error).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        losses.append(loss.item())
    return average.module
