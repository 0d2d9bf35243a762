"""Speed of drawing: `python -m benchmarks.bench_drawing`.

Results are in `results/bench_drawing.json`. Pictune's loop draws images to PNG files and hashes
them, as the stage `images` does. It is compared with a plain loop of diffusers with the same
prompts, seeds, batches, DDIM steps, guidance and eta, which saves and hashes each image before the
next batch. The third row is Pictune's loop without threads: it shows the gain of writing while the
next images are drawn. All loops take turns in one process and must draw the same images up to
rounding: no pixel of 0 to 255 may differ by more than 2 from the plain loop's pixel. So no loop can
gain speed by less work. Images per second are from the best round, since other programs only slow a
loop down; images per processor second are also valid on a busy machine. The first round warms up.
"""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image

from benchmarks.record import arguments, record, timed
from data.files import sha256_of
from data.image_files import THREADS
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw_batches
from finetune.settings.sampler import Sampler
from pipelines.run.drawing import Drawer
from pipelines.run.image_io import save_png
from pipelines.run.image_plan import Planned, seeded

PROMPTS = ("A cat and a dog.", "A dog on the moon.", "Four wolves in the park.", "A red rabbit.")
PLAIN = "plain"
"""Name of the baseline loop."""


@dataclass(frozen=True)
class Work:
    """The images that each loop draws."""

    model: DiffusionModel
    planned: Sequence[Planned]
    sampler: Sampler
    batch: int

    def ours(self, folder: Path) -> list[str]:
        """Draw and hash them as the stage does; return the hashes."""
        Drawer(self.model, self.batch).draw_missing(self.planned, folder, self.sampler)
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(sha256_of, self.paths(folder)))

    def ours_in_turn(self, folder: Path) -> list[str]:
        """Draw, then write, then draw again, in one thread."""
        prompts, seeds = [one.prompt for one in self.planned], [one.seed for one in self.planned]
        paths = iter(self.paths(folder))
        for images in draw_batches(
            self.model, prompts, self.sampler, seeds=seeds, batch=self.batch
        ):
            for image in images:
                save_png(image, next(paths))
        return [sha256_of(path) for path in self.paths(folder)]

    def plain(self, folder: Path) -> list[str]:
        """Draw them by the stock pipeline, as its documentation shows."""
        folder.mkdir()
        parts = self.model.pipeline.components
        scheduler = DDIMScheduler.from_config(self.model.pipeline.scheduler.config)
        pipeline = type(self.model.pipeline)(
            **parts | {"scheduler": scheduler}, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        hashes = []
        for start in range(0, len(self.planned), self.batch):
            some = self.planned[start : start + self.batch]
            images = pipeline(
                [one.prompt for one in some],
                num_inference_steps=self.sampler.steps,
                guidance_scale=self.sampler.guidance,
                eta=self.sampler.eta,
                generator=[torch.Generator().manual_seed(one.seed) for one in some],
            ).images
            for one, image in zip(some, images, strict=True):
                image.save(folder / one.file_name)
                hashes.append(sha256_of(folder / one.file_name))
        return hashes

    def paths(self, folder: Path) -> list[Path]:
        """Return the files in the order of the work."""
        return [folder / one.file_name for one in self.planned]


def compare(work: Work, rounds: int) -> dict[str, Any]:
    """Run all loops in turns; return their figures and the largest difference of a pixel."""
    loops: dict[str, Callable[[Path], list[str]]] = {
        "ours": work.ours,
        "ours_in_turn": work.ours_in_turn,
        PLAIN: work.plain,
    }
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    difference = 0
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as root:
            for name, loop in loops.items():
                costs[name].append(timed(partial(loop, Path(root) / name)))
                assert len(list((Path(root) / name).iterdir())) == len(work.planned)
            difference = max(difference, _difference(work, Path(root)))
    figures: dict[str, Any] = {"largest_difference_of_a_pixel": difference}
    for name, spent in costs.items():
        seconds, cpu_seconds = (
            min(one[unit] for one in spent[1:]) for unit in ("seconds", "cpu_seconds")
        )
        figures[name] = {
            "images_per_second": round(len(work.planned) / seconds, 3),
            "images_per_cpu_second": round(len(work.planned) / cpu_seconds, 3),
        }
    for kind in ("images_per_second", "images_per_cpu_second"):
        for name in ("ours", "ours_in_turn"):
            ratio = figures[name][kind] / figures[PLAIN][kind]
            figures[name][f"ratio_{kind}"] = round(ratio, 3)
    return figures


def _difference(work: Work, folder: Path) -> int:
    """Return the largest difference of a pixel between our images and the plain loop's."""
    pairs = zip(work.paths(folder / "ours"), work.paths(folder / PLAIN), strict=True)
    return max(int(np.abs(_pixels(mine) - _pixels(other)).max()) for mine, other in pairs)


def _pixels(path: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    with Image.open(path) as image:
        return np.asarray(image, np.int16)


def main() -> None:
    """Run the loops, print and write the figures."""
    given = arguments(
        __doc__, model="models/emoji-sd", device="cpu", rounds=3, images=8, steps=20, batch=8
    )
    model = DiffusionModel.from_pretrained(given.model, device=torch.device(given.device))
    planned = seeded(PROMPTS, given.images, run_seed=0)
    work = Work(model, planned, Sampler(steps=given.steps), given.batch)
    figures = compare(work, given.rounds)
    print(figures)
    record("bench_drawing", {"threads": torch.get_num_threads(), "work": vars(given)} | figures)
    if figures["largest_difference_of_a_pixel"] > 2:
        raise SystemExit("the images differ, so the times cannot be compared")


if __name__ == "__main__":
    main()
