"""Maps of faults: the predictor's training, overlays for its page, and the files of `score`."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.errors import PictuneError
from data.files import write_atomically
from data.runs import RunFolder
from pipelines.pages.page import small_uri
from pipelines.progress import progress
from pipelines.reward.score_request import MAPS_DONE
from pipelines.run.models import open_cache
from reward.embedding import read_image
from reward.learning.examples import Examples
from reward.maps.gradient import gradient_maps
from reward.maps.head import on_image, seen_part
from reward.maps.training import MarkedImage, marked_images, measure_maps, target_maps, train_maps
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
    """Give the reward a predictor of maps, if a training image has marks.

    Return its figures, and overlays of held-out images for the page.
    """
    cache, split, backbone = open_cache(run), examples.split, model.backbone
    taught, chooses, held_out = (
        marked_images(examples.dataset, part, run.latest)
        for part in (split.train, split.val, split.test_seen.joined(split.test_unseen))
    )
    model.maps = train_maps(backbone, taught, chooses, config, cache=cache, track=_bar)
    if model.maps is None:
        return None, []
    figures = measure_maps(model.maps, backbone, held_out, cache=cache, seed=config.seed)
    report = MapsReport(images=len(taught), aspects=figures)
    return report, list(_sheets(model, held_out)) if figures else []


def _sheets(model: RewardModel, held_out: Sequence[MarkedImage]) -> Iterator[Sheet]:
    """Yield for each aspect the images with most marks: marked, and predicted."""
    assert model.maps is not None
    wanted = target_maps(held_out, model.backbone, model.maps.aspects)
    for place, aspect in enumerate(model.maps.aspects):
        most = wanted[:, place].sum((1, 2)).argsort(descending=True, stable=True)[:SHOWN].tolist()
        columns = dict[str, list[str]]()
        for row in most:
            image = read_image(held_out[row].path)
            maps = {
                "image": torch.zeros(image.shape[1:]),
                "marked": _whole(model, wanted[row : row + 1, [place]], image)[0],
                "predicted": map_of_faults(model, image, held_out[row].prompt)[aspect],
            }
            for title, found in maps.items():
                columns.setdefault(title, []).append(_overlay(image, found))
        yield {"aspect": aspect, "columns": columns}


def gradient_sheet(model: RewardModel, examples: Examples, images: ScoredImages) -> Sheet:
    """Return the gradient of the reward over the images with the lowest scores, as overlays."""
    columns: dict[str, list[str]] = {"image": [], "lowers it": []}
    for row in np.argsort(images.probability, kind="stable")[:SHOWN]:
        image = read_image(examples.dataset.paths[images.image[row]])
        found = map_of_faults(model, image, examples.dataset.prompts[images.prompt[row]])
        columns["image"].append(_overlay(image, torch.zeros(image.shape[1:])))
        columns["lowers it"].append(_overlay(image, found[GRADIENT]))
    return {"aspect": GRADIENT, "columns": columns}


def map_of_faults(model: RewardModel, image: Tensor, prompt: str) -> Mapping[str, Tensor]:
    """Return the map [H, W] of each aspect of an image [3, H, W], on the CPU.

    Without a predictor there is one of `GRADIENT`.
    """
    if model.maps is not None:
        found = model.maps.predict(model.backbone, image[None], [prompt])[0].cpu()
        return dict(zip(model.maps.aspects, found, strict=True))
    pixels = model.backbone.preprocess(image[None].to(model.backbone.device))
    return {GRADIENT: _whole(model, gradient_maps(model, pixels, [prompt]).cpu(), image)[0]}


def write_maps(
    model: RewardModel, pairs: Sequence[tuple[Path, str]], folder: Path, digest: str
) -> int:
    """Write the maps of images and prompts as `<row>-<aspect>.png`; return their number.

    A map has the image's size, with 0 for nobody and 255 for all raters. Rows count from 0.

    Raises:
        PictuneError: the folder holds other files than maps.
    """
    for file in folder.glob("*"):
        if file.name != MAPS_DONE and re.fullmatch(r"\d{6,}-[\w-]+\.png", file.name) is None:
            raise PictuneError(f"{file}: is no map, and {folder} is for maps; move it elsewhere")
    shutil.rmtree(folder, ignore_errors=True)  # of other inputs
    folder.mkdir(parents=True)
    count = 0
    for row, (path, prompt) in enumerate(progress(pairs, "maps", "image")):
        for number, (aspect, found) in enumerate(
            map_of_faults(model, read_image(path), prompt).items()
        ):
            grey = Image.fromarray((found * 255).round().byte().numpy())
            name = re.sub(r"[^\w-]", "_", aspect)[:40]  # a lead's own names may have any sign
            file = folder / f"{row:06d}-{name}.png"
            grey.save(file.with_stem(f"{file.stem}-{number}") if file.exists() else file)
            count += 1
    with write_atomically(folder / MAPS_DONE) as done:
        done.write_text(digest)
    return count


def _bar(epochs: range) -> Iterator[int]:
    yield from progress(epochs, "maps", "epoch")


def _whole(model: RewardModel, maps: Tensor, image: Tensor) -> Tensor:
    """Return a map [1, 1, S, S] of what CLIP sees, at the size of an image [3, H, W]: [1, H, W]."""
    height, width = image.shape[1:]
    return on_image(maps, seen_part(model.backbone.preprocess, height, width), height, width)[0]


def _overlay(image: Tensor, found: Tensor) -> str:
    """Return an image [3, H, W] for a page, red where its map [H, W] is 1."""
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    pixels = torch.lerp(image, red.expand_as(image), 0.75 * found)
    return small_uri(Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()))
