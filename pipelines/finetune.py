"""Stage `finetune`: tunes the model's LoRA on the reward by RWL, DPOK or DDPO, with checkpoints that a killed run goes on from.

In several processes all of them train, and the first alone writes files and speaks.
"""

import logging
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of, write_atomically
from data.parquet import MANIFEST
from data.runs import RunFolder
from finetune import policy_gradient, reward_weighted
from finetune.ddpo import DDPOConfig
from finetune.diffusion import BASE, LORA_FILE, DiffusionModel, UNetSettings, lora_file
from finetune.dpok import DPOKConfig
from finetune.monitors import PIXELS, Monitor
from finetune.policy_gradient import PolicyGradientConfig
from finetune.processes import ALONE, Processes, launched
from finetune.reward_fn import RewardFn
from finetune.sampling import draw
from finetune.training import TrainState, latest_checkpoint, load_latest, save_checkpoint
from pipelines.config import Settings
from pipelines.images import (
    EVALUATION_SEEDS,
    SCORED_SEEDS,
    SEEDS_PER_RUN,
    ImagesConfig,
    focus_of,
    prompts_digest,
    prompts_of,
    seeded,
    weights_hash,
)
from pipelines.metrics_log import UNTRAINED, MetricsLog
from pipelines.models import (
    as_monitor,
    as_reward_fn,
    device_of,
    open_model,
    open_reward_model,
    reward_hash,
)
from pipelines.pictures import save_sheet
from pipelines.record import StageFolder, content_hash
from pipelines.rewarded_images import (
    Encoder,
    RWLConfig,
    pairs_hash,
    pretraining_pairs,
    rewarded_images,
)
from pipelines.tasks import images_digest
from reward.sources import RewardSource, load_reward

CHECKPOINTS, IMAGES = "checkpoints", "images"
Method = Literal["rwl", "dpok", "ddpo"]
CONFIGS: dict[Method, type[DPOKConfig | DDPOConfig | RWLConfig]] = {
    "rwl": RWLConfig,
    "dpok": DPOKConfig,
    "ddpo": DDPOConfig,
}
TITLES: dict[Method, str] = {
    "rwl": "reward-weighted likelihood (Lee et al. 2023, arXiv 2302.12192)",
    "dpok": "DPOK (Fan et al. 2023, arXiv 2305.16381)",
    "ddpo": "DDPO (Black et al. 2023, arXiv 2305.13301)",
}

_CARD = """# LoRA tuned by {title}

On `{model}`, for {reward}. Prompts: {prompts}

From the folder that the training was started in:

```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({opened}, dtype=torch.float32)
pipeline.load_lora_weights({folder!r})
image = pipeline({prompt!r}, num_inference_steps={steps}, guidance_scale={guidance:g}).images[0]
```

These are the weights of step {best} of {last}, the best by mean reward on validation seeds: {reward_best:.3f}, from {reward_base:.3f}
before{start}.{untrained}

Metrics are in `metrics.jsonl` and TensorBoard, pictures at fixed seeds in `samples/`. A higher reward is not always a
better picture, so look at the evaluation's report.
"""


class FinetuneConfig(UNetSettings, frozen=True, extra="forbid"):
    """What the methods share; what is their own stands in [rwl], [dpok] and [ddpo]."""

    train_on: Literal["focus", "all"] = "focus"
    """Prompts to train on: `run.focus_prompts`, or all of the run."""
    validation_prompts: tuple[str, ...] = ()
    """Held-out prompts that choose the best weights and that the guards watch; none means the training prompts, on seeds of their own."""
    scored_per_prompt: NonNegativeInt = 0
    """RWL: pictures a prompt that are drawn beside those of the run and that the reward alone scores."""
    checkpoints: PositiveInt = 10
    """How often the training is saved, evenly over its steps; an interrupted one goes on from the last."""
    sheets: PositiveInt = 4
    """How often a sheet of sample pictures is drawn, evenly over the steps, beside the one before training."""
    samples_per_prompt: PositiveInt = 6
    """Pictures a prompt on a sheet, at fixed seeds."""
    rewards: tuple[RewardSource, ...] = ()
    """What to tune on in place of the run's own reward, which the evaluation still shows: a weighted sum, see `reward/sources.py`."""


