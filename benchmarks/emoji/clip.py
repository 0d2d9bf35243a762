"""Training of the embedded CLIPModel (Radford et al. 2021, arXiv 2103.00020).

Its training is that of real CLIPs: web-like captions, each contrasted with the other captions of
its batch, and only combinations that the base sees. So it has the blind spots of real CLIPs: it
recognizes animals and places, counts less well, and cannot assign colors to animals.
"""

import random

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from benchmarks.emoji.tokenizer import MAX_TOKENS, token_ids
from benchmarks.emoji.training import steps_with_log, warmup_cosine
from world.captions import CaptionNoise, caption
from world.scenes import Scene

WEB = CaptionNoise(
    no_tint=0.5,
    wrong_tint=0.05,
    no_count=0.75,
    wrong_count=0.15,
    no_place=0.35,
    wrong_place=0.05,
    no_second=0.6,
)
"""Captions of the web, which name one subject, often the place, seldom the number.

Even a number that is named is often not the number in the image (Paiss et al. 2023,
arXiv 2302.12066).
"""


WIDTH = 128
TEXT_LAYERS = 3
VISION_LAYERS = 4
PATCH = 8
PROJECTION = 96
SCENES = 20_000
CAPTIONS = 4
"""Number of different captions of each scene."""
STEPS = 2400
BATCH = 96
LEARNING_RATE = 1e-3


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIPModel for 64x64 images."""
    common = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
    }
    text = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": TEXT_LAYERS,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **common,
    }
    vision = {
        "num_hidden_layers": VISION_LAYERS,
        "image_size": 64,
        "patch_size": PATCH,
        **common,
    }
    both = CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION)
    return CLIPModel(both)


def image_embeddings(model: CLIPModel, images: Tensor) -> Tensor:
    """Return unit embeddings [B, D] of images [B, 3, 64, 64] in [-1, 1]."""
    pooled = model.vision_model(pixel_values=images).pooler_output
    return F.normalize(model.visual_projection(pooled).float(), dim=-1)


def text_embeddings(model: CLIPModel, ids: Tensor) -> Tensor:
    """Return unit embeddings [B, D] of token ids [B, L]."""
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def contrastive_loss(similarity: Tensor, same: Tensor) -> Tensor:
    """Return the symmetric cross-entropy over the pairs of a batch.

    `similarity` are logits [B, B] with the pairs on the diagonal; `same` [B, B] is true for
    equal captions, which share the probability of being right.
    """
    share = same.float() / same.sum(1, keepdim=True)
    by_image = (share * similarity.log_softmax(1)).sum(1)
    by_text = (share * similarity.log_softmax(0)).sum(0)
    return -(by_image.mean() + by_text.mean()) / 2


def train_clip(
    versions: Tensor,
    scenes: list[Scene],
    tokenizer: CLIPTokenizer,
    *,
    seed: int,
) -> CLIPModel:
    """Train on uint8 images [V, N, 3, 64, 64], V versions of the same N scenes."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    texts = ([caption(s, rng, WEB) for s in scenes] for _ in range(CAPTIONS))
    ids = torch.stack([token_ids(tokenizer, some) for some in texts])
    model = new_clip(tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, weight_decay=0.05, betas=(0.9, 0.98)
    )
    losses: list[float] = []
    for step in steps_with_log("clip", STEPS, losses):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warmup_cosine(step, STEPS, hold=0.1)
        chosen = torch.randint(len(scenes), (BATCH,), generator=generator)
        version = int(torch.randint(len(versions), (1,), generator=generator))
        said = ids[int(torch.randint(len(ids), (1,), generator=generator)), chosen]
        image = image_embeddings(model, versions[version, chosen].float() / 127.5 - 1)
        text = text_embeddings(model, said)
        similarity = model.logit_scale.exp().clamp(max=100) * image @ text.T
        loss = contrastive_loss(similarity, (said[:, None] == said[None]).all(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval()
