"""Labels that methods learn from, in batches, and the denoising errors of their images.

A good and a bad image of one prompt are a ranking of two, so that one code path serves both.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from data.errors import PictuneError
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
    """[R] or [V], how much each counts."""

    def __len__(self) -> int:
        return len(self.image)

    def where(self, chosen: Tensor) -> Self:
        """Return some of the labels."""
        return replace(self, **{name: values[chosen] for name, values in vars(self).items()})

    def draw(self, count: int, *, generator: torch.Generator) -> Self:
        """Return so many of the labels, each drawn by its weight."""
        return self.where(
            torch.multinomial(self.weight, count, replacement=True, generator=generator)
        )


@dataclass(frozen=True)
class Rankings(_Rows):
    """R rankings of up to M images of one prompt each."""

    ranks: Tensor
    """[R, M] in float: lower is better, equal is a tie, NaN is no image or one without a rank."""

    @property
    def present(self) -> Tensor:
        """Bool [R, M], true where there is an image with a rank."""
        return ~self.ranks.isnan()

    @property
    def decided(self) -> Tensor:
        """Bool [R], true where one image is better than another."""
        return better_pairs(self.ranks).flatten(1).any(1)


@dataclass(frozen=True)
class Verdicts(_Rows):
    """Verdicts of raters on V images for their prompts; the weight is the number of raters."""

    good: Tensor
    """[V] in [0, 1], share of the raters who said good."""


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
    """Verdicts on images that `taught` does not know, and rankings with such an image."""
    rewards: Tensor | None = None
    """[N] by the reward, on the CPU, NaN for images that are not in `held_out`; None without a
    reward."""


def better_pairs(ranks: Tensor) -> Tensor:
    """Return bool [..., M, M]: image i is better than j by `ranks` [..., M]; NaN is neither."""
    return ranks[..., :, None] < ranks[..., None, :]


def winners_of(verdicts: Verdicts) -> Tensor:
    """Return the probability [V] of each image to be drawn as the good one of a pair.

    Each prompt with a good image and another, bad one counts the same; all are 0 without any.
    """
    weight = verdicts.weight * verdicts.good
    is_bad = (verdicts.weight * (1 - verdicts.good) > 0).long()
    others_bad = _sum_by(verdicts.prompt, is_bad)[verdicts.prompt] - is_bad
    weight = weight * (others_bad > 0)
    share = weight / _sum_by(verdicts.prompt, weight)[verdicts.prompt]
    share = share.nan_to_num(0.0)
    return share / share.sum().clamp(min=1e-30)


def draw_pairs(verdicts: Verdicts, count: int, *, generator: torch.Generator) -> Rankings:
    """Return so many pairs of a good and a bad image of one prompt.

    A pair is two verdicts of opposite sense by any raters, so where raters differ about an image it
    is the good one of some pairs and the bad one of others.
    """
    share = winners_of(verdicts)
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
    """Return how many pairs of images the scores order as the ranks do, and how many there are.

    Both arguments are [..., M]. Equal scores count half; ties in `ranks` are no pairs.
    """
    pairs = better_pairs(ranks)
    margins = scores[..., :, None] - scores[..., None, :]
    return ((margins.sign() + 1) / 2)[pairs].sum(), pairs.sum()


class Part(NamedTuple):
    """One kind of labels in a step."""

    rankings: Rankings
    """Labels, for KTO with one image each."""
    weight: float
    """Weight of their mean loss; the weights of all parts sum to 1."""
    good: Tensor | None = None
    """[R], share of raters who said good, for KTO."""


class Errors(NamedTuple):
    """Errors of R rankings of up to M images; 0 where there is none."""

    residuals: Tensor
    """Prediction minus target, [R, M, C, h, w], in units of the velocity."""
    own: Tensor
    """Mean squared error, [R, M]."""
    reference: Tensor
    """Mean squared error of the base, [R, M], without gradient."""


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
    """Refuse labels that teach nothing: no image is better than another by them."""
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
    """Return how much better than the base the model denoises each image; all of one shape."""
    return reference_error - error


def ranking_errors(
    model: DiffusionModel,
    schedule: NoiseSchedule,
    images: LabeledImages,
    rankings: Rankings,
    at: NoiseLevels,
) -> Errors:
    """Return the errors of the rankings' images, with gradient where it is enabled.

    All images of a ranking share its noise and timestep, of `at` [R].
    """
    device, (row, column) = model.device, rankings.present.nonzero(as_tuple=True)
    noised = noise_images(
        model,
        schedule,
        images.latents[rankings.image[row, column].to(device)],
        [images.prompts[i] for i in rankings.prompt[row].tolist()],
        at.rows(row),
    )
    target = noised.per_output * noised.target

    def residual() -> Tensor:
        return noised.per_output * noised.output(model) - target

    def in_place(values: Tensor) -> Tensor:
        empty = values.new_zeros(*rankings.present.shape, *values.shape[1:])
        return empty.index_put((row.to(device), column.to(device)), values)

    with torch.no_grad(), model.adapter_off():
        reference = residual().square().flatten(1).mean(1)
    own = residual()
    return Errors(in_place(own), in_place(own.square().flatten(1).mean(1)), in_place(reference))
