"""The weights of models, as far as all of them can be checked alike; of torch's tensors only their methods are used."""

import math
from collections.abc import Mapping
from typing import Any

from data.errors import PictuneError


def check_finite(weights: Mapping[str, Any], where: str) -> None:
    """Refuses weights by name that are no numbers, with which a model would draw or score all the same.

    Raises:
        PictuneError: names the first of them, and says how many there are.
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
    return all(
        math.isfinite(end) for end in weight.detach().aminmax()
    )  # isfinite() of a tensor copies it, and takes far longer
