"""The registry of fine-tuning methods.

A method is one file, whose `METHOD` describes it, one file of settings, and one entry here.
Settings, command line, stages, model cards, report, charts and benchmarks find methods in this
table only. The table holds names of modules, which are imported on use: settings without torch, and
a method only to train or show it.
"""

import pkgutil
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from finetune.learning.method import Method


class Entry(NamedTuple):
    """One method."""

    title: str
    """Short name, as in charts."""
    method: str
    """Its `Method` as `module:attribute`."""
    settings: str
    """The class of its settings as `module:class`."""


METHODS: dict[str, Entry] = {
    "rwl": Entry(
        "RWL",
        "finetune.methods.reward_weighted:METHOD",
        "finetune.settings.reward_weighted:RewardWeightedConfig",
    ),
    "dpok": Entry("DPOK", "finetune.methods.dpok:METHOD", "finetune.settings.dpok:DPOKConfig"),
    "ddpo": Entry("DDPO", "finetune.methods.ddpo:METHOD", "finetune.settings.ddpo:DDPOConfig"),
    "nft": Entry("NFT", "finetune.methods.nft:METHOD", "finetune.settings.nft:NFTConfig"),
    "reward_gradient": Entry(
        "Reward gradient",
        "finetune.methods.reward_gradient:METHOD",
        "finetune.settings.reward_gradient:RewardGradientConfig",
    ),
    "preference": Entry(
        "Preference",
        "finetune.methods.preference:METHOD",
        "finetune.settings.preference:PreferenceConfig",
    ),
}
"""The methods by name; a method's table of settings has the same name."""


def find_method(name: str) -> "Method[Any]":
    """Return the method of this name, which must be in `METHODS`."""
    method: Method[Any] = pkgutil.resolve_name(METHODS[name].method)
    return method
