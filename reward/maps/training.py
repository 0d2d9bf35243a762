"""Training of the predictor of maps on the marks of all raters.

The map of an image and an aspect is the share of its raters who marked each pixel, with points as
discs (RichHF-18K, Liang et al. 2024, arXiv 2312.10240). An image that raters called good, or on
which they found nothing, has a map of zeros. The loss is the mean squared error.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.quality.regions import MAP_SIZE, about, figures_of, looks_of
from data.regions import Mark, mask_of, read_regions
from data.schema import IMAGES, prompt_id, read_table
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset
from reward.embedding import ENCODE_BATCH, embed_patches
from reward.learning.training import PATIENCE, WEIGHT_DECAY
from reward.maps.head import MapHead, seen_part
from reward.maps.metrics import MapFigures, map_figures
from reward.settings import RewardConfig

CENTERED = 256
"""Images whose tokens standardize those of all."""
DRAWN_AT = 2 * MAP_SIZE
"""Pixels of the shorter side of an image on which marks are drawn, before CLIP's crop."""
Epochs = Callable[[range], Iterable[int]]
"""Wraps the loop over epochs to show its progress; `iter` shows nothing."""


@dataclass(frozen=True, eq=False)
class MarkedImage:
    """An image that raters looked at for faults, with its prompt."""

    image_id: str
    path: Path
    prompt: str
    size: tuple[int, int]
    """Height and width."""
    looks: Mapping[str, Sequence[Mark]]
    """Each rater's marks; empty for a rater who found nothing, or called the image good."""


def target_maps(
    images: Sequence[MarkedImage], backbone: ClipBackbone, aspects: Sequence[str]
) -> Tensor:
    """Return the maps of all raters on what CLIP sees, [N, A, MAP_SIZE, MAP_SIZE]."""
    maps = torch.zeros(len(images), len(aspects), MAP_SIZE, MAP_SIZE)
    for row, image in enumerate(images):
        left, top, right, bottom = seen_part(backbone.preprocess, *image.size)
        high, wide = (round(DRAWN_AT * side / min(image.size)) for side in image.size)
        seen = (left * wide, top * high, right * wide, bottom * high)
        for place, aspect in enumerate(aspects):
            for own in image.looks.values():
                if marks := [mark for mark in own if mark.aspect == aspect]:
                    drawn = Image.fromarray(mask_of(marks, high, wide)).convert("L")
                    small = drawn.resize((MAP_SIZE,) * 2, Image.Resampling.BOX, box=seen)
                    maps[row, place] += torch.from_numpy(np.array(small)) / 255 / len(image.looks)
    return maps


def marked_images(
    dataset: FeedbackDataset, part: FeedbackDataset, latest: Path
) -> list[MarkedImage]:
    """Return the images of a part of the labels, with the marks of an export.

    Marks count whose verdict the reward learns from. A verdict "bad" without an answer on marks
    says nothing about places, so its rater did not look.
    """
    by_prompt = defaultdict(list)
    for row in read_regions(latest).to_pylist():
        by_prompt[row["prompt_id"]].append(row)
    given = {text: looks_of(by_prompt[prompt_id(text)]) for text in dataset.prompts}
    table = read_table(latest / "images.parquet", IMAGES).to_pylist()
    sizes = {row["image_id"]: (row["height"], row["width"]) for row in table}
    looks = defaultdict[tuple[int, int], dict[str, list[Mark]]](dict)
    verdicts = part.verdicts
    columns = (verdicts.image, verdicts.prompt, verdicts.rater, verdicts.good)
    for image, prompt, rater, good in np.stack(columns, axis=1).astype(int).tolist():
        marks = given[dataset.prompts[prompt]].get(dataset.image_ids[image], {})
        name = dataset.raters[rater]
        if good or name in marks:
            looks[image, prompt][name] = marks.get(name, [])
    return [
        MarkedImage(image_id, dataset.paths[image], dataset.prompts[prompt], sizes[image_id], own)
        for (image, prompt), own in looks.items()
        for image_id in (dataset.image_ids[image],)
    ]


