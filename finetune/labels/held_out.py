"""Accuracy of the implicit reward on labels that nothing was learned from."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.labels.label_batches import implicit_reward, slate_errors
from finetune.labels.slates import Labels, Slates, agreement, draw_pairs, draw_rankings, winners_of
from finetune.learning.method import Training
from finetune.learning.validation import FIRST_SEED, Validation
from finetune.model.adapter_kinds import BASE
from finetune.model.denoising import spread_timesteps
from finetune.settings.preference import PreferenceConfig

_logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
"""Largest share of the network's work that validations take."""
MOST_SLATES, LEAST_SLATES = 64, 8
"""Held-out rankings, and held-out pairs of verdicts, that the accuracy is measured on: at most, and
at least if there are as many."""
CALLS_PER_SLATE = 12
"""Passes of an image through the network for a ranking of four and a pair, tuned and untuned."""
CALLS_PER_TAUGHT = 3
"""The same for an image that is learned from: tuned, untuned and backward, each at least once."""


@dataclass
class LabelValidator:
    """Validates by the reward and on held-out labels, always with the same noise and timesteps."""

    training: Training[Any]
    micro_batch: int
    """Images of one network call, but at least one slate."""
    most_slates: int = MOST_SLATES
    accuracy: float | None = None
    """Share of held-out pairs of images that the implicit reward orders as raters did, at the last
    validation; None without any."""
    slates: list[Slates] = field(init=False)

    def __post_init__(self) -> None:
        """Draw the held-out slates.

        Raises:
            PictuneError: there are none, and no reward either.
        """
        images = self.training.labels
        assert images is not None
        self.slates = held_out_slates(
            images.held_out, self.most_slates, generator=self._generator()
        )
        if self.training.reward is None and not self.slates:
            raise PictuneError(
                "finetune: no held-out label says which image is better, and there is no reward, "
                "so nothing can choose weights; label more, raise held_out, or run `make reward`"
            )

    def __call__(self) -> Validation:
        """Return the validation by the reward, or without one with `accuracy` in its place."""
        found = self.training.validate()
        with self.training.watch.part("validation"):
            self.accuracy = self._accuracy(self._implicit_rewards())
        if self.training.reward is None:
            assert self.accuracy is not None
            return replace(found, rewards=torch.tensor([self.accuracy]))
        return found

    @property
    def reward_accuracy(self) -> float | None:
        """The same share by the run's reward; None without one."""
        images = self.training.labels
        assert images is not None
        if images.rewards is None:
            return None
        return self._accuracy([images.rewards[slates.image] for slates in self.slates])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(FIRST_SEED)

    def _accuracy(self, scores: list[Tensor]) -> float | None:
        found = [
            agreement(some, slates.ranks) for some, slates in zip(scores, self.slates, strict=True)
        ]
        right, compared = (sum(float(one[i]) for one in found) for i in range(2))
        return right / compared if compared else None

    @torch.no_grad()
    def _implicit_rewards(self) -> list[Tensor]:
        """Return the implicit rewards [R, M] of the slates, on the CPU; 0 where no image is."""
        training, generator = self.training, self._generator()
        model, images = training.model, training.labels
        assert images is not None
        schedule = model.schedule(training.sampler.steps)
        scores = []
        for slates in self.slates:
            count, width = slates.image.shape
            noise = torch.randn(count, *model.latent_shape, generator=generator)
            timesteps = spread_timesteps(schedule, count, generator=generator)
            batch = max(1, self.micro_batch // width)
            mine = model.processes.share(count, batch)
            whole = torch.zeros(count, width, device=model.device)
            for rows in mine.split(batch) if len(mine) else ():
                some, own_noise = slates.where(rows), noise[rows]
                found = slate_errors(
                    model, schedule, images, some, noise=own_noise, timesteps=timesteps[rows]
                )
                whole[rows.to(model.device)] = implicit_reward(found.own, found.reference)
            scores.append(model.processes.total(whole).cpu())
        return scores


def within_share(training: Training[PreferenceConfig]) -> LabelValidator:
    """Return the validator of a training whose validations together take no more than their share.

    That is `VALIDATION_SHARE` of the images that pass through the network.
    """
    config, validator = training.config, training.validator
    validations = 1 + -(-config.updates // config.validation.every)
    validations += config.adapter.start != BASE
    share = VALIDATION_SHARE / (1 - VALIDATION_SHARE)
    calls = share * config.updates * config.batch * CALLS_PER_TAUGHT / validations
    fewer = validator.within(calls - min(calls / 4, MOST_SLATES * CALLS_PER_SLATE))
    left = calls - fewer.calls
    slates = min(MOST_SLATES, max(LEAST_SLATES, int(left / CALLS_PER_SLATE)))
    if fewer.config != validator.config or len(fewer.prompts) < len(validator.prompts):
        _logger.warning(
            "finetune: each of %d validations draws %d images of %d prompts, not %d of %d, so that "
            "they take %g of the work",
            validations,
            fewer.config.images_per_prompt,
            len(fewer.prompts),
            validator.config.images_per_prompt,
            len(validator.prompts),
            VALIDATION_SHARE,
        )
    return LabelValidator(replace(training, validator=fewer), config.micro_batch, slates)


def held_out_slates(labels: Labels, most: int, *, generator: torch.Generator) -> list[Slates]:
    """Return rankings and pairs of verdicts that say which image is better, at most a few."""
    slates = []
    rankings = labels.rankings.where(labels.rankings.decided)
    if len(rankings):
        slates.append(draw_rankings(rankings, most, generator=generator))
    if winners_of(labels.verdicts).any():
        slates.append(draw_pairs(labels.verdicts, most, generator=generator))
    return slates
