"""Accuracy of the implicit reward on held-out labels."""

import logging
from dataclasses import replace

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.labels.rankings import (
    LabeledImages,
    Labels,
    Rankings,
    agreement,
    draw_pairs,
    good_probabilities,
    implicit_reward,
    ranking_errors,
)
from finetune.learning.method import Training
from finetune.learning.validation import FIRST_SEED, Validation
from finetune.model.denoising import NoiseLevels, spread_timesteps
from finetune.settings.adapter_kinds import BASE
from finetune.settings.preference import PreferenceConfig

_logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
"""Largest share of the network passes that validations may take."""
MOST_RANKINGS, LEAST_RANKINGS = 64, 8
"""Upper and lower limit on the number of held-out rankings that measure the accuracy. The same
limits hold for pairs of verdicts. With fewer labels than the lower limit, all are used."""
CALLS_PER_RANKING = 12
"""Network passes of one image for a ranking of four and a pair, each tuned and untuned."""
CALLS_PER_TAUGHT = 3
"""Least number of network passes for a training image: tuned, untuned and backward."""


class LabelValidator:
    """Validates by the reward and on held-out labels, with the same noise and timesteps."""

    accuracy: float | None = None
    """Share of held-out pairs of images that the implicit reward orders as raters did, at the last
    validation; None without held-out labels."""

    def __init__(self, training: Training[PreferenceConfig], most: int) -> None:
        """Draw at most `most` held-out rankings and as many pairs of verdicts.

        Raises:
            PictuneError: there are neither held-out labels nor a reward.
        """
        self.training = training
        self.images: LabeledImages = training.data
        generator = self._generator()
        self.rankings = held_out_rankings(self.images.held_out, most, generator=generator)
        if training.reward is None and not self.rankings:
            raise PictuneError(
                "finetune: no held-out label says which image is better, and there is no reward, "
                "so nothing can choose weights; label more, raise held_out, or run `make reward`"
            )

    def __call__(self) -> Validation:
        """Return the validation by the reward; without a reward, by `accuracy`."""
        found = self.training.validate()
        with self.training.watch.part("validation"):
            self.accuracy = self._accuracy(self._implicit_rewards())
        if self.training.reward is None:
            return replace(found, rewards=torch.tensor([self.accuracy]))
        return found

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(FIRST_SEED)

    def _accuracy(self, scores: list[Tensor]) -> float | None:
        pairs = zip(scores, self.rankings, strict=True)
        found = [agreement(own, some.ranks) for own, some in pairs]
        right, compared = (sum(float(one[i]) for one in found) for i in range(2))
        return right / compared if compared else None

    @torch.no_grad()
    def _implicit_rewards(self) -> list[Tensor]:
        """Return the implicit rewards [R, M] of the rankings, on the CPU; 0 at empty places."""
        model, generator = self.training.model, self._generator()
        schedule = model.schedule(self.training.sampler.steps)
        scores = []
        for rankings in self.rankings:
            count, width = rankings.image.shape
            noise = torch.randn(count, *model.latent_shape, generator=generator)
            at = NoiseLevels(spread_timesteps(schedule, count, generator=generator), noise)
            batch = max(1, self.training.config.micro_batch // width)
            mine = model.processes.share(count, batch)
            whole = torch.zeros(count, width, device=model.device)
            for rows in mine.split(batch) if len(mine) else ():
                some = rankings.where(rows)
                found = ranking_errors(model, schedule, self.images, some, at.rows(rows))
                at_rows = rows.to(model.device, non_blocking=True)
                whole[at_rows] = implicit_reward(found.own, found.reference)
            scores.append(model.processes.total(whole).cpu())
        return scores


def within_share(training: Training[PreferenceConfig]) -> LabelValidator:
    """Return a validator whose validations take at most `VALIDATION_SHARE` of network passes."""
    config, validator = training.config, training.validator
    validations = 1 + -(-config.updates // config.validation.every)
    validations += config.adapter.start != BASE
    share = VALIDATION_SHARE / (1 - VALIDATION_SHARE)
    calls = share * config.updates * config.batch * CALLS_PER_TAUGHT / validations
    fewer = validator.within(calls - min(calls / 4, MOST_RANKINGS * CALLS_PER_RANKING))
    left = calls - fewer.calls
    most = min(MOST_RANKINGS, max(LEAST_RANKINGS, int(left / CALLS_PER_RANKING)))
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
    return LabelValidator(replace(training, validator=fewer), most)


def held_out_rankings(labels: Labels, most: int, *, generator: torch.Generator) -> list[Rankings]:
    """Return at most `most` rankings, and as many pairs of verdicts, that prefer an image."""
    found = []
    rankings = labels.rankings.where(labels.rankings.decided)
    if len(rankings):
        found.append(rankings.draw(most, generator=generator))
    if good_probabilities(labels.verdicts).any():
        found.append(draw_pairs(labels.verdicts, most, generator=generator))
    return found
