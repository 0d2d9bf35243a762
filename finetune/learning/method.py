"""A fine-tuning method as the rest of the pipeline sees it.

A method is one file that ends with its `METHOD`, and one line in `pipelines/methods.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from data.errors import PictuneError
from finetune.labels.slates import LabeledImages
from finetune.learning.monitors import PIXEL_MONITOR, Monitor
from finetune.learning.reward_fn import RewardFn
from finetune.learning.training import TrainState
from finetune.learning.validation import Validation, Validator
from finetune.model.diffusion import DiffusionModel
from finetune.settings.method import DrawsImages, MethodConfig
from finetune.settings.sampler import Sampler
from finetune.settings.validation import ValidationRules
from finetune.watch import Watch


@dataclass(frozen=True)
class WeightedData:
    """Images that exist, as latents."""

    latents: Tensor
    """[N, C, h, w], from `DiffusionModel.encode_images`."""
    prompts: Sequence[str]
    """The prompt of each image."""
    rewards: Tensor
    """[N]."""

    def __post_init__(self) -> None:
        """Refuse data that do not belong together."""
        if not len(self.latents) == len(self.prompts) == len(self.rewards) > 0:
            counts = (
                f"{len(self.latents)} latents, {len(self.prompts)} prompts, "
                f"{len(self.rewards)} rewards"
            )
            raise PictuneError(f"finetune: {counts}; give the same number, at least one, of each")


C = TypeVar("C", bound=MethodConfig)


@dataclass(frozen=True)
class Training(Generic[C]):
    """Everything that one training works with."""

    model: DiffusionModel
    """With its adapter."""
    prompts: Sequence[str]
    """The prompts to train on."""
    reward: RewardFn | None
    """None where there is none, for methods that learn from labels alone."""
    config: C
    sampler: Sampler
    """The run's sampler with the method's own settings."""
    validator: Validator
    generator: torch.Generator
    """Source of all randomness; on the CPU, the same in every process."""
    data: WeightedData | None = None
    """Images to learn from, for methods that learn from images."""
    pretraining: WeightedData | None = None
    """Image-text pairs to stay close to (their rewards are not read); the base's images if None."""
    labels: LabeledImages | None = None
    """Labels to learn from, for methods that learn from labels."""
    watch: Watch = field(default_factory=Watch)
    """Tells how long the kinds of work take."""

    def validate(self) -> Validation:
        """Validate the model's present weights."""
        with self.watch.part("validation"):
            return self.validator()


def new_training(
    model: DiffusionModel,
    prompts: Sequence[str],
    reward: RewardFn | None,
    config: C,
    *,
    generator: torch.Generator,
    sampler: Sampler | None = None,
    validation_prompts: Sequence[str] = (),
    monitor: Monitor = PIXEL_MONITOR,
    labeled: Mapping[str, Tensor] | None = None,
    watch: Watch | None = None,
    rules: ValidationRules | None = None,
    batch: int = 32,
) -> Training[C]:
    """Return a training without images or labels to learn from.

    Args:
        model: with its adapter.
        prompts: the prompts to train on.
        reward: scores their images; None for methods that learn from labels alone.
        config: settings of the method.
        generator: source of all randomness.
        sampler: the run's; the defaults if omitted. The method's own settings are put over it.
        validation_prompts: choose the best weights; the training prompts if omitted, on seeds of
            their own.
        monitor: measures the validation images beside their reward.
        labeled: rewards [n] of the images of each prompt that people labeled, which show when the
            reward goes stale.
        watch: tells how long the kinds of work take; a new one by the processor's clock if omitted.
        rules: of validation; the defaults if omitted.
        batch: images that a validation draws at a time.
    """
    sampler = sampler or Sampler()
    if isinstance(config, DrawsImages):
        sampler = sampler.overridden(config.sampler)
    watched = validation_prompts or prompts
    validator = Validator(
        model,
        watched,
        reward,
        config.validation,
        sampler,
        monitor,
        labeled or {},
        rules or ValidationRules(),
        batch,
    )
    return Training(
        model, prompts, reward, config, sampler, validator, generator, watch=watch or Watch()
    )


@dataclass(frozen=True)
class Curve:
    """A chart of metrics over the steps."""

    title: str
    """Title of the chart and its axis."""
    metrics: dict[str, str]
    """Names of metrics and their legends; the first is drawn in the method's color."""


REWARD_CURVE = Curve("reward", {"validation_reward": "validation", "reward": "training images"})
"""Chart of the reward, for methods that draw their images."""


@dataclass(frozen=True)
class Method(Generic[C]):
    """One way to fine-tune."""

    paper: str
    """Authors, year and number of its paper."""
    story: str
    """The rest of a sentence that begins with its name, for the report."""
    config: type[C]
    """Settings, the table of the method's name."""
    learns_from: Literal["rollouts", "images", "labels"]
    """Source of what it learns: images that it draws, existing ones with their rewards, or labels.
    For the last two, `config` is a `LearnsFromImages` or `LearnsFromLabels`."""
    total_steps: Callable[[C], int]
    start: Callable[[Training[C]], TrainState]
    """Returns the state before the first step."""
    train: Callable[[Training[C], Any], Iterator[Any]]
    """Trains the adapter in place, goes on from the state that `start` returned (perhaps with a
    checkpoint loaded), and yields metrics whenever the state may be saved: a dataclass of plain
    values, among them `step`, and `validation_reward` or None."""
    color: str
    """Color of its lines and bars in charts."""
    curves: tuple[Curve, ...]
    """Charts of its training, for the report."""
