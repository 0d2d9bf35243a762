"""Reward-weighted likelihood (Lee et al. 2023, arXiv 2302.12192): learn from existing images, the better ones more.

    loss = E_(x,z)~rewarded[ w(r(x, z)) * ||target - prediction(x_t, t, z)||^2 ] + beta * E_(x,z)~pretraining[ ||target - prediction||^2 ]

The denoising error stands for -log p(x | z); its target is the noise, the velocity or the image, as the model's scheduler says. What the
weights w can be and what each is the best answer to stands in `finetune/weighting.py`. With `kl = "kl-o"` (Fan et al. 2023, arXiv
2305.16381) the loss has a third term, gamma * E_(x,z)~rewarded[ ||prediction - pretrained prediction||^2 ].

Differs from the papers in:
1. LoRA instead of all weights, so that the reference model stays at hand.
2. Images are drawn with probability proportional to their weight and count equally: the same expected gradient with less variance, and
   no time spent on images that weigh nothing. KL-O is taken on those that are drawn, which are what the tuned model should say.
3. Timesteps may be weighted by min-SNR (Hang et al. 2023, arXiv 2303.09556). It is off: a model that predicts the velocity learns next to
   nothing then in the noisiest steps, where the sampler decides what is in the picture.
4. Some prompts are left empty, so that classifier-free guidance goes on working.
5. `rounds` above 1 draw again from the tuned model and go on with its images, as expectation maximisation would; the papers stop after one.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import torch
from diffusers import DDIMScheduler
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Tensor

from data.errors import PictuneError
from finetune.diffusion import BASE, DiffusionModel, LoraSettings, Precision
from finetune.monitors import PIXELS, Monitor
from finetune.processes import ALONE, Processes
from finetune.reward_fn import RewardFn, score
from finetune.sampling import draw_latents
from finetune.training import (
    TrainState,
    Validation,
    ValidationConfig,
    lora_optimizer,
    schedule,
    take_step,
    under,
    validate,
)
from finetune.weighting import WeightingConfig, effective_sample_size, sample_weights

_logger = logging.getLogger(__name__)
FEW = 0.1
"""Effective sample size below which the training rests on too few images."""


class RewardWeightedConfig(WeightingConfig, frozen=True, extra="forbid"):
    """Settings of reward-weighted likelihood; the paper's stand beside ours, which are for the embedded model."""

    updates: PositiveInt = 600
    """Optimizer steps, over all rounds. Paper: 10,000."""
    rounds: PositiveInt = 1
    """Parts of equal length into which the steps fall; at the start of each but the first, new images are drawn from the tuned model."""
    images_per_round: PositiveInt = 64
    """Images of each prompt that are drawn then; the rounds before are no longer trained on."""
    batch: int = Field(default=32, ge=2)
    """Images per step; half of them are for pretraining unless `pretraining_weight` is 0. Paper: 512, half pretraining."""
    micro_batch: PositiveInt = 32
    """Images of one UNet call in training; bounds the memory, and changes nothing else but rounding."""
    pretraining_weight: NonNegativeFloat = 0.1
    """beta, the pull to the pretraining data; 0 switches it off. Not stated in the paper."""
    learning_rate: PositiveFloat = 5e-4
    """AdamW's, for LoRA; falls linearly to 0 over the run. Not stated in the paper; its authors' file names say 2e-5 for all weights."""
    warmup: NonNegativeInt = 20
    """Steps over which the learning rate rises to its full value."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm."""
    min_snr: NonNegativeFloat = 0.0
    """Signal-to-noise ratio from which on timesteps get no more weight (5 in the paper of min-SNR); 0 weighs all alike, as the papers."""
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of prompts left empty."""
    steps: PositiveInt = 20
    """Sampler steps of the validation images and of further rounds."""
    guidance: PositiveFloat = 2.0
    """Guidance scale of the validation images and of further rounds."""
    eta: NonNegativeFloat = 1.0
    """Noise of the sampler of further rounds; validation is always deterministic."""
    report_every: PositiveInt = 20
    """Steps between two metrics."""
    lora: LoraSettings = LoraSettings()
    """Which weights are trained."""
    precision: Precision = "fp32"
    """Arithmetic of the UNet; bf16 is about 1.7 times as fast on CPUs that have it. fp16 rounds finer and is for GPUs."""
    validation: ValidationConfig = ValidationConfig(every=100)
    """How the best weights are chosen."""

    @model_validator(mode="after")
    def _every_round_has_a_step(self) -> Self:
        if self.rounds > self.updates:
            raise ValueError(f"{self.rounds} rounds need as many updates, not {self.updates}")
        return self


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
    kl_loss: float | None
    """Mean squared difference to the base's predictions, before gamma; None without KL-O."""
    round: int
    """Which round's images the steps were on, from 0."""
    reward: float
    """Mean reward of that round's images."""
    effective_sample_size: float
    """(sum w)^2 / sum w^2 over the number of images, in (0, 1]: the share of the images that really counts."""
    gradient_norm: float
    learning_rate: float
    seconds: float
    validation_reward: float | None
    """Mean reward on the validation seeds; None where it was not due."""


