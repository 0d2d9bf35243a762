"""Diffusers folders whose prompts a language model reads, tiny and random.

They have the exact layout of Z-Image, FLUX.2 klein or Qwen-Image. Ask for images of 16 pixels: no
folder names a size.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from tests.support.tiny_diffusion import NO_QUANT, VAE_SIZES, tiny_vae

_CHAT = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}"""
_WIDTH = 16
_DYNAMIC = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}


def write_tiny_z_image(folder: Path) -> Path:
    """Write a folder in the layout of Z-Image-Turbo and return its path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=_WIDTH,
            axes_dims=[4, 6, 6],
            axes_lens=[640, 32, 32],
        )
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            nn.init.normal_(token)
        tokenizer = _tokenizer()
        ZImagePipeline(
            vae=tiny_vae(scaling_factor=0.4, shift_factor=0.1, **NO_QUANT),
            text_encoder=Qwen3Model(Qwen3Config(**_language(tokenizer, 3))),
            tokenizer=tokenizer,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        ).save_pretrained(folder)
    return folder


def write_tiny_klein(folder: Path, *, is_distilled: bool = False) -> Path:
    """Write a folder in the layout of FLUX.2 klein and return its path.

    Its prompts are states of layers 9, 18 and 27 of the language model, as at full size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKLFlux2(**VAE_SIZES)
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2)
        tokenizer = _tokenizer()
        Flux2KleinPipeline(
            vae=vae,
            text_encoder=Qwen3ForCausalLM(Qwen3Config(**_language(tokenizer, 28))),
            tokenizer=tokenizer,
            transformer=Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=3 * _WIDTH,
                timestep_guidance_channels=32,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, **_DYNAMIC),
            is_distilled=is_distilled,
        ).save_pretrained(folder)
    return folder


def write_tiny_qwen_image(folder: Path) -> Path:
    """Write a folder in the layout of Qwen-Image and return its path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = _tokenizer()
        language = _language(tokenizer, 2) | {
            "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]}
        }
        vision = {
            "depth": 1,
            "hidden_size": _WIDTH,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": _WIDTH,
        }
        QwenImagePipeline(
            vae=AutoencoderKLQwenImage(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 1],
                num_res_blocks=1,
                temperal_downsample=[False],
                latents_mean=[-0.5, 0.1, 0.9, 0.0],
                latents_std=[1.5, 0.7, 1.0, 2.0],
            ),
            text_encoder=Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config=language, vision_config=vision)
            ),
            tokenizer=tokenizer,
            transformer=QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=_WIDTH,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=1.0,
                shift_terminal=0.02,
                max_shift=0.9,
                max_image_seq_len=8192,
                **_DYNAMIC,
            ),
        ).save_pretrained(folder)
    return folder


LANGUAGE_WRITERS: dict[str, Callable[[Path], Path]] = {
    "z-image": write_tiny_z_image,
    "klein": write_tiny_klein,
    "klein distilled": partial(write_tiny_klein, is_distilled=True),
    "qwen-image": write_tiny_qwen_image,
}


def _tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer of bytes without merges, with a chat template as Qwen's."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [*characters, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer: Qwen2Tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        additional_special_tokens=tokens[-2:],
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def _language(tokenizer: Qwen2Tokenizer, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": _WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
