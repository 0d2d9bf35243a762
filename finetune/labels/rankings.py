"""Training labels in batches, and the denoising errors of their images.

A pair of a good and a bad image is a ranking of two images, so one code path serves both.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.learning.regions import balanced
from finetune.model.denoising import NoiseLevels, noise_images
from finetune.model.diffusion import DiffusionModel
from finetune.model.schedule import NoiseSchedule
from finetune.settings.preference import LabelBatchConfig


@dataclass(frozen=True)
class _Rows:
    """Labels of one kind, on the CPU."""

    image: Tensor
    """[R, M] or [V], rows of `LabeledImages.latents`."""
    prompt: Tensor
    """[R] or [V], numbers of `LabeledImages.prompts`."""
    weight: Tensor
    """[R] or [V], weight of each label."""

    def __len__(self) -> int:
        return len(self.image)

    def where(self, chosen: Tensor) -> Self:
        """Return the chosen labels."""
        return replace(self, **{name: values[chosen] for name, values in vars(self).items()})

    def draw(self, count: int, *, generator: torch.Generator) -> Self:
        """Draw `count` labels with probability proportional to their weights."""
        return self.where(
            torch.multinomial(self.weight, count, replacement=True, generator=generator)
        )


@dataclass(frozen=True)
class Rankings(_Rows):
    """R rankings of up to M images of one prompt each."""

    ranks: Tensor
    """Float [R, M]: lower is better, equal is a tie, NaN is an empty place or an unranked image."""

    @property
    def present(self) -> Tensor:
        """Bool [R, M], true for images with a rank."""
        return ~self.ranks.isnan()

    @property
    def decided(self) -> Tensor:
        """Bool [R], true for rankings that are not ties alone."""
        return better_pairs(self.ranks).flatten(1).any(1)


@dataclass(frozen=True)
class Verdicts(_Rows):
    """Verdicts of raters on V images for their prompts; the weight is the number of raters."""

    good: Tensor
    """[V] in [0, 1], share of raters who answered "good"."""


@dataclass(frozen=True)
class Labels:
    """Rankings and verdicts."""

    rankings: Rankings
    verdicts: Verdicts


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images with their labels."""

    latents: Tensor
    """[N, C, h, w], from `DiffusionModel.encode_images`."""
    prompts: tuple[str, ...]
    """The distinct prompts."""
    taught: Labels
    """Labels to learn from."""
    held_out: Labels
    """Verdicts on images without a training label, and rankings with such an image."""
    wrong: Tensor | None = None
    """Masks [N, 1, h, w] of the wrong parts of each image, where `latents` are; None without
    masks."""


def better_pairs(ranks: Tensor) -> Tensor:
    """Return bool [..., M, M]: image i is better than j by `ranks` [..., M]; false for NaN."""
    return ranks[..., :, None] < ranks[..., None, :]


def good_probabilities(verdicts: Verdicts) -> Tensor:
    """Return the probability [V] of each image to be the good image of a drawn pair.

    Each prompt with both a good and a bad image counts the same. All probabilities are 0 if no
    prompt has both.
    """
    weight = verdicts.weight * verdicts.good
    is_bad = (verdicts.weight * (1 - verdicts.good) > 0).long()
    others_bad = _sum_by(verdicts.prompt, is_bad)[verdicts.prompt] - is_bad
    weight = weight * (others_bad > 0)
    share = weight / _sum_by(verdicts.prompt, weight)[verdicts.prompt]
    share = share.nan_to_num(0.0)
    return share / share.sum().clamp(min=1e-30)


def draw_pairs(verdicts: Verdicts, count: int, *, generator: torch.Generator) -> Rankings:
    """Return `count` pairs of a good and a bad image of one prompt.

    A pair is two opposite verdicts by any raters. Where raters disagree about an image, it is the
    good image of some pairs and the bad image of others.
    """
    share = good_probabilities(verdicts)
    good = torch.multinomial(share, count, replacement=True, generator=generator)
    bad_weight = verdicts.weight * (1 - verdicts.good)
    fits = verdicts.prompt[good, None] == verdicts.prompt[None, :]
    fits[torch.arange(count), good] = False
    bad = torch.multinomial(bad_weight * fits, 1, generator=generator).squeeze(1)
    return Rankings(
        image=torch.stack([verdicts.image[good], verdicts.image[bad]], dim=1),
        ranks=torch.tensor([0.0, 1.0]).expand(count, 2),
        prompt=verdicts.prompt[good],
        weight=torch.ones(count),
    )


def _sum_by(prompt: Tensor, values: Tensor) -> Tensor:
    length = int(prompt.max()) + 1 if len(prompt) else 0
    return values.new_zeros(length).index_add(0, prompt, values)


