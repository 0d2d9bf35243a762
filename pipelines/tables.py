"""The tables of a settings file, and the model that checks each.

A model is imported only when its table is asked for, and none imports torch or a web framework: so
a stage that is done says so at once.
"""

from collections.abc import Callable
from functools import partial

from pydantic import BaseModel

from pipelines.methods import METHODS, find_settings


def _run() -> type[BaseModel]:
    from pipelines.config import RunConfig

    return RunConfig


def _store() -> type[BaseModel]:
    from data.store.database import StoreConfig

    return StoreConfig


def _sampler() -> type[BaseModel]:
    from finetune.settings.sampler import Sampler

    return Sampler


def _images() -> type[BaseModel]:
    from pipelines.image_plan import ImagesConfig

    return ImagesConfig


def _tasks() -> type[BaseModel]:
    from labeling_app.tasks import TasksConfig

    return TasksConfig


def _label() -> type[BaseModel]:
    from labeling_app.settings import LabelConfig

    return LabelConfig


def _simulate() -> type[BaseModel]:
    from labeling_app.simulated import SimulatedRaterConfig

    return SimulatedRaterConfig


def _dataset() -> type[BaseModel]:
    from data.publication import DatasetConfig

    return DatasetConfig


def _reward() -> type[BaseModel]:
    from reward.settings import RewardConfig

    return RewardConfig


def _finetune() -> type[BaseModel]:
    from pipelines.tuning_plan import FinetuneConfig

    return FinetuneConfig


def _rounds() -> type[BaseModel]:
    from pipelines.rounds import RoundsConfig

    return RoundsConfig


def _evaluate() -> type[BaseModel]:
    from pipelines.evaluation_plan import EvaluateConfig

    return EvaluateConfig


def _compare() -> type[BaseModel]:
    from labeling_app.comparisons import CompareConfig

    return CompareConfig


def _arena() -> type[BaseModel]:
    from pipelines.arena.settings import ArenaConfig

    return ArenaConfig


def _play() -> type[BaseModel]:
    from pipelines.playground.settings import PlayConfig

    return PlayConfig


TABLES: dict[str, Callable[[], type[BaseModel]]] = {
    "run": _run,
    "store": _store,
    "sampler": _sampler,
    "images": _images,
    "tasks": _tasks,
    "label": _label,
    "simulate": _simulate,
    "dataset": _dataset,
    "reward": _reward,
    "finetune": _finetune,
    **{name: partial(find_settings, name) for name in METHODS},
    "rounds": _rounds,
    "evaluate": _evaluate,
    "compare": _compare,
    "arena": _arena,
    "play": _play,
}
"""Functions that import a table's model, in the order in which settings are written."""
