"""Marks on a run's images, and predicted ones, as masks of a model's latents."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data.errors import PictuneError
from data.quality.regions import looks_of
from data.regions import Mark, mask_of, read_regions, regions_file
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from finetune.learning.regions import latent_mask
from finetune.model.diffusion import DiffusionModel
from pipelines.run.image_io import load_fitted
from pipelines.run.models import open_reward_model
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig

Predict = Callable[[Tensor, Sequence[str]], Tensor]


class MarkedImages:
    """The marks of a run's images: an image's mask is the union of the marks of all its raters."""

    def __init__(self, run: RunFolder, model: DiffusionModel, prompts: Sequence[str]) -> None:
        """Read the marks.

        Raises:
            PictuneError: there are no marks, or none on images of the prompts.
        """
        self._by_path: dict[Path, Tensor] = {}
        self._by_prompt: dict[str, Tensor] = {}
        _, *size = model.latent_shape
        self._none = torch.zeros(1, *size, device=model.device)
        for row, pixels in marked_pixels(run, model.image_size):
            mask = latent_mask(pixels[None], (size[0], size[1]))[0].to(model.device)
            self._by_path[run.root / row["path"]] = mask
            before = self._by_prompt.get(row["prompt"], self._none)
            self._by_prompt[row["prompt"]] = torch.maximum(before, mask)
        if not self._by_prompt.keys() & set(prompts):
            raise PictuneError(
                f"{regions_file(run.latest)}: no mark on an image of the training prompts, such as "
                f'{prompts[0]!r}; mark their images, or set finetune.regions="off"'
            )

    def of_files(self, paths: Sequence[Path], _: Sequence[str]) -> Tensor:
        """Return the masks [N, 1, h, w] of image files; 0 where an image has no marks."""
        return torch.stack([self._by_path.get(path, self._none) for path in paths])

    def of_drawn(self, _: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return for new images the masks of their prompts, [N, 1, h, w].

        A prompt's mask is the union of all marks on its images. A prompt without marks has an empty
        mask.
        """
        return torch.stack([self._by_prompt.get(prompt, self._none) for prompt in prompts])


class PredictedRegions:
    """Masks by the reward's predictor of maps: the places that raters would mark."""

    def __init__(self, predict: Predict, model: DiffusionModel, least: float) -> None:
        """Take the places where a map of any aspect is at least `least`.

        `predict` takes images [N, 3, H, W] and their prompts, and returns maps [N, A, H, W].
        """
        self._predict, self._model, self._least = predict, model, least

    def of_files(self, paths: Sequence[Path], prompts: Sequence[str]) -> Tensor:
        """Return the masks [N, 1, h, w] of image files and their prompts."""
        size = self._model.image_size
        found = [
            self._masks(load_fitted(path, size)[None], [prompt])
            for path, prompt in zip(paths, prompts, strict=True)
        ]
        return torch.cat(found)

    def of_drawn(self, latents: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the masks [N, 1, h, w] of the images of latents [N, C, h, w]."""
        with torch.no_grad():
            return self._masks(self._model.decode(latents), prompts)

    def _masks(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        maps = self._predict(images, prompts).amax(1)
        _, height, width = self._model.latent_shape
        return latent_mask(maps >= self._least, (height, width)).to(self._model.device)


def open_regions(
    run: RunFolder, settings: Settings, model: DiffusionModel, prompts: Sequence[str]
) -> MarkedImages | PredictedRegions:
    """Return the masks that `finetune.regions` asks for.

    Raises:
        PictuneError: there are no marks, or none on images of the prompts.
    """
    shared = settings.table("finetune", FinetuneConfig)
    if shared.regions == "marks":
        return MarkedImages(run, model, prompts)
    reward = open_reward_model(run.reward_dir, settings.run)
    assert reward.maps is not None  # the plan of the training has looked
    predict = partial(reward.maps.predict, reward.backbone)
    return PredictedRegions(predict, model, shared.region_threshold)


def marked_pixels(run: RunFolder, size: tuple[int, int]) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Yield the rows of IMAGES with marks, each with its marked pixels [H, W] at this size."""
    looks = looks_of(read_regions(run.latest).to_pylist())
    for row in read_table(run.images_table, IMAGES).to_pylist() if looks else ():
        found = [mark for own in looks.get(row["image_id"], {}).values() for mark in own]
        if found:
            yield row, fitted(found, (row["height"], row["width"]), size)


def fitted(marks: Sequence[Mark], size: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Return the pixels [H, W] of size `to` that marks cover on an image of another size.

    Sizes are (height, width). The image is scaled and cropped as `load_fitted` does.
    """
    whole = Image.fromarray(mask_of(marks, *size))
    if size != to:
        grey, (height, width) = whole.convert("L"), to
        whole = ImageOps.fit(grey, (width, height), Image.Resampling.BOX)
    return torch.from_numpy(np.array(whole)) > 0
