"""Stage `finetune`: tune the model's LoRA by one method, on the reward or on labels.

A killed run goes on from its last checkpoint. In several processes all of them train, and the first
alone writes files and speaks.
"""

import argparse
import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from data.errors import PictuneError
from data.files import write_atomically
from data.runs import RunFolder
from finetune.checkpoints import latest_checkpoint, load_latest, save_checkpoint
from finetune.lora import BASE, LORA_FILE
from finetune.processes import Processes, launched
from finetune.sampler import Sampler, draw
from finetune.training import TrainState
from pipelines.config import Settings
from pipelines.drawing import EVALUATION_SEEDS, SEEDS_PER_RUN, ImagesConfig
from pipelines.flags import one_of
from pipelines.image_io import save_sheet
from pipelines.methods import METHODS, find_method
from pipelines.metrics_log import UNTRAINED, MetricsLog
from pipelines.model_card import CARD_FILE, model_card
from pipelines.models import device_of
from pipelines.progress import progress_bar
from pipelines.record import StageFolder
from pipelines.strengths import STRENGTHS_FILE, choose_and_save, is_missing
from pipelines.tuning import (
    IMAGES,
    FinetuneConfig,
    Job,
    earlier_method,
    input_hashes,
    open_job,
    with_images,
)

CHECKPOINTS = "checkpoints"
SAMPLED_PROMPTS = 8
"""Prompts on a sheet of samples, the first ones."""
SAMPLE_SIZE = 128
"""Pixels of an image on a sheet, at least about that many."""


def main(run: RunFolder, settings: Settings, method: str) -> None:
    """Train, or go on training; keep a LoRA made from the same reward, model and settings."""
    with launched(device_of(settings.run)) as processes:
        if not processes.is_first:
            logging.disable(logging.WARNING)
        for name in _in_order(run, settings, method):
            _tune(run, settings, name, processes)
            processes.wait()  # until its LoRA is there


def _in_order(run: RunFolder, settings: Settings, method: str) -> list[str]:
    """Return the method after those whose LoRAs it starts from, directly or not.

    Raises:
        PictuneError: methods start from each other.
    """
    chain = [method]
    while (earlier := earlier_method(run, settings, chain[-1])) is not None:
        if earlier in chain:
            circle = " starts from ".join((*chain, earlier))
            raise PictuneError(f'{chain[-1]}.lora.start: {circle}; set one of them to "{BASE}"')
        chain.append(earlier)
    return chain[::-1]


def _tune(run: RunFolder, settings: Settings, name: str, processes: Processes) -> None:
    folder = run.finetune_dir(name)
    tables = ("run", "sampler", "images", "finetune", name)
    stage = StageFolder(
        run,
        settings,
        folder,
        run.titled(f"finetune {name}"),
        tables,
        inputs=input_hashes(run, settings, name),
        outputs=(folder / LORA_FILE,),
        goes_on_from={
            f"{IMAGES}/[!.]*.png": ("run", "sampler", "images"),
            f"{CHECKPOINTS}/*/manifest.json": tables,
        },
        vouched=(folder / LORA_FILE,),
    )
    is_done, is_stale = stage.is_done, stage.stamp is None and folder.exists()
    lacks_strengths = is_missing(folder, settings.table("finetune", FinetuneConfig))
    processes.wait()  # all have seen the folder as it was
    if is_done and not lacks_strengths:
        if processes.is_first:
            print(f"finetune {name}: done, LoRA in {folder}")
        return
    # First: a model that cannot be opened must not cost an earlier LoRA.
    job = open_job(run, settings, name, processes)
    if is_stale and processes.is_first:
        shutil.rmtree(folder)  # made from another reward or model
    processes.wait()
    with stage.working() if processes.is_first else nullcontext():
        if is_done:
            job.training.model.load_lora(folder)
        elif processes.is_first:
            _train_and_save(job)
        else:
            _train(job)
        if job.config.other_strengths:
            choose_and_save(job)


