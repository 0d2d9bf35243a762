"""Training of the predictor of maps on the marks of all raters.

The map of an image and an aspect is the share of its raters who marked each pixel, with points as
discs (RichHF-18K, Liang et al. 2024, arXiv 2312.10240). An image that raters called good, or on
which they found nothing, has a map of zeros. The loss is the mean squared error.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from reward.maps.metrics import MapFigures, map_figures
from reward.maps.predictor import MapPredictor, seen_part
from reward.settings import RewardConfig

CENTERED = 256
"""Images whose tokens standardize those of all."""
DRAWN_AT = 2 * MAP_SIZE
"""Pixels of the shorter side of an image on which marks are drawn, before CLIP's crop."""
Epochs = Callable[[range], Iterable[int]]
"""Wraps the loop over epochs to show its progress; `iter` shows nothing."""


@dataclass(frozen=True, eq=False)
class MarkedImages:
    """Images that raters looked at for faults, one entry for each image and prompt."""

    paths: tuple[Path, ...]
    digests: tuple[bytes, ...]
    """SHA-256 of each file."""
    prompts: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """Height and width."""
    looks: tuple[dict[str, list[Mark]], ...]
    """Each rater's marks; empty for a rater who found nothing, or called the image good."""

    @property
    def aspects(self) -> tuple[str, ...]:
        """What the marks speak of, sorted."""
        return tuple(sorted({m.aspect for by in self.looks for own in by.values() for m in own}))

    def targets(self, backbone: ClipBackbone, aspects: Sequence[str]) -> Tensor:
        """Return the maps of all raters on what CLIP sees, [N, A, MAP_SIZE, MAP_SIZE]."""
        maps = torch.zeros(len(self.paths), len(aspects), MAP_SIZE, MAP_SIZE)
        for row, (looks, (height, width)) in enumerate(zip(self.looks, self.sizes, strict=True)):
            left, top, right, bottom = seen_part(backbone.preprocess, height, width)
            scale = DRAWN_AT / min(height, width)
            high, wide = round(scale * height), round(scale * width)
            seen = (left * wide, top * high, right * wide, bottom * high)
            for place, aspect in enumerate(aspects):
                for own in looks.values():
                    if marks := [mark for mark in own if mark.aspect == aspect]:
                        drawn = Image.fromarray(mask_of(marks, high, wide)).convert("L")
                        small = drawn.resize((MAP_SIZE,) * 2, Image.Resampling.BOX, box=seen)
                        maps[row, place] += torch.from_numpy(np.array(small)) / 255 / len(looks)
        return maps


def marked_images(dataset: FeedbackDataset, part: FeedbackDataset, latest: Path) -> MarkedImages:
    """Return the images of a part of the labels, with the marks of an export.

    Marks count whose verdict the reward learns from. A verdict "bad" without an answer on marks
    says nothing about places, so its rater did not look.
    """
    by_prompt = defaultdict(list)
    for row in read_regions(latest).to_pylist():
        by_prompt[row["prompt_id"]].append(row)
    given = {text: looks_of(by_prompt[prompt_id(text)]) for text in dataset.prompts}
    sizes = {
        row["image_id"]: (row["height"], row["width"])
        for row in read_table(latest / "images.parquet", IMAGES).to_pylist()
    }
    looks: dict[tuple[int, str], dict[str, list[Mark]]] = {}
    verdicts = part.verdicts
    columns = (verdicts.image, verdicts.prompt, verdicts.rater, verdicts.good)
    for image, prompt, rater, good in np.stack(columns, axis=1).astype(int).tolist():
        text, name = dataset.prompts[prompt], dataset.raters[rater]
        own = given[text].get(dataset.image_ids[image], {}).get(name, [] if good else None)
        if own is not None:
            looks.setdefault((image, text), {})[name] = own
    ids = [dataset.image_ids[image] for image, _ in looks]
    return MarkedImages(
        paths=tuple(dataset.paths[image] for image, _ in looks),
        digests=tuple(map(bytes.fromhex, ids)),
        prompts=tuple(text for _, text in looks),
        sizes=tuple(sizes[image_id] for image_id in ids),
        looks=tuple(looks.values()),
    )


