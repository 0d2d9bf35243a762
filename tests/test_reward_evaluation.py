import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from reward.backbone import ClipBackbone
from reward.calibration import Values, expected_calibration_error, fit_temperature
from reward.dataset import FeedbackDataset, RankedPairs, Verdicts
from reward.evaluation import ENOUGH_CLUSTERS, Scorer, clip_scorer, evaluate, measure, roc_auc_interval, weighted_roc_auc
from reward.examples import Examples, prepare
from reward.model import RewardModel
from reward.plots import reliability_figure
from reward.split import SplitConfig
from reward.training import RewardConfig
from tests.tiny_clip import save_tiny_clip
from tests.tiny_feedback import make_feedback

CONFIG = RewardConfig(split=SplitConfig(split_by="image", unseen_prompts=0.2))


def _part(good: list[float], label_0: tuple[float, ...] = ()) -> FeedbackDataset:
    """Verdicts on pictures 0, 1, ... of prompt 0, and pairs of neighbours."""
    image = np.arange(len(good))
    first = np.arange(len(label_0))
    pairs = RankedPairs(first, first + 1, 0 * first, np.array(label_0, np.float32), np.ones(len(label_0), np.float32))
    ids = tuple(str(i) for i in image)
    return FeedbackDataset(ids, tuple(map(Path, ids)), ("p",), ("",), Verdicts(image, 0 * image, np.array(good, np.float32)), pairs)


def _fixed(scores: Values) -> Scorer:
    return lambda image, _prompt: scores[image]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> ClipBackbone:
    return ClipBackbone.from_pretrained(save_tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def examples(backbone: ClipBackbone, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    run = make_feedback(tmp_path_factory.mktemp("run"), images_per_prompt=8, rankings=2)
    return prepare(FeedbackDataset.from_latest(run.latest, run.root), CONFIG, backbone)


@pytest.fixture(scope="module")
def model(backbone: ClipBackbone) -> RewardModel:
    return RewardModel.create(backbone, hidden=(8,), members=2, generator=torch.Generator().manual_seed(0))


def test_a_constant_scorer_is_worth_half() -> None:
    measured = measure(lambda image, _prompt: np.full(len(image), 0.5), _part([1, 0, 1, 0], (1, 0, 0.5)))
    assert measured["roc_auc"] == 0.5
    assert measured["n_pairs"] == 2
    assert measured["pairwise_accuracy"] == 0.5
    assert measured["brier"] == 0.25


def test_metrics_by_hand() -> None:
    scores = np.array([0.9, 0.6, 0.4, 0.1])
    measured = measure(_fixed(scores), _part([1, 0, 1, 0], (1, 1, 0)))
    assert measured["roc_auc"] == 0.75
    assert measured["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert measured["accuracy"] == 0.5
    assert measured["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert measured["pairwise_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("good", [[], [1, 1]], ids=["none", "one class"])
def test_what_is_undefined_is_none_and_not_a_number(good: list[float]) -> None:
    measured = measure(lambda image, _prompt: np.full(len(image), 0.7), _part(good))
    assert measured["roc_auc"] is None
    assert measured["pairwise_accuracy"] is None
    json.dumps(measured, allow_nan=False)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
def test_weighted_roc_auc_is_that_of_scikit_learn(rows: list[tuple[int, bool, int]]) -> None:
    scores, good, weights = (np.array(column) for column in zip(*rows, strict=True))
    ours = weighted_roc_auc(scores, good.astype(np.float32), weights)
    if len({bool(g) for g, w in zip(good, weights, strict=True) if w}) < 2:
        assert ours is None
    else:
        assert ours == pytest.approx(roc_auc_score(good, scores, sample_weight=weights))


def test_interval_holds_the_roc_auc_and_narrows_with_more_pictures() -> None:
    widths = []
    for n in (40, 1000):
        rng = np.random.default_rng(0)
        good = rng.integers(0, 2, n).astype(float)
        scores = expit(good + rng.normal(size=n))
        interval = roc_auc_interval(_fixed(scores), _part(good.tolist()), rng, 200)
        assert interval is not None
        assert interval[0] < roc_auc_score(good, scores) < interval[1]
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 3


def test_with_enough_prompts_whole_prompts_are_resampled() -> None:
    n = 2 * ENOUGH_CLUSTERS
    part = _part([1.0, 0.0] * ENOUGH_CLUSTERS)
    part = replace(part, verdicts=replace(part.verdicts, prompt=np.arange(n) // 2))
    sizes = []

    class CountingGenerator(np.random.Generator):
        def integers(self, low: Any, *args: Any, **kwargs: Any) -> Any:
            sizes.append(low)
            return super().integers(low, *args, **kwargs)

    roc_auc_interval(_fixed(np.tile([1.0, 0.0], ENOUGH_CLUSTERS)), part, CountingGenerator(np.random.PCG64(0)), 5)
    assert sizes == [ENOUGH_CLUSTERS] * 5


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    probabilities = np.repeat([0.1, 0.3, 0.8], 10)
    good = np.concatenate([np.arange(10) < k for k in (1, 3, 8)]).astype(float)
    assert expected_calibration_error(probabilities, good) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.ones(4), np.zeros(4)) == 1


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_that_made_the_labels(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=20_000)
    good = (rng.random(20_000) < expit(logits / true)).astype(float)
    assert fit_temperature(logits, good) == pytest.approx(true, rel=0.1)
    assert fit_temperature(logits, np.ones(20_000)) == 1


def test_temperature_leaves_the_order_as_it_is(model: RewardModel, examples: Examples) -> None:
    before = evaluate(model, examples, seed=0, resamples=5)["val"]["model"]
    hotter = RewardModel(model.backbone, model.head, hidden=(8,), members=2)
    hotter.temperature.fill_(4.0)
    after = evaluate(hotter, examples, seed=0, resamples=5)["val"]["model"]
    assert all(before[name] == after[name] for name in ("roc_auc", "average_precision", "accuracy", "pairwise_accuracy"))
    assert before["brier"] != after["brier"]


def test_report_compares_with_baselines_on_every_part_and_category(model: RewardModel, examples: Examples) -> None:
    report = evaluate(model, examples, seed=0, resamples=20)
    json.dumps(report, allow_nan=False)
    for name in ("val", "test_seen", "test_unseen"):
        part = report[name]
        assert part["majority"]["roc_auc"] == 0.5
        assert part["model"]["n"] == part["clip_score"]["n"] > 0
        assert sum(row["model"]["n"] for row in part["by_category"].values()) == part["model"]["n"]
    assert evaluate(model, examples, seed=0, resamples=20) == report


def test_clip_baseline_orders_by_the_cosine(examples: Examples) -> None:
    verdicts = examples.split.val.verdicts
    cosines = (examples.image_embeddings[verdicts.image] * examples.text_embeddings[verdicts.prompt]).sum(-1).numpy()
    probabilities = clip_scorer(examples)(verdicts.image, verdicts.prompt)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert np.array_equal(np.argsort(cosines), np.argsort(probabilities))


def test_figure_has_a_column_for_each_part_with_verdicts(model: RewardModel, examples: Examples, tmp_path: Path) -> None:
    figure = reliability_figure(model, examples)
    assert len(figure.axes) == 6
    figure.savefig(tmp_path / "reliability.png", dpi=40)
    nothing = examples.dataset.where(np.zeros(len(examples.dataset.verdicts), bool), np.zeros(len(examples.dataset.pairs), bool))
    empty = replace(examples, split=replace(examples.split, val=nothing, test_seen=nothing, test_unseen=nothing))
    assert "no held-out verdicts" in reliability_figure(model, empty).texts[0].get_text()