def agreement(scores: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of image pairs that the scores order as the ranks do, and of all pairs.

    Both arguments are [..., M]. Equal scores count half; ties in `ranks` are left out.
    """
    pairs = better_pairs(ranks)
    margins = scores[..., :, None] - scores[..., None, :]
    return torch.where(pairs, (margins.sign() + 1) / 2, 0).sum(), pairs.sum()


class Part(NamedTuple):
    """Rankings, pairs of verdicts or verdicts of one training step."""

    rankings: Rankings
    """The labels as rankings; for KTO, rankings of one image."""
    weight: float
    """Weight of their mean loss; the weights of all parts sum to 1."""
    good: Tensor | None = None
    """[R], share of raters who answered "good"; for KTO."""

    @property
    def preferred(self) -> Tensor:
        """Bool [R, M], true for images that are better than more images than they are worse than.

        For KTO, true for images that most raters found good.
        """
        if self.good is not None:
            return self.good[:, None] > 0.5
        pairs = better_pairs(self.rankings.ranks)
        return pairs.sum(-1) > pairs.sum(-2)


class Errors(NamedTuple):
    """Denoising errors of R rankings of up to M images; 0 at empty places."""

    residuals: Tensor
    """Prediction minus target, [R, M, C, h, w], in units of the velocity, times the places'
    weights."""
    own: Tensor
    """Mean squared error, [R, M]."""
    reference: Tensor
    """Mean squared error of the base, [R, M], without gradient."""


def usable(labels: Labels, config: LabelBatchConfig) -> tuple[bool, bool]:
    """Return whether rankings, and whether verdicts, have labels to learn from."""
    good = labels.verdicts.good[labels.verdicts.weight > 0]
    if config.verdicts == "kto":
        both = bool((good > 0).any() and (good < 1).any())
    else:
        both = bool(good_probabilities(labels.verdicts).any())
    ranked = bool((labels.rankings.decided & (labels.rankings.weight > 0)).any())
    return config.ranking_weight > 0 and ranked, config.verdict_weight > 0 and both


def check_labels(labels: Labels, config: LabelBatchConfig) -> None:
    """Refuse labels that prefer no image to another.

    Raises:
        PictuneError: no label of weight above 0 says that an image is better than another.
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

    Rankings and verdicts share the images and the loss in proportion to their labeled images. So a
    few rankings beside many verdicts are not overfitted.
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
        parts.append(Part(rankings.draw(count, generator=generator), share))
    images = config.batch - int(config.batch * share)
    if judged and config.verdicts == "pairs":
        pairs = draw_pairs(verdicts, max(1, images // 2), generator=generator)
        parts.append(Part(pairs, 1 - share))
    elif judged:
        drawn = verdicts.draw(max(1, images), generator=generator)
        same = torch.zeros(len(drawn), 1)
        singles = Rankings(drawn.image[:, None], drawn.prompt, drawn.weight, same)
        parts.append(Part(singles, 1 - share, drawn.good))
    return parts


def implicit_reward(error: Tensor, reference_error: Tensor) -> Tensor:
    """Return the base's denoising error minus the model's; arguments and result have one shape."""
    return reference_error - error


def ranking_errors(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    images: LabeledImages,
    rankings: Rankings,
    at: NoiseLevels,
    *,
    preferred: Tensor | None = None,
) -> Errors:
    """Return the errors of the rankings' images, with a gradient if autograd is on.

    All images of a ranking share the noise and the timestep of its row in `at` [R]. With masks, the
    errors of the `preferred` images [R, M] leave out their wrong parts.
    """
    row, column = rankings.present.nonzero(as_tuple=True)
    image = rankings.image[row, column]
    numbers = torch.stack([row, column, image]).to(model.device, non_blocking=True)
    noised = noise_images(
        model,
        schedule,
        images.latents[numbers[2]],
        [images.prompts[i] for i in rankings.prompt[row].tolist()],
        at.rows(row),
    )
    target = noised.per_output * noised.target
    places = torch.ones_like(target[:, :1])
    if images.wrong is not None and preferred is not None:
        is_better = preferred[row, column].to(model.device, non_blocking=True)
        places = balanced(1 - is_better[:, None, None, None] * images.wrong[numbers[2]])

    def residual() -> Tensor:
        return noised.per_output * noised.output(model) - target

    def squares(residuals: Tensor) -> Tensor:
        return (residuals.square() * places).flatten(1).mean(1)

    def in_place(values: Tensor) -> Tensor:
        empty = values.new_zeros(*rankings.present.shape, *values.shape[1:])
        return empty.index_put((numbers[0], numbers[1]), values)

    with torch.no_grad(), model.adapter_off():
        reference = squares(residual())
    own = residual()
    return Errors(in_place(own * places), in_place(squares(own)), in_place(reference))
