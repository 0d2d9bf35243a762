"""Validation during training: reward and monitors on fixed prompts and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from finetune.learning.monitors import PIXEL_MONITOR, Monitor, summary
from finetune.learning.reward_fn import RewardFn, score
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationConfig, ValidationRules

FIRST_SEED = 1_000_000
"""Seed of a prompt's first image, the same at every validation and in every run, so that
differences come from the weights."""
SAMPLED_PROMPTS = 8
"""Largest number of prompts whose images a validation keeps."""
SAMPLES_PER_PROMPT = 6
"""Largest number of images that a validation keeps of each prompt."""


@dataclass(frozen=True)
class Validation:
    """Result of one validation."""

    rewards: Tensor
    """Rewards [N]; image i has the same prompt and seed at every validation. NaN without a reward
    model."""
    monitors: dict[str, float]
    """`finetune.learning.monitors.summary` of the images."""
    config: ValidationConfig
    """The settings of this validation."""
    samples: Tensor
    """uint8 [P, n, 3, H, W], on the CPU: the first n images of each of the first P prompts."""
    rules: ValidationRules = field(default_factory=ValidationRules)
    """The rules of this validation."""

    @cached_property
    def reward(self) -> float:
        """Mean reward of the images."""
        return float(self.rewards.mean())


@dataclass(frozen=True)
class Validator:
    """Validates the current weights, always on the same prompts and seeds."""

    model: DiffusionModel
    prompts: Sequence[str]
    reward: RewardFn | None
    """Reward to validate by; if None, only the monitors are measured."""
    config: ValidationConfig
    sampler: Sampler
    """Sampler of the images; its eta is ignored, since validation images are deterministic."""
    monitor: Monitor = PIXEL_MONITOR
    rules: ValidationRules = field(default_factory=ValidationRules)
    batch: int = 32
    """Images drawn at a time."""

    def __call__(self) -> Validation:
        """Draw the validation images and return their mean reward and monitors."""
        config, batch, processes = self.config, self.batch, self.model.processes
        texts = [prompt for prompt in self.prompts for _ in range(config.images_per_prompt)]
        first, count = FIRST_SEED, config.images_per_prompt
        seeds = [first + i for _ in self.prompts for i in range(count)]
        rows, drawn = processes.share_to_draw(len(texts), batch)
        mine, own_seeds = [texts[i] for i in drawn], [seeds[i] for i in drawn]
        sampler = self.sampler.deterministic()
        images = draw(self.model, mine, sampler, seeds=own_seeds, batch=batch)
        parts = [
            self.monitor.measure(images[i : i + batch], mine[i : i + batch])
            for i in range(0, len(mine), batch)
        ]
        measured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        measured["reward"] = images.new_full((len(mine),), torch.nan)
        if self.reward is not None:
            measured["reward"] = score(self.reward, images, mine)
        found = {
            name: processes.gather(rows, values[: len(rows)], len(texts))
            for name, values in measured.items()
        }
        rewards, samples = found.pop("reward"), self._samples(rows, images)
        return Validation(rewards, summary(found, texts), config, samples, self.rules)

    def within(self, calls: float) -> "Validator":
        """Return a validator of at most `calls` passes, with fewer images, then fewer prompts."""
        most = max(1, int(calls / self.calls_per_image))
        prompts = self.prompts[:: -(-len(self.prompts) // most)]
        count = min(self.config.images_per_prompt, most // len(prompts))
        config = self.config.model_copy(update={"images_per_prompt": count})
        return replace(self, prompts=prompts, config=config)

    @property
    def calls(self) -> int:
        """Network passes of one validation, counted per image."""
        return self.calls_per_image * len(self.prompts) * self.config.images_per_prompt

    @property
    def calls_per_image(self) -> int:
        """Network passes of one image."""
        has_two_passes = self.sampler.guidance != 1 and not self.model.family.embeds_guidance
        return self.sampler.steps * (1 + has_two_passes)

    def _samples(self, rows: Tensor, images: Tensor) -> Tensor:
        """Return the samples of all processes; this process has `images` [B, ...] of its `rows`."""
        whole = torch.arange(len(self.prompts) * self.config.images_per_prompt)
        kept = whole.view(len(self.prompts), -1)[:SAMPLED_PROMPTS, :SAMPLES_PER_PROMPT]
        numbers = kept.flatten()
        (mine,) = torch.isin(rows, numbers).nonzero(as_tuple=True)
        places = torch.searchsorted(numbers, rows[mine])
        own = images[mine.to(images.device, non_blocking=True)]
        pixels = (own * 255).round().byte()
        samples = self.model.processes.gather(places, pixels, len(numbers))
        return samples.cpu().reshape(*kept.shape, *images.shape[1:])
