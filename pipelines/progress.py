"""Progress bars with an estimate of the time left, quiet when nobody watches."""

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], title: str, unit: str, *, total: int | None = None) -> Iterable[T]:
    """Return the items with a bar on stderr while they are taken; no bar if that is no terminal.

    `total` is the number of items, where `len` does not tell it.
    """
    bar: Iterable[T] = tqdm(items, desc=title, unit=unit, total=total, disable=None)
    return bar


def progress_bar(title: str, unit: str, *, total: int, done: int = 0, is_shown: bool = True) -> Any:
    """Return a bar of tqdm that its user moves by `update`, from `done` on; close it.

    Of several processes one shows it.
    """
    hidden = None if is_shown else True  # None asks the terminal
    return tqdm(total=total, initial=done, desc=title, unit=unit, disable=hidden)
