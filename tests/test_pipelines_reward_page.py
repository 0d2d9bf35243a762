"""The page that says how far a reward can be trusted."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.runs import RunFolder
from pipelines.reward.page import RELIABILITY, REPORT_FILE, do_types_help, doubts, write_report
from pipelines.run.metrics_log import MetricsLog
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, label_sources
from reward.learning.examples import Examples, prepare
from reward.learning.split import Split
from reward.measuring.baselines import baselines
from reward.measuring.evaluation import evaluate, model_scorer, score_images
from reward.measuring.plots import reliability_figure
from reward.measuring.report import Gain, PartReport, PredictionFigures, RewardReport, TypesReport
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_clip import small_reward
from tests.support.tiny_feedback import make_feedback

CONFIG = RewardConfig(
    split=SplitConfig(split_by="image", unseen_prompts=0.2), hidden=(8,), members=2, epochs=2
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_feedback(
        tmp_path_factory.mktemp("run"), images_per_prompt=8, raters=2, noise=0.1, rankings=2
    )


@pytest.fixture(scope="module")
def examples(run: RunFolder, backbone: ClipBackbone) -> Examples:
    return prepare(FeedbackDataset.from_latest(run.latest, run.root), CONFIG, backbone)


@pytest.fixture(scope="module")
def model(backbone: ClipBackbone) -> RewardModel:
    return small_reward(backbone)


def report_of(run: RunFolder, model: RewardModel, examples: Examples) -> RewardReport:
    scorers = {
        "model": model_scorer(model, examples),
        "uncalibrated": model_scorer(model, examples, calibrated=False),
    }
    scorers |= baselines(model.backbone, examples, CONFIG)
    return RewardReport(
        **dict(evaluate(scorers, examples, seed=0, resamples=20)),
        temperature=1.0,
        sources=label_sources(run.latest),
    )


ALONE = TypesReport(types=2, prior=[0.3, 0.7], raters=[3, 7])
COMPARISON = {
    "one": PredictionFigures(nll=0.6, roc_auc=0.71),
    "several": PredictionFigures(nll=0.5, roc_auc=0.82),
    "gain": Gain(value=0.1, interval=(0.05, 0.15)),
    "held_out_raters": 3,
    "labels": 120,
}
TYPES = ALONE.model_copy(update=COMPARISON)


def page_of(run: RunFolder, model: RewardModel, examples: Examples, **more: Any) -> str:
    with MetricsLog(run.reward_dir) as log:
        log.write(1, {"val_loss": 0.5, "binary_loss": 0.4})
    reliability_figure(model, examples).savefig(run.reward_dir / RELIABILITY, dpi=40)
    report = report_of(run, model, examples).model_copy(update=more)
    write_report(run, report, examples, score_images(model, examples))
    return (run.reward_dir / REPORT_FILE).read_text(encoding="utf-8")


def test_it_holds_all_that_it_shows(run: RunFolder, model: RewardModel, examples: Examples) -> None:
    text = page_of(run, model, examples)
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"<script|<link|<iframe|url\(|@import", text)
    for words in (
        "Prompts that it never saw",
        "image alone",
        "other raters",
        "Training: loss",
        "most uncertain",
        "simulated rater",
    ):
        assert words in text
    for prompt in examples.dataset.prompts:
        assert f"“{prompt}”" in text


def test_rater_types_are_shown_with_what_they_bring(
    run: RunFolder, model: RewardModel, examples: Examples
) -> None:
    text = page_of(run, model, examples, rater_types=TYPES)
    for words in (
        "Do raters want different things?",
        "<td>30%</td><td>70%</td>",
        "<td>3</td><td>7</td>",
        "<td>0.600</td><td>0.71</td>",
    ):
        assert words in text
    better = "Several rewards predict them better than one: the log loss falls by"
    assert f"{better} 0.100 (0.050 to 0.150)." in text
    worse, unsure = (
        TYPES.model_copy(update={"gain": gain})
        for gain in (
            Gain(value=-0.1, interval=(-0.2, -0.05)),
            Gain(value=0, interval=(-0.1, 0.1)),
        )
    )
    assert (
        "the log loss rises by 0.100 (0.050 to 0.200): set reward.rater_types to 1"
        in do_types_help(worse)
    )
    assert do_types_help(unsure).startswith("It is not shown")
    text = page_of(run, model, examples, rater_types=ALONE)
    assert "too few raters" in text
    assert "a reward for each type" not in text


def test_labels_of_two_sources_are_never_mixed_silently(
    run: RunFolder, model: RewardModel, examples: Examples
) -> None:
    text = page_of(run, model, examples, sources={"simulated": 70, "human": 30})
    assert "more than one source: 70 simulated, 30 human." in text
    assert "Every label here is by a simulated rater" not in text


def test_it_is_written_when_nothing_was_held_out(
    run: RunFolder, model: RewardModel, examples: Examples, tmp_path: Path
) -> None:
    copy = RunFolder(tmp_path / "r")
    shutil.copytree(run.latest, copy.latest)
    none = np.zeros(0, int)
    nothing = examples.dataset.where(none, none)
    split = Split(examples.dataset, nothing, nothing, nothing)
    empty = replace(examples, split=split)
    assert "Too few labels were held out" in page_of(copy, model, empty)


def test_it_says_what_speaks_against_the_reward(
    run: RunFolder, model: RewardModel, examples: Examples
) -> None:
    part = report_of(run, model, examples).test_unseen.model_dump()
    part["model"]["roc_auc"], part["human"]["others"]["roc_auc"] = 0.8, 0.9
    part["gain"]["roc_auc"] = {"value": 0.1, "interval": (0.05, 0.15)}
    part["image_only"]["roc_auc"] = part["prompt_only"]["roc_auc"] = 0.6
    part["resampled"] = "prompts"
    assert doubts(PartReport.model_validate(part)) == []
    part["gain"]["roc_auc"]["interval"] = (-0.05, 0.15)
    part["image_only"]["roc_auc"] = 0.85
    part["human"]["others"]["roc_auc"] = 0.75
    part["resampled"] = "images"
    assert len(doubts(PartReport.model_validate(part))) == 4
    part["aesthetic head"] = {"roc_auc": 0.85, "intervals": {}}
    found = doubts(PartReport.model_validate(part))
    assert "aesthetic head predicts the labels at least as well (ROC-AUC 0.85)." in found
