"""A training of the run, ready to start: its model, reward, data and generator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.learning.method import Method, Training, new_training
from finetune.learning.monitors import PIXEL_MONITOR, Monitor
from finetune.learning.regions import Regions
from finetune.learning.reward_fn import RewardFn
from finetune.model.diffusion import DiffusionModel
from finetune.model.processes import SINGLE_PROCESS, Processes
from finetune.settings.method import LearnsFromImages, LearnsFromLabels, MethodConfig
from finetune.settings.sampler import Sampler
from finetune.watch import Watch
from pipelines.finetune.plan import (
    IMAGES,
    has_regions,
    method_config,
    method_prompts,
    start_of,
)
from pipelines.finetune.regions import open_regions
from pipelines.finetune.training_data import (
    Encoder,
    labeled_data,
    rewarded_images,
    run_images,
)
from pipelines.methods import find_method
from pipelines.run.image_io import load_fitted
from pipelines.run.image_plan import ImagesConfig, round_seeds, seeded
from pipelines.run.model_hashes import has_reward
from pipelines.run.models import as_monitor, as_reward_fn, open_model, open_reward_model
from pipelines.run.prompts import meta_of
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig
from reward.sources import load_reward

EXAMPLES = 32
"""Images of a prompt, of those of the run, that a reward's spread is measured on."""


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
    watch = watch_of(model.device)
    model.processes = replace(processes, watch=watch)
    model.add_adapter(adapter, generator=generator)
    model.set_up(settings.run)
    if shared.gradient_checkpointing:
        model.checkpoint_gradients()
    prompts = method_prompts(run, settings, name)
    reward, monitor = _open_reward(run, settings, config, model, prompts)
    sampler, batch = (
        settings.table("sampler", Sampler),
        settings.table("images", ImagesConfig).batch,
    )
    marked = open_regions(run, settings, model, prompts) if has_regions(settings, name) else None
    encoder = Encoder(model, sampler, batch, marked)
    training = new_training(
        model,
        prompts,
        reward,
        config,
        generator=generator,
        sampler=sampler,
        validation_prompts=shared.validation_prompts,
        monitor=monitor,
        watch=watch,
        rules=shared.validation,
        batch=batch,
    )
    if marked is not None:
        regions = Regions(marked.of_drawn, shared.outside_weight)
        training = replace(training, regions=regions)
    return Job(name, find_method(name), run, settings, training, encoder)


def watch_of(device: torch.device) -> Watch:
    """Return a watch; on a GPU its marks are events in the queue of work, as work runs late."""
    if device.type == "cpu":
        return Watch()
    gpu = torch.get_device_module(device)

    def mark() -> Any:
        event = gpu.Event(enable_timing=True)
        event.record(gpu.current_stream(device))
        return event

    def between(start: Any, end: Any) -> float:
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return Watch(mark, between)


def _open_reward(
    run: RunFolder,
    settings: Settings,
    config: MethodConfig,
    model: DiffusionModel,
    prompts: Sequence[str],
) -> tuple[RewardFn | None, Monitor]:
    """Return the reward to tune on (None if the method works without one) and the monitor."""
    shared = settings.table("finetune", FinetuneConfig)
    if shared.rewards:
        drawn = sorted({*prompts, *shared.validation_prompts})
        rewards = load_reward(
            shared.rewards,
            device=model.device,
            meta=meta_of(settings.run),
            examples={prompt: partial(_examples, run, prompt, model) for prompt in drawn},
            combine=shared.combine,
        )
        return rewards, PIXEL_MONITOR
    if isinstance(config, LearnsFromLabels) and not has_reward(run.reward_dir):
        if shared.other_strengths:
            raise PictuneError(
                "finetune.strengths: there is no reward to choose among them by; run `make reward` "
                "first, or leave them out"
            )
        return None, PIXEL_MONITOR
    trained = open_reward_model(run.reward_dir, settings.run)
    return as_reward_fn(trained), as_monitor(trained)


def _examples(run: RunFolder, prompt: str, model: DiffusionModel) -> Tensor:
    """Return images of the run of a prompt, [n, 3, H, W] of the model's size."""
    images = [path for path, _ in run_images(run, [prompt])[:EXAMPLES]]
    empty = torch.zeros(0, 3, *model.image_size)
    fitted = [load_fitted(path, model.image_size) for path in images]
    return (torch.stack(fitted) if fitted else empty).to(model.device)


def with_images(job: Job) -> Job:
    """Return the job with the images or labels that its method learns from, if any."""
    training, encoder, config = job.training, job.encoder, job.training.config
    if isinstance(config, LearnsFromLabels):
        labels = labeled_data(job.run, training.prompts, config, encoder)
        return replace(job, training=replace(training, data=labels))
    if not isinstance(config, LearnsFromImages):
        return job
    assert training.reward is not None
    count, seed = job.config.scored_per_prompt, job.settings.run.seed
    first = round_seeds(job.run.round, scored=True)
    scored = seeded(training.prompts, count, seed, offset=first)
    data = rewarded_images(
        job.run,
        training.prompts,
        encoder,
        training.reward,
        scored=scored,
        folder=job.folder / IMAGES,
    )
    return replace(job, training=replace(training, data=data))
