"""Pipelines with random weights in the true sizes of published models; nothing is downloaded.

Tokenizers have another vocabulary, the bytes, so prompts have other tokens, but as many.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from reward.clip.backbone import ClipBackbone, Preprocessing
from tests.support.tiny_diffusion import byte_tokenizer
from tests.support.tiny_flow import t5_tokenizer

NETWORK_WEIGHTS = {
    "sd15": 859_520_964,
    "sdxl": 2_567_463_684,
    "sd35-medium": 2_243_171_520,
    "flux": 11_901_408_320,
}
"""Number of weights of the published networks."""
_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
"""CLIP bigG's text encoder."""
TOKENS = 77


def sd15() -> StableDiffusionPipeline:
    """Return Stable Diffusion 1.5."""
    tokenizer = _tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(512, 0.18215),
        text_encoder=CLIPTextModel(_text(tokenizer)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        scheduler=_scheduler(
            PNDMScheduler, **_SCHEDULE, set_alpha_to_one=False, skip_prk_steps=True
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Return Stable Diffusion XL, the base model."""
    tokenizer, other = _tokenizer(), _tokenizer()
    other.pad_token = "!"  # noqa: S105 - the second tokenizer's own
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(1024, 0.13025),
        text_encoder=CLIPTextModel(_text(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text(other, **_BIG_G)),
        tokenizer=tokenizer,
        tokenizer_2=other,
        unet=unet,
        scheduler=_scheduler(EulerDiscreteScheduler, **_SCHEDULE, timestep_spacing="leading"),
        add_watermarker=False,
    )


def sd35_medium() -> StableDiffusion3Pipeline:
    """Return Stable Diffusion 3.5 Medium."""
    tokenizer, other, third = _tokenizer(), _tokenizer(), t5_tokenizer()
    return StableDiffusion3Pipeline(
        vae=_vae(1024, 1.5305, latent_channels=16, shift_factor=0.0609, **_NO_QUANT),
        text_encoder=CLIPTextModelWithProjection(_text(tokenizer, projection_dim=768)),
        text_encoder_2=CLIPTextModelWithProjection(_text(other, **_BIG_G)),
        text_encoder_3=_t5(),
        tokenizer=tokenizer,
        tokenizer_2=other,
        tokenizer_3=third,
        transformer=SD3Transformer2DModel(
            sample_size=128,
            num_layers=24,
            num_attention_heads=24,
            caption_projection_dim=1536,
            out_channels=16,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        ),
        scheduler=_scheduler(FlowMatchEulerDiscreteScheduler, shift=3.0),
    )


def flux() -> FluxPipeline:
    """Return FLUX.1 dev."""
    tokenizer = _tokenizer()
    return FluxPipeline(
        vae=_vae(1024, 0.3611, latent_channels=16, shift_factor=0.1159, **_NO_QUANT),
        text_encoder=CLIPTextModel(_text(tokenizer)),
        text_encoder_2=_t5(),
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        scheduler=_scheduler(FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
    )


MODELS: dict[str, Callable[[], Any]] = {
    "sd15": sd15,
    "sdxl": sdxl,
    "sd35-medium": sd35_medium,
    "flux": flux,
}
"""Each pipeline by its name."""


def vit_l_14() -> ClipBackbone:
    """Return a CLIP of the shape of `openai/clip-vit-large-patch14`, the presets' reward."""
    tokenizer = _tokenizer()
    text = _text(tokenizer).to_dict() | {"projection_dim": 768}
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    clip = CLIPModel(config).eval()
    preprocessing = Preprocessing.from_processor(CLIPImageProcessorPil(), 224)
    return ClipBackbone("random ViT-L/14", clip, tokenizer, preprocessing)


_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}


def _vae(side: int, scaling: float, **settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=side,
        scaling_factor=scaling,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        **settings,
    )


def _t5() -> T5EncoderModel:
    """Return the encoder of T5 XXL v1.1."""
    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    return T5EncoderModel(T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **sizes))


def _scheduler(kind: Any, **settings: Any) -> Any:
    """Return a scheduler, which reads its own numbers while it is made."""
    with torch.device("cpu"):
        return kind(**settings)


def _tokenizer() -> Any:
    with TemporaryDirectory() as folder, torch.device("cpu"):
        tokenizer = byte_tokenizer(Path(folder) / "tokenizer")
    tokenizer.model_max_length = TOKENS
    return tokenizer


def _text(tokenizer: Any, **sizes: Any) -> CLIPTextConfig:
    """Return the settings of CLIP ViT-L/14's text encoder, except for `sizes`."""
    own: dict[str, Any] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(vocab_size=49_408, max_position_embeddings=TOKENS, **own | sizes)
