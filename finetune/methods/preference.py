"""Preference: learn directly from people's labels, without a reward.

    s_i = beta (||p_base - target||^2 - ||p - target||^2)           implicit reward of image i
    ranking:            -log P(ranking | s), Plackett-Luce; for two images -log sigmoid(s_w - s_l)
    verdicts, "pairs":  the same loss for a good and a bad image of one prompt verdicts, "kto":    1
    - sigmoid(y (s_i - beta z0)), y = 1 for good and -1 for bad

For two images this is Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908), for longer rankings
Diffusion-LPO (arXiv 2510.01540), and "kto" is Diffusion-KTO (Li et al. 2024, arXiv 2404.04465). All
images of a ranking or pair have the same noise and timestep: errors under the same noise vary much
less than errors under different noise.

Such losses only ask for a difference. With DPO the difference can grow while the errors of better
*and* worse images rise, which ruins the images. So the worse images' gradient is scaled down where
it would raise the better images' error, by the factor of Diffusion-SDPO (AIDC-AI, 2025); see
`safeguard`.

Good-bad pairs are the default for verdicts. On the embedded model, with the same 384 verdicts,
pairs and published KTO reached the same number of correct images. But KTO lost one of four prompts,
and a third of its images were unreadable: KTO has no better image that a safeguard could protect,
and its baseline z0 lags when both errors rise. KTO is meant for prompts with only good or only bad
images.

Errors are means over dimensions, in units of the velocity for every kind of prediction, as in
`finetune/methods/nft.py`. So beta is proportional to the number of dimensions: the published value
is 2500 for 16,384.

Differs from the papers and their code in:
1. LoRA instead of all weights; images of one model instead of 851,000 pairs of several.
2. Errors are in units of the velocity. The papers use units of the noise, in which the noisiest
   steps have little weight.
3. beta is 2500 in place of 5000 for DPO, as its code halves it.
4. In a ranking, each image of a tie is chosen among all images that are no better (Breslow 1974),
   and the ranking has the same weight as one without ties. DPO's pairs have no ties. Unranked
   images are left out.
5. The safeguard has one factor per ranking; the published code has one per micro-batch. The factor
   weights the better and the worse images of a ranking by their share in the gradient; for a single
   pair it equals the published factor.
6. With masks, an image's errors have a weight at each place, as in IAPO (CVPR 2026): 0 where a mark
   contradicts the preference, which is inside the marks of better images, and the same elsewhere,
   with mean 1. IAPO compares two images; in a longer ranking, an image is a better one if it is
   better than more images than it is worse than.
7. KTO: verdicts are shares of raters, weighted by the number of raters. z0 is a moving average over
   the steps, so it does not depend on the micro-batch size. No prompt is left empty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.labels.held_out import within_share
from finetune.labels.rankings import (
    Errors,
    LabeledImages,
    Part,
    agreement,
    check_labels,
    draw_parts,
    implicit_reward,
    ranking_errors,
)
from finetune.learning.method import Curve, Method, Training, steps
from finetune.learning.method import Metrics as CommonMetrics
from finetune.learning.training import TrainState, adapter_optimizer, take_step
from finetune.model.denoising import NoiseLevels, spread_timesteps
from finetune.model.schedule import NoiseSchedule
from finetune.settings.preference import PreferenceConfig

SAFEGUARD_MARGIN = 0.9
"""Least decrease of the better images' error with the safeguard, to first order, as a share of its
decrease from the better images' gradient alone. Value of Diffusion-SDPO."""
BASELINE_DECAY = 0.9
"""Decay of KTO's moving-average baseline per step."""


@dataclass(frozen=True, kw_only=True)
class Metrics(CommonMetrics):
    """Metrics of the steps since the last report."""

    loss: float
    """Mean loss over rankings and verdicts, weighted."""
    accuracy: float | None
    """Share of pairs whose better image has the higher implicit reward; with KTO, the share of
    verdicts that agree with the side of the baseline."""
    held_out_accuracy: float | None
    """Accuracy on held-out labels; None if no validation was due or no label is held out."""
    winner_error: float | None
    """Mean denoising error of the best or good images less the base's: below 0, the model has
    learned to draw them. If both this and `loser_error` are above 0, the training fails."""
    loser_error: float | None
    """Mean denoising error of the worst or bad images less the base's."""
    safeguard: float | None
    """Mean factor of the worse images' gradient; None without the safeguard."""


@dataclass(kw_only=True)
class PreferenceState(TrainState):
    """`TrainState` with KTO's baseline."""

    baseline: Tensor | float = 0.0
    """z0, the implicit reward of an average image, before beta: a number, or a tensor []."""

    values = ("baseline",)


