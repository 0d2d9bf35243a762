"""A fine-tuning method as the rest of the pipeline sees it, and the loop that all methods share.

A method is one file that ends with its `METHOD`, and one line in `pipelines/methods.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

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
    """Everything that one training works with."""

    model: DiffusionModel
    """With its adapter."""
    prompts: Sequence[str]
    """The prompts to train on."""
    reward: RewardFn | None
    """Scores their images; None for methods that learn from labels alone."""
    config: C
    sampler: Sampler
    """The run's sampler with the method's own settings."""
    validator: Validator
    generator: torch.Generator
    """Source of all randomness; on the CPU, the same in every process."""
    watch: Watch = field(default_factory=Watch)
    """Tells how long the kinds of work take."""
    data: Any = None
    """Images to learn from (`finetune.labels.weighted_batches.WeightedData`) or labels
    (`finetune.labels.rankings.LabeledImages`); None for methods that draw their images."""
    pretraining: Any = None
    """Image-text pairs to stay close to, as `data`; None stands for the base's images."""

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
    watch: Watch | None = None,
    **validation: Any,
) -> Training[C]:
    """Return a training without images or labels to learn from.

    `sampler` is the run's: the method's own settings are put over it. Without `validation_prompts`,
    the training prompts choose the best weights, on seeds of their own. `validation` are further
    fields of the `Validator`.
    """
    sampler = sampler or Sampler()
    if isinstance(config, DrawsImages):
        sampler = sampler.overridden(config.sampler)
    watched, rules = validation_prompts or prompts, config.validation
    validator = Validator(model, watched, reward, rules, sampler, **validation)
    return Training(model, prompts, reward, config, sampler, validator, generator, watch or Watch())


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics that every method has, of a step or of the steps since the last report."""

    step: int
    gradient_norm: float
    learning_rate: float
    validation_reward: float | None
    """Mean reward on the validation seeds after the step; None where it was not due. Without a
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
) -> Iterator[tuple[list[R], float, dict[str, Any]]]:
    """Take the steps that are left of `total`, or until a guard stops the training.

    `take` trains the adapter in place with the learning rate that it is given. `validate` takes
    the place of `training.validate`.

    Yields:
        Wherever a report is due: what `take` returned since the last one, the seconds that it took,
        and fields of `Metrics`.
    """
    config, now = training.config, training.watch.now
    validate = validate or training.validate
    state.begin(validate, is_tuned=config.adapter.start != BASE)
    results, started = list[R](), now()
    while state.step < total and not state.stopped:
        share = rate_schedule(state.step, warmup=config.warmup, total=total if decays else None)
        rate = config.learning_rate * share
        results.append(take(rate))
        state.step += 1
        is_due = state.step == total or state.step % config.validation.every == 0
        if is_due or state.step % report_every == 0:
            seconds = now() - started
            reward = state.record_validation(validate()) if is_due else None
            common = {"step": state.step, "learning_rate": rate, "validation_reward": reward}
            yield results, seconds, common
            results, started = [], now()


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
    """Settings, the table of the method's name. Their class says what it learns from:
    `DrawsImages`, `LearnsFromImages` or `LearnsFromLabels`."""
    total_steps: Callable[[C], int]
    start: Callable[[Training[C]], TrainState]
    """Returns the state before the first step."""
    train: Callable[[Training[C], Any], Iterator[Any]]
    """Trains the adapter in place, goes on from the state that `start` returned (perhaps with a
    checkpoint loaded), and yields `Metrics` whenever the state may be saved."""
    color: str
    """Color of its lines and bars in charts."""
    curves: tuple[Curve, ...]
    """Charts of its training, for the report."""

    @property
    def learns_from_labels(self) -> bool:
        """Whether it learns from the labels themselves, without a reward."""
        return issubclass(self.config, LearnsFromLabels)
