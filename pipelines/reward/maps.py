"""Maps of faults: the predictor's training, overlays for its page, and the files of `score`."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.files import write_atomically
from data.runs import RunFolder
from pipelines.pages.page import small_uri
from pipelines.progress import progress
from pipelines.reward.score_request import MAPS_DONE, Request
from pipelines.run.models import open_cache
from reward.clip.cache import EmbeddingCache
from reward.embedding import ENCODE_BATCH, embed_patches, embed_prompts, read_image
from reward.files import MAPS_FILE
from reward.learning.examples import Examples
from reward.maps.gradient import gradient_maps
from reward.maps.predictor import MapPredictor, on_image, seen_part
from reward.maps.training import marked_images, measure_maps, predicted_maps, train_maps
from reward.measuring.evaluation import ScoredImages
from reward.measuring.report import MapsReport
from reward.model import RewardModel
from reward.settings import RewardConfig

GRADIENT = "gradient"
"""Stands for the aspect in names of maps that are the reward's own gradient."""
SHOWN = 4
"""Images of each aspect with overlays in the report."""
Sheet = dict[str, Any]


def train_predictor(
    run: RunFolder, model: RewardModel, examples: Examples, config: RewardConfig
) -> tuple[MapsReport | None, list[Sheet]]:
    """Train, measure and save the predictor of maps, if a training image has marks.

    Return its figures, and overlays of held-out images for the page.
    """
    (run.reward_dir / MAPS_FILE).unlink(missing_ok=True)  # of an earlier training
    cache, dataset, split = open_cache(run), examples.dataset, examples.split
    taught, chooses, held_out = (
        marked_images(dataset, part, run.latest)
        for part in (split.train, split.val, split.test_seen.joined(split.test_unseen))
    )
    predictor = train_maps(model.backbone, taught, chooses, config, cache=cache, track=_bar)
    if predictor is None:
        return None, []
    predictor.save_pretrained(run.reward_dir)
    figures = measure_maps(predictor, held_out, cache=cache, seed=config.seed)
    report = MapsReport(images=len(taught.paths), aspects=figures)
    if not figures:
        return report, []
    found = predicted_maps(predictor, held_out, cache)
    wanted = held_out.targets(model.backbone, predictor.aspects)
    sheets = []
    for place, aspect in enumerate(predictor.aspects):
        most = wanted[:, place].sum((1, 2)).argsort(descending=True, stable=True)[:SHOWN].tolist()
        columns: list[Sequence[Tensor | None]] = [[None] * len(most)]
        columns += [[maps[row, place] for row in most] for maps in (wanted, found)]
        paths, titles = [held_out.paths[row] for row in most], ("image", "marked", "predicted")
        shown = zip(titles, columns, strict=True)
        sheets.append(
            {"aspect": aspect, "columns": [(t, _overlays(model, paths, m)) for t, m in shown]}
        )
    return report, sheets


def gradient_sheets(model: RewardModel, examples: Examples, images: ScoredImages) -> list[Sheet]:
    """Return the gradient of the reward over the images with the lowest scores, as overlays."""
    worst = np.argsort(images.probability, kind="stable")[:SHOWN]
    paths = [examples.dataset.paths[row] for row in images.image[worst]]
    prompts = [examples.dataset.prompts[row] for row in images.prompt[worst]]
    maps = [_gradient(model, *pair)[0, 0] for pair in zip(paths, prompts, strict=True)]
    none = [None] * len(paths)
    columns = [
        ("image", _overlays(model, paths, none)),
        ("lowers it", _overlays(model, paths, maps)),
    ]
    return [{"aspect": GRADIENT, "columns": columns}]


def write_maps(
    model: RewardModel,
    reward: Path,
    request: Request,
    readable: Sequence[int],
    *,
    images: Path,
    image_ids: dict[str, str],
    cache: EmbeddingCache,
    folder: Path,
    digest: str,
) -> int:
    """Write a map for each aspect of each pair in `readable`, and return their number.

    `<row>-<aspect>.png` has the image's size, with 0 for nobody and 255 for all raters; the row is
    that of the table of scores, from 0. A reward without a predictor gives `<row>-gradient.png`.
    """
    has_predictor = (reward / MAPS_FILE).is_file()
    predictor = MapPredictor.from_pretrained(reward, model.backbone) if has_predictor else None
    aspects = predictor.aspects if predictor else (GRADIENT,)
    shutil.rmtree(folder, ignore_errors=True)  # of other inputs
    folder.mkdir(parents=True)
    texts = embed_prompts(request.prompts, model.backbone, cache=cache)
    starts = range(0, len(readable), ENCODE_BATCH)
    for start in progress(starts, "maps", "batch"):
        pairs = readable[start : start + ENCODE_BATCH]
        names = [request.paths[request.path[pair]] for pair in pairs]
        paths, prompts = [images / name for name in names], request.prompt[list(pairs)]
        if predictor:
            digests = [bytes.fromhex(image_ids[name]) for name in names]
            tokens = embed_patches(paths, model.backbone, digests=digests, cache=cache)
            with torch.no_grad():
                maps = list(predictor.head(tokens, texts[torch.from_numpy(prompts)])[:, None])
        else:
            said = [request.prompts[prompt] for prompt in prompts]
            maps = [_gradient(model, *pair) for pair in zip(paths, said, strict=True)]
        for row, (path, found) in enumerate(zip(paths, maps, strict=True), start=start):
            for aspect, one in zip(aspects, _whole(model, found, read_image(path))[0], strict=True):
                grey = Image.fromarray((one * 255).round().byte().cpu().numpy())
                grey.save(folder / f"{row:06d}-{aspect}.png")
    with write_atomically(folder / MAPS_DONE) as path:
        path.write_text(digest)
    return len(readable) * len(aspects)


def _bar(epochs: range) -> Iterator[int]:
    yield from progress(epochs, "maps", "epoch")


def _gradient(model: RewardModel, path: Path, prompt: str) -> Tensor:
    """Return the gradient's map [1, 1, S, S] of an image's file."""
    pixels = model.backbone.preprocess(read_image(path)[None].to(model.backbone.device))
    return gradient_maps(model, pixels, [prompt])


def _whole(model: RewardModel, maps: Tensor, image: Tensor) -> Tensor:
    """Return maps [1, A, S, S] of what CLIP sees at the size of an image [3, H, W]."""
    height, width = image.shape[1:]
    return on_image(maps, seen_part(model.backbone.preprocess, height, width), height, width)


def _overlays(
    model: RewardModel, paths: Sequence[Path], maps: Sequence[Tensor | None]
) -> list[str]:
    """Return images for a page, red where their maps [S, S] are 1; without a map, unchanged."""
    uris = []
    for path, found in zip(paths, maps, strict=True):
        image = read_image(path)
        if found is not None:
            share = 0.75 * _whole(model, found[None, None].cpu(), image)[0]
            image = (1 - share) * image + share * torch.tensor([1.0, 0, 0])[:, None, None]
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        uris.append(small_uri(Image.fromarray(pixels)))
    return uris
