"""Progress with an estimate of the time left: a bar on a terminal, nothing elsewhere."""

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], title: str, unit: str, *, total: int | None = None) -> Iterable[T]:
    """Yield the items and show the progress on stderr.

    `total` is the number of items if they have no `len`.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    return _counted(items, progress_bar(title, unit, total=total))


def progress_bar(title: str, unit: str, *, total: int | None, done: int = 0) -> Any:
    """Return a tqdm bar that starts at `done`; call `update` for progress, and close it after use.

    Of several processes, on any number of machines, only the first shows a bar.
    """
    is_hidden = os.environ.get("RANK", "0") != "0" or not sys.stderr.isatty()
    return tqdm(total=total, initial=done, desc=title, unit=unit, disable=is_hidden)


def _counted(items: Iterable[T], bar: Any) -> Iterator[T]:
    with bar:
        for item in items:
            yield item
            bar.update(1)
