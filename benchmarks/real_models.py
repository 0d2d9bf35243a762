"""Random models in the true sizes of Stable Diffusion 1.5, SDXL and CLIP, without any download."""

import gc
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
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
    CLIPTokenizer,
)

from reward.clip.backbone import ClipBackbone, Preprocessing
from tests.support.tiny_clip import byte_tokenizer

TOKENS = 77
UNET_PARAMETERS = {"sd15": 859_520_964, "sdxl": 2_567_463_684}
"""Weights of the published UNets."""
_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
_VIT_L: dict[str, Any] = {
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    "projection_dim": 768,
}


def write_model(layout: str, folder: Path, dtype: torch.dtype) -> None:
    """Write a random "sd15" or "sdxl" as a diffusers folder of weights of this type."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # never more memory than the weights themselves need
    try:
        pipeline = {"sd15": _sd15, "sdxl": _sdxl}[layout]()
    finally:
        torch.set_default_dtype(before)
    found = sum(weight.numel() for weight in pipeline.unet.parameters())
    assert found == UNET_PARAMETERS[layout], f"{layout}: its UNet has {found} weights"
    pipeline.save_pretrained(folder)
    del pipeline
    gc.collect()


def random_backbone(name: str, **sizes: Any) -> ClipBackbone:
    """Return a CLIP with random weights whose vocabulary is the bytes.

    `sizes` are those of `CLIPConfig`; omitted, they are those of `openai/clip-vit-base-patch32`.
    """
    tokenizer = _tokenizer()
    text = {**sizes.pop("text_config", {}), **_special(tokenizer), "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, **sizes)).eval()
    side = clip.config.vision_config.image_size
    preprocessing = Preprocessing.from_processor(CLIPImageProcessorPil(), side)
    return ClipBackbone(name, clip, tokenizer, preprocessing)


def backbone_like_vit_l_14() -> ClipBackbone:
    """Return a CLIP of the shape of `openai/clip-vit-large-patch14`, the presets' reward."""
    return random_backbone("random ViT-L/14", **_VIT_L)


def _sd15() -> StableDiffusionPipeline:
    tokenizer = _tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(512, 0.18215),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        scheduler=PNDMScheduler(**_SCHEDULE, set_alpha_to_one=False, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> StableDiffusionXLPipeline:
    tokenizer, other = _tokenizer(), _tokenizer()
    other.pad_token = "!"  # noqa: S105 - the second tokenizer's own
    wide = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    second = _text_config(
        other, **wide, num_attention_heads=20, projection_dim=1280, hidden_act="gelu"
    )
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
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=tokenizer,
        tokenizer_2=other,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_SCHEDULE, timestep_spacing="leading"),
        add_watermarker=False,
    )


def _vae(side: int, scaling: float) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=side,
        scaling_factor=scaling,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )


def _tokenizer() -> CLIPTokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = TOKENS
    return tokenizer


def _special(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _text_config(tokenizer: CLIPTokenizer, **sizes: Any) -> CLIPTextConfig:
    """Return the settings of CLIP ViT-L/14's text encoder, but for `sizes`."""
    own = _VIT_L["text_config"] | _special(tokenizer) | sizes
    return CLIPTextConfig(vocab_size=49_408, max_position_embeddings=TOKENS, **own)