@dataclass(frozen=True)
class Job:
    """One training: everything that its loop needs."""

    method: Method
    folder: Path
    model: DiffusionModel
    reward: RewardFn
    monitor: Monitor
    prompts: Sequence[str]
    settings: Settings
    generator: torch.Generator
    processes: Processes

    @property
    def config(self) -> FinetuneConfig:
        """The table [finetune]."""
        return self.settings.table("finetune", FinetuneConfig)


def main(run: RunFolder, settings: Settings, method: Method) -> None:
    """Trains, or goes on training; a LoRA made from the same reward, model and settings is kept."""
    with launched(device_of(settings.run)) as processes:
        if not processes.is_first:
            logging.disable(logging.WARNING)
        _tune(run, settings, method, processes)


def _tune(
    run: RunFolder,
    settings: Settings,
    method: Method,
    processes: Processes,
    *,
    asked_by: tuple[str, ...] = (),
) -> None:
    earlier, chain = _earlier(settings, method), (*asked_by, method)
    if earlier is not None:
        if earlier in chain:
            raise PictuneError(
                f'{method}.lora.start: {" starts from ".join((*chain, earlier))}; set one of them to "{BASE}"'
            )
        _tune(run, settings, earlier, processes, asked_by=chain)
        processes.wait()  # until its LoRA is there
    folder = run.finetune_dir(method)
    inputs = _inputs(run, settings, method)
    tables = ("run", "images", "finetune", method)
    goes_on_from = {
        f"{IMAGES}/[!.]*.png": ("run", "images"),
        f"{CHECKPOINTS}/*/manifest.json": tables,
    }
    stage = StageFolder(
        run,
        settings,
        folder,
        f"finetune {method}",
        tables,
        inputs,
        (folder / LORA_FILE,),
        goes_on_from,
    )
    done, stale = stage.is_done, stage.stamp is None and folder.exists()
    processes.wait()  # all have seen the folder as it was
    if done:
        if processes.is_first:
            print(f"finetune {method}: done, LoRA in {folder}")
        return
    job = open_job(
        run, settings, method, processes
    )  # first: a model that cannot be opened must not cost an earlier LoRA
    if stale and processes.is_first:
        shutil.rmtree(folder)  # made from another reward or model
    processes.wait()
    if not processes.is_first:
        _train(run, job)
        return
    with stage.working():
        for leftover in folder.rglob(".tmp-*"):
            leftover.unlink()  # of a process that was killed while it wrote
        state = _train(run, job)
        state.restore_best()
        job.model.save_lora(folder)
        with write_atomically(folder / "README.md") as path:
            path.write_text(_card(run, job, state), encoding="utf-8")
    kept, best = state.best or state.validation[-1]
    if state.stopped:
        print(f"finetune {method}: stopped at step {state.step}: {state.stopped}")
    print(
        f"finetune {method}: LoRA in {folder}, validation reward {state.validation[0][1]:.3f} -> {best:.3f}"
    )
    if kept == 0:
        print(f"finetune {method}: {UNTRAINED}")


def _inputs(run: RunFolder, settings: Settings, method: Method) -> dict[str, str]:
    """Hashes of what a training rests on beside its settings."""
    inputs = {
        "model": weights_hash(settings.run.model),
        "prompts": prompts_digest(_prompts(settings)),
    }
    if rewards := settings.table("finetune", FinetuneConfig).rewards:
        inputs |= {
            f"reward {name}": content_hash(name) for source in rewards for name in source.read_from
        }
    else:
        inputs["reward"] = reward_hash(run.reward_dir)
    if (start := _start(run, settings, method)) != BASE:
        inputs["start"] = sha256_of(lora_file(Path(start)))
    if method == "rwl":
        config = settings.table("rwl", RWLConfig)
        inputs["images"] = images_digest(run)
        if config.images != "both":
            inputs["labels"] = sha256_of(run.latest / MANIFEST)
        if config.pretraining_pairs is not None:
            inputs["pretraining_pairs"] = pairs_hash(config.pretraining_pairs)
    return inputs


def _earlier(settings: Settings, method: Method) -> Method | None:
    """The method whose LoRA of this run the training starts from, if it is one."""
    start = settings.table(method, CONFIGS[method]).lora.start
    return next((name for name in CONFIGS if name == start), None)


