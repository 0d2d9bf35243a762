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
"""Seconds between two lines if stderr is no terminal; shorter work writes no line."""


def progress(items: Iterable[T], title: str, unit: str, *, total: int | None = None) -> Iterable[T]:
    """Yield the items and show the progress on stderr.

    `total` is the number of items if they have no `len`.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    return _counted(items, progress_bar(title, unit, total=total))


def progress_bar(title: str, unit: str, *, total: int | None, done: int = 0) -> Any:
    """Return a tqdm bar, or an object that writes lines instead; call `update` for progress.

    It starts at `done`; close it after use.
    """
    # Of several processes, on any number of machines, only the first shows a bar.
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
    """A counter that writes a line per minute if stderr is no terminal."""

    def __init__(self, title: str, unit: str, total: int | None, done: int) -> None:
        self.n = done
        self._about = {"total": total, "prefix": title, "unit": unit, "initial": done, "ncols": 0}
        self._started = self._written = time.monotonic()

    def update(self, count: int) -> None:
        """Add `count` finished items; write a line if the last line is a minute old."""
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
        """Write nothing; the stage reports its end."""
