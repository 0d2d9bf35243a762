"""Training of the embedded CLIPModel (Radford et al. 2021, arXiv 2103.00020).

It learns from true captions, complete and partial, of the whole world.
"""

import random
from dataclasses import dataclass

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pipelines.world.captions import EXACT, CaptionNoise, caption
from pipelines.world.prompts import Requirement
from pipelines.world.scenes import ANIMALS, PLACES, TINTS, Scene
from pipelines.world.tokenizer import MAX_TOKENS, token_ids
from pipelines.world.training import steps_with_log, warmup_cosine

PARTIAL = CaptionNoise(
    no_tint=0.5, wrong_tint=0, no_count=0, wrong_count=0, no_place=0.5, wrong_place=0, no_second=0
)
"""True captions that may omit tint or place, as most prompts do."""


class ClipTrainingConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the CLIP model and its training."""

    width: int = 128
    text_layers: int = 3
    vision_layers: int = 4
    patch: int = 8
    projection: int = 96
    scenes: int = 20_000
    steps: int = 2400
    batch: int = 96
    learning_rate: float = 1e-3


def new_clip(config: ClipTrainingConfig, tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIPModel for 64x64 images."""
    common = {
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_attention_heads": 4,
    }
    text = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": config.text_layers,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **common,
    }
    vision = {
        "num_hidden_layers": config.vision_layers,
        "image_size": 64,
        "patch_size": config.patch,
        **common,
    }
    both = CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.projection)
    model = CLIPModel(both)
    model.set_attn_implementation("eager")  # on CPU the backward pass of bf16 SDPA is slower
    return model


@dataclass(frozen=True)
class Facts:
    """Scenes or captions as numbers."""

    counts: Tensor
    """Number of each animal [N, 12]."""
    tints: Tensor
    """Tint of each animal [N, 12]: 0 natural (of a caption: any), -1 absent."""
    places: Tensor
    """Place [N]: 0 plain (of a caption: any)."""

    def __getitem__(self, chosen: Tensor) -> "Facts":
        return Facts(self.counts[chosen], self.tints[chosen], self.places[chosen])


def facts_of_scenes(scenes: list[Scene]) -> Facts:
    """Return the content of each scene."""
    counts = torch.tensor([[s.counts().get(a, 0) for a in ANIMALS] for s in scenes])
    tints = torch.full((len(scenes), len(ANIMALS)), -1)
    for i, scene in enumerate(scenes):
        for animal in scene.animals:
            tint = 0 if animal.tint is None else 1 + TINTS.index(animal.tint)
            tints[i, ANIMALS.index(animal.species)] = tint
    return Facts(counts, tints, torch.tensor([PLACES.index(s.place) for s in scenes]))


def facts_of_captions(texts: list[str]) -> Facts:
    """Return the content that each caption names."""
    wanted = [Requirement.parse(text) for text in texts]
    counts = torch.tensor([[w.counts.get(a) or 0 for a in ANIMALS] for w in wanted])
    tints = torch.tensor(
        [[1 + TINTS.index(w.tints[a]) if a in w.tints else 0 for a in ANIMALS] for w in wanted]
    )
    places = torch.tensor([PLACES.index(w.place) if w.place else 0 for w in wanted])
    return Facts(counts, tints, places)


def true_of(scenes: Facts, captions: Facts) -> Tensor:
    """Return whether each of M captions is true of each of N scenes, [N, M]."""
    counts = (scenes.counts[:, None] == captions.counts[None]).all(-1)
    tints = ((captions.tints[None] == 0) | (scenes.tints[:, None] == captions.tints[None])).all(-1)
    places = (captions.places[None] == 0) | (scenes.places[:, None] == captions.places[None])
    return counts & tints & places


def image_embeddings(model: CLIPModel, images: Tensor) -> Tensor:
    """Return unit embeddings [B, D] of images [B, 3, 64, 64] in [-1, 1]."""
    pooled = model.vision_model(pixel_values=images).pooler_output
    return F.normalize(model.visual_projection(pooled).float(), dim=-1)


def text_embeddings(model: CLIPModel, ids: Tensor) -> Tensor:
    """Return unit embeddings [B, D] of token ids [B, L]."""
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def contrastive_loss(similarity: Tensor, positive: Tensor) -> Tensor:
    """Return the symmetric cross-entropy, in which all true pairs of a row count alike.

    `similarity` are logits [B, B]; `positive` [B, B] is true for the true pairs.
    """
    share = positive.float()
    by_image = (share / share.sum(1, keepdim=True) * similarity.log_softmax(1)).sum(1)
    by_text = (share / share.sum(0, keepdim=True) * similarity.log_softmax(0)).sum(0)
    return -(by_image.mean() + by_text.mean()) / 2


def train_clip(
    versions: Tensor,
    scenes: list[Scene],
    tokenizer: CLIPTokenizer,
    config: ClipTrainingConfig,
    *,
    seed: int,
) -> CLIPModel:
    """Train on uint8 images [V, N, 3, 64, 64], V versions of the same N scenes."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    texts = [[caption(s, rng, noise) for s in scenes] for noise in (EXACT, PARTIAL, PARTIAL)]
    ids = torch.stack([token_ids(tokenizer, t) for t in texts])
    said = [facts_of_captions(t) for t in texts]
    shown = facts_of_scenes(scenes)
    model = new_clip(config, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, weight_decay=0.05, betas=(0.9, 0.98)
    )
    losses: list[float] = []
    for step in steps_with_log("clip", config.steps, losses):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warmup_cosine(step, config.steps, hold=0.1)
        chosen = torch.randint(len(scenes), (config.batch,), generator=generator)
        version = int(torch.randint(len(versions), (1,), generator=generator))
        kind = int(torch.randint(len(texts), (1,), generator=generator))
        with torch.autocast("cpu", torch.bfloat16):
            image = image_embeddings(model, versions[version, chosen].float() / 127.5 - 1)
            text = text_embeddings(model, ids[kind, chosen])
        similarity = model.logit_scale.exp().clamp(max=100) * image @ text.T
        loss = contrastive_loss(similarity, true_of(shown[chosen], said[kind][chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval()


@torch.no_grad()
def retrieval(
    model: CLIPModel, images: Tensor, scenes: list[Scene], tokenizer: CLIPTokenizer, *, seed: int
) -> float:
    """Return the share of uint8 images whose most similar caption is true of them.

    The captions are the exact ones of all N scenes.
    """
    texts = [caption(s, random.Random(seed), EXACT) for s in scenes]
    image = torch.cat([image_embeddings(model, x.float() / 127.5 - 1) for x in images.split(256)])
    text = torch.cat([text_embeddings(model, x) for x in token_ids(tokenizer, texts).split(256)])
    best = (image @ text.T).argmax(1)
    true = true_of(facts_of_scenes(scenes), facts_of_captions(texts))
    return true[torch.arange(len(scenes)), best].float().mean().item()
