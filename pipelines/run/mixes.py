"""Names of mixes, such as `rwl*0.5+dpok*0.5`, and the saved adapters that draw together.

`+` adds the predictions; `|` in its place takes one adapter a step, with its weight as probability.
What weights leave to 1 belongs to the base; `finetune.model.mix` has the formulas.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data.errors import PictuneError
from data.files import sha256_of
from finetune.settings.adapter_kinds import adapter_file
from pipelines.flags import check_word

if TYPE_CHECKING:
    from finetune.model.diffusion import DiffusionModel

_WEIGHT = re.compile(r"\d{1,2}(\.\d{1,4})?|\.\d{1,4}")


class Mix(NamedTuple):
    """Weights of tuned models."""

    weights: dict[str, float]
    """Weights by the models' names."""
    one_a_step: bool

    def __str__(self) -> str:
        """Return the mix's name."""
        sign = "|" if self.one_a_step else "+"
        return sign.join(f"{name}*{weight:g}" for name, weight in self.weights.items())


def is_mix(name: str) -> bool:
    """Whether a model's name is that of a mix."""
    return any(sign in name for sign in "*+|")


def read_mix(what: str, text: str, known: Iterable[str]) -> Mix:
    """Return the mix of this name, whose models must be `known`; errors call it `what`.

    A model without a weight has weight 1.

    Raises:
        PictuneError: a model is unknown or named twice, a weight is no number from 0 to 99.9999
            with at most four decimals, both signs occur, or probabilities sum to more than 1.
    """
    known, one_a_step, weights = list(known), "|" in text, dict[str, float]()
    if one_a_step and "+" in text:
        raise PictuneError(
            f"{what} {text}: has + and |; + adds predictions and | takes one adapter a step, so "
            "use one of them"
        )
    for part in re.split(r"[+|]", text):
        name, star, number = (word.strip() for word in part.partition("*"))
        check_word(what, name, known)
        if name in weights:
            raise PictuneError(f"{what} {text}: names {name} twice; give it one weight")
        if star and not _WEIGHT.fullmatch(number):
            raise PictuneError(
                f"{what} {text}: {number!r} is no weight; give a number from 0 to 99 with at most "
                f"four decimals, as {name}*0.5"
            )
        weights[name] = float(number) if star else 1.0
    total = fsum(weights.values())
    if one_a_step and total > 1 + 1e-9:
        raise PictuneError(
            f"{what} {text}: the weights of one adapter a step are probabilities, and they sum to "
            f"{total:g}; let them sum to at most 1"
        )
    return Mix(weights, one_a_step)


@dataclass(frozen=True)
class SavedAdapters:
    """Saved adapters that draw together."""

    weights: dict[Path, float]
    """Weights by the adapters' folders."""
    one_a_step: bool = False

    @property
    def hash(self) -> str:
        """SHA-256 of the adapter's file; with several or other weights than 1, of all and these."""
        hashes = [
            (sha256_of(adapter_file(folder)), weight)
            for folder, weight in self.weights.items()
            if weight
        ]
        if [weight for _, weight in hashes] == [1]:
            return hashes[0][0]
        lines = [f"{weight:g} {one}" for one, weight in sorted(hashes)]
        kind = "one a step" if self.one_a_step else "sum"
        return hashlib.sha256("\n".join([kind, *lines]).encode()).hexdigest()

    def load(self, model: "DiffusionModel") -> None:
        """Replace the model's adapter by these."""
        model.load_mix(self.weights, one_a_step=self.one_a_step)
