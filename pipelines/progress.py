"""Progress bars with an estimate of the time left, quiet when nobody watches."""

import os
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], title: str, unit: str, *, total: int | None = None) -> Iterable[T]:
    """Return the items with a bar on stderr while they are taken; no bar if that is no terminal.

    `total` is the number of items, where `len` does not tell it.
    """
    bar: Iterable[T] = tqdm(items, desc=title, unit=unit, total=total, disable=_is_hidden())
    return bar


def progress_bar(title: str, unit: str, *, total: int, done: int = 0) -> Any:
    """Return a bar of tqdm that its user moves by `update`, from `done` on; close it."""
    return tqdm(total=total, initial=done, desc=title, unit=unit, disable=_is_hidden())


def _is_hidden() -> bool | None:
    """Whether no bar is shown; None leaves it to tqdm, which asks the terminal."""
    # Of several processes, on whatever machine, the first shows its own.
    return True if os.environ.get("RANK", "0") != "0" else None