def train_maps(
    backbone: ClipBackbone,
    taught: Sequence[MarkedImage],
    held_out: Sequence[MarkedImage],
    config: RewardConfig,
    *,
    cache: EmbeddingCache | None = None,
    track: Epochs = iter,
) -> MapHead | None:
    """Train a predictor of maps; None if nobody marked an image of `taught`.

    The images held out for validation, if any, choose the epoch. Each batch is read from the cache
    again, so memory holds the tokens of one batch.
    """
    aspects = sorted({m.aspect for one in taught for own in one.looks.values() for m in own})
    if not aspects:
        return None
    generator = torch.Generator().manual_seed(config.seed)
    head = MapHead(backbone, aspects, generator=generator).to(backbone.device)
    targets, wanted = (
        target_maps(images, backbone, aspects).to(backbone.device) for images in (taught, held_out)
    )
    texts = backbone.text_embedding([image.prompt for image in taught])
    first = torch.randperm(len(taught), generator=generator)[:CENTERED].tolist()
    tokens = _tokens([taught[row] for row in first], backbone, cache)
    head.center(tokens, targets.mean((0, 2, 3)))
    optimizer = torch.optim.AdamW(
        head.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY
    )
    best, best_epoch, weights = float("inf"), 0, None
    size = min(config.batch_size, ENCODE_BATCH)
    for epoch in track(range(1, config.epochs + 1)):
        order = torch.randperm(len(targets), generator=generator)
        for rows in order.tensor_split(math.ceil(len(order) / size)):
            tokens = _tokens([taught[row] for row in rows.tolist()], backbone, cache)
            optimizer.zero_grad()
            loss = (head(tokens, texts[rows]) - targets[rows]).square().mean()
            loss.backward()
            optimizer.step()
        if not held_out:
            continue
        found = predicted_maps(head, backbone, held_out, cache)
        error = float((found - wanted).square().mean())
        if error < best:
            best, best_epoch = error, epoch
            weights = {name: weight.clone() for name, weight in head.state_dict().items()}
        elif epoch - best_epoch >= PATIENCE:
            break
    if weights is not None:
        head.load_state_dict(weights)
    return head


def measure_maps(
    head: MapHead,
    backbone: ClipBackbone,
    held_out: Sequence[MarkedImage],
    *,
    cache: EmbeddingCache | None = None,
    seed: int,
) -> dict[str, MapFigures]:
    """Return the figures of each aspect on held-out images, with the raters' own agreement."""
    if not held_out:
        return {}
    rng, figures = np.random.default_rng(seed), {}
    found = predicted_maps(head, backbone, held_out, cache).double().cpu().numpy()
    wanted = target_maps(held_out, backbone, head.aspects).double().numpy()
    shared = {f"{row}": image for row, image in enumerate(held_out) if len(image.looks) > 1}
    looks = {row: image.looks for row, image in shared.items()}
    sizes = {row: image.size for row, image in shared.items()}
    for place, aspect in enumerate(head.aspects):
        raters = figures_of(about(looks, aspect), sizes)
        ceiling = {"raters_cc": raters["map_cc"], "n_raters_maps": raters["n_maps"]}
        own = map_figures(found[:, place], wanted[:, place], rng=rng)
        figures[aspect] = own.model_copy(update=ceiling)
    return figures


@torch.no_grad()
def predicted_maps(
    head: MapHead,
    backbone: ClipBackbone,
    images: Sequence[MarkedImage],
    cache: EmbeddingCache | None = None,
) -> Tensor:
    """Return the predicted maps on what CLIP sees, [N, A, MAP_SIZE, MAP_SIZE]."""
    maps = []
    for start in range(0, len(images), ENCODE_BATCH):
        some = images[start : start + ENCODE_BATCH]
        texts = backbone.text_embedding([image.prompt for image in some])
        maps.append(head(_tokens(some, backbone, cache), texts))
    return torch.cat(maps)


def _tokens(
    images: Sequence[MarkedImage], backbone: ClipBackbone, cache: EmbeddingCache | None
) -> Tensor:
    digests = [bytes.fromhex(image.image_id) for image in images]
    return embed_patches([image.path for image in images], backbone, digests=digests, cache=cache)
