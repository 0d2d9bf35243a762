"""Progress with an estimate of the time left: a bar on a terminal, a line a minute in a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY_S = 60
"""Seconds between two lines where stderr is no terminal; work that takes less writes none."""


def progress(items: Iterable[T], title: str, unit: str, *, total: int | None = None) -> Iterable[T]:
    """Return the items and show on stderr how many are taken.

    `total` is the number of items, where `len` does not tell it.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    return _counted(items, progress_bar(title, unit, total=total))


def progress_bar(title: str, unit: str, *, total: int | None, done: int = 0) -> Any:
    """Return a bar of tqdm, or what writes lines in its place, that its user moves by `update`.

    It begins at `done`; close it.
    """
    # Of several processes, on whatever machine, the first shows its own.
    is_hidden = os.environ.get("RANK", "0") != "0"
    if is_hidden or sys.stderr.isatty():
        return tqdm(total=total, initial=done, desc=title, unit=unit, disable=is_hidden)
    return _Lines(title, unit, total, done)


def _counted(items: Iterable[T], bar: Any) -> Iterator[T]:
    with bar:
        for item in items:
            yield item
            bar.update(1)


class _Lines(AbstractContextManager["_Lines"]):
    """A count that writes a line a minute, where stderr is no terminal."""

    def __init__(self, title: str, unit: str, total: int | None, done: int) -> None:
        self.n = done
        self._about = {"total": total, "prefix": title, "unit": unit, "initial": done, "ncols": 0}
        self._started = self._written = time.monotonic()

    def update(self, count: int) -> None:
        """Count so many more as done; write a line if the last one is a minute old."""
        self.n += count
        now = time.monotonic()
        if now - self._written >= LINE_EVERY_S:
            self._written = now
            line = tqdm.format_meter(n=self.n, elapsed=now - self._started, **self._about)
            print(line, file=sys.stderr, flush=True)

    def set_postfix(self, figures: Mapping[str, float]) -> None:
        """Show these figures behind the next lines."""
        self._about["postfix"] = ", ".join(f"{name}={one:.3g}" for name, one in figures.items())

    def __exit__(self, *_error: object) -> None:
        """Write nothing more: the stage says how it ended."""
