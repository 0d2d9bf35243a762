"""The stages of the command line, in the order of their use.

A stage's module is imported only when the stage is called: `--help` is quick, and labeling needs
no torch.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from pipelines.methods import METHODS
from pipelines.settings.tables import TABLES

BEGINNINGS = ("images", "import", "rounds", "demo")
"""The stages that make a run."""


@dataclass(frozen=True)
class Stage:
    """One stage of the command line."""

    help: str
    module: str
    """The stage's module in `pipelines`. Its `main(run, settings, **flags)` runs the stage,
    and `add_flags(parser)`, if it exists, adds the stage's own flags."""
    tables: tuple[str, ...] = ()
    """The tables of settings that are checked before the stage; empty for all tables."""
    standalone: bool = False
    """True for stages that read only what their flags name and do not change the run; their
    settings are not checked against the run's record."""

    def load(self) -> ModuleType:
        """Import the stage's module."""
        return import_module(f"pipelines.{self.module}")

    @property
    def checked_tables(self) -> tuple[str, ...]:
        """The tables of settings that are checked before the stage."""
        return self.tables or tuple(TABLES)


STAGES = {
    "images": Stage("draw images of the prompts", "collect.images"),
    "label": Stage(
        "serve the labeling app in the browser until Ctrl-C",
        "collect.label",
        ("run", "store", "tasks", "label", "compare"),
    ),
    "rater": Stage(
        "add a rater with a password, or change password or role", "collect.rater", ("run", "store")
    ),
    "simulate": Stage("let simulated raters label the images", "collect.simulate"),
    "import": Stage(
        "bring in images and labels from other people's files",
        "collect.import_feedback",
        ("run", "store"),
    ),
    "dataset": Stage(
        "export the labels to Parquet and check them",
        "collect.dataset",
        ("run", "store"),
    ),
    "inspect": Stage(
        "a first look at the labels: a summary here, and a page with tables",
        "collect.inspect_labels",
        ("run", "store"),
    ),
    "export": Stage(
        "write the labels in a format of other people's tools",
        "collect.export_feedback",
        ("run", "store"),
    ),
    "reward": Stage("train the reward model on the labels", "reward.reward"),
    "score": Stage(
        "score images for prompts with a trained reward; writes a Parquet table",
        "reward.score",
        ("run", "store"),
        standalone=True,
    ),
    "best-of-n": Stage(
        "draw N images a prompt and pick the best",
        "reward.best_of_n",
        ("run", "store", "sampler", "images"),
        standalone=True,
    ),
    "finetune": Stage(
        f"fine-tune the model on the reward, by --method {', '.join(METHODS)}", "finetune.finetune"
    ),
    "rehearse": Stage(
        "take a minute of a training and say the time and memory of all of it",
        "finetune.rehearse",
    ),
    "export-adapter": Stage(
        "write a tuned adapter in the format of other tools; --format kohya",
        "finetune.export_adapter",
        ("run", "store"),
    ),
    "evaluate": Stage(
        "compare base, best-of-n and tuned models; writes metrics and the report",
        "evaluate.evaluate",
    ),
    "report": Stage(
        "write the report again from the figures that evaluate left", "evaluate.report"
    ),
    "compare": Stage(
        "plan comparisons of models for people; --models base,rwl --axes overall,appeal",
        "compare.compare",
    ),
    "compare-report": Stage(
        "what people say of the models in comparisons: strengths, intervals, and a page",
        "compare.compare_report",
        ("run", "store"),
    ),
    "play": Stage(
        "serve a playground in the browser: base and tuned models side by side", "play.play"
    ),
    "session": Stage(
        "serve sessions in the browser: slates of images, from which people pick turn by turn",
        "session.session",
    ),
    "session-policy": Stage(
        "learn from the run's sessions which slates to show, and estimate it",
        "session.session_policy",
    ),
    "rounds": Stage(
        "rounds of images, labels, reward and tuning, then evaluate; --rounds 3", "rounds.rounds"
    ),
    "demo": Stage("all stages one after the other", "rounds.demo"),
}
"""Every stage by its name on the command line."""
