"""Drawing of the images that are missing, in batches that fit into the memory.

The name of an image's file says its prompt and seed, so an interrupted run draws only the rest.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from finetune.model.diffusion import DiffusionModel
from finetune.model.processes import SINGLE_PROCESS, Processes
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler
from pipelines.progress import progress_bar
from pipelines.run.image_io import ImageWriter
from pipelines.run.image_plan import ImagesConfig, Planned
from pipelines.run.models import open_model
from pipelines.settings.config import Settings

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


@dataclass
class Drawer:
    """Draws images by one model, of which each process draws a share."""

    model: DiffusionModel
    batch: int
    """Images drawn at once, if they fit into the device's memory."""
    processes: Processes = SINGLE_PROCESS

    @classmethod
    def open(cls, settings: Settings, processes: Processes) -> "Drawer":
        """Open the run's model, to draw by as `[run]` and `[images]` say."""
        model = open_model(settings.run)
        model.set_up(settings.run)
        return cls(model, settings.table("images", ImagesConfig).batch, processes)

    def __post_init__(self) -> None:
        self._batches = Batches(self.batch)

    def draw_missing(
        self, planned: Sequence[Planned], folder: Path, sampler: Sampler, *, title: str = "images"
    ) -> int:
        """Draw the images that are not in `folder` yet, with a progress bar; return how many.

        Of several processes each draws whole batches, the same as one process would, so that the
        files are equal; all are there when it returns.
        """
        batches = missing_batches(planned, folder, self.batch)
        missing, total = sum(len(images) for images, _ in batches), len(planned)
        processes = self.processes
        processes.wait()  # all have seen the folder as it was
        done = total - missing
        with progress_bar(title, "image", total=total, done=done) as bar, ImageWriter() as writer:
            for number, (images, size) in enumerate(batches):
                if not processes.has(number):
                    continue
                drawn = self._draw(images, size, sampler)
                writer.write(drawn, [folder / one.file_name for one in images])
                done = min(done + len(images) * processes.count, total)  # the others are as far
                bar.update(done - bar.n)
        processes.wait()
        return missing

    def _draw(self, images: Sequence[Planned], size: int, sampler: Sampler) -> Tensor:
        """Return the images [N, 3, H, W], drawn in a batch that repeats fill up to `size`."""
        filled = [*images, *[images[0]] * (size - len(images))]
        prompts, seeds = [one.prompt for one in filled], [one.seed for one in filled]
        drawn = self._batches.fit(
            lambda batch: draw(self.model, prompts, sampler, seeds=seeds, batch=batch), size
        )
        return drawn[: len(images)]


def missing_batches(
    planned: Sequence[Planned], folder: Path, batch: int
) -> list[tuple[list[Planned], int]]:
    """Return the batches of images that `folder` lacks, each with the size it is filled up to.

    Pixels depend on that size by rounding. So each image has the size that it has when all are
    drawn at once, in full batches and a rest, whatever an interrupted call has left.
    """
    whole = len(planned) - len(planned) % batch
    batches = []
    for part, size in (planned[:whole], batch), (planned[whole:], len(planned) - whole):
        missing = [one for one in part if not (folder / one.file_name).exists()]
        starts = range(0, len(missing), size or 1)
        batches += [(missing[start : start + size], size) for start in starts]
    return batches
