"""A tiny random CLIP and SigLIP: real classes of transformers, 32 pixels, a tokenizer of bytes.

They are saved as ordinary model folders.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel

MAX_TOKENS = 48


def byte_tokenizer() -> CLIPTokenizer:
    """Return a CLIPTokenizer of the 256 bytes, within a word and at its end, without merges."""
    characters = sorted(ByteLevel.alphabet())
    tokens = [*characters, *(f"{c}</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=MAX_TOKENS
    )


def save_tiny_clip(folder: Path, *, seed: int = 0, dim: int = 32, image_size: int = 32) -> Path:
    """Save a random CLIPModel (2 layers, `dim` wide, patches of 8); return `folder`.

    Its tokenizer and image processor are beside it.
    """
    tokenizer = byte_tokenizer()
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
    config = CLIPConfig(
        text_config=_text(tokenizer, dim) | {name: getattr(tokenizer, name) for name in tokens},
        vision_config={**_layers(dim), "image_size": image_size, "patch_size": 8},
        projection_dim=dim,
    )
    size = {"height": image_size, "width": image_size}
    processor = CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=size)
    return _save(folder, lambda: CLIPModel(config), tokenizer, processor, seed)


def save_tiny_siglip(folder: Path, *, seed: int = 0, dim: int = 32, image_size: int = 32) -> Path:
    """Save a random SiglipModel with the same tokenizer; return `folder`."""
    tokenizer = byte_tokenizer()
    config = SiglipConfig(
        text_config=_text(tokenizer, dim) | {"projection_size": dim},
        vision_config={**_layers(dim), "image_size": image_size, "patch_size": 8},
    )
    size = {"height": image_size, "width": image_size}
    processor = SiglipImageProcessorPil(size=size, resample=2)
    return _save(folder, lambda: SiglipModel(config), tokenizer, processor, seed)


def small_reward(backbone: ClipBackbone, *, seed: int = 0, **more: Any) -> RewardModel:
    """Return an untrained reward of two small heads; `more` are arguments of `create`."""
    shape: dict[str, Any] = {"hidden": (8,), "members": 2} | more
    return RewardModel.create(backbone, generator=torch.Generator().manual_seed(seed), **shape)


def _layers(dim: int) -> dict[str, int]:
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return layers | {"hidden_size": dim, "intermediate_size": 2 * dim}


def _text(tokenizer: CLIPTokenizer, dim: int) -> dict[str, int]:
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_TOKENS}
    return _layers(dim) | words


def _save(
    folder: Path, model: Callable[[], Any], tokenizer: CLIPTokenizer, processor: Any, seed: int
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