class Sums(NamedTuple):
    """Sums over the rankings of a step."""

    loss: Any
    right: Any
    """Number of comparisons that the implicit reward orders as raters did."""
    compared: Any
    winner_error: Any
    winners: Any
    loser_error: Any
    losers: Any
    factor: Any
    """Factor of the safeguard."""
    factors: Any
    gain: Any
    """Implicit rewards of KTO's images."""
    gains: Any


def plackett_luce(scores: Tensor, ranks: Tensor) -> Tensor:
    """Return -log P [...] of each ranking of images with scores [..., M].

    A ranking is a sequence of choices of the best among the remaining images. `ranks` [..., M]:
    lower is better, equal is a tie, NaN excludes the image. For two images the loss is -log
    sigmoid(s_w - s_l); for a tie, the mean of both orders.
    """
    left = ranks[..., None, :] >= ranks[..., :, None]  # [..., choice, image]; false for NaN
    present = ~ranks.isnan()
    open_choices = left.sum(-1) > 1
    chances = scores[..., None, :].masked_fill(~left, -torch.inf)
    # An empty row would be the log of 0, whose gradient is NaN.
    chances = chances.masked_fill(~present[..., :, None], 0.0)
    losses = (chances.logsumexp(-1) - scores) * open_choices
    # Ties have more choices than a strict ranking has.
    choices = (present.sum(-1) - 1).clamp(min=0)
    return losses.sum(-1) * choices / open_choices.sum(-1).clamp(min=1)


def kto_loss(gains: Tensor, good: Tensor, baseline: Tensor | float, beta: float) -> Tensor:
    """Return Diffusion-KTO's loss 1 - sigmoid(y beta (gain - z0)) [N] of gains [N].

    y is 1 for the share `good` [N] of raters and -1 for the others; z0 is `baseline` and beta the
    strength of the pull to the base.
    """
    surplus = beta * (gains - baseline)
    return good * torch.sigmoid(-surplus) + (1 - good) * torch.sigmoid(surplus)


def safeguard(residuals: Tensor, pushes: Tensor, margin: float) -> Tensor:
    """Return the factor [R] of the worse images' gradient (Diffusion-SDPO).

    A step along the gradient lowers the better images' error by ||g_w||^2 - factor <g_l, g_w> to
    first order, where g are gradients with respect to the prediction. With this factor, the error
    falls by at least margin ||g_w||^2.

    Args:
        residuals: prediction minus target, [R, M, ...], with the same noise and timestep in a row.
        pushes: gradient of the loss with respect to each image's error, [R, M]: above 0 for better
            images.
        margin: mu, in [0, 1].
    """
    flat = residuals.flatten(2)
    winners = torch.einsum("rm,rmd->rd", pushes.clamp(min=0), flat)
    losers = torch.einsum("rm,rmd->rd", (-pushes).clamp(min=0), flat)
    shared = (winners * losers).sum(1)
    most = (1 - margin) * winners.square().sum(1) / shared
    return torch.where(shared > 0, most.clamp(0, 1), torch.ones_like(shared))


def start(training: Training[PreferenceConfig]) -> PreferenceState:
    """Return the state before the first step.

    Raises:
        PictuneError: the labels prefer no image to another.
    """
    labels: LabeledImages = training.data
    check_labels(labels.taught, training.config)
    optimizer = adapter_optimizer(training.model, training.config.learning_rate)
    return PreferenceState(model=training.model, optimizer=optimizer)


def train(training: Training[PreferenceConfig], state: PreferenceState) -> Iterator[Metrics]:
    """Train as `Method.train`, and yield metrics every `report_every` steps.

    Raises:
        PictuneError: there is neither a reward nor a held-out label to choose the best weights.
    """
    config, validator = training.config, within_share(training)
    schedule = training.model.schedule(training.sampler.steps)

    def take(rate: float) -> Tensor:
        with training.watch.part("training"):
            return update(training, state, schedule, learning_rate=rate)

    reports = steps(
        training,
        state,
        take,
        total=config.updates,
        report_every=config.report_every,
        validate=validator,
    )
    for records, common in reports:
        norm, *sums = torch.stack(records).mean(0).tolist()
        found, is_due = Sums(*sums), common["validation_reward"] is not None
        yield Metrics(
            **common,
            loss=found.loss,
            accuracy=_ratio(found.right, found.compared),
            winner_error=_ratio(found.winner_error, found.winners),
            loser_error=_ratio(found.loser_error, found.losers),
            safeguard=_ratio(found.factor, found.factors),
            gradient_norm=norm,
            held_out_accuracy=validator.accuracy if is_due else None,
        )


def update(
    training: Training[PreferenceConfig],
    state: PreferenceState,
    schedule: NoiseSchedule,
    *,
    learning_rate: float,
) -> Tensor:
    """Take one optimizer step; return the gradient's norm, then `Sums` over all processes."""
    config, model, generator = training.config, training.model, training.generator
    images: LabeledImages = training.data
    parts = draw_parts(images.taught, config, generator=generator)
    total = torch.zeros(len(Sums._fields), device=model.device)
    for part in parts:
        count, width = part.rankings.image.shape
        noise = torch.randn(count, *model.latent_shape, generator=generator)
        at = NoiseLevels(spread_timesteps(schedule, count, generator=generator), noise)
        for rows in model.processes.batches(count, max(1, config.micro_batch // width)):
            rankings = part.rankings.where(rows)
            good = None if part.good is None else part.good[rows]
            own = part._replace(rankings=rankings, good=good)
            errors = ranking_errors(
                model, schedule, images, rankings, at.rows(rows), preferred=own.preferred
            )
            losses, sums = ranking_losses(errors, own, config, state.baseline)
            loss = part.weight / count * losses.sum()
            state.scaler.scale(loss).backward()
            total += torch.stack(sums._replace(loss=loss.detach()))
    model.processes.total(total)
    norm = take_step(
        state,
        learning_rate=learning_rate,
        blame=lambda: [images.prompts[i] for part in parts for i in part.rankings.prompt.tolist()],
    )
    found = Sums(*total)
    if any(part.good is not None for part in parts):
        usual = (found.gain / found.gains).double().clamp(min=0)
        state.baseline = BASELINE_DECAY * state.baseline + (1 - BASELINE_DECAY) * usual
    return torch.stack([norm, *total])


def ranking_losses(
    errors: Errors, part: Part, config: PreferenceConfig, baseline: Tensor | float
) -> tuple[Tensor, Sums]:
    """Return the losses [R] of a part's rankings, and their `Sums`."""
    gains = implicit_reward(errors.own, errors.reference)
    device = gains.device
    above, ranks = -gains.detach(), part.rankings.ranks.to(device, non_blocking=True)
    none = above.new_zeros(())
    if part.good is not None:
        good = part.good.to(device, non_blocking=True)
        losses = kto_loss(gains[:, 0], good, baseline, config.beta)
        said = (good - 0.5).sign()
        right = ((gains.detach()[:, 0] - baseline).sign() * said + 1) / 2
        winners, losers = said[:, None] > 0, said[:, None] < 0
        agreed = torch.where(said != 0, right, 0).sum(), (said != 0).sum()
        factors, gained = (none, none), (gains.detach().sum(), none + len(gains))
    else:
        least, most = ranks.nan_to_num(torch.inf), ranks.nan_to_num(-torch.inf)
        is_decided = part.rankings.decided.to(device, non_blocking=True)[:, None]
        winners = is_decided & (ranks == least.amin(1, keepdim=True))
        losers = is_decided & (ranks == most.amax(1, keepdim=True))
        agreed = agreement(gains.detach(), ranks)
        factors, gained = (none, none), (none, none)
        if config.safeguard:
            gains, factor = safeguarded_rewards(errors, ranks, config)
            factors = factor.sum(), none + len(factor)
        losses = plackett_luce(config.beta * gains, ranks)
    of_winners, of_losers = (((above * chosen).sum(), chosen.sum()) for chosen in (winners, losers))
    figures = (none, *agreed, *of_winners, *of_losers, *factors, *gained)
    return losses, Sums(*(figure.to(above.dtype) for figure in figures))


def safeguarded_rewards(
    errors: Errors, ranks: Tensor, config: PreferenceConfig
) -> tuple[Tensor, Tensor]:
    """Return implicit rewards [R, M] with the safeguard in the gradient, and its factors [R]."""
    gains = implicit_reward(errors.own, errors.reference)
    scores = (config.beta * gains.detach()).requires_grad_()
    (by_score,) = torch.autograd.grad(plackett_luce(scores, ranks).sum(), scores)
    pushes = -by_score  # a higher error is a lower score
    factor = safeguard(errors.residuals.detach(), pushes, SAFEGUARD_MARGIN)
    own = torch.where(pushes < 0, factor[:, None], 1.0)
    return gains.detach() + own * (gains - gains.detach()), factor


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


METHOD = Method(
    paper="Wallace et al. 2023, arXiv 2311.12908",
    story="learns from labels without a reward: better images more, and worse ones less",
    config=PreferenceConfig,
    total_steps=lambda config: config.updates,
    start=start,
    train=train,
    color="#2a9d8f",
    curves=(
        Curve("accuracy on held-out labels", {"held_out_accuracy": "the model's"}),
        Curve("error beside the base's", {"winner_error": "better", "loser_error": "worse"}),
    ),
)
