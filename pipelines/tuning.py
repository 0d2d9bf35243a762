"""One training of the run: its settings, the hashes of its inputs, and opening what it needs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from data.errors import PictuneError
from data.files import sha256_of
from data.parquet import learned_from_digest
from data.runs import RunFolder
from finetune.diffusion import DiffusionModel, NetworkSettings
from finetune.lora import BASE, lora_file
from finetune.method import (
    LearnsFromImages,
    LearnsFromLabels,
    Method,
    MethodConfig,
    Training,
    new_training,
)
from finetune.monitors import PIXEL_MONITOR, Monitor
from finetune.processes import SINGLE_PROCESS, Processes
from finetune.reward_fn import RewardFn
from finetune.sampler import Sampler
from finetune.training import TrainState
from pipelines.campaign import images_digest
from pipelines.config import Settings
from pipelines.drawing import ImagesConfig, round_seeds, seeded
from pipelines.labeled_data import labeled_data, labeled_prompts, labels_of
from pipelines.methods import METHODS, find_method
from pipelines.models import (
    as_monitor,
    as_reward_fn,
    has_reward,
    open_model,
    open_reward_model,
    reward_hash,
    weights_hash,
)
from pipelines.prompts import focus_of, prompts_digest, prompts_of
from pipelines.record import content_hash
from pipelines.rewarded_images import (
    Encoder,
    labeled_rewards,
    pairs_hash,
    pretraining_pairs,
    rewarded_images,
)
from pipelines.rounds import lora_to_go_on_from
from reward.sources import RewardSource, load_reward

IMAGES = "images"
"""Folder, in that of the method, of the images that are drawn for it."""


class FinetuneConfig(NetworkSettings, frozen=True, extra="forbid"):
    """Settings that the methods share; each has its own in a table of its name."""

    train_on: Literal["focus", "all"] = "focus"
    """Prompts to train on: `run.focus_prompts`, or all of the run's, for a model that is to do
    better on prompts that nobody thought of. A method that learns from labels then takes all
    prompts that have some."""
    validation_prompts: tuple[str, ...] = ()
    """Held-out prompts that choose the best weights and that the guards watch; none means the
    training prompts, on seeds of their own."""
    scored_per_prompt: NonNegativeInt = 0
    """For methods that learn from images: images of each prompt that are drawn beside those of the
    run and that only the reward scores."""
    checkpoints: PositiveInt = 10
    """Number of checkpoints, evenly over the steps; an interrupted training goes on from the
    last."""
    sheets: PositiveInt = 4
    """Number of sheets of sample images, evenly over the steps, beside the one before training."""
    samples_per_prompt: PositiveInt = 6
    """Images of each prompt on a sheet, at fixed seeds."""
    rewards: tuple[RewardSource, ...] = ()
    """Rewards to tune on in place of the run's own, which the evaluation still shows: a weighted
    sum, see `reward/sources.py`."""
    strengths: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = (1.0,)
    """Strengths of the tuned LoRA, factors of its update: 0.5, 0.75, 1 is a usual choice. The
    validation after training chooses among them, and the evaluation draws at each; 0, the base, and
    1, as trained, always belong to them. Others can be asked for at any time."""

    @property
    def other_strengths(self) -> list[float]:
        """The strengths beside 0 and 1, from weak to strong; none means that none is asked for."""
        return sorted({*self.strengths} - {0.0, 1.0})


@dataclass(frozen=True)
class Job:
    """One training of a run, ready to start."""

    name: str
    """Name of the method, and of its table of settings."""
    method: Method[Any]
    run: RunFolder
    settings: Settings
    training: Training[Any]

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
    def total_steps(self) -> int:
        """Number of its steps."""
        return self.method.total_steps(self.training.config)

    @property
    def chosen_by(self) -> str:
        """The figure whose best validation chooses the weights."""
        return "reward" if self.training.reward else "accuracy on held-out labels"

    def start(self) -> TrainState:
        """Return the state before the first step."""
        return self.method.start(self.training)

    def train(self, state: TrainState) -> Iterator[dict[str, Any]]:
        """Train from `state` on and yield metrics."""
        for metrics in self.method.train(self.training, state):
            yield asdict(metrics)


def training_prompts(settings: Settings) -> tuple[str, ...]:
    """Return the prompts that methods train on, and that a later round draws."""
    if settings.table("finetune", FinetuneConfig).train_on == "all":
        return tuple(prompts_of(settings.run))
    return focus_of(settings.run)


def method_prompts(run: RunFolder, settings: Settings, name: str) -> tuple[str, ...]:
    """Return the prompts that one method trains on.

    Raises:
        PictuneError: it learns from labels, and there are none of these prompts.
    """
    prompts = training_prompts(settings)
    if not isinstance(method_config(settings, name), LearnsFromLabels):
        return prompts
    if settings.table("finetune", FinetuneConfig).train_on == "all":
        return labeled_prompts(run)
    labels_of(run, prompts)
    return prompts


def method_config(settings: Settings, name: str) -> MethodConfig:
    """Return the settings of a method."""
    return settings.table(name, MethodConfig)


def earlier_method(run: RunFolder, settings: Settings, name: str) -> str | None:
    """Return the method whose LoRA of this round the training starts from, if it is one."""
    start = method_config(settings, name).lora.start
    return start if start in METHODS and run.round == 1 else None


def start_of(run: RunFolder, settings: Settings, name: str) -> str:
    """Return the start of the training: "base", or the folder of a LoRA.

    In a round after the first, it is the method's own LoRA of the round before.
    """
    if run.round > 1:
        return str(run.in_round(run.round - 1).finetune_dir(name))
    earlier = earlier_method(run, settings, name)
    if earlier is None:
        return method_config(settings, name).lora.start
    return str(run.finetune_dir(earlier))


def input_hashes(run: RunFolder, settings: Settings, name: str) -> dict[str, str]:
    """Return hashes of everything that a training rests on, except its settings.

    Raises:
        PictuneError: something is missing, or a later round cannot go on from the LoRA before it.
    """
    prompts, model = method_prompts(run, settings, name), weights_hash(settings.run.model)
    config = method_config(settings, name)
    if run.round > 1:
        lora_to_go_on_from(run, name, model)
    inputs = {"model": model, "prompts": prompts_digest(prompts)}
    if rewards := settings.table("finetune", FinetuneConfig).rewards:
        places = [place for source in rewards for place in source.read_from]
        inputs |= {f"reward {place}": content_hash(place) for place in places}
    elif has_reward(run.reward_dir) or not isinstance(config, LearnsFromLabels):
        inputs["reward"] = reward_hash(run.reward_dir)
    if (start := start_of(run, settings, name)) != BASE:
        inputs["start"] = sha256_of(lora_file(Path(start)))
    if isinstance(config, LearnsFromLabels):
        inputs["labels"] = learned_from_digest(run)
    if isinstance(config, LearnsFromImages):
        inputs["images"] = images_digest(run)
        if config.images != "both":
            inputs["labels"] = learned_from_digest(run)
        if config.pretraining_pairs is not None:
            inputs["pretraining_pairs"] = pairs_hash(config.pretraining_pairs)
    return inputs


def open_job(
    run: RunFolder, settings: Settings, name: str, processes: Processes = SINGLE_PROCESS
) -> Job:
    """Open a model with fresh adapters, the reward, and the generator of all randomness.

    Raises:
        PictuneError: the model or the reward cannot be opened.
    """
    config, shared = method_config(settings, name), settings.table("finetune", FinetuneConfig)
    lora = config.lora.model_copy(update={"start": start_of(run, settings, name)})
    config = config.model_copy(update={"lora": lora})
    # A later round has noise of its own; seeds of runs are below 2^31.
    generator = torch.Generator().manual_seed(settings.run.seed + (run.round - 1) * 2**31)
    model = open_model(settings.run, precision=config.precision)
    model.processes = processes
    model.add_lora(lora, generator=generator)
    model.set_up(shared)
    reward, monitor = _open_reward(run, settings, config, model)
    prompts, labeled = method_prompts(run, settings, name), None
    if reward is not None:
        watched = shared.validation_prompts or prompts
        labeled = labeled_rewards(run, watched, _encoder(model, settings), reward)
    training = new_training(
        model,
        prompts,
        reward,
        config,
        generator=generator,
        sampler=settings.table("sampler", Sampler),
        validation_prompts=shared.validation_prompts,
        monitor=monitor,
        labeled=labeled,
    )
    return Job(name, find_method(name), run, settings, training)


def _open_reward(
    run: RunFolder, settings: Settings, config: MethodConfig, model: DiffusionModel
) -> tuple[RewardFn | None, Monitor]:
    """Return the reward to tune on, and the monitor; no reward if there is and has to be none.

    Raises:
        PictuneError: the reward cannot be opened, or there is none to choose a strength by.
    """
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


def _encoder(model: DiffusionModel, settings: Settings) -> Encoder:
    batch = settings.table("images", ImagesConfig).batch
    return Encoder(model, settings.table("sampler", Sampler), batch)


def with_images(job: Job) -> Job:
    """Return the job with the images or labels that its method learns from, if it does."""
    training, settings = job.training, job.settings
    config, encoder = training.config, _encoder(training.model, settings)
    if isinstance(config, LearnsFromLabels):
        labels = labeled_data(job.run, training.prompts, config, encoder, training.reward)
        return replace(job, training=replace(training, labels=labels))
    if not isinstance(config, LearnsFromImages):
        return job
    assert training.reward is not None
    pretraining = pretraining_pairs(config.pretraining_pairs, encoder)
    count, seed = job.config.scored_per_prompt, settings.run.seed
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
