"""Batches of labels, and the denoising errors of their images beside the base's."""

from typing import NamedTuple

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.labels.slates import (
    LabeledImages,
    Labels,
    Slates,
    draw_pairs,
    draw_rankings,
    draw_verdicts,
    winners_of,
)
from finetune.model.denoising import denoising_target
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampling import velocity_per_output
from finetune.model.schedule import NoiseSchedule
from finetune.settings.preference import LabelBatchConfig


class Part(NamedTuple):
    """One kind of labels in a step."""

    slates: Slates
    """With one image each for KTO."""
    weight: float
    """Weight of their mean loss; all parts' are 1 together."""
    good: Tensor | None = None
    """[R], share of raters who said good, for KTO."""


class Errors(NamedTuple):
    """Errors of R slates of up to M images; 0 where there is none."""

    residuals: Tensor
    """Prediction minus target, [R, M, C, h, w], in units of the velocity."""
    own: Tensor
    """Mean squared error, [R, M]."""
    reference: Tensor
    """The base's, [R, M], without gradient."""


def usable(labels: Labels, config: LabelBatchConfig) -> tuple[bool, bool]:
    """Return whether rankings and verdicts teach anything: labels of weight 0 do not."""
    good = labels.verdicts.good[labels.verdicts.weight > 0]
    if config.verdicts == "kto":
        both = bool((good > 0).any() and (good < 1).any())
    else:
        both = bool(winners_of(labels.verdicts).any())
    ranked = bool((labels.rankings.decided & (labels.rankings.weight > 0)).any())
    return config.ranking_weight > 0 and ranked, config.verdict_weight > 0 and both


def check_labels(labels: Labels, config: LabelBatchConfig) -> None:
    """Refuse labels that teach nothing.

    Raises:
        PictuneError: no image is better than another by them.
    """
    if any(usable(labels, config)):
        return
    rankings = int((labels.rankings.weight > 0).sum())
    verdicts = int((labels.verdicts.weight > 0).sum())
    found = f"no prompt has a good and a bad image among {verdicts} with verdicts"
    if config.verdicts == "kto":
        found = f"the verdicts on all of {verdicts} images are the same"
    raise PictuneError(
        f"finetune: nothing to learn: {rankings} rankings hold ties alone, and {found}; label more "
        "images of the training prompts, or change ranking_weight, verdict_weight or verdicts"
    )


def draw_parts(
    labels: Labels, config: LabelBatchConfig, *, generator: torch.Generator
) -> list[Part]:
    """Return the labels of one step, with about `config.batch` images in all.

    A kind's share of images and loss is its share of the images that raters labeled, so that few
    rankings beside many verdicts are not learned by heart.
    """
    rankings, verdicts = labels.rankings, labels.verdicts
    ranked, judged = usable(labels, config)
    ranked_images = float((rankings.weight * rankings.present.sum(1)).sum())
    ranks = ranked * config.ranking_weight * ranked_images
    votes = judged * config.verdict_weight * float(verdicts.weight.sum())
    share = ranks / (ranks + votes)
    parts = []
    if ranked:
        count = max(1, int(config.batch * share) // rankings.image.shape[1])
        parts.append(Part(draw_rankings(rankings, count, generator=generator), share))
    images = config.batch - int(config.batch * share)
    if judged and config.verdicts == "pairs":
        slates = draw_pairs(verdicts, max(1, images // 2), generator=generator)
        parts.append(Part(slates, 1 - share))
    elif judged:
        drawn = draw_verdicts(verdicts, max(1, images), generator=generator)
        single = torch.zeros(len(drawn), 1)
        slates = Slates(drawn.image[:, None], single, drawn.prompt, drawn.weight)
        parts.append(Part(slates, 1 - share, drawn.good))
    return parts


def implicit_reward(error: Tensor, reference_error: Tensor) -> Tensor:
    """Return how much better than the base the model denoises each image; all of one shape."""
    return reference_error - error


def slate_errors(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    images: LabeledImages,
    slates: Slates,
    *,
    noise: Tensor,
    timesteps: Tensor,
) -> Errors:
    """Return the errors of the slates' images, with gradient where it is enabled.

    All images of a slate have its noise, of `noise` [R, C, h, w], and its timestep, of `timesteps`
    [R].
    """
    device, (row, column) = model.device, slates.present.nonzero(as_tuple=True)
    latents = images.latents[slates.image[row, column].to(device)]
    own_noise, times = noise[row].to(device), timesteps[row].to(device)
    per_output = velocity_per_output(schedule, times)
    target = per_output * denoising_target(schedule, latents, own_noise, times)
    noisy = schedule.add_noise(latents, own_noise, times)
    cond = model.encode_prompts([images.prompts[i] for i in slates.prompt[row].tolist()])

    def residual() -> Tensor:
        return per_output * model.predict(noisy, times, cond, cond, guidance=1.0) - target

    def in_place(values: Tensor) -> Tensor:
        empty = values.new_zeros(*slates.present.shape, *values.shape[1:])
        return empty.index_put((row.to(device), column.to(device)), values)

    with torch.no_grad(), model.adapter_off():
        reference = residual().square().flatten(1).mean(1)
    own = residual()
    return Errors(in_place(own), in_place(own.square().flatten(1).mean(1)), in_place(reference))