def weighted_denoising_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of weights [B] times the mean squared error of prediction and target [B, ...]."""
    return (weights * (prediction - target).square().flatten(1).mean(1)).mean()


def denoising_target(
    scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """What the model should predict from the noised latents [B, C, h, w]: noise, velocity or the latents themselves."""
    if scheduler.config.prediction_type == "epsilon":
        return noise
    if scheduler.config.prediction_type == "sample":
        return latents
    velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps)
    return velocity


def timestep_weights(scheduler: DDIMScheduler, timesteps: Tensor, min_snr: float) -> Tensor:
    """Min-SNR weights [B], in the units of the scheduler's prediction type; ones when `min_snr` is 0."""
    if min_snr == 0:
        return torch.ones(len(timesteps), device=timesteps.device)
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alphas / (1 - alphas)
    clipped = snr.clamp(max=min_snr)
    weights: dict[str, Tensor] = {
        "epsilon": clipped / snr,
        "v_prediction": clipped / (snr + 1),
        "sample": clipped,
    }
    return weights[scheduler.config.prediction_type]


@dataclass(kw_only=True)
class RewardWeightedState(TrainState):
    """`TrainState` with the images of the present round."""

    round: int = 0
    """Which round the steps are in, from 0."""
    drawn: dict[str, Tensor] = field(default_factory=dict)
    """`latents` and `rewards` of a round after the first, as in `WeightedData`; the images of the first are given."""

    def weights(self) -> dict[str, Tensor]:
        """Adds the round's images."""
        return super().weights() | {f"drawn/{name}": values for name, values in self.drawn.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Takes back what `weights` gave."""
        super().load_weights(weights)
        self.drawn = under("drawn/", weights)

    def state_dict(self) -> dict[str, Any]:
        """Adds the round."""
        return super().state_dict() | {"round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        super().load_state_dict(state)
        self.round = state["round"]


def start(model: DiffusionModel, config: RewardWeightedConfig) -> RewardWeightedState:
    """The state before the first step; the model must have its LoRA."""
    return RewardWeightedState(model=model, optimizer=lora_optimizer(model, config.learning_rate))


def train(
    model: DiffusionModel,
    data: WeightedData,
    reward: RewardFn,
    config: RewardWeightedConfig,
    *,
    generator: torch.Generator,
    state: RewardWeightedState | None = None,
    pretraining: WeightedData | None = None,
    validation_prompts: Sequence[str] = (),
    monitor: Monitor = PIXELS,
    processes: Processes = ALONE,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Metrics]:
    """Trains the model's LoRA in place and yields every `report_every` steps, when `state` may be saved.

    `reward` scores the validation images and those of further rounds. `pretraining` are image-text pairs to stay close to (their
    rewards are not read); left out, the images in `data`, which the base drew, serve unweighted. `state`, `generator`,
    `validation_prompts` and `processes` are as in `finetune.policy_gradient.train`.

    Raises:
        PictuneError: no image has a positive weight.
    """
    state = state or start(model, config)
    prompts = list(dict.fromkeys(data.prompts))
    held_out = validation_prompts or prompts

    def validation() -> Validation:
        return validate(
            model,
            held_out,
            reward,
            config.validation,
            steps=config.steps,
            guidance=config.guidance,
            monitor=monitor,
            processes=processes,
        )

    def batches_of_round() -> _Batches:
        now = (
            WeightedData(prompts=_repeated(prompts, config), **state.drawn) if state.drawn else data
        )
        return _Batches(model, now, pretraining or data, config)

    batches = batches_of_round()
    state.begin(validation, is_tuned=config.lora.start != BASE)
    records: list[Tensor] = []
    started = clock()
    while state.step < config.updates and not state.stopped:
        if state.step * config.rounds // config.updates > state.round:
            state.round += 1
            state.drawn = draw_round(
                model, prompts, reward, config, generator=generator, processes=processes
            )
            batches = batches_of_round()
        learning_rate = config.learning_rate * schedule(
            state.step, warmup=config.warmup, total=config.updates
        )
        losses = torch.zeros(3, device=model.device)
        for part in batches.losses(generator, processes):
            state.scaler.scale(part.sum()).backward()
            losses += part.detach()
        norm = take_step(
            state,
            learning_rate=learning_rate,
            clip_norm=config.clip_norm,
            blame=batches.blamed,
            processes=processes,
        )
        records.append(torch.stack([*processes.total(losses), norm]))
        state.step += 1
        last = state.step == config.updates
        due = last or state.step % config.validation.every == 0
        if last or due or state.step % config.report_every == 0:
            loss, pretraining_loss, kl_loss, gradient_norm = torch.stack(records).mean(0).tolist()
            yield Metrics(
                step=state.step,
                loss=loss,
                pretraining_loss=pretraining_loss / config.pretraining_weight
                if config.pretraining_weight
                else None,
                kl_loss=kl_loss / config.gamma if config.kl == "kl-o" else None,
                round=state.round,
                reward=batches.reward,
                effective_sample_size=batches.effective_sample_size,
                gradient_norm=gradient_norm,
                learning_rate=learning_rate,
                seconds=clock() - started,
                validation_reward=state.record_validation(validation()) if due else None,
            )
            records, started = [], clock()


def draw_round(
    model: DiffusionModel,
    prompts: Sequence[str],
    reward: RewardFn,
    config: RewardWeightedConfig,
    *,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> dict[str, Tensor]:
    """Draws `images_per_round` images of each prompt with the model as it is; gives their `latents` and `rewards`, as in `WeightedData`."""
    texts, batch = _repeated(prompts, config), config.validation.batch
    seeds = torch.randint(2**62, (len(texts),), generator=generator).tolist()
    rows = processes.share(len(texts), batch)
    some = rows.tolist() or [
        0
    ]  # a process without a batch draws one image for its shapes, and drops it
    names = iter(mine := [texts[i] for i in some])
    latents, rewards = [], []
    for part in draw_latents(
        model,
        mine,
        seeds=[seeds[i] for i in some],
        steps=config.steps,
        guidance=config.guidance,
        eta=config.eta,
        batch=batch,
    ):
        latents.append(part)
        rewards.append(score(reward, model.decode(part), list(islice(names, len(part)))))
    found = {"latents": torch.cat(latents), "rewards": torch.cat(rewards)}
    return {
        name: processes.gather(rows, values[: len(rows)], len(texts))
        for name, values in found.items()
    }


def _repeated(prompts: Sequence[str], config: RewardWeightedConfig) -> list[str]:
    return [prompt for prompt in prompts for _ in range(config.images_per_round)]


class _Batches:
    """Random batches of one round's images and of the pretraining ones, and their losses."""

    def __init__(
        self,
        model: DiffusionModel,
        data: WeightedData,
        pretraining: WeightedData,
        config: RewardWeightedConfig,
    ) -> None:
        self.model, self.config = model, config
        weights = sample_weights(data.rewards, data.prompts, config)
        if not float(weights.sum()) > 0:
            raise PictuneError(
                "finetune: no image has a reward above 0, so nothing can be learnt; use weighting 'softmax' or 'top'"
            )
        self.reward, self.effective_sample_size = (
            float(data.rewards.mean()),
            effective_sample_size(weights),
        )
        if self.effective_sample_size < FEW:
            _logger.warning(
                "rwl: only %.0f %% of %d images really count (effective sample size); draw more, or follow the reward less: "
                "a higher temperature, top_share or gamma, a smaller kl_budget",
                100 * self.effective_sample_size,
                len(weights),
            )
        self.probabilities = (weights / weights.sum()).cpu()
        self.mean_weight = float(weights.mean())
        both = (data, pretraining) if config.pretraining_weight else (data,)
        self.latents = torch.cat([part.latents.to(model.device) for part in both])
        self.prompts = [prompt for part in both for prompt in part.prompts]
        self.rewarded, self.others = len(data.prompts), len(self.prompts) - len(data.prompts)
        self.scheduler = model.scheduler(config.steps)
        self.texts: list[str] = []

    def blamed(self) -> list[str]:
        """The prompts of the last batch."""
        return self.texts

    def losses(self, generator: torch.Generator, processes: Processes = ALONE) -> Iterator[Tensor]:
        """Yields the rewarded images' loss, beta times the pretraining loss, and gamma times KL-O, [3], of each micro-batch.

        The sum over all micro-batches of all processes is the batch's.
        """
        half = self.config.batch // 2 if self.others else 0
        n = self.config.batch - half
        chosen = torch.multinomial(self.probabilities, n, replacement=True, generator=generator)
        if half:
            chosen = torch.cat(
                [chosen, self.rewarded + torch.randint(self.others, (half,), generator=generator)]
            )
        latents = self.latents[chosen.to(self.latents.device)]
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        timesteps = torch.randint(
            self.scheduler.config.num_train_timesteps, (len(latents),), generator=generator
        ).to(latents.device)
        dropped = (
            torch.rand(len(latents), generator=generator) < self.config.caption_dropout
        ).tolist()
        self.texts = [
            "" if drop else self.prompts[i]
            for i, drop in zip(chosen.tolist(), dropped, strict=True)
        ]
        mine = processes.share(
            len(latents), 1
        )  # every so many-th, so that each process has its part of both halves
        for rows in mine.split(self.config.micro_batch) if len(mine) else ():
            part, k = rows.to(latents.device), int((rows < n).sum())
            target = denoising_target(self.scheduler, latents[part], noise[part], timesteps[part])
            noisy = self.scheduler.add_noise(latents[part], noise[part], timesteps[part])
            cond = self.model.encode_prompts([self.texts[i] for i in rows.tolist()])
            prediction = self.model.predict(noisy, timesteps[part], cond, cond, guidance=1.0)
            by_time = timestep_weights(self.scheduler, timesteps[part], self.config.min_snr)
            loss = other = penalty = torch.zeros((), device=latents.device)
            if k:
                loss = weighted_denoising_loss(
                    prediction[:k], target[:k], self.mean_weight * by_time[:k]
                ) * (k / n)
            if k and self.config.kl == "kl-o":
                with torch.no_grad(), self.model.adapters_off():
                    base = self.model.predict(
                        noisy[:k], timesteps[part][:k], cond[:k], cond[:k], guidance=1.0
                    )
                penalty = weighted_denoising_loss(
                    prediction[:k], base, self.config.gamma * by_time[:k]
                ) * (k / n)
            if len(rows) > k:
                weights = self.config.pretraining_weight * by_time[k:]
                other = weighted_denoising_loss(prediction[k:], target[k:], weights) * (
                    (len(rows) - k) / half
                )
            yield torch.stack([loss, other, penalty])