def _train_and_save(job: Job) -> None:
    """Train in the first process, and save the LoRA with its model card."""
    for leftover in job.folder.rglob(".tmp-*"):
        leftover.unlink()  # of a process that was killed while it wrote
    (job.folder / STRENGTHS_FILE).unlink(missing_ok=True)  # of a LoRA that was there before
    state = _train(job)
    job.training.model.save_lora(job.folder)
    with write_atomically(job.folder / CARD_FILE) as path:
        path.write_text(model_card(job, state), encoding="utf-8")
    title = f"finetune {job.name}"
    kept, best = state.best or state.validation[-1]
    before = state.validation[0][1]
    if state.stopped:
        print(f"{title}: stopped at step {state.step}: {state.stopped}")
    print(f"{title}: LoRA in {job.folder}, validation {job.chosen_by} {before:.3f} -> {best:.3f}")
    if kept == 0:
        print(f"{title}: {UNTRAINED}")


def _train(job: Job) -> TrainState:
    """Train until it is done, or a guard stops it; leave the best weights in the model.

    Raises:
        PictuneError: a loss or reward is not finite, or a file cannot be written; names the
            checkpoint to go on from.
    """
    job = with_images(job)
    state, checkpoints = job.start(), job.folder / CHECKPOINTS
    load_latest(checkpoints, state, job.training.generator)
    job.processes.wait()  # all have loaded the checkpoint, and the first may write new ones
    try:
        with _journal(job, state) if job.processes.is_first else nullcontext(_ignore) as note:
            for metrics in job.train(state):
                note(metrics)
    except PictuneError as error:
        place = latest_checkpoint(checkpoints) or "none yet"
        raise PictuneError(
            f"{error}; step {state.step + 1} failed, the last good checkpoint is {place}"
        ) from error
    state.restore_best()
    return state


def _ignore(metrics: dict[str, Any]) -> None:
    """Do nothing, in a process that is not the first."""


@contextmanager
def _journal(job: Job, state: TrainState) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield the function that is called with each step's metrics.

    It logs them, and draws samples and saves checkpoints where they are due.
    """
    if state.step == 0:
        _save_samples(job, 0)
    before, total, config = state.step, job.total_steps, job.config
    device = job.training.model.device
    bar = progress_bar(job.name, "step", total=total, done=before)
    # The line of step 0 comes again with step 1.
    with MetricsLog(job.folder, step=before or -1) as log, bar:

        def note(metrics: dict[str, Any]) -> None:
            nonlocal before
            if before == 0:
                log.write(0, {"validation_reward": state.validation[0][1]})
            more: dict[str, Any] = {"peak_memory_gb": _peak_memory_gb(device)}
            if metrics["validation_reward"] is not None:
                kept, _ = state.best or state.validation[-1]
                more |= {"monitors": state.monitors, "kept_step": kept}
            if state.scaler.is_enabled():
                more["loss_scale"] = state.scaler.get_scale()
            log.write(state.step, metrics | more)
            bar.update(state.step - before)
            shown = ("reward", "loss", "kl")
            bar.set_postfix({key: metrics[key] for key in shown if metrics.get(key) is not None})
            if _is_due(before, state.step, total, config.sheets):
                _save_samples(job, state.step)
            if _is_due(before, state.step, total, config.checkpoints):
                save_checkpoint(job.folder / CHECKPOINTS, state, job.training.generator)
            before = state.step

        yield note


def _is_due(before: int, step: int, total: int, times: int) -> bool:
    """Whether one of `times` marks, evenly over `total` steps, is after `before` and up to step."""
    return step * times // total > before * times // total


def _peak_memory_gb(device: torch.device) -> float:
    """Return the most memory so far in 10^9 bytes: of tensors on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _save_samples(job: Job, step: int) -> None:
    """Draw a row of images for each prompt, at the evaluation's first seeds, deterministically."""
    count, prompts = job.config.samples_per_prompt, job.training.prompts[:SAMPLED_PROMPTS]
    first = job.settings.run.seed * SEEDS_PER_RUN + EVALUATION_SEEDS
    images = draw(
        job.training.model,
        [prompt for prompt in prompts for _ in range(count)],
        job.settings.table("sampler", Sampler).deterministic(),
        seeds=[first + i for _ in prompts for i in range(count)],
        batch=job.settings.table("images", ImagesConfig).batch,
    )
    path = job.folder / "samples" / f"step-{step:07d}.png"
    save_sheet(images.split(count), path, scale=max(1, SAMPLE_SIZE // images.shape[-1]))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--method",
        required=True,
        type=one_of("METHOD", METHODS),
        metavar="|".join(METHODS),
        help="; ".join(f"{name}: {find_method(name).name}" for name in METHODS),
    )
