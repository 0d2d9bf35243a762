"""One training of the run: opens the model and data, trains, logs and saves.

An interrupted training continues from its last checkpoint. Of several processes all train, and the
first alone writes files and messages.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import PictuneError
from data.files import write_atomically
from finetune.learning.checkpoints import latest_checkpoint, load_latest, save_checkpoint
from finetune.learning.training import TrainState
from finetune.watch import shares
from pipelines.finetune.job import Job, with_images
from pipelines.finetune.model_card import model_card
from pipelines.finetune.plan import CARD_FILE, CHECKPOINTS
from pipelines.finetune.strengths import STRENGTHS_FILE
from pipelines.progress import progress_bar
from pipelines.run.image_io import save_sheet
from pipelines.run.metrics_log import UNTRAINED, MetricsLog, read_metrics, time_spent

SAMPLE_SIZE = 128
"""Least side of an image on a sheet, in pixels (approximate)."""


def train_and_save(job: Job) -> None:
    """Train in the first process, and save the adapter with its model card."""
    for leftover in job.folder.rglob(".tmp-*"):
        leftover.unlink()  # from a process that was killed while it wrote
    (job.folder / STRENGTHS_FILE).unlink(missing_ok=True)  # from an earlier adapter
    state = train(job)
    job.training.model.adapter.save(job.folder)
    with write_atomically(job.folder / CARD_FILE) as path:
        path.write_text(model_card(job, state), encoding="utf-8")
    title = f"finetune {job.name}"
    kept, best = state.best or state.validation[-1]
    before = state.validation[0][1]
    if state.stopped:
        print(f"{title}: stopped at step {state.step}: {state.stopped}")
    print(
        f"{title}: adapter in {job.folder}, validation {job.chosen_by} {before:.3f} -> {best:.3f}"
    )
    if kept == 0:
        print(f"{title}: {UNTRAINED}")
    print(f"{title}: {time_spent(read_metrics(job.folder))}")


def train(job: Job) -> TrainState:
    """Train to the end, or until a guard stops; leave the best weights in the model.

    Errors name the checkpoint from which the training continues.
    """
    with job.training.watch.part("preparing"):
        job = with_images(job)
    state, checkpoints = job.method.start(job.training), job.folder / CHECKPOINTS
    if job.processes.is_first:
        state.show = partial(_save_samples, job.folder)
    load_latest(checkpoints, state, job.training.generator)
    job.processes.wait()  # all have loaded the checkpoint: the first may write
    try:
        with _journal(job, state) if job.processes.is_first else nullcontext() as note:
            for metrics in job.method.train(job.training, state):
                if note:
                    note(asdict(metrics))
    except PictuneError as error:
        place = latest_checkpoint(checkpoints) or "none yet"
        raise PictuneError(
            f"{error}; step {state.step + 1} failed, the last good checkpoint is {place}"
        ) from error
    state.restore_best()
    return state


@contextmanager
def _journal(job: Job, state: TrainState) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that logs each step's metrics and saves the checkpoints that are due."""
    before, marks = state.step, job.config.checkpoints
    total = job.method.total_steps(job.training.config)
    device = job.training.model.device
    bar = progress_bar(job.name, "step", total=total, done=before)
    # The line of step 0 is written together with the line of step 1.
    title = f"{job.run.root.name} {job.run.titled(job.name)}"
    trackers = job.config.trackers
    with MetricsLog(job.folder, step=before or -1, trackers=trackers, title=title) as log, bar:

        def note(metrics: dict[str, Any]) -> None:
            nonlocal before
            if before == 0:
                log.write(0, {"validation_reward": state.validation[0][1]})
            seconds = job.training.watch.lap()
            more: dict[str, Any] = {
                "peak_memory_gb": peak_memory_gb(device),
                "seconds_in_all": sum(seconds.values()),
                "share_of_time": shares(seconds),
            }
            if metrics["validation_reward"] is not None:
                kept, _ = state.best or state.validation[-1]
                more |= {"monitors": state.monitors, "kept_step": kept}
            if state.scaler.is_enabled():
                more["loss_scale"] = state.scaler.get_scale()
            log.write(state.step, metrics | more)
            bar.update(state.step - before)
            shown = ("reward", "loss", "kl")
            bar.set_postfix({key: metrics[key] for key in shown if metrics.get(key) is not None})
            if state.step * marks // total > before * marks // total:
                save_checkpoint(job.folder / CHECKPOINTS, state, job.training.generator)
            before = state.step

        yield note


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory in 10^9 bytes: of tensors on a GPU, otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _save_samples(folder: Path, step: int, samples: Tensor) -> None:
    """Write a sheet of a validation's images, uint8 [P, n, 3, H, W], a row for each prompt."""
    path = folder / "samples" / f"step-{step:07d}.png"
    save_sheet((samples / 255).unbind(), path, scale=max(1, SAMPLE_SIZE // samples.shape[-1]))
