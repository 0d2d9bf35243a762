"""Texts on a reward: its quality in a few words, and the titles of its figures."""

from typing import Literal, get_args

from pipelines.pages.page import percent, percent_interval
from reward.measuring.report import CLIP_SCORE, MODEL, UNCALIBRATED, PartReport, RewardReport

SCORERS = {
    MODEL: "this model",
    UNCALIBRATED: "before calibration",
    CLIP_SCORE: "CLIP score",
    "image_only": "image alone",
    "prompt_only": "prompt alone",
}
"""Titles of the scorers of `metrics.json`."""

TESTS = {"test_unseen": "Prompts that it never saw", "test_seen": "New images of known prompts"}

MainFigure = Literal["roc_auc", "pairwise_accuracy"]
"""Main figure of quality: on single labels if there are any, otherwise on ranked pairs."""


def headline(report: RewardReport) -> str:
    """Return the reward's quality in a few words, on unseen prompts or else on unseen images."""
    main = main_part(report)
    if main is None:
        return "too few held-out labels to measure it"
    name, figure = main
    words = {
        "test_unseen": "unseen prompts",
        "test_seen": "unseen images",
        "val": "validation labels",
    }[name]
    ours, theirs = report.part(name).model, report.part(name).clip_score
    if figure == "roc_auc":
        return f"ROC-AUC {ours.roc_auc:.2f} on {words} (CLIP score {theirs.roc_auc:.2f})"
    bounds = percent_interval(ours.intervals["pairwise_accuracy"])
    return (
        f"{percent(ours.pairwise_accuracy)} ({bounds}) of {ours.n_pairs} ranked pairs in the right "
        f"order on {words} (CLIP score {percent(theirs.pairwise_accuracy)})"
    )


def scorers(report: RewardReport) -> dict[str, str]:
    """Return the titles of a report's scorers; external rewards keep their names."""
    return SCORERS | {name: name for name in elsewhere(report.test_unseen)}


def main_part(report: RewardReport) -> tuple[str, MainFigure] | None:
    """Return the most informative part and figure; validation, which chose the weights, is last."""
    figures: tuple[MainFigure, ...] = get_args(MainFigure)
    wanted = [(name, figure) for names in (TESTS, ("val",)) for figure in figures for name in names]
    measured = (one for one in wanted if getattr(report.part(one[0]).model, one[1]) is not None)
    return next(measured, None)


def elsewhere(part: PartReport) -> list[str]:
    """Return the external rewards among the scorers of a part."""
    return [name for name in part.scorers if name not in SCORERS]