def train_maps(
    backbone: ClipBackbone,
    taught: MarkedImages,
    held_out: MarkedImages,
    config: RewardConfig,
    *,
    cache: EmbeddingCache | None = None,
    track: Epochs = iter,
) -> MapPredictor | None:
    """Train a predictor; None if nobody marked an image of `taught`.

    The images held out for validation, if any, choose the epoch. Each batch is read from the cache
    again, so memory holds the tokens of one batch.
    """
    if not taught.aspects:
        return None
    generator = torch.Generator().manual_seed(config.seed)
    predictor = MapPredictor.create(backbone, taught.aspects, generator=generator)
    head, targets = predictor.head, taught.targets(backbone, taught.aspects)
    some = torch.randperm(len(taught.paths), generator=generator)[:CENTERED].tolist()
    head.center(_tokens(taught, some, backbone, cache), targets.mean((0, 2, 3)))
    optimizer = torch.optim.AdamW(
        head.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY
    )
    wanted = held_out.targets(backbone, taught.aspects).to(backbone.device)
    targets, texts = targets.to(backbone.device), backbone.text_embedding(taught.prompts)
    best, best_epoch, weights = float("inf"), 0, None
    size = min(config.batch_size, ENCODE_BATCH)
    for epoch in track(range(1, config.epochs + 1)):
        order = torch.randperm(len(targets), generator=generator)
        for rows in order.tensor_split(math.ceil(len(order) / size)):
            tokens = _tokens(taught, rows.tolist(), backbone, cache)
            optimizer.zero_grad()
            loss = (head(tokens, texts[rows]) - targets[rows]).square().mean()
            loss.backward()
            optimizer.step()
        if not held_out.paths:
            continue
        found = predicted_maps(predictor, held_out, cache)
        error = float((found - wanted).square().mean())
        if error < best:
            best, best_epoch = error, epoch
            weights = {name: weight.clone() for name, weight in head.state_dict().items()}
        elif epoch - best_epoch >= PATIENCE:
            break
    if weights is not None:
        head.load_state_dict(weights)
    return predictor


def measure_maps(
    predictor: MapPredictor, held_out: MarkedImages, *, cache: EmbeddingCache | None, seed: int
) -> dict[str, MapFigures]:
    """Return the figures of each aspect on held-out images, with the raters' own agreement."""
    rng, figures = np.random.default_rng(seed), {}
    if not held_out.paths:
        return {}
    found = predicted_maps(predictor, held_out, cache).double().cpu().numpy()
    wanted = held_out.targets(predictor.backbone, predictor.aspects).double().numpy()
    names = [f"{row}" for row in range(len(held_out.paths))]
    shared = {name: by for name, by in zip(names, held_out.looks, strict=True) if len(by) > 1}
    sizes = dict(zip(names, held_out.sizes, strict=True))
    for place, aspect in enumerate(predictor.aspects):
        raters = figures_of(about(shared, aspect), sizes)
        ceiling = {"raters_cc": raters["map_cc"], "n_raters_maps": raters["n_maps"]}
        own = map_figures(found[:, place], wanted[:, place], rng=rng)
        figures[aspect] = own.model_copy(update=ceiling)
    return figures


@torch.no_grad()
def predicted_maps(
    predictor: MapPredictor, images: MarkedImages, cache: EmbeddingCache | None
) -> Tensor:
    """Return the predicted maps on what CLIP sees, [N, A, MAP_SIZE, MAP_SIZE]."""
    texts = predictor.backbone.text_embedding(images.prompts)

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(images.paths), ENCODE_BATCH):
            rows = range(start, min(start + ENCODE_BATCH, len(images.paths)))
            tokens = _tokens(images, rows, predictor.backbone, cache)
            yield predictor.head(tokens, texts[rows.start : rows.stop])

    return torch.cat(list(batches()))


def _tokens(
    images: MarkedImages,
    rows: Sequence[int],
    backbone: ClipBackbone,
    cache: EmbeddingCache | None,
) -> Tensor:
    return embed_patches(
        [images.paths[row] for row in rows],
        backbone,
        digests=[images.digests[row] for row in rows],
        cache=cache,
    )
