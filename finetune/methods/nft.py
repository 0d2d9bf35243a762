"""DiffusionNFT: online RL on the forward process (Zheng et al. 2025, arXiv 2509.16117).

    loss = E[r ||p+ - target||^2 + (1 - r) ||p- - target||^2] / beta + kl_weight E[||p - p_base||^2]
    p+ = old + beta (p - old),   p- = old - beta (p - old),   r = 1/2 + clip(A / c, -1, 1) / 2

Each iteration draws images with the old policy and any sampler, scores them, and adds noise again.
For images better than the prompt's average, the policy's prediction p is fitted to the target; for
worse images, the prediction mirrored at the old policy's is fitted. No trajectory is kept, and no
step needs a density. With d = p - old and e = old - target, the first term is

    2 (2r - 1) <d, e> + beta ||d||^2 + ||e||^2 / beta:

a denoising loss weighted by the advantage (of either sign) and linearized at the old policy, plus a
pull to the old policy of strength beta. So learning from bad images is stable, and with equal
rewards (r = 1/2) the old policy is the optimum.

Errors are means over dimensions, in units of the velocity (as in the paper) for every kind of
prediction: the network's outputs are multiplied by `velocity_per_output`. Mixing predictions
commutes with turning them into clean latents, so noise, velocity and clean latents give the same
loss: the loss on clean latents with weight SNR + 1. In units of the noise, the weight would be SNR,
and the model would learn almost nothing in the noisiest steps, where the sampler decides the
content of the image. In these units the embedded model gained a third as much redness from 192
images.

Differs from the paper and its code in:
1. Errors are as in the paper; the authors' code divides errors of clean latents by their mean
   absolute value.
2. Models with a DDIM sampler also work; the paper trains flow-matching models.
3. Rewards are divided by the standard deviation of their prompt's images in this iteration; the
   authors divide by the standard deviation of all images. c is 1 in place of 5, and the loss is not
   multiplied by c.
4. Timesteps are drawn from equal parts of the whole schedule; the authors train on the sampler's
   timesteps.
5. An iteration has several optimizer steps, so the policy moves away from the old policy, which
   follows at a constant rate. In the paper, the old policy first equals the current policy, and
   with one step per iteration the pull is then 0 (`gap` shows it).
6. Images may be drawn with guidance, as users draw. Training has no guidance, as in the paper,
   except for a side network (see `finetune/model/side_network.py`).
7. With regions, a mask M [h, w] (1 where the image is wrong) makes the optimality one of places,
   r(h, w) = 1/2 + clip(A / c, -1, 1) M(h, w) / (2 mean M), and the loss has the term
   outside_weight E[||(1 - M)(p - p_base)||^2]. The first is the advantage at places of ViPO and
   DenseFlow-GRPO (both 2026) in the forward process; the second is Focus-N-Fix's pull (Xing et al.
   2025, arXiv 2501.06481), with predictions in place of pixels. Divided by its mean, M keeps the
   mean size of r - 1/2; r may leave [0, 1], in which the loss is linear.
8. Validation uses the policy's weights; with `adapter.ema_decay`, their moving average.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from finetune.learning.drawing import (
    Iteration,
    IterationMetrics,
    PromptStatistics,
    draw_scored,
    iterate,
    prompts_of,
)
from finetune.learning.method import REWARD_CURVE, Curve, Method, Training
from finetune.learning.regions import balanced
from finetune.learning.training import TrainState, adapter_optimizer, moving_average, take_step
from finetune.model.denoising import (
    NoisedImages,
    NoiseLevels,
    noise_images,
    noised_pairs,
    weighted_denoising_loss,
)
from finetune.model.schedule import NoiseSchedule
from finetune.settings.nft import NFTConfig


@dataclass(frozen=True, kw_only=True)
class Metrics(IterationMetrics):
    """Metrics of one iteration; the old policy drew its images."""

    loss: float
    """Mean loss without the pull to the base."""
    gap: float
    """Mean squared difference between the policy's and the old policy's predictions. At 0 there is
    no pull to the old policy."""
    kl_loss: float | None
    """Mean squared difference to the base's predictions, before `kl_weight`; None if the weight is
    0."""


@dataclass(kw_only=True)
class NFTState(TrainState):
    """`TrainState` with the old policy."""

    old: dict[str, Tensor] = field(default_factory=dict)
    """Adapter weights of the old policy, on the model's device."""

    groups = ("old",)

    def follow(self, old_decay: float) -> None:
        """Set the old policy to `old_decay * old + (1 - old_decay) * present`."""
        self.old = moving_average(self.model, self.old, old_decay)


@dataclass(frozen=True)
class Images:
    """The N images of one iteration."""

    prompts: Sequence[str]
    latents: Tensor
    """[N, C, h, w]."""
    rewards: Tensor
    """[N]."""
    optimality: Tensor
    """[N], see `optimality`."""
    masks: Tensor
    """[N, 1, h, w], where to learn; ones without regions."""


def optimality(advantages: Tensor, advantage_clip: float) -> Tensor:
    """Return r [N] in [0, 1]: 0 for the worst images, 1/2 for average ones, 1 for the best."""
    return 0.5 + 0.5 * (advantages / advantage_clip).clamp(-1, 1)


def nft_loss(
    prediction: Tensor,
    old: Tensor,
    target: Tensor,
    optimality: Tensor,
    beta: float,
    *,
    places: Tensor | None = None,
) -> Tensor:
    """Return the mean of the loss's first term (see above).

    The arguments are tensors:

    Args:
        prediction: the policy's, [M, ...].
        old: the old policy's prediction, [M, ...], without gradient.
        target: target of both predictions, [M, ...].
        optimality: r in [0, 1], [M].
        beta: strength of the pull to the old policy.
        places: M / mean M, [M, 1, h, w]: r is 1/2 + places (r - 1/2) at each place; None means 1.
    """
    # In this form the gradient of equal predictions is exactly 0 for r = 1/2.
    difference = beta * (prediction - old)
    positive = weighted_denoising_loss(old + difference, target, optimality, places)
    negative = weighted_denoising_loss(old - difference, target, 1 - optimality, places)
    if places is not None:
        half, rest = torch.full_like(optimality, 0.5), 1 - places
        positive = positive + weighted_denoising_loss(old + difference, target, half, rest)
        negative = negative + weighted_denoising_loss(old - difference, target, half, rest)
    return (positive + negative) / beta


def start(training: Training[NFTConfig]) -> NFTState:
    """Return the state before the first iteration."""
    model = training.model
    optimizer = adapter_optimizer(model, training.config.learning_rate)
    return NFTState(model=model, optimizer=optimizer, old=model.adapter.state())


def train(training: Training[NFTConfig], state: NFTState) -> Iterator[Metrics]:
    """Train as `Method.train`, and yield metrics after every iteration."""
    config = training.config

    def take(rate: float) -> Iteration:
        images = collect(training, state)
        with training.watch.part("training"):
            loss, gap, kl, norm = update(training, state, images, learning_rate=rate)
        kl_loss = kl if config.kl_weight else None
        figures = {"loss": loss, "gap": gap, "kl_loss": kl_loss, "gradient_norm": norm}
        return Iteration(images.prompts, images.rewards, figures)

    for found in iterate(training, state, take):
        yield Metrics(**found)


def collect(training: Training[NFTConfig], state: NFTState) -> Images:
    """Draw the iteration's images with the old policy, and score them."""
    config = training.config
    chosen = prompts_of(training.prompts, config.prompts_per_iteration, state.step)
    texts = [prompt for prompt in chosen for _ in range(config.images_per_prompt)]
    with training.model.adapter.with_state(state.old):
        latents, rewards = draw_scored(training, texts, batch=config.micro_batch)
    # A window of 1 holds the iteration's own images, all of them.
    statistics = PromptStatistics(window=1, std_floor=config.std_floor)
    advantages = statistics.normalize(texts, rewards)
    masks = torch.ones_like(latents[:, :1])
    if training.regions is not None:
        masks = training.regions.mask(latents, texts)
    found = optimality(advantages, config.advantage_clip)
    return Images(texts, latents, rewards, found, masks)


def update(
    training: Training[NFTConfig], state: NFTState, images: Images, *, learning_rate: float
) -> Tensor:
    """Run the iteration's optimizer steps, then update the old policy.

    Return the means over the steps of loss, gap, KL loss and gradient norm, [4].
    """
    config = training.config
    schedule = training.model.schedule(training.sampler.steps)
    pairs = noised_pairs(
        len(images.prompts),
        config.noise_levels,
        schedule,
        generator=training.generator,
    )
    steps = [
        _step(training, state, images, group, schedule, learning_rate=learning_rate)
        for group in pairs.chunk(config.updates)
    ]
    state.follow(config.old_decay)
    return torch.stack(steps).mean(0)


def _step(
    training: Training[NFTConfig],
    state: NFTState,
    images: Images,
    pairs: Tensor,
    schedule: NoiseSchedule,
    *,
    learning_rate: float,
) -> Tensor:
    """Take an optimizer step on these pairs; return loss, gap, KL loss and gradient norm [4]."""
    config, model, regions = training.config, training.model, training.regions
    noise = torch.randn(len(pairs), *model.latent_shape, generator=training.generator)
    parts = model.processes.batches(len(pairs), config.micro_batch)

    def noised(rows: Tensor) -> NoisedImages:
        numbers, drawn = pairs[rows].unbind(1)
        latents = images.latents[numbers.to(model.device, non_blocking=True)]
        prompts = [images.prompts[i] for i in numbers.tolist()]
        at = NoiseLevels(schedule.training_timesteps[drawn], noise[rows])
        return noise_images(model, schedule, latents, prompts, at)

    def predict(batch: NoisedImages) -> Tensor:
        return batch.per_output * batch.output(model)

    with torch.no_grad(), model.adapter.with_state(state.old):
        olds = [predict(noised(rows)) for rows in parts]
    figures = torch.zeros(3, device=model.device)
    for rows, old in zip(parts, olds, strict=True):
        batch, share = noised(rows), len(rows) / len(pairs)
        kl = outside = torch.zeros((), device=model.device)
        numbers, places = pairs[rows, 0].to(model.device, non_blocking=True), None
        prediction = predict(batch)
        if config.kl_weight or regions is not None:
            with torch.no_grad(), model.adapter_off():
                base = predict(batch)
            kl = (prediction - base).square().mean()
        if regions is not None:
            mask = images.masks[numbers]
            places = balanced(mask)
            outside = regions.outside_weight * ((1 - mask) * (prediction - base)).square().mean()
        target = batch.per_output * batch.target
        optimality = images.optimality[numbers]
        loss = nft_loss(prediction, old, target, optimality, config.beta, places=places)
        state.scaler.scale(share * (loss + config.kl_weight * kl + outside)).backward()
        gap = (prediction.detach() - old).square().mean()
        figures += share * torch.stack([loss.detach(), gap, kl.detach()])
    norm = take_step(
        state,
        learning_rate=learning_rate,
        blame=lambda: [images.prompts[i] for i in pairs[:, 0].tolist()],
    )
    return torch.stack([*model.processes.total(figures), norm])


METHOD = Method(
    paper="Zheng et al. 2025, arXiv 2509.16117",
    story="draws new images in every round and learns from good and bad ones alike, as denoising",
    config=NFTConfig,
    total_steps=lambda config: config.iterations,
    start=start,
    train=train,
    color="#e07b39",
    curves=(
        REWARD_CURVE,
        Curve("distance of predictions", {"gap": "to the old policy", "kl_loss": "to the base"}),
    ),
)
