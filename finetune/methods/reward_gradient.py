"""Reward gradients: DRaFT, AlignProp and ReFL backpropagate the reward to the adapter.

    loss = mean(-reward(decode(x_0(theta)), z)), or mean(max(0, margin - reward))
           + kl_weight E[||v - v_base||^2] + pretraining_weight E_base images[||v - target||^2]

The gradient flows through reward, decoder and a part of the denoising chain:
- truncation "fixed": the last K steps. DRaFT-K (Clark et al. 2023, arXiv 2309.17400).
- truncation "random": a random number of last steps, from 1 to K. AlignProp (Prabhudesai et al.
  2023, arXiv 2310.03739).
- truncation "one_step": the chain ends at one of its last K steps, drawn at random, whose clean
  latents are decoded and scored. ReFL (Xu et al. 2023, arXiv 2304.05977), with its `margin`.

No other method here raises a reward faster, and none exploits its errors sooner. Late steps decide
details, early steps the content of the image: with a small K, content is hard to learn.

The penalties use random noise levels. The KL penalty compares predictions with the base's on the
iteration's images; the pretraining penalty is the denoising error on images that the base drew
before the first step. Errors are means over dimensions, in units of the velocity, without guidance,
as in `finetune/methods/nft.py`.

Differs from the papers and their code in:
1. Guards are on, and there is a pull to the base. DRaFT and AlignProp have neither and are stopped
   by hand.
2. The number of steps is drawn uniformly, once per iteration; AlignProp's code draws it from a
   normal distribution.
3. ReFL's pretraining images are drawn by the base (in the paper they come from LAION; its code
   omits the term). ReFL's images are drawn with the sampler's guidance, and its loss is not
   multiplied by 1e-3.
4. AdamW has no weight decay; DRaFT and AlignProp use it. There is no moving average of the weights.
5. With regions, this is Focus-N-Fix (Xing et al. 2025, arXiv 2501.06481). The base draws each
   image too, I_0, with the same noise, and M is its mask. The loss has the term outside_weight
   ||(1 - M)(I_0 - I)||_F, over the root of the number of values. In the paper the whole image has
   the reward's gradient; here the pixels inside M alone have it, times 1 / mean M, so that an empty
   mask changes nothing.
6. DRaFT-LV, with several noises in the last step, is not implemented.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from data.errors import PictuneError
from finetune.learning.drawing import (
    Iteration,
    IterationMetrics,
    draw_shared,
    iterate,
    prompts_of,
)
from finetune.learning.method import REWARD_CURVE, Curve, Method, Training
from finetune.learning.regions import balanced, change_outside
from finetune.learning.reward_fn import check_differentiable, score_with_gradient
from finetune.learning.training import TrainState, adapter_optimizer, take_step
from finetune.model.denoising import NoiseLevels, noise_images, spread_timesteps
from finetune.model.sampler import GradientSpan, draw_latents
from finetune.settings.reward_gradient import RewardGradientConfig

PRETRAINING_IMAGES = 64
"""Images that the base draws before the first step, spread evenly over the prompts."""


@dataclass(frozen=True, kw_only=True)
class Metrics(IterationMetrics):
    """Metrics of one iteration; "one_step" scores the predicted clean image."""

    loss: float
    """Mean loss without the penalties."""
    kl_loss: float | None
    """Mean squared difference to the base's predictions, before `kl_weight`; None if the weight is
    0."""
    pretraining_loss: float | None
    """Mean denoising error of the base's images, before `pretraining_weight`; None if the weight is
    0."""


@dataclass(kw_only=True)
class RewardGradientState(TrainState):
    """`TrainState` with the pretraining images of the base."""

    base: dict[str, Tensor] = field(default_factory=dict)
    """`latents` [P, C, h, w] of the pretraining images, on the CPU; empty before they are drawn."""
    groups = ("base",)


@dataclass(frozen=True)
class Draws:
    """All random values of an iteration, on the CPU, the same in every process."""

    prompts: Sequence[str]
    """The prompts of the N images."""
    seeds: Sequence[int]
    span: GradientSpan
    kl: NoiseLevels
    """Noise levels of the KL penalty."""
    numbers: Tensor
    """Indices [N] of the pretraining images of this iteration."""
    pretraining: NoiseLevels


def reward_loss(rewards: Tensor, margin: float | None) -> Tensor:
    """Return the loss [N] of rewards [N]; its slope is -1 below the margin and 0 above it."""
    return -rewards if margin is None else (margin - rewards).clamp(min=0)


def gradient_span(
    config: RewardGradientConfig, steps: int, *, generator: torch.Generator
) -> GradientSpan:
    """Return the span with gradient of a chain of `steps` steps, for the next iteration."""
    if config.truncation == "fixed":
        return GradientSpan(steps - config.steps_back)
    back = int(torch.randint(1, config.steps_back + 1, (), generator=generator))
    return GradientSpan(steps - back, ends=config.truncation == "one_step")


def start(training: Training[RewardGradientConfig]) -> RewardGradientState:
    """Return the state before the first iteration.

    Raises:
        PictuneError: the reward has no gradient, or the sampler has fewer steps than `steps_back`.
    """
    config, model, steps = training.config, training.model, training.sampler.steps
    if config.steps_back > steps:
        raise PictuneError(
            f"finetune: steps_back is {config.steps_back}, but the sampler has {steps} steps; "
            f"set it to {steps} for the whole chain, or lower"
        )
    prompt = training.prompts[0]
    assert training.reward is not None
    check_differentiable(training.reward, model.image_size, prompt, device=model.device)
    optimizer = adapter_optimizer(model, config.learning_rate)
    return RewardGradientState(model=model, optimizer=optimizer)


def train(
    training: Training[RewardGradientConfig], state: RewardGradientState
) -> Iterator[Metrics]:
    """Train as `Method.train`, and yield metrics after every iteration."""
    config = training.config
    if config.pretraining_weight and not state.base:
        state.base = {"latents": draw_base_latents(training)}

    def take(rate: float) -> Iteration:
        draws = draw_randomness(training, state)
        with training.watch.part("training"):
            return update(training, state, draws, learning_rate=rate)

    for found in iterate(training, state, take):
        yield Metrics(**found)


def base_prompts(training: Training[RewardGradientConfig]) -> list[str]:
    """Return the prompt of each pretraining image."""
    prompts, count = training.prompts, PRETRAINING_IMAGES
    return [prompts[i * len(prompts) // count] for i in range(count)]


def draw_base_latents(training: Training[RewardGradientConfig]) -> Tensor:
    """Draw the pretraining images with the base; return their latents [P, C, h, w] on the CPU."""
    texts, batch = base_prompts(training), training.config.micro_batch
    with training.model.adapter_off():
        (drawn,) = draw_shared(training, texts, lambda latents, _: (latents,), batch=batch)
    return drawn.cpu()


def draw_randomness(training: Training[RewardGradientConfig], state: RewardGradientState) -> Draws:
    """Draw all random values of the next iteration."""
    config, generator = training.config, training.generator
    chosen = prompts_of(training.prompts, config.prompts_per_iteration, state.step)
    texts = [prompt for prompt in chosen for _ in range(config.images_per_prompt)]
    count = len(texts)
    return Draws(
        prompts=texts,
        seeds=torch.randint(2**62, (count,), generator=generator).tolist(),
        span=gradient_span(config, training.sampler.steps, generator=generator),
        kl=draw_noise_levels(training, count),
        numbers=torch.randint(PRETRAINING_IMAGES, (count,), generator=generator),
        pretraining=draw_noise_levels(training, count),
    )


def update(
    training: Training[RewardGradientConfig],
    state: RewardGradientState,
    draws: Draws,
    *,
    learning_rate: float,
) -> Iteration:
    """Draw the iteration's images, and take one optimizer step."""
    config, model = training.config, training.model
    count = len(draws.prompts)
    rewards, pulls = torch.zeros(count, device=model.device), torch.zeros(2, device=model.device)
    for rows in model.processes.batches(count, config.micro_batch):
        latents, found, gradient = draw_with_gradient(training, draws, rows)
        rewards[rows.to(model.device, non_blocking=True)] = found
        latents.backward(state.scaler.scale(gradient / count))
        losses = pull_losses(training, state, draws, rows, latents.detach())
        weighted = config.kl_weight * losses[0] + config.pretraining_weight * losses[1]
        if weighted.requires_grad:
            state.scaler.scale(weighted * (len(rows) / count)).backward()
        pulls += losses.detach() * (len(rows) / count)
    norm = take_step(
        state, learning_rate=learning_rate, clip_norm=config.clip_norm, blame=lambda: draws.prompts
    )
    rewards = model.processes.total(rewards)
    kl, pretraining = model.processes.total(pulls)
    figures = {
        "loss": reward_loss(rewards, config.margin).mean(),
        "kl_loss": kl if config.kl_weight else None,
        "pretraining_loss": pretraining if config.pretraining_weight else None,
        "gradient_norm": norm,
    }
    return Iteration(draws.prompts, rewards, figures)


