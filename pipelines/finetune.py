"""Stage `finetune`: tunes the model's LoRA on the reward by RWL or DPOK, with checkpoints that a killed run goes on from."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, NonNegativeInt, PositiveInt
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of, write_atomically
from data.runs import RunFolder
from finetune import dpok, reward_weighted
from finetune.diffusion import DiffusionModel
from finetune.dpok import DPOKConfig
from finetune.reward_fn import RewardFn
from finetune.reward_weighted import RewardWeightedConfig, WeightedData
from finetune.sampling import draw
from finetune.training import TrainState, load_latest, save_checkpoint
from pipelines.config import Settings
from pipelines.images import (
    EVALUATION_SEEDS,
    SCORED_SEEDS,
    SEEDS_PER_RUN,
    ImagesConfig,
    Planned,
    draw_missing,
    focus_of,
    plan,
    prompts_of,
    seeded,
    weights_hash,
)
from pipelines.metrics_log import MetricsLog
from pipelines.models import open_model, open_reward
from pipelines.pictures import load_pictures, save_sheet
from pipelines.record import StageFolder

CHECKPOINTS = "checkpoints"
Method = Literal["rwl", "dpok"]
CONFIGS: dict[Method, type[DPOKConfig] | type[RewardWeightedConfig]] = {"rwl": RewardWeightedConfig, "dpok": DPOKConfig}
TITLES: dict[Method, str] = {
    "rwl": "reward-weighted likelihood (Lee et al. 2023, arXiv 2302.12192)",
    "dpok": "DPOK (Fan et al. 2023, arXiv 2305.16381)",
}

_CARD = """# LoRA tuned by {title}

On `{model}`, for the reward model in `{reward}`. Prompts: {prompts}

```python
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained("{model}")
pipeline.load_lora_weights("{folder}")
```

