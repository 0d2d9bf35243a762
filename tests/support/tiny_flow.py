"""Diffusers folders in the exact layout of Stable Diffusion 3.5 or FLUX.1, tiny and random."""

from pathlib import Path

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.support.tiny_diffusion import NO_QUANT, byte_tokenizer, text_config, tiny_vae


def write_tiny_sd3(folder: Path, *, with_t5: bool = True, t5_width: int = 64) -> Path:
    """Write a folder in the layout of Stable Diffusion 3.5 and return its path.

    Images are 16x16. Without T5, its two parts are left out, as users with little memory do. Both
    CLIPs together are 64 wide.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = byte_tokenizer(folder / "tokenizer")
        other = byte_tokenizer(folder / "tokenizer_2")
        tokenizer_3 = t5_tokenizer() if with_t5 else None
        pipeline = StableDiffusion3Pipeline(
            vae=tiny_vae(scaling_factor=1.5, shift_factor=0.06, **NO_QUANT),
            text_encoder=CLIPTextModelWithProjection(text_config(tokenizer, projection_dim=24)),
            text_encoder_2=CLIPTextModelWithProjection(
                text_config(other, hidden_act="gelu", projection_dim=40)
            ),
            text_encoder_3=_t5(tokenizer_3, t5_width) if tokenizer_3 else None,
            tokenizer=tokenizer,
            tokenizer_2=other,
            tokenizer_3=tokenizer_3,
            transformer=SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=t5_width,
                pooled_projection_dim=24 + 40,
                pos_embed_max_size=8,
                qk_norm="rms_norm",
                dual_attention_layers=(0,),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_flux(folder: Path, *, guidance_embeds: bool = True) -> Path:
    """Write a folder in the layout of FLUX.1 dev, or of schnell, and return its path.

    Its own image size is 256 pixels, as no FLUX folder names one: ask for 16.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer, tokenizer_2 = byte_tokenizer(folder / "tokenizer"), t5_tokenizer()
        pipeline = FluxPipeline(
            vae=tiny_vae(scaling_factor=0.4, shift_factor=0.1, **NO_QUANT),
            text_encoder=CLIPTextModel(text_config(tokenizer)),
            text_encoder_2=_t5(tokenizer_2, 32),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                guidance_embeds=guidance_embeds,
                axes_dims_rope=(4, 4, 8),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
            ),
        )
    pipeline.save_pretrained(folder)
    return folder


def t5_tokenizer() -> T5Tokenizer:
    """Return a tokenizer of single characters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    characters = [("▁", -1.0), *((chr(code), -2.0) for code in range(33, 127))]
    tokenizer: T5Tokenizer = T5Tokenizer(vocab=[*special, *characters], extra_ids=0)
    return tokenizer


def _t5(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )
