"""Reward-weighted likelihood (Lee et al. 2023, arXiv 2302.12192): learn from existing images, the better ones more.

    loss = E_(x,z)~rewarded[ w(r(x, z)) * ||target - prediction(x_t, t, z)||^2 ] + beta * E_(x,z)~pretraining[ ||target - prediction||^2 ]

The denoising error stands for -log p(x | z); its target is the noise, the velocity or the image, as the model's scheduler says.
Weights: "raw" is max(r, 0), the paper's. With pretraining on the same images the whole weight is r + beta, which is exactly the optimum
of reward under a chi-squared penalty to the base model (Fan et al. 2023, arXiv 2305.16381, call it KL-D). "exp" is
exp(r / temperature), the optimum under a KL penalty, normalised per prompt; "top" takes each prompt's best images alone.

Differs from the paper in:
1. LoRA instead of all weights, so that the reference model stays at hand.
2. Images are drawn with probability proportional to their weight and count equally: the same expected gradient with less variance, and
   no time spent on images that weigh nothing.
3. Timesteps are weighted by min-SNR (Hang et al. 2023, arXiv 2303.09556) unless `min_snr` is None, the paper's uniform weighting.
4. Some prompts are left empty, so that classifier-free guidance goes on working.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import DDIMScheduler
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from data.errors import PictuneError
from finetune.diffusion import DiffusionModel, LoraSettings, Precision
from finetune.reward_fn import RewardFn
from finetune.training import TrainState, ValidationConfig, lora_optimizer, take_step, validate

Weighting = Literal["raw", "exp", "top"]


class RewardWeightedConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of reward-weighted likelihood; the paper's stand beside ours, which are for the embedded model."""

    updates: PositiveInt = 600
    """Optimizer steps. Paper: 10,000."""
    batch: int = Field(default=32, ge=2)
    """Images per step; half of them are for pretraining unless `pretraining_weight` is 0. Paper: 512, half pretraining."""
    weighting: Weighting = "exp"
    """How a reward becomes a weight: "raw", "exp" or "top" (see the top of this file). Paper: raw."""
    temperature: PositiveFloat = 0.2
    """For "exp", in the reward's units: lower follows the reward harder and uses fewer images."""
    top_share: float = Field(default=0.25, gt=0, le=1)
    """For "top": the share of each prompt's images that is used."""
    pretraining_weight: NonNegativeFloat = 0.1
    """beta, the pull to the pretraining data; 0 switches it off. Not stated in the paper."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's, for LoRA; falls linearly to 0 over the run. Not stated in the paper; its authors' file names say 2e-5 for all weights."""
    warmup: NonNegativeInt = 20
    """Steps over which the learning rate rises to its full value."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm."""
    min_snr: PositiveFloat | None = 5.0
    """Signal-to-noise ratio from which on timesteps get no more weight; None weighs all alike, as the paper."""
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of prompts left empty."""
    steps: PositiveInt = 20
    """Sampler steps of the validation images."""
    guidance: PositiveFloat = 2.0
    """Guidance scale of the validation images."""
    report_every: PositiveInt = 20
    """Steps between two metrics."""
    lora: LoraSettings = LoraSettings()
    """Which weights are trained."""
    precision: Precision = "fp32"
    """Arithmetic of the UNet; bf16 is about 1.5 times as fast on CPUs that have it."""
    validation: ValidationConfig = ValidationConfig(every=100)
    """How the best weights are chosen."""


@dataclass(frozen=True)
class WeightedData:
    """Images that exist, as latents."""

    latents: Tensor
    """[N, C, h, w], from `DiffusionModel.encode_images`."""
    prompts: Sequence[str]
    """What each image was drawn for."""
    rewards: Tensor
    """[N]."""

    def __post_init__(self) -> None:
        """Refuses data that do not belong together."""
        if not len(self.latents) == len(self.prompts) == len(self.rewards) > 0:
            counts = f"{len(self.latents)} latents, {len(self.prompts)} prompts, {len(self.rewards)} rewards"
            raise PictuneError(f"finetune: {counts}; give the same number, at least one, of each")


@dataclass(frozen=True)
class Metrics:
    """The steps since the last report."""

    step: int
    loss: float
    """Mean weighted denoising error of the rewarded images."""
    pretraining_loss: float | None
    """Mean denoising error of the pretraining images, before beta; None when beta is 0."""
    effective_sample_size: float
    """(sum w)^2 / sum w^2 over the number of images, in (0, 1]: the share of the images that really counts."""
    gradient_norm: float
    learning_rate: float
    seconds: float
    validation_reward: float | None
    """Mean reward on the validation seeds; None where it was not due."""


def sample_weights(
    rewards: Tensor, prompts: Sequence[str], *, weighting: Weighting, temperature: float = 1.0, top_share: float = 1.0
) -> Tensor:
    """Weights [N] of rewards [N]; "exp" and "top" have mean 1 for every prompt."""
    if weighting == "raw":
        return rewards.clamp(min=0)
    weights = torch.zeros_like(rewards)
    for prompt in dict.fromkeys(prompts):
        rows = torch.tensor([i for i, other in enumerate(prompts) if other == prompt], device=rewards.device)
        if weighting == "exp":
            weights[rows] = torch.softmax(rewards[rows] / temperature, dim=0) * len(rows)
        else:
            kept = math.ceil(top_share * len(rows))
            weights[rows[rewards[rows].topk(kept).indices]] = len(rows) / kept
    return weights


def effective_sample_size(weights: Tensor) -> float:
    """Kish's (sum w)^2 / sum w^2 of weights [N], as a share of N."""
    return float(weights.sum().square() / weights.square().sum() / len(weights))


def weighted_denoising_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of weights [B] times the mean squared error of prediction and target [B, ...]."""
    return (weights * (prediction - target).square().flatten(1).mean(1)).mean()


def denoising_target(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the model should predict from the noised latents [B, C, h, w]: noise, velocity or the latents themselves."""
    if scheduler.config.prediction_type == "epsilon":
        return noise
    if scheduler.config.prediction_type == "sample":
        return latents
    velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps)
    return velocity


def timestep_weights(scheduler: DDIMScheduler, timesteps: Tensor, min_snr: float | None) -> Tensor:
    """Min-SNR weights [B], in the units of the scheduler's prediction type; ones when `min_snr` is None."""
    if min_snr is None:
        return torch.ones(len(timesteps), device=timesteps.device)
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas / (1 - alphas)
    clipped = snr.clamp(max=min_snr)
    weights: dict[str, Tensor] = {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1), "sample": clipped}
    return weights[scheduler.config.prediction_type]


def start(model: DiffusionModel, config: RewardWeightedConfig) -> TrainState:
    """The state before the first step; the model must have its LoRA."""
    return TrainState(model=model, optimizer=lora_optimizer(model, config.learning_rate))


def train(
    model: DiffusionModel,
    data: WeightedData,
    reward: RewardFn,
    config: RewardWeightedConfig,
    *,
    generator: torch.Generator,
    state: TrainState | None = None,
    pretraining: WeightedData | None = None,
    validation_prompts: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Metrics]:
    """Trains the model's LoRA in place and yields every `report_every` steps, when `state` may be saved.

    `reward` scores the validation images only. `pretraining` are image-text pairs to stay close to (their rewards are not read); left
    out, the images in `data` serve, unweighted. `state`, `generator` and `validation_prompts` are as in `finetune.dpok.train`.

    Raises:
        PictuneError: no image has a positive weight.
    """
    state = state or start(model, config)
    prompts = validation_prompts or list(dict.fromkeys(data.prompts))
    weights = sample_weights(
        data.rewards, data.prompts, weighting=config.weighting, temperature=config.temperature, top_share=config.top_share
    )
    if not float(weights.sum()) > 0:
        raise PictuneError("finetune: no image has a reward above 0, so nothing can be learnt; use weighting 'exp' or 'top'")
    batches = _Batches(model, data, pretraining or data, weights, config)

    def validation_reward() -> float:
        state.record_validation(validate(model, prompts, reward, config.validation, steps=config.steps, guidance=config.guidance))
        return state.validation[-1][1]

    if not state.validation:
        validation_reward()
    records: list[Tensor] = []
    started = clock()
    while state.step < config.updates:
        learning_rate = _learning_rate(state.step, config)
        losses = batches.losses(generator)
        losses.sum().backward()
        norm = take_step(state, learning_rate=learning_rate, clip_norm=config.clip_norm)
        records.append(torch.stack([*losses.detach(), norm]))
        state.step += 1
        last = state.step == config.updates
        due = last or state.step % config.validation.every == 0
        if last or due or state.step % config.report_every == 0:
            loss, pretraining_loss, gradient_norm = torch.stack(records).mean(0).tolist()
            yield Metrics(
                step=state.step,
                loss=loss,
                pretraining_loss=pretraining_loss / config.pretraining_weight if config.pretraining_weight else None,
                effective_sample_size=effective_sample_size(weights),
                gradient_norm=gradient_norm,
                learning_rate=learning_rate,
                seconds=clock() - started,
                validation_reward=validation_reward() if due else None,
            )
            records, started = [], clock()


def _learning_rate(step: int, config: RewardWeightedConfig) -> float:
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup)) * (1 - step / config.updates)


class _Batches:
    """Random batches and their two losses."""

    def __init__(
        self, model: DiffusionModel, data: WeightedData, pretraining: WeightedData, weights: Tensor, config: RewardWeightedConfig
    ) -> None:
        self.model, self.config = model, config
        self.probabilities = (weights / weights.sum()).cpu()
        self.mean_weight = float(weights.mean())
        both = (data, pretraining) if config.pretraining_weight else (data,)
        self.latents = torch.cat([part.latents for part in both]).to(model.device)
        self.prompts = [prompt for part in both for prompt in part.prompts]
        self.rewarded, self.others = len(data.prompts), len(self.prompts) - len(data.prompts)
        self.scheduler = model.scheduler(config.steps)

    def losses(self, generator: torch.Generator) -> Tensor:
        """The rewarded images' loss and beta times the pretraining loss, [2]."""
        half = self.config.batch // 2 if self.others else 0
        chosen = torch.multinomial(self.probabilities, self.config.batch - half, replacement=True, generator=generator)
        if half:
            chosen = torch.cat([chosen, self.rewarded + torch.randint(self.others, (half,), generator=generator)])
        latents = self.latents[chosen.to(self.latents.device)]
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (len(latents),), generator=generator).to(latents.device)
        dropped = (torch.rand(len(latents), generator=generator) < self.config.caption_dropout).tolist()
        cond = self.model.encode_prompts(["" if drop else self.prompts[i] for i, drop in zip(chosen.tolist(), dropped, strict=True)])
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.model.predict(noisy, timesteps, cond, cond, guidance=1.0)
        target = denoising_target(self.scheduler, latents, noise, timesteps)
        by_time = timestep_weights(self.scheduler, timesteps, self.config.min_snr)
        n = len(latents) - half
        loss = weighted_denoising_loss(prediction[:n], target[:n], self.mean_weight * by_time[:n])
        if not half:
            return torch.stack([loss, torch.zeros_like(loss)])
        other = weighted_denoising_loss(prediction[n:], target[n:], self.config.pretraining_weight * by_time[n:])
        return torch.stack([loss, other])
