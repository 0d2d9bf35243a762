"""Drawing of missing images, in batches that fit into the memory.

File names contain prompt and seed, so an interrupted run draws only the missing images.
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
    """Batch size; permanently halved when memory runs out."""

    size: int

    def fit(self, work: Callable[[int], T], largest: int) -> T:
        """Return `work(n)` for the current size n, or for `largest` if that is less.

        `work` may be called again with a smaller n.

        Raises:
            torch.OutOfMemoryError: even one image does not fit into the memory.
        """
        while True:
            count = min(self.size, largest)
            try:
                return work(count)
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            # Outside of the handler, since its error holds references to the tensors.
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
    """Draws images with one model; each process draws a share."""

    model: DiffusionModel
    batch: int
    """Images per batch, if they fit into the device's memory."""
    processes: Processes = SINGLE_PROCESS

    @classmethod
    def open(cls, settings: Settings, processes: Processes) -> "Drawer":
        """Open the run's model with the settings `[run]` and `[images]`."""
        model = open_model(settings.run)
        model.set_up(settings.run)
        return cls(model, settings.table("images", ImagesConfig).batch, processes)

    def __post_init__(self) -> None:
        self._batches = Batches(self.batch)

    def draw_missing(
        self, planned: Sequence[Planned], folder: Path, sampler: Sampler, *, title: str = "images"
    ) -> int:
        """Draw the images that are missing in `folder`, with a progress bar; return their number.

        Each process draws whole batches, the same batches as a single process, so that the files
        are equal. All files exist when the function returns.
        """
        batches = missing_batches(planned, folder, self.batch)
        missing, total = sum(len(images) for images, _ in batches), len(planned)
        processes = self.processes
        processes.wait()  # all processes have seen the same folder
        done = total - missing
        with progress_bar(title, "image", total=total, done=done) as bar, ImageWriter() as writer:
            for number, (images, size) in enumerate(batches):
                if not processes.has(number):
                    continue
                drawn = self._draw(images, size, sampler)
                writer.write(drawn, [folder / one.file_name for one in images])
                done = min(done + len(images) * processes.count, total)  # of all processes
                bar.update(done - bar.n)
        processes.wait()
        return missing

    def _draw(self, images: Sequence[Planned], size: int, sampler: Sampler) -> Tensor:
        """Return the images [N, 3, H, W], drawn in a batch padded to `size` with repeats."""
        filled = [*images, *[images[0]] * (size - len(images))]
        prompts, seeds = [one.prompt for one in filled], [one.seed for one in filled]
        drawn = self._batches.fit(
            lambda batch: draw(self.model, prompts, sampler, seeds=seeds, batch=batch), size
        )
        return drawn[: len(images)]


def missing_batches(
    planned: Sequence[Planned], folder: Path, batch: int
) -> list[tuple[list[Planned], int]]:
    """Return the batches of images that `folder` lacks, each with its padded size.

    Pixels depend on the size by rounding. So each image gets the batch size of a complete call with
    full batches and a rest, also after an interrupted call.
    """
    whole = len(planned) - len(planned) % batch
    batches = []
    for part, size in (planned[:whole], batch), (planned[whole:], len(planned) - whole):
        missing = [one for one in part if not (folder / one.file_name).exists()]
        starts = range(0, len(missing), size or 1)
        batches += [(missing[start : start + size], size) for start in starts]
    return batches
