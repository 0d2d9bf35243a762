"""One training of the run: opens the model and data, trains, logs and saves.

An interrupted training continues from its last checkpoint. Of several processes all train, and the
first alone writes files and messages.
"""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import PictuneError
from data.files import write_atomically
from data.runs import RunFolder
from finetune.learning.checkpoints import latest_checkpoint, load_latest, save_checkpoint
from finetune.learning.method import Method, Training, new_training
from finetune.learning.monitors import PIXEL_MONITOR, Monitor
from finetune.learning.reward_fn import RewardFn
from finetune.learning.training import TrainState
from finetune.model.diffusion import DiffusionModel
from finetune.model.processes import SINGLE_PROCESS, Processes
from finetune.settings.method import LearnsFromImages, LearnsFromLabels, MethodConfig
from finetune.settings.sampler import Sampler
from finetune.watch import Watch, shares
from pipelines.finetune.model_card import model_card
from pipelines.finetune.plan import (
    CARD_FILE,
    CHECKPOINTS,
    IMAGES,
    method_config,
    method_prompts,
    start_of,
)
from pipelines.finetune.strengths import STRENGTHS_FILE
from pipelines.finetune.training_data import (
    Encoder,
    labeled_data,
    labeled_rewards,
    pretraining_pairs,
    rewarded_images,
)
from pipelines.methods import find_method
from pipelines.progress import progress_bar
from pipelines.run.image_io import save_sheet
from pipelines.run.image_plan import ImagesConfig, round_seeds, seeded
from pipelines.run.metrics_log import UNTRAINED, read_metrics, time_spent
from pipelines.run.model_hashes import has_reward
from pipelines.run.models import as_monitor, as_reward_fn, open_model, open_reward_model
from pipelines.run.training_log import MetricsLog
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig
from reward.sources import load_reward

SAMPLE_SIZE = 128
"""Least side of an image on a sheet, in pixels (approximate)."""


@dataclass(frozen=True)
class Job:
    """One training of a run, ready to start."""

    name: str
    """Name of the method, and of its table of settings."""
    method: Method[Any]
    run: RunFolder
    settings: Settings
    training: Training[Any]
    encoder: Encoder

    @property
    def config(self) -> FinetuneConfig:
        """The table [finetune]."""
        return self.settings.table("finetune", FinetuneConfig)

    @property
    def folder(self) -> Path:
        """The folder that the training writes to."""
        return self.run.finetune_dir(self.name)

    @property
    def processes(self) -> Processes:
        """The processes that share the training."""
        return self.training.model.processes

    @property
    def chosen_by(self) -> str:
        """The figure whose best validation chooses the weights."""
        return "reward" if self.training.reward else "accuracy on held-out labels"


def open_job(
    run: RunFolder, settings: Settings, name: str, processes: Processes = SINGLE_PROCESS
) -> Job:
    """Open a model with a new adapter, the reward, and the generator of all randomness."""
    config, shared = method_config(settings, name), settings.table("finetune", FinetuneConfig)
    adapter = config.adapter.model_copy(update={"start": start_of(run, settings, name)})
    config = config.model_copy(update={"adapter": adapter})
    # Each round has its own noise; seeds of runs are below 2^31.
    generator = torch.Generator().manual_seed(settings.run.seed + (run.round - 1) * 2**31)
    model = open_model(settings.run)
    watch = Watch(partial(_now, model.device))
    model.processes = replace(processes, watch=watch)
    model.add_adapter(adapter, generator=generator)
    model.set_up(settings.run)
    if shared.gradient_checkpointing:
        model.checkpoint_gradients()
    reward, monitor = _open_reward(run, settings, config, model)
    prompts, labeled = method_prompts(run, settings, name), dict[str, Tensor]()
    sampler, batch = (
        settings.table("sampler", Sampler),
        settings.table("images", ImagesConfig).batch,
    )
    encoder = Encoder(model, sampler, batch)
    if reward is not None:
        watched = shared.validation_prompts or prompts
        labeled = labeled_rewards(run, watched, encoder, reward)
    training = new_training(
        model,
        prompts,
        reward,
        config,
        generator=generator,
        sampler=sampler,
        validation_prompts=shared.validation_prompts,
        monitor=monitor,
        labeled=labeled,
        watch=watch,
        rules=shared.validation,
        batch=batch,
    )
    return Job(name, find_method(name), run, settings, training, encoder)


def _now(device: torch.device) -> float:
    """Return the time in seconds after the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _open_reward(
    run: RunFolder, settings: Settings, config: MethodConfig, model: DiffusionModel
) -> tuple[RewardFn | None, Monitor]:
    """Return the reward to tune on (None if the method works without one) and the monitor."""
    shared = settings.table("finetune", FinetuneConfig)
    if shared.rewards:
        return load_reward(shared.rewards, device=model.device), PIXEL_MONITOR
    if isinstance(config, LearnsFromLabels) and not has_reward(run.reward_dir):
        if shared.other_strengths:
            raise PictuneError(
                "finetune.strengths: there is no reward to choose among them by; run `make reward` "
                "first, or leave them out"
            )
        return None, PIXEL_MONITOR
    trained = open_reward_model(run.reward_dir, settings.run)
    return as_reward_fn(trained), as_monitor(trained)


def with_images(job: Job) -> Job:
    """Return the job with the images or labels that its method learns from, if any."""
    training, encoder, config = job.training, job.encoder, job.training.config
    if isinstance(config, LearnsFromLabels):
        labels = labeled_data(job.run, training.prompts, config, encoder, training.reward)
        return replace(job, training=replace(training, data=labels))
    if not isinstance(config, LearnsFromImages):
        return job
    assert training.reward is not None
    pretraining = pretraining_pairs(config.pretraining_pairs, encoder)
    count, seed = job.config.scored_per_prompt, job.settings.run.seed
    first = round_seeds(job.run.round, scored=True)
    scored = seeded(training.prompts, count, seed, offset=first)
    data = rewarded_images(
        job.run,
        training.prompts,
        config.images,
        encoder,
        training.reward,
        scored=scored,
        folder=job.folder / IMAGES,
        table=job.name,
    )
    training = replace(training, data=data, pretraining=pretraining)
    return replace(job, training=training)


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
    with MetricsLog(job.folder, step=before or -1) as log, bar:

        def note(metrics: dict[str, Any]) -> None:
            nonlocal before
            if before == 0:
                log.write(0, {"validation_reward": state.validation[0][1]})
            seconds = job.training.watch.lap()
            more: dict[str, Any] = {
                "peak_memory_gb": _peak_memory_gb(device),
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


def _peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory in 10^9 bytes: of tensors on a GPU, otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _save_samples(folder: Path, step: int, samples: Tensor) -> None:
    """Write a sheet of a validation's images, uint8 [P, n, 3, H, W], a row for each prompt."""
    path = folder / "samples" / f"step-{step:07d}.png"
    save_sheet((samples / 255).unbind(), path, scale=max(1, SAMPLE_SIZE // samples.shape[-1]))