These are the weights of step {best} of {steps}, the best by mean reward on validation seeds: {reward_best:.3f}, from {reward_base:.3f} of
the untuned model. Metrics are in `metrics.jsonl` and TensorBoard, pictures at fixed seeds in `samples/`. The reward is learned from
labels: a higher one is not always a better picture, so look at the evaluation's report.
"""


class FinetuneConfig(BaseModel, frozen=True, extra="forbid"):
    """What both methods share; what is their own stands in [rwl] and [dpok]."""

    train_on: Literal["focus", "all"] = "focus"
    """Prompts to train on: `run.focus_prompts`, or all of the run."""
    scored_per_prompt: NonNegativeInt = 0
    """RWL: pictures a prompt that are drawn beside those of the run and that the reward alone scores."""
    checkpoints: PositiveInt = 10
    """How often the training is saved, evenly over its steps; an interrupted one goes on from the last."""
    sheets: PositiveInt = 4
    """How often a sheet of sample pictures is drawn, evenly over the steps, beside the one before training."""
    samples_per_prompt: PositiveInt = 6
    """Pictures a prompt on a sheet, at fixed seeds."""


@dataclass(frozen=True)
class Job:
    """One training: everything that its loop needs."""

    method: Method
    folder: Path
    model: DiffusionModel
    reward: RewardFn
    prompts: Sequence[str]
    settings: Settings
    generator: torch.Generator

    @property
    def config(self) -> FinetuneConfig:
        """The table [finetune]."""
        return self.settings.table("finetune", FinetuneConfig)


def main(run: RunFolder, settings: Settings, method: Method) -> None:
    """Trains, or goes on training; a LoRA made from the same reward, model and settings is kept."""
    folder = run.finetune_dir(method)
    if not (run.reward_dir / "metrics.json").exists():
        raise PictuneError(f"{run.reward_dir}: no trained reward model; run `make reward` first")
    inputs = {"reward": sha256_of(run.reward_dir / "config.json"), "model": weights_hash(settings.run.model)}
    stage = StageFolder(run, settings, folder, f"finetune {method}", ("run", "images", "finetune", method), inputs)
    if stage.is_done:
        print(f"finetune {method}: done, LoRA in {folder}")
        return
    if stage.stamp is None and folder.exists():
        shutil.rmtree(folder)  # made from another reward or model
    with stage.working():
        job = _open(run, settings, method)
        state = _train(run, job)
        state.restore_best()
        job.model.save_lora(folder)
        with write_atomically(folder / "README.md") as path:
            path.write_text(_card(run, job, state), encoding="utf-8")
    best = max(reward for _, reward in state.validation)
    print(f"finetune {method}: LoRA in {folder}, validation reward {state.validation[0][1]:.3f} -> {best:.3f}")


def _open(run: RunFolder, settings: Settings, method: Method) -> Job:
    config = settings.table(method, CONFIGS[method])
    generator = torch.Generator().manual_seed(settings.run.seed)
    model = open_model(settings.run, precision=config.precision)
    model.add_lora(config.lora, generator=generator)
    reward = open_reward(run.reward_dir, settings.run)
    everything = settings.table("finetune", FinetuneConfig).train_on == "all"
    prompts = tuple(prompts_of(settings.run)) if everything else focus_of(settings.run)
    return Job(method, run.finetune_dir(method), model, reward, prompts, settings, generator)


def _train(run: RunFolder, job: Job) -> TrainState:
    state, total, steps = _dpok(job) if job.method == "dpok" else _rwl(run, job)
    if state.step == 0:
        _save_samples(job, 0)
    before = state.step
    bar = tqdm(total=total, initial=state.step, desc=job.method, unit="step", disable=None)
    with MetricsLog(job.folder, step=state.step) as log, bar:
        for metrics in steps:
            log.write(state.step, metrics)
            bar.update(state.step - before)
            bar.set_postfix({key: metrics[key] for key in ("reward", "loss", "kl") if metrics.get(key) is not None})
            if _is_due(before, state.step, total, job.config.sheets):
                _save_samples(job, state.step)
            if _is_due(before, state.step, total, job.config.checkpoints):
                save_checkpoint(job.folder / CHECKPOINTS, state, job.generator)
            before = state.step
    return state


def _is_due(before: int, now: int, total: int, times: int) -> bool:
    """Whether one of `times` marks, evenly over `total` steps, lies after `before` and not after `now`."""
    return now * times // total > before * times // total


def _dpok(job: Job) -> tuple[TrainState, int, Iterator[dict[str, Any]]]:
    config = job.settings.table("dpok", DPOKConfig)
    state = dpok.start(job.model, config, generator=job.generator)
    load_latest(job.folder / CHECKPOINTS, state, job.generator)
    steps = dpok.train(job.model, job.prompts, job.reward, config, generator=job.generator, state=state)
    return state, config.iterations, (asdict(metrics) for metrics in steps)


def _rwl(run: RunFolder, job: Job) -> tuple[TrainState, int, Iterator[dict[str, Any]]]:
    config = job.settings.table("rwl", RewardWeightedConfig)
    data = _weighted_data(run, job)
    state = reward_weighted.start(job.model, config)
    load_latest(job.folder / CHECKPOINTS, state, job.generator)
    steps = reward_weighted.train(job.model, data, job.reward, config, generator=job.generator, state=state)
    return state, config.updates, (asdict(metrics) for metrics in steps)


def _weighted_data(run: RunFolder, job: Job) -> WeightedData:
    """The run's pictures of the training prompts, and the ones drawn beside them, with what the reward says of each."""
    images = job.settings.table("images", ImagesConfig)
    seed = job.settings.run.seed
    focus = () if job.settings.run.prompts_file else job.settings.run.focus_prompts
    drawn = plan(job.prompts, focus, images, seed)
    scored = seeded(job.prompts, job.config.scored_per_prompt, seed, offset=SCORED_SEEDS)
    with job.model.adapters_off():
        draw_missing(job.model, scored, job.folder / "images", images, title="scored images")
    paths = _present(run.images_dir, drawn) + _present(job.folder / "images", scored)
    latents, rewards = [], []
    for start in tqdm(range(0, len(paths), images.batch), desc="score", unit="batch", disable=None):
        part = load_pictures([path for path, _ in paths[start : start + images.batch]]).to(job.model.device)
        rewards.append(job.reward(part, [one.prompt for _, one in paths[start : start + images.batch]]))
        latents.append(job.model.encode_images(part))
    return WeightedData(latents=torch.cat(latents), prompts=[one.prompt for _, one in paths], rewards=torch.cat(rewards))


def _present(folder: Path, planned: Sequence[Planned]) -> list[tuple[Path, Planned]]:
    return [(folder / one.file_name, one) for one in planned]


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
    save_sheet(pictures.split(count), job.folder / "samples" / f"step-{step:07d}.png", scale=max(1, 128 // pictures.shape[-1]))


def _card(run: RunFolder, job: Job, state: TrainState) -> str:
    best = max(state.validation, key=lambda one: one[1])
    return _CARD.format(
        title=TITLES[job.method],
        model=job.settings.run.model,
        reward=run.reward_dir,
        prompts=" · ".join(job.prompts),
        folder=job.folder,
        best=best[0],
        steps=state.step,
        reward_best=best[1],
        reward_base=state.validation[0][1],
    )
