"""Images that stages draw: their seeds, their file names, and drawing those that are missing.

The name of an image's file says its prompt and seed, so an interrupted run finds what is there and
draws only the rest.
"""

from collections.abc import Sequence
from pathlib import Path

from finetune.diffusion import DiffusionModel
from finetune.processes import SINGLE_PROCESS, Processes
from finetune.sampler import draw_batches
from finetune.settings.sampler import Sampler
from pipelines.image_io import save_png
from pipelines.image_plan import Planned
from pipelines.progress import progress_bar


def draw_missing(
    model: DiffusionModel,
    planned: Sequence[Planned],
    folder: Path,
    sampler: Sampler,
    *,
    batch: int,
    title: str = "images",
    processes: Processes = SINGLE_PROCESS,
) -> int:
    """Draw the images that are not in `folder` yet, with a progress bar; return how many.

    `batch` images are drawn at once. Of several processes each draws whole batches, the same as one
    process would, so that the files are equal; all are there when it returns.
    """
    missing = [one for one in planned if not (folder / one.file_name).exists()]
    processes.wait()  # all have seen the folder as it was
    own = [missing[i] for i in processes.share(len(missing), batch).tolist()]
    prompts, seeds = [one.prompt for one in own], [one.seed for one in own]
    names, total = iter(own), len(planned)
    done = total - len(missing)
    with progress_bar(title, "image", total=total, done=done, is_shown=processes.is_first) as bar:
        for images in draw_batches(model, prompts, sampler, seeds=seeds, batch=batch):
            for image in images:
                save_png(image, folder / next(names).file_name)
            done = min(done + len(images) * processes.count, total)  # the others are as far
            bar.update(done - bar.n)
        processes.wait()
    return len(missing)
