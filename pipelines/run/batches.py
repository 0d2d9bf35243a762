"""Batches that become smaller when a GPU's memory does not hold them."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from pipelines.progress import progress_bar

T = TypeVar("T")


@dataclass
class Batches:
    """Number of images that are worked on at once; halved for good when memory runs out."""

    size: int

    def fit(self, work: Callable[[int], T], largest: int) -> T:
        """Return `work(n)` for the present size n, or for `largest` if that is less.

        `work` must be able to begin again.

        Raises:
            torch.OutOfMemoryError: memory does not hold one image.
        """
        while True:
            count = min(self.size, largest)
            try:
                return work(count)
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            # Outside of the handler, whose error keeps the tensors that did not fit.
            self.size = count // 2
            note = f"{count} images at once do not fit into the memory: {self.size} from now on"
            tqdm.write(note, file=sys.stderr)

    def over(self, length: int, work: Callable[[slice], T], title: str) -> Iterator[T]:
        """Yield `work(rows)` of each batch of `length` images in order, with a progress bar."""
        start = 0
        with progress_bar(title, "image", total=length) as bar:
            while start < length:

                def some(count: int, start: int = start) -> tuple[T, int]:
                    return work(slice(start, start + count)), count

                done, count = self.fit(some, length - start)
                yield done
                start += count
                bar.update(count)
