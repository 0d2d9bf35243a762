"""A check of weights that all models share; it calls methods of tensors and imports no torch."""

import math
from collections.abc import Mapping
from typing import Any

from data.errors import PictuneError


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
    # isfinite() of a tensor copies it, and takes far longer
    return all(math.isfinite(end) for end in weight.detach().aminmax())
