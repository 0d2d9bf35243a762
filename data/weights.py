"""Checks that all models share; they call methods of tensors and import no torch."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import PictuneError


def check_model_folder(source: str) -> Path | None:
    """Return the diffusers folder that `source` names, or None for an id of the hub.

    Raises:
        PictuneError: the folder does not exist, or is not a diffusers folder.
    """
    folder = Path(source)
    if not folder.exists():
        if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not folder.parent.exists():
            return None
        advice = "give a diffusers folder or a hub id such as owner/name"
        raise PictuneError(f"{source}: no such model folder; {advice}")
    if not (folder / "model_index.json").is_file():
        raise PictuneError(
            f"{source}: no model_index.json in it, so it is not a diffusers folder; "
            "save one with pipeline.save_pretrained"
        )
    return folder


def check_finite(weights: Mapping[str, Any], where: str) -> None:
    """Raise unless all weights are finite; with NaN a model would still draw or score.

    Args:
        weights: tensors by name.
        where: names the model, for the error.

    Raises:
        PictuneError: names the first broken weight and says how many there are.
    """
    broken = [name for name, weight in weights.items() if not _is_finite(weight)]
    if broken:
        count = f"{len(broken)} of {len(weights)} weights"
        raise PictuneError(
            f"{where}: NaN or infinity in {broken[0]} ({count}); fetch or train it again"
        )


def _is_finite(weight: Any) -> bool:
    if not weight.is_floating_point() or not weight.numel():
        return True
    # isfinite() copies the tensor and takes far longer
    return all(math.isfinite(end) for end in weight.detach().aminmax())
