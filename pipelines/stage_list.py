"""The stages of the command line, in the order of the story.

A stage's module is imported only when the stage is called: `--help` is quick, and labeling needs
no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from pipelines.methods import METHODS
from pipelines.tables import TABLES

BEGINNINGS = ("images", "import", "rounds", "demo")
"""The stages that make a run."""


@dataclass(frozen=True)
class Stage:
    """One stage, as the command line knows it."""

    help: str
    load: Callable[[], ModuleType]
    """Imports the stage's module. Its `main(run, settings, **flags)` runs the stage, and
    `add_flags(parser)` adds the flags that only this stage has, where there are any."""
    tables: tuple[str, ...] = ()
    """The tables of settings that are checked before it runs; empty for all of them."""
    standalone: bool = False
    """True for stages that read only what their flags name and do not change the run; their
    settings are not checked against the run's record."""

    @property
    def checked_tables(self) -> tuple[str, ...]:
        """The tables of settings that are checked before it runs."""
        return self.tables or tuple(TABLES)


def _images() -> ModuleType:
    from pipelines.stages import images

    return images


def _label() -> ModuleType:
    from pipelines.stages import label

    return label


def _rater() -> ModuleType:
    from pipelines.stages import rater

    return rater


def _simulate() -> ModuleType:
    from pipelines.stages import simulate

    return simulate


def _import() -> ModuleType:
    from pipelines.stages import import_feedback

    return import_feedback


def _dataset() -> ModuleType:
    from pipelines.stages import dataset

    return dataset


def _inspect() -> ModuleType:
    from pipelines.stages import inspect_labels

    return inspect_labels


def _export() -> ModuleType:
    from pipelines.stages import export_feedback

    return export_feedback


def _reward() -> ModuleType:
    from pipelines.stages import reward

    return reward


def _score() -> ModuleType:
    from pipelines.stages import score

    return score


def _best_of_n() -> ModuleType:
    from pipelines.stages import best_of_n

    return best_of_n


def _finetune() -> ModuleType:
    from pipelines.stages import finetune

    return finetune


def _evaluate() -> ModuleType:
    from pipelines.stages import evaluate

    return evaluate


def _play() -> ModuleType:
    from pipelines.stages import play

    return play


def _rounds() -> ModuleType:
    from pipelines.stages import rounds

    return rounds


def _compare() -> ModuleType:
    from pipelines.stages import compare

    return compare


def _report() -> ModuleType:
    from pipelines.stages import report

    return report


def _compare_report() -> ModuleType:
    from pipelines.stages import compare_report

    return compare_report


def _compare_plan() -> ModuleType:
    from pipelines.stages import compare_plan

    return compare_plan


def _demo() -> ModuleType:
    from pipelines.stages import demo

    return demo


STAGES = {
    "images": Stage("draw images of the prompts", _images),
    "label": Stage(
        "serve the labeling app in the browser until Ctrl-C",
        _label,
        ("run", "store", "tasks", "label", "dataset", "compare"),
    ),
    "rater": Stage(
        "add a rater with a password, or change password or role", _rater, ("run", "store")
    ),
    "simulate": Stage("let simulated raters label the images", _simulate),
    "import": Stage(
        "bring in images and labels from other people's files",
        _import,
        ("run", "store", "dataset"),
    ),
    "dataset": Stage(
        "export the labels to Parquet and check them", _dataset, ("run", "store", "dataset")
    ),
    "inspect": Stage(
        "a first look at the labels: tables here, and a page with plots",
        _inspect,
        ("run", "store"),
    ),
    "export": Stage(
        "write the labels in a format of other people's tools",
        _export,
        ("run", "store", "dataset"),
    ),
    "reward": Stage("train the reward model on the labels", _reward),
    "score": Stage(
        "score images for prompts with a trained reward; writes a Parquet table",
        _score,
        ("run", "store"),
        standalone=True,
    ),
    "best-of-n": Stage(
        "draw N images a prompt and pick the best",
        _best_of_n,
        ("run", "store", "sampler", "images"),
        standalone=True,
    ),
    "finetune": Stage(
        f"fine-tune the model on the reward, by --method {', '.join(METHODS)}", _finetune
    ),
    "evaluate": Stage(
        "compare base, best-of-n and tuned models; writes metrics and the report", _evaluate
    ),
    "report": Stage("write the report again from the figures that evaluate left", _report),
    "compare": Stage(
        "plan comparisons of models for people; --models base,rwl --axes overall,appeal", _compare
    ),
    "compare-plan": Stage(
        "how many votes tell which difference between models; while labels come in, when it is "
        "enough",
        _compare_plan,
        ("run", "store", "arena"),
    ),
    "compare-report": Stage(
        "what people say of the models in comparisons: strengths, intervals, and a page",
        _compare_report,
        ("run", "store", "arena"),
    ),
    "play": Stage("serve a playground in the browser: base and tuned models side by side", _play),
    "rounds": Stage(
        "rounds of images, labels, reward and tuning, then evaluate; --rounds 3", _rounds
    ),
    "demo": Stage("all stages one after the other", _demo),
}
"""Every stage by its name on the command line."""
