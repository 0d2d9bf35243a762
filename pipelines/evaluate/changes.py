"""Changes by a tuned model where raters marked faults, and elsewhere."""

import torch
from torch import Tensor

from data.runs import RunFolder
from pipelines.evaluate.figures import Change, Measured
from pipelines.finetune.regions import marked_pixels
from pipelines.run.image_io import load_images


def prompt_masks(run: RunFolder, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the union [H, W] of the marks on each prompt's images; empty without marks."""
    found: dict[str, Tensor] = {}
    for row, pixels in marked_pixels(run, size):
        found[row["prompt"]] = found.get(row["prompt"], pixels) | pixels
    return found


def change_of(run: RunFolder, drawn: Measured, base: Measured) -> Change | None:
    """Return the change of images to the base's of the same seeds, on prompts with marks.

    None if no prompt has marks both on a part of the image and not on another.
    """
    seeds = {
        (one.prompt, one.seed): path for one, path in zip(base.planned, base.paths, strict=True)
    }
    masks: dict[str, Tensor] | None = None
    parts: list[Tensor] = []
    for one, path in zip(drawn.planned, drawn.paths, strict=True):
        images = load_images([path, seeds[one.prompt, one.seed]])
        if masks is None:
            _, _, height, width = images.shape
            masks = prompt_masks(run, (height, width))
        mask = masks.get(one.prompt)
        if mask is not None and not mask.all():
            change = (images[0] - images[1]).abs().mean(0)
            parts.append(torch.stack([change[mask].mean(), change[~mask].mean()]))
    if not parts:
        return None
    inside, outside = torch.stack(parts).mean(0).tolist()
    return Change(n=len(parts), inside=inside, outside=outside)