def _start(run: RunFolder, settings: Settings, method: Method) -> str:
    """What the training starts from: "base", or the folder of a LoRA."""
    earlier = _earlier(settings, method)
    return (
        settings.table(method, CONFIGS[method]).lora.start
        if earlier is None
        else str(run.finetune_dir(earlier))
    )


def open_job(
    run: RunFolder, settings: Settings, method: Method, processes: Processes = ALONE
) -> Job:
    """Opens what the training needs: a model with fresh adapters, the reward, and the generator that all randomness comes from.

    Raises:
        PictuneError: the model or the reward cannot be opened.
    """
    config, shared = (
        settings.table(method, CONFIGS[method]),
        settings.table("finetune", FinetuneConfig),
    )
    generator = torch.Generator().manual_seed(settings.run.seed)
    model = open_model(settings.run, precision=config.precision)
    model.add_lora(
        config.lora.model_copy(update={"start": _start(run, settings, method)}), generator=generator
    )
    model.set_up(shared)
    if shared.rewards:
        reward, monitor = load_reward(shared.rewards, device=device_of(settings.run)), PIXELS
    else:
        trained = open_reward_model(run.reward_dir, settings.run)
        reward, monitor = as_reward_fn(trained), as_monitor(trained)
    return Job(
        method,
        run.finetune_dir(method),
        model,
        reward,
        monitor,
        _prompts(settings),
        settings,
        generator,
        processes,
    )


def _prompts(settings: Settings) -> Sequence[str]:
    """The prompts to train on."""
    every = settings.table("finetune", FinetuneConfig).train_on == "all"
    return tuple(prompts_of(settings.run)) if every else focus_of(settings.run)


def _train(run: RunFolder, job: Job) -> TrainState:
    """Trains until it is done, or a guard stops it.

    Raises:
        PictuneError: a loss or reward is not finite, or a file cannot be written; names the checkpoint to go on from.
    """
    state, total, steps = training(run, job)
    job.processes.wait()  # all have loaded the checkpoint, and the first may write new ones
    try:
        with (
            _journal(job, state, total)
            if job.processes.is_first
            else nullcontext(lambda _metrics: None) as note
        ):
            for metrics in steps:
                note(metrics)
    except PictuneError as error:
        place = latest_checkpoint(job.folder / CHECKPOINTS)
        raise PictuneError(
            f"{error}; step {state.step + 1} failed, the last good checkpoint is {place or 'none yet'}"
        ) from error
    return state


def training(run: RunFolder, job: Job) -> tuple[TrainState, int, Iterator[dict[str, Any]]]:
    """The state, of the last checkpoint if there is one; how many steps there are; and the training itself, which yields metrics."""
    return _rwl(run, job) if job.method == "rwl" else _online(job)


