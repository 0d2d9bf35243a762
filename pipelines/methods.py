"""The registry of fine-tuning methods.

A method is one file, whose `METHOD` describes it, and one line here. Settings, command line,
stages, model cards, report, charts and benchmarks know methods from this table only.
"""

import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.method import Method

METHODS: dict[str, str] = {
    "rwl": "finetune.reward_weighted:METHOD",
    "dpok": "finetune.dpok:METHOD",
    "ddpo": "finetune.ddpo:METHOD",
    "nft": "finetune.nft:METHOD",
    "reward_gradient": "finetune.reward_gradient:METHOD",
    "preference": "finetune.preference:METHOD",
}
"""Name of each method, which its table of settings has too, and the place of its `Method`. It is
imported when it is used, since stages that train nothing must do without torch."""


def find_method(name: str) -> "Method[Any]":
    """Return the method of this name, which must be in `METHODS`."""
    method: Method[Any] = pkgutil.resolve_name(METHODS[name])
    return method