def draw_with_gradient(
    training: Training[RewardGradientConfig], draws: Draws, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the images of rows [M], and score them.

    Return latents [M, C, h, w] with a gradient to the adapter, rewards [M], and the gradient [M, C,
    h, w] of each loss with respect to its latents.
    """
    model, reward, regions = training.model, training.reward, training.regions
    assert reward is not None
    texts, seeds = ([one[i] for i in rows.tolist()] for one in (draws.prompts, draws.seeds))
    drawn = draw_latents(
        model, texts, training.sampler, seeds=seeds, batch=len(texts), span=draws.span
    )
    with training.watch.part("drawing"):
        latents = next(drawn)
    size = model.differentiable_images
    mask = base = latents.new_ones(len(texts), 1, *model.image_size)
    if regions is not None:
        mask, base = base_of(training, draws.span, texts, seeds)

    def decode(part: Tensor) -> Tensor:
        with training.watch.part("decoding"):
            return model.decode(part)

    def kept(mask: Tensor, base: Tensor, images: Tensor, _: Sequence[str]) -> Tensor:
        return change_outside(images, base, mask)

    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with training.watch.part("reward"):  # and the gradient of both
        for part, inside, there in zip(
            *(one.split(size) for one in (latents, mask, base)), strict=True
        ):
            some, pull = texts[len(parts) * size :][: len(part)], torch.zeros_like(part)
            if regions is not None:
                _, pull = score_with_gradient(partial(kept, inside, there), part, some, decode)
            shown = partial(_with_gradient_inside, decode, inside)
            parts.append((*score_with_gradient(reward, part, some, shown), pull))
    rewards, gradients, pulls = (torch.cat(each) for each in zip(*parts, strict=True))
    leaf = rewards.detach().requires_grad_()
    (slope,) = torch.autograd.grad(reward_loss(leaf, training.config.margin).sum(), leaf)
    gradients = slope.view(-1, 1, 1, 1) * gradients
    if regions is not None:
        gradients = balanced(mask).amax((1, 2, 3), keepdim=True) * gradients
        gradients += regions.outside_weight * pulls
    return latents, rewards, gradients


def base_of(
    training: Training[RewardGradientConfig],
    span: GradientSpan,
    texts: Sequence[str],
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return masks [M, 1, H, W] and images I_0 [M, 3, H, W] of the base, with the same noise."""
    model, regions = training.model, training.regions
    assert regions is not None
    with training.watch.part("drawing"), model.adapter_off():
        drawn = draw_latents(
            model, texts, training.sampler, seeds=seeds, batch=len(texts), span=span
        )
        latents = next(drawn).detach()
    mask = functional.interpolate(regions.mask(latents, texts), size=model.image_size)
    # In batches as the tuned images: a norm has a gradient from differences of rounding alone.
    with torch.no_grad():
        return mask, model.decode(latents, batch=model.differentiable_images)


def _with_gradient_inside(
    decode: Callable[[Tensor], Tensor], mask: Tensor, latents: Tensor
) -> Tensor:
    """Return decoded images whose gradient is that of the pixels inside the mask alone."""
    images = decode(latents)
    return mask * images + (1 - mask) * images.detach()


def draw_noise_levels(training: Training[RewardGradientConfig], count: int) -> NoiseLevels:
    """Draw a noise level from each of `count` equal parts of the schedule, in random order."""
    model, generator = training.model, training.generator
    schedule = model.schedule(training.sampler.steps)
    timesteps = spread_timesteps(schedule, count, generator=generator)
    return NoiseLevels(timesteps, torch.randn(count, *model.latent_shape, generator=generator))


def prediction_error(
    training: Training[RewardGradientConfig],
    latents: Tensor,
    prompts: Sequence[str],
    at: NoiseLevels,
    *,
    to_base: bool,
) -> Tensor:
    """Return the mean squared error of predictions from noised latents [N, C, h, w].

    With `to_base`, the target is the base's prediction; otherwise the true denoising target.
    """
    model, schedule = training.model, training.model.schedule(training.sampler.steps)
    noised = noise_images(model, schedule, latents, prompts, at)
    target = noised.target
    if to_base:
        with torch.no_grad(), model.adapter_off():
            target = noised.output(model)
    return (noised.per_output * (noised.output(model) - target)).square().mean()


def pull_losses(
    training: Training[RewardGradientConfig],
    state: RewardGradientState,
    draws: Draws,
    rows: Tensor,
    latents: Tensor,
) -> Tensor:
    """Return mean KL and pretraining loss [2] of rows [M] with finished `latents`; 0 if off."""
    config, model = training.config, training.model
    kl = pretraining = torch.zeros((), device=model.device)
    if config.kl_weight:
        texts = [draws.prompts[i] for i in rows.tolist()]
        kl = prediction_error(training, latents, texts, draws.kl.rows(rows), to_base=True)
    if config.pretraining_weight:
        numbers, prompts = draws.numbers[rows], base_prompts(training)
        texts = [prompts[i] for i in numbers.tolist()]
        base = state.base["latents"][numbers].to(model.device, non_blocking=True)
        at = draws.pretraining.rows(rows)
        pretraining = prediction_error(training, base, texts, at, to_base=False)
    return torch.stack([kl, pretraining])


METHOD = Method(
    paper="Clark et al. 2023, arXiv 2309.17400",
    story="draws new images in every round and follows the reward's own gradient through them",
    config=RewardGradientConfig,
    total_steps=lambda config: config.iterations,
    start=start,
    train=train,
    color="#8a4fbf",
    curves=(
        REWARD_CURVE,
        Curve(
            "pull to the base", {"kl_loss": "to its predictions", "pretraining_loss": "its images"}
        ),
    ),
)
