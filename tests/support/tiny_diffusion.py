"""Diffusers folders in the exact layout of Stable Diffusion 1.5, 2.1 or XL, tiny and random."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TEXT_LENGTH = 16
Prediction = Literal["epsilon", "v_prediction", "sample"]
_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


def write_tiny_diffusion(
    folder: Path,
    *,
    prediction: Prediction = "epsilon",
    scheduler: Literal["pndm", "ddim"] = "pndm",
    seed: int = 0,
    hidden_act: str = "quick_gelu",
    **unet: Any,
) -> Path:
    """Write the folder and return its path; the weights depend on `seed` alone.

    Latents are 4x8x8, images 16x16, and the folder is under 1 MB. `unet` are settings of the UNet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = byte_tokenizer(folder / "tokenizer")
        pipeline = StableDiffusionPipeline(
            vae=tiny_vae(),
            text_encoder=CLIPTextModel(text_config(tokenizer, hidden_act=hidden_act)),
            tokenizer=tokenizer,
            unet=_unet(**unet),
            scheduler=_scheduler(prediction, scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_sd2(folder: Path) -> Path:
    """Write a folder in the layout of Stable Diffusion 2.1 and return its path.

    It has velocity prediction, linear projections, heads by level, and a text encoder with plain
    GELU.
    """
    return write_tiny_diffusion(
        folder,
        prediction="v_prediction",
        scheduler="ddim",
        hidden_act="gelu",
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        upcast_attention=True,
    )


def write_tiny_sdxl(folder: Path) -> Path:
    """Write a folder in the layout of Stable Diffusion XL and return its path.

    It has two text encoders, pooled embeddings, sizes, blocks of different depth, and the Euler
    sampler.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = byte_tokenizer(folder / "tokenizer")
        other = byte_tokenizer(folder / "tokenizer_2")
        other.pad_token = "!"
        pipeline = StableDiffusionXLPipeline(
            vae=tiny_vae(),
            text_encoder=CLIPTextModel(text_config(tokenizer)),
            text_encoder_2=CLIPTextModelWithProjection(
                text_config(other, hidden_act="gelu", projection_dim=24)
            ),
            tokenizer=tokenizer,
            tokenizer_2=other,
            unet=_unet(
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2),
                attention_head_dim=(2, 4),
                cross_attention_dim=64,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=24 + 6 * 8,
            ),
            scheduler=EulerDiscreteScheduler(**_SCHEDULE, timestep_spacing="leading"),
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "sd1": write_tiny_diffusion,
    "sd2": write_tiny_sd2,
    "sdxl": write_tiny_sdxl,
}


def byte_tokenizer(folder: Path) -> CLIPTokenizer:
    """Return a tokenizer of bytes without merges: it reads any text, letter by letter."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer: CLIPTokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TEXT_LENGTH
    )
    return tokenizer


def text_config(tokenizer: CLIPTokenizer, **settings: Any) -> CLIPTextConfig:
    """Return the settings of a tiny CLIP text encoder for the tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )


VAE_SIZES: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 1,
    "sample_size": 16,
}
NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}


def tiny_vae(**settings: Any) -> AutoencoderKL:
    """Return a VAE of latents 4x8x8 that decodes the first three of them as red, green and blue."""
    vae = AutoencoderKL(**VAE_SIZES, **settings)
    _decode_linearly(vae)
    return vae


@torch.no_grad()
def _decode_linearly(vae: AutoencoderKL) -> None:
    """Make red, green and blue the first three latents, enlarged.

    A random decoder turns latents into brightness in no way that can be learned.
    """
    decoder, wide, raised = vae.decoder, 1000.0, 20.0
    for name, weight in decoder.named_parameters():
        if "conv2" in name or "to_out" in name:
            weight.zero_()  # residual branches add nothing
    shortcuts = [
        block.conv_shortcut
        for level in decoder.up_blocks
        for block in level.resnets
        if block.conv_shortcut is not None
    ]
    upsamplers = [up.conv for level in decoder.up_blocks for up in level.upsamplers or []]
    first = [conv for conv in (vae.post_quant_conv, decoder.conv_in) if conv is not None]
    for conv in (*first, *shortcuts, *upsamplers, decoder.conv_out):
        torch.nn.init.dirac_(conv.weight)
        conv.bias.zero_()
    # Two constant channels of +-1000 make the norm's divisor constant.
    # Raised by 20, SiLU is the identity.
    decoder.conv_in.bias[6], decoder.conv_in.bias[7] = wide, -wide
    decoder.conv_norm_out.weight.fill_(wide / 2)
    decoder.conv_norm_out.bias.fill_(raised)
    gain = 0.5 * vae.config.scaling_factor
    decoder.conv_out.weight.mul_(gain)
    decoder.conv_out.bias.fill_(-raised * gain)


def _unet(**settings: Any) -> UNet2DConditionModel:
    layout = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**layout | settings)


def _scheduler(
    prediction: Prediction, kind: Literal["pndm", "ddim"]
) -> PNDMScheduler | DDIMScheduler:
    schedule = _SCHEDULE | {"set_alpha_to_one": False}
    if kind == "ddim":
        return DDIMScheduler(**schedule, prediction_type=prediction, clip_sample=False)
    return PNDMScheduler(**schedule, prediction_type=prediction, skip_prk_steps=True)
