"""The interface of a fine-tuning method, and the training loop that all methods share.

A method is one file, which defines its `METHOD`, and one line in `pipelines/methods.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from finetune.learning.regions import Regions
from finetune.learning.reward_fn import RewardFn
from finetune.learning.training import TrainState, rate_schedule
from finetune.learning.validation import Validation, Validator
from finetune.model.diffusion import DiffusionModel
from finetune.settings.adapter_kinds import BASE
from finetune.settings.method import DrawsImages, LearnsFromLabels, MethodConfig
from finetune.settings.sampler import Sampler
from finetune.watch import Watch

C = TypeVar("C", bound=MethodConfig)
R = TypeVar("R")


@dataclass(frozen=True)
class Training(Generic[C]):
    """Model, data, reward and settings of one training."""

    model: DiffusionModel
    """The model with its adapter."""
    prompts: Sequence[str]
    """The training prompts."""
    reward: RewardFn | None
    """Scores images of the prompts; None for methods that learn from labels alone."""
    config: C
    sampler: Sampler
    """The run's sampler with the method's own settings."""
    validator: Validator
    generator: torch.Generator
    """Source of all randomness; on the CPU, the same in every process."""
    watch: Watch = field(default_factory=Watch)
    """Measures the time of each kind of work."""
    data: Any = None
    """Images to learn from (`finetune.labels.weighted_batches.WeightedData`) or labels
    (`finetune.labels.rankings.LabeledImages`); None for methods that draw their images."""
    regions: Regions | None = None
    """Places where a method that draws its images may change them; None means everywhere."""

    def validate(self) -> Validation:
        """Validate the current weights."""
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
    watch: Watch | None = None,
    **validation: Any,
) -> Training[C]:
    """Return a training whose `data` is None.

    `sampler` is the run's (the defaults if omitted); the method's own sampler settings override it.
    Without `validation_prompts`, the training prompts choose the best weights, on seeds that
    training does not use. `validation` holds further fields of the `Validator`.
    """
    sampler = sampler or Sampler()
    if isinstance(config, DrawsImages):
        sampler = sampler.overridden(config.sampler)
    model.sampling_guidance = sampler.guidance
    watched, rules = validation_prompts or prompts, config.validation
    validator = Validator(model, watched, reward, rules, sampler, **validation)
    return Training(model, prompts, reward, config, sampler, validator, generator, watch or Watch())


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of every method, for one step or for the steps since the last report."""

    step: int
    gradient_norm: float
    learning_rate: float
    validation_reward: float | None
    """Mean reward on the validation seeds after the step; None if no validation was due. Without a
    reward, the accuracy on held-out labels."""


def steps(
    training: Training[C],
    state: TrainState,
    take: Callable[[float], R],
    *,
    total: int,
    decays: bool = True,
    report_every: int = 1,
    validate: Callable[[], Validation] | None = None,
) -> Iterator[tuple[list[R], dict[str, Any]]]:
    """Run the remaining steps up to `total`, or until a guard stops the training.

    `take` gets a learning rate and trains the adapter in place. `validate` replaces
    `training.validate`.

    Yields:
        For each report: the results of `take` since the last report, and the fields of `Metrics`.
    """
    config, results = training.config, list[R]()
    validate = validate or training.validate
    state.begin(validate, is_tuned=config.adapter.start != BASE)
    while state.step < total and not state.stopped:
        share = rate_schedule(state.step, warmup=config.warmup, total=total if decays else None)
        rate = config.learning_rate * share
        results.append(take(rate))
        state.step += 1
        state.update_average(config.adapter.ema_decay)
        is_due = state.step == total or state.step % config.validation.every == 0
        if is_due or state.step % report_every == 0:
            reward = None
            if is_due:
                with state.averaged():
                    reward = state.record_validation(validate())
            common = {"step": state.step, "learning_rate": rate, "validation_reward": reward}
            yield results, common
            results = []


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
    """A fine-tuning method."""

    paper: str
    """Authors, year and arXiv number of the paper."""
    story: str
    """End of a sentence that begins with the method's name, for the report."""
    config: type[C]
    """Class of its settings. The base class says what the method learns from: `DrawsImages`,
    `LearnsFromImages` or `LearnsFromLabels`."""
    total_steps: Callable[[C], int]
    start: Callable[[Training[C]], TrainState]
    """Returns the state before the first step."""
    train: Callable[[Training[C], Any], Iterator[Any]]
    """Trains the adapter in place, starting from the state of `start` or of a checkpoint. Yields
    `Metrics` whenever the state may be saved."""
    color: str
    """Color of its lines and bars in charts."""
    curves: tuple[Curve, ...]
    """Charts of the training, for the report."""

    @property
    def learns_from_labels(self) -> bool:
        """Whether the method learns from labels directly, without a reward."""
        return issubclass(self.config, LearnsFromLabels)