@contextmanager
def _journal(job: Job, state: TrainState, total: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields the function that takes a step's metrics: logs them, and draws samples and saves checkpoints where they are due."""
    if state.step == 0:
        _save_samples(job, 0)
    before = state.step
    bar = tqdm(total=total, initial=state.step, desc=job.method, unit="step", disable=None)
    with (
        MetricsLog(job.folder, step=state.step or -1) as log,
        bar,
    ):  # the line of step 0 comes again with step 1

        def note(metrics: dict[str, Any]) -> None:
            nonlocal before
            if before == 0:
                log.write(0, {"validation_reward": state.validation[0][1]})
            validated = metrics["validation_reward"] is not None
            kept, _ = state.best or state.validation[-1]
            monitors = {"monitors": state.monitors, "kept_step": kept} if validated else {}
            scale = {"loss_scale": state.scaler.get_scale()} if state.scaler.is_enabled() else {}
            log.write(
                state.step,
                metrics | monitors | scale | {"peak_memory_gb": _peak_memory_gb(job.model.device)},
            )
            bar.update(state.step - before)
            bar.set_postfix(
                {
                    key: metrics[key]
                    for key in ("reward", "loss", "kl")
                    if metrics.get(key) is not None
                }
            )
            if _is_due(before, state.step, total, job.config.sheets):
                _save_samples(job, state.step)
            if _is_due(before, state.step, total, job.config.checkpoints):
                save_checkpoint(job.folder / CHECKPOINTS, state, job.generator)
            before = state.step

        yield note


def _is_due(before: int, now: int, total: int, times: int) -> bool:
    """Whether one of `times` marks, evenly over `total` steps, lies after `before` and not after `now`."""
    return now * times // total > before * times // total


def _peak_memory_gb(device: torch.device) -> float:
    """The most memory so far in 10^9 bytes: of the device's tensors, or of the whole process where that is a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _online(job: Job) -> tuple[TrainState, int, Iterator[dict[str, Any]]]:
    config = job.settings.table(job.method, PolicyGradientConfig)
    state = policy_gradient.start(job.model, config, generator=job.generator)
    load_latest(job.folder / CHECKPOINTS, state, job.generator)
    steps = policy_gradient.train(
        job.model,
        job.prompts,
        job.reward,
        config,
        generator=job.generator,
        state=state,
        validation_prompts=job.config.validation_prompts,
        monitor=job.monitor,
        processes=job.processes,
    )
    return state, config.iterations, (asdict(metrics) for metrics in steps)


def _rwl(run: RunFolder, job: Job) -> tuple[TrainState, int, Iterator[dict[str, Any]]]:
    config, encoder = (
        job.settings.table("rwl", RWLConfig),
        Encoder(job.model, job.settings.table("images", ImagesConfig)),
    )
    pretraining = pretraining_pairs(config.pretraining_pairs, encoder)
    scored = seeded(
        job.prompts, job.config.scored_per_prompt, job.settings.run.seed, offset=SCORED_SEEDS
    )
    if not job.processes.is_first:
        job.processes.wait()  # until the first has drawn what is missing
    data = rewarded_images(
        run, job.prompts, config, encoder, job.reward, scored=scored, folder=job.folder / IMAGES
    )
    if job.processes.is_first:
        job.processes.wait()
    state = reward_weighted.start(job.model, config)
    load_latest(job.folder / CHECKPOINTS, state, job.generator)
    steps = reward_weighted.train(
        job.model,
        data,
        job.reward,
        config,
        generator=job.generator,
        state=state,
        validation_prompts=job.config.validation_prompts,
        pretraining=pretraining,
        monitor=job.monitor,
        processes=job.processes,
    )
    return state, config.updates, (asdict(metrics) for metrics in steps)


def _save_samples(job: Job, step: int) -> None:
    """One row of pictures a prompt, at the evaluation's first seeds and with the sampler that users run."""
    images, count = job.settings.table("images", ImagesConfig), job.config.samples_per_prompt
    shown = job.prompts[:8]
    first = job.settings.run.seed * SEEDS_PER_RUN + EVALUATION_SEEDS
    pictures = draw(
        job.model,
        [prompt for prompt in shown for _ in range(count)],
        seeds=[first + i for _ in shown for i in range(count)],
        steps=images.steps,
        guidance=images.guidance,
        batch=images.batch,
    )
    save_sheet(
        pictures.split(count),
        job.folder / "samples" / f"step-{step:07d}.png",
        scale=max(1, 128 // pictures.shape[-1]),
    )


def _card(run: RunFolder, job: Job, state: TrainState) -> str:
    best = state.best or state.validation[-1]
    start, images = (
        _start(run, job.settings, job.method),
        job.settings.table("images", ImagesConfig),
    )
    elsewhere = " + ".join(
        f"{source.weight:g} * {source.kind} of `{source.path}`" for source in job.config.rewards
    )
    return _CARD.format(
        title=TITLES[job.method],
        model=job.settings.run.model,
        reward=elsewhere or f"the reward model in `{run.reward_dir}`",
        prompts=" · ".join(job.prompts),
        opened=repr(job.settings.run.model)
        + (f", variant={job.model.variant!r}" if job.model.variant else ""),
        folder=str(job.folder),
        prompt=job.prompts[0],
        steps=images.steps,
        guidance=images.guidance,
        best=best[0],
        last=state.step,
        reward_best=best[1],
        reward_base=state.validation[0][1],
        untrained=f" So {UNTRAINED}." if best[0] == 0 else "",
        start="" if start == BASE else f", which is where training started: `{start}`",
    )
