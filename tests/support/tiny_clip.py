"""A tiny random CLIP and SigLIP: real classes of transformers, 32 pixels, a tokenizer of bytes.

They are saved as ordinary model folders.
"""

from pathlib import Path

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
    layers = {
        "hidden_size": dim,
        "intermediate_size": 2 * dim,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={
            **layers,
            **special,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_TOKENS,
        },
        vision_config={**layers, "image_size": image_size, "patch_size": 8},
        projection_dim=dim,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    ).save_pretrained(folder)
    return folder


def save_tiny_siglip(folder: Path, *, seed: int = 0, dim: int = 32, image_size: int = 32) -> Path:
    """Save a random SiglipModel with the same tokenizer; return `folder`."""
    tokenizer = byte_tokenizer()
    layers = {
        "hidden_size": dim,
        "intermediate_size": 2 * dim,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = SiglipConfig(
        text_config={
            **layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_TOKENS,
            "projection_size": dim,
        },
        vision_config={**layers, "image_size": image_size, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        SiglipModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(
        size={"height": image_size, "width": image_size}, resample=2
    ).save_pretrained(folder)
    return folder
