"""The differences between CLIP and SigLIP: inputs and outputs of their towers.

CLIP (Radford et al. 2021, arXiv 2103.00020) reads a class token and the first end-of-text token,
and projects both. SigLIP (Zhai et al. 2023, arXiv 2303.15343) pools the patches by attention and
reads the last token of a prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    SiglipImageProcessorPil,
    SiglipModel,
)


@dataclass(frozen=True)
class ModelFamily:
    """A model family for the backbone; functions take the model as first argument."""

    model_class: Any
    tokenizer_class: Any
    processor_class: Any
    padding: str
    """Padding of prompts, as the tokenizer names it."""
    dim: Callable[[Any], int]
    """Length of an embedding."""
    enter: Callable[[Any, Tensor], Tensor]
    """Preprocessed images [B, 3, S, S] -> inputs [B, T, W] of the vision tower's first block."""
    leave: Callable[[Any, Tensor], Tensor]
    """Outputs [B, T, W] of the last block -> embeddings [B, D]."""
    patches: slice
    """Slice of the T tokens that are image patches."""
    read: Callable[[Any, Tensor], Tensor]
    """Token ids [B, L] of padded prompts -> embeddings [B, D]."""


def _enter_clip(clip: Any, pixels: Tensor) -> Tensor:
    tokens: Tensor = clip.vision_model.pre_layrnorm(clip.vision_model.embeddings(pixels))
    return tokens


def _leave_clip(clip: Any, tokens: Tensor) -> Tensor:
    embeddings: Tensor = clip.visual_projection(clip.vision_model.post_layernorm(tokens[:, 0]))
    return embeddings


def _leave_siglip(siglip: Any, tokens: Tensor) -> Tensor:
    tower = siglip.vision_model
    embeddings: Tensor = tower.head(tower.post_layernorm(tokens))
    return embeddings


FAMILIES = {
    "clip": ModelFamily(
        model_class=CLIPModel,
        tokenizer_class=CLIPTokenizer,
        processor_class=CLIPImageProcessorPil,
        padding="longest",  # of the batch, which is exact where attention is causal
        dim=lambda clip: clip.visual_projection.out_features,
        enter=_enter_clip,
        leave=_leave_clip,
        patches=slice(1, None),
        read=lambda clip, ids: clip.text_projection(clip.text_model(input_ids=ids).pooler_output),
    ),
    "siglip": ModelFamily(
        model_class=SiglipModel,
        tokenizer_class=AutoTokenizer,
        processor_class=SiglipImageProcessorPil,
        padding="max_length",  # words attend to padding, and the last token is read
        dim=lambda siglip: siglip.config.vision_config.hidden_size,
        enter=lambda siglip, pixels: siglip.vision_model.embeddings(pixels),
        leave=_leave_siglip,
        patches=slice(None),
        read=lambda siglip, ids: siglip.text_model(input_ids=ids).pooler_output,
    ),
}
"""Families by the `model_type` of a folder's `config.json`; SigLIP 2 at a fixed size is siglip."""
