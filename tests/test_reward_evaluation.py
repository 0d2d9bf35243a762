import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit
from scipy.stats import kendalltau
from sklearn.metrics import average_precision_score, roc_auc_score

from data.errors import PictuneError
from reward.backbone import ClipBackbone
from reward.baselines import baselines, blind_scorer, clip_scorer, rewards_from_elsewhere
from reward.calibration import (
    Values,
    expected_calibration_error,
    fit_temperature,
    fit_temperature_and_slips,
    with_slips,
)
from reward.dataset import FeedbackDataset, RankedPairs, Verdicts
from reward.evaluation import evaluate, measure, model_scorer
from reward.examples import Examples, prepare
from reward.learning_curve import SHARES, learning_curve, point
from reward.metrics import (
    ENOUGH_CLUSTERS,
    Resamples,
    Scored,
    Scorer,
    figures,
    fit_tie_threshold,
    interval,
    pair_accuracy,
    weighted_average_precision,
    weighted_roc_auc,
)
from reward.model import RewardModel
from reward.plots import reliability_figure
from reward.raters import LabelRaters, others_said
from reward.sources import RewardSource
from reward.split import SplitConfig
from reward.training import RewardConfig
from tests.tiny_clip import save_tiny_clip
from tests.tiny_feedback import make_feedback
from tests.user_rewards import SCORED

CONFIG = RewardConfig(split=SplitConfig(split_by="image", unseen_prompts=0.2))


def _part(good: list[float], label_0: tuple[float, ...] = ()) -> FeedbackDataset:
    """Verdicts on pictures 0, 1, ... of prompt 0, and pairs of neighbours."""
    image = np.arange(len(good))
    first = np.arange(len(label_0))
    pairs = RankedPairs(
        first,
        first + 1,
        0 * first,
        np.array(label_0, np.float32),
        np.ones(len(label_0), np.float32),
    )
    ids = tuple(str(i) for i in image)
    return FeedbackDataset(
        ids,
        tuple(map(Path, ids)),
        ("p",),
        ("",),
        Verdicts(image, 0 * image, np.array(good, np.float32)),
        pairs,
    )


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
    return RewardModel.create(
        backbone, hidden=(8,), members=2, generator=torch.Generator().manual_seed(0)
    )


def test_a_constant_scorer_is_worth_half() -> None:
    measured = measure(
        lambda image, _prompt: np.full(len(image), 0.5), _part([1, 0, 1, 0], (1, 0, 0.5))
    )
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


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3), st.integers(0, 3)),
        min_size=2,
        max_size=30,
    )
)
def test_weighted_areas_are_those_of_scikit_learn(rows: list[tuple[int, bool, int, int]]) -> None:
    scores, good, *weights = (np.array(column) for column in zip(*rows, strict=True))
    ranks = np.unique(scores, return_inverse=True)[1]
    areas = weighted_roc_auc(ranks, good.astype(float), np.stack(weights))
    precisions = weighted_average_precision(ranks, good.astype(float), np.stack(weights))
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        if len({bool(g) for g, w in zip(good, row, strict=True) if w}) < 2:
            assert np.isnan(area)
        else:
            assert area == pytest.approx(roc_auc_score(good, scores, sample_weight=row))
            assert precision == pytest.approx(
                average_precision_score(good, scores, sample_weight=row)
            )


def test_interval_holds_the_roc_auc_and_narrows_with_more_pictures() -> None:
    widths = []
    for n in (40, 1000):
        rng = np.random.default_rng(0)
        good = rng.integers(0, 2, n).astype(float)
        scores = expit(good + rng.normal(size=n))
        scored = Scored.of(_fixed(scores), _part(good.tolist()))
        found = interval(Resamples.draw(scored, rng, 200).figures(scored)["roc_auc"])
        assert found is not None
        assert found[0] < roc_auc_score(good, scores) < found[1]
        widths.append(found[1] - found[0])
    assert widths[1] < widths[0] / 3


def test_with_enough_prompts_whole_prompts_are_resampled() -> None:
    n = 2 * ENOUGH_CLUSTERS
    part = _part([1.0, 0.0] * ENOUGH_CLUSTERS)
    for prompts, clusters in ((np.arange(n) // 2, ENOUGH_CLUSTERS), (np.arange(n) % 3, n)):
        spread = replace(part, verdicts=replace(part.verdicts, prompt=prompts))
        samples = Resamples.draw(
            Scored.of(_fixed(np.tile([1.0, 0.0], ENOUGH_CLUSTERS)), spread),
            np.random.default_rng(0),
            5,
        )
        assert samples.by_prompt == (clusters == ENOUGH_CLUSTERS)
        assert samples.counts.shape == (5, clusters)
        assert (samples.counts.sum(1) == clusters).all()


def _many(
    rng: np.random.Generator, *, prompts: int = 12, images: int = 6, pairs: int = 80
) -> Scored:
    """Labels of random scores, with ties; pictures and prompts are the numbers from 0."""
    image = np.repeat(np.arange(prompts * images), 2)
    first = rng.integers(prompts * images, size=pairs)
    second = first // images * images + (first + rng.integers(1, images, size=pairs)) % images
    scores = np.round(rng.random(prompts * images), 1)
    return Scored(
        probability=scores[image],
        good=(rng.random(len(image)) < scores[image]).astype(float),
        image=image,
        prompt=image // images,
        score_0=scores[first],
        score_1=scores[second],
        label_0=rng.choice([0, 0.5, 1], pairs),
        image_0=first,
        image_1=second,
        pair_prompt=first // images,
    )


@pytest.mark.parametrize("by_prompt", [True, False])
def test_a_bootstrap_sample_has_the_figures_of_its_labels_written_out(by_prompt: bool) -> None:
    rng = np.random.default_rng(0)
    scored = _many(rng, prompts=ENOUGH_CLUSTERS + 2 if by_prompt else 3)
    samples = Resamples.draw(scored, rng, 6)
    assert samples.by_prompt == by_prompt
    columns = samples.figures(scored)
    for row, counts in enumerate(samples.counts):
        times = np.zeros(int(samples.clusters.max()) + 1, int)
        times[samples.clusters] = counts
        single = times[scored.prompt if by_prompt else scored.image]
        ranked = (
            times[scored.pair_prompt]
            if by_prompt
            else times[scored.image_0] * times[scored.image_1]
        )
        written = figures(
            scored.where(
                np.repeat(np.arange(len(single)), single), np.repeat(np.arange(len(ranked)), ranked)
            )
        )
        names = {"roc_auc", "average_precision", "accuracy", "brier", "nll", "pairwise_accuracy"}
        assert names <= set(columns)
        assert {name: columns[name][row] for name in names} == pytest.approx(
            {name: written[name] for name in names}
        )
    assert ("kendall_tau" in columns) == by_prompt


def test_figures_by_prompt_count_every_prompt_alike() -> None:
    part = _part([1, 0, 1, 0, 0, 0, 0, 1])
    part = replace(part, verdicts=replace(part.verdicts, prompt=np.array([0, 0, 1, 1, 1, 1, 1, 1])))
    measured = measure(_fixed(np.array([0.9, 0.1, 0.6, 0.7, 0.8, 0.2, 0.3, 0.4])), part)
    assert measured["roc_auc_macro"] == pytest.approx((1 + 4 / 8) / 2)
    assert measured["accuracy_macro"] == pytest.approx((1 + 3 / 6) / 2)
    assert measured["good_at_1"] == pytest.approx((1 + 0) / 2)


def test_kendall_tau_of_a_ranking_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ranks, scores = rng.integers(1, 4, 5), rng.integers(0, 4, 5) / 10
        first, second = (side.ravel() for side in np.triu_indices(5, 1))
        part = _part([1.0] * 5)
        labels = ((1 + np.sign(ranks[second] - ranks[first])) / 2).astype(np.float32)
        pairs = RankedPairs(first, second, 0 * first, labels, np.ones(len(first), np.float32))
        tau = measure(_fixed(scores), replace(part, pairs=pairs))["kendall_tau"]
        if len(set(ranks)) > 1 and len(set(scores)) > 1:
            assert tau == pytest.approx(kendalltau(scores, -ranks).statistic)


def test_recall_at_1_asks_whether_the_winner_scored_highest() -> None:
    part = _part([1, 1, 1], (1, 1))  # 0 beats 1, 1 beats 2
    assert measure(_fixed(np.array([0.9, 0.5, 0.1])), part)["recall_at_1"] == 1
    assert measure(_fixed(np.array([0.1, 0.5, 0.9])), part)["recall_at_1"] == 0
    assert measure(_fixed(np.array([0.5, 0.5, 0.5])), part)["recall_at_1"] == pytest.approx(1 / 3)


def test_conventions_differ_in_ties_as_their_authors_count_them() -> None:
    part = _part([1] * 5, (1, 0, 0.5, 0.5))
    constant = Scored.of(_fixed(np.full(5, 0.5)), part)
    assert [pair_accuracy(constant, name) for name in ("strict", "imagereward", "hpsv2")] == [
        0.5,
        0,
        0.75,
    ]
    assert fit_tie_threshold(constant) == 0
    for threshold in (0.0, 0.1):  # equal scores tie at every threshold
        assert pair_accuracy(constant, "pickscore", tie_within=threshold) == pytest.approx(
            (0.5 + 0.5 + 1 + 1) / 4
        )
    sure = Scored.of(
        _fixed(np.array([0.9, 0.1, 0.8, 0.79, 0.01])), part
    )  # right, right, then ties of the rater: near and far
    assert [pair_accuracy(sure, name) for name in ("strict", "imagereward", "hpsv2")] == [1, 1, 1]
    assert pair_accuracy(sure, "pickscore", tie_within=0.0) == pytest.approx(
        (1 + 1 + 0.5 + 0.5) / 4
    )
    threshold = fit_tie_threshold(sure)
    assert pair_accuracy(sure, "pickscore", tie_within=threshold) == pytest.approx(
        (1 + 1 + 1 + 0.5) / 4
    )
    assert pair_accuracy(Scored.of(_fixed(np.zeros(1)), _part([1])), "strict") is None


def test_others_are_those_who_answered_the_same_question_and_not_oneself() -> None:
    answers, raters, asked = (
        np.array([1.0, 0, 1, 1, 0]),
        np.array([0, 1, 2, 0, 0]),
        np.array([7, 7, 7, 8, 8]),
    )
    said = others_said(answers, raters, asked)
    np.testing.assert_allclose(said, [0.5, 1, 0.5, np.nan, np.nan])  # nobody else was asked about 8


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


@pytest.mark.parametrize("slip", [0.0, 0.15])
def test_the_fitted_slip_rate_is_the_one_that_turned_the_labels_round(slip: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=5, size=20_000)
    good = ((rng.random(20_000) < expit(logits / 2)) != (rng.random(20_000) < slip)).astype(float)
    assert fit_temperature_and_slips(logits, good) == pytest.approx((2, slip), rel=0.1, abs=0.01)
    assert fit_temperature_and_slips(logits, np.ones(20_000)) == (1, 0)
    calibrated = with_slips(expit(logits / 2), slip)
    hottest = expit(logits / fit_temperature(logits, good))  # no temperature makes up for slips
    errors = [expected_calibration_error(each, good) for each in (calibrated, hottest)]
    assert errors[0] < 0.015
    assert (errors[1] > 0.025) == bool(slip)


def _report(
    model: RewardModel, examples: Examples, raters: LabelRaters | None = None, *, resamples: int = 5
) -> dict[str, Any]:
    scorers = {
        "model": model_scorer(model, examples),
        "uncalibrated": model_scorer(model, examples, calibrated=False),
    }
    return evaluate(
        scorers | baselines(model.backbone, examples, CONFIG),
        examples,
        raters,
        seed=0,
        resamples=resamples,
    )


def test_temperature_leaves_the_order_as_it_is(model: RewardModel, examples: Examples) -> None:
    before = _report(model, examples)["val"]["model"]
    hotter = RewardModel(model.backbone, model.head, hidden=(8,), members=2)
    hotter.temperature.fill_(4.0)
    report = _report(hotter, examples)["val"]
    after = report["model"]
    assert all(
        before[name] == after[name]
        for name in ("roc_auc", "average_precision", "accuracy", "pairwise_accuracy")
    )
    assert before["brier"] != after["brier"]
    assert report["uncalibrated"] == before


def test_report_compares_with_baselines_on_every_part_and_category(
    model: RewardModel, examples: Examples
) -> None:
    report = _report(model, examples, resamples=20)
    json.dumps(report, allow_nan=False)
    for name in ("val", "test_seen", "test_unseen"):
        part = report[name]
        assert part["majority"]["roc_auc"] == 0.5
        assert part["model"]["n"] == part["clip_score"]["n"] > 0
        assert sum(row["model"]["n"] for row in part["by_category"].values()) == part["model"]["n"]
        for scorer in (
            "model",
            "uncalibrated",
            "clip_score",
            "image_only",
            "prompt_only",
            "majority",
            "random",
        ):
            for figure, bounds in part[scorer]["intervals"].items():
                assert bounds is None or bounds[0] <= bounds[1], figure
        gain = part["gain"]["roc_auc"]
        assert gain["value"] == part["model"]["roc_auc"] - part["clip_score"]["roc_auc"]
        assert gain["interval"][0] <= gain["interval"][1]
    assert _report(model, examples, resamples=20) == report


def test_a_part_without_labels_has_a_report_as_well(model: RewardModel, examples: Examples) -> None:
    nothing = examples.dataset.where(
        np.zeros(len(examples.dataset.verdicts), bool), np.zeros(len(examples.dataset.pairs), bool)
    )
    empty = replace(examples, split=replace(examples.split, test_unseen=nothing))
    report = _report(model, empty)
    json.dumps(report, allow_nan=False)
    assert report["test_unseen"]["model"]["n"] == 0
    assert report["test_unseen"]["model"]["intervals"]["roc_auc"] is None


def test_a_model_with_trained_blocks_is_measured_on_a_part_without_pairs(
    backbone: ClipBackbone, examples: Examples
) -> None:
    dataset = examples.dataset
    config = CONFIG.model_copy(update={"tune_last": 1})
    prepared = prepare(
        dataset.where(np.ones(len(dataset.verdicts), bool), np.zeros(len(dataset.pairs), bool)),
        config,
        backbone,
    )
    tuned = RewardModel.create(
        backbone, hidden=(8,), members=2, tune_last=1, generator=torch.Generator().manual_seed(0)
    )
    measured = measure(model_scorer(tuned, prepared), prepared.split.test_unseen)
    assert measured["roc_auc"] is not None
    assert measured["n_pairs"] == 0


def test_raters_stand_beside_the_model_on_the_labels_that_others_gave_too(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    run = make_feedback(tmp_path, images_per_prompt=6, raters=3, noise=0.1)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    examples = prepare(dataset, CONFIG, backbone)
    model = RewardModel.create(
        backbone, hidden=(8,), members=2, generator=torch.Generator().manual_seed(0)
    )
    raters = LabelRaters.from_latest(run.latest)
    assert np.bincount(raters.of_verdicts).tolist() == [90, 90, 90]
    report = _report(model, examples, raters)
    for name in ("val", "test_seen", "test_unseen"):
        part = report[name]
        assert part["human"]["others"]["n"] == part["human"]["model"]["n"] == part["model"]["n"]
        assert part["human"]["model"]["roc_auc"] == part["model"]["roc_auc"]
        assert part["human"]["others"]["roc_auc"] > 0.8  # one in ten labels is wrong
        assert sum(row["model"]["n"] for row in part["by_rater"].values()) == part["model"]["n"]
    json.dumps(report, allow_nan=False)


def test_blind_heads_cannot_tell_what_is_hidden_from_them(
    backbone: ClipBackbone, examples: Examples
) -> None:
    verdicts = examples.split.test_seen.verdicts
    assert len(np.unique(verdicts.image)) == len(verdicts)
    prompt_alone = blind_scorer(backbone, examples, CONFIG, sees="prompt")
    assert len(np.unique(prompt_alone(verdicts.image, verdicts.prompt).round(5))) == len(
        np.unique(verdicts.prompt)
    )
    image_alone = blind_scorer(backbone, examples, CONFIG, sees="image")
    others = np.roll(verdicts.prompt, 1)
    np.testing.assert_allclose(
        image_alone(verdicts.image, others), image_alone(verdicts.image, verdicts.prompt), atol=1e-6
    )


def test_learning_curve_learns_from_more_and_more_of_the_training_labels(
    backbone: ClipBackbone, model: RewardModel, examples: Examples
) -> None:
    config = CONFIG.model_copy(update={"hidden": (8,), "members": 2, "epochs": 2})
    curve = [*learning_curve(backbone, examples, config), point(model, examples)]
    assert len(curve) == len(SHARES) + 1
    labels = [each["labels"] for each in curve]
    assert labels == sorted(labels)
    assert labels[-1] == len(examples.split.train.verdicts)
    assert {"roc_auc", "pairwise_accuracy", "ece"} == set(curve[0]["test_unseen"])
    assert curve == [*learning_curve(backbone, examples, config), point(model, examples)]


def test_a_share_of_the_labels_that_teaches_nothing_is_left_out(
    backbone: ClipBackbone, examples: Examples
) -> None:
    config = CONFIG.model_copy(
        update={"hidden": (8,), "members": 2, "epochs": 1, "label_weights": "skill"}
    )
    train = examples.split.train
    drawn = np.random.default_rng(config.seed).random(
        len(examples.dataset.image_ids)
    )  # as learning_curve draws
    skill = np.where(drawn[train.verdicts.image] < max(SHARES), 0.5, 0.9).astype(np.float32)
    pairs = replace(train.pairs, skill=np.full(len(train.pairs), 0.5, np.float32))
    skilled = replace(train, verdicts=replace(train.verdicts, skill=skill), pairs=pairs)
    assert not list(
        learning_curve(
            backbone, replace(examples, split=replace(examples.split, train=skilled)), config
        )
    )


def test_clip_baseline_orders_by_the_cosine(examples: Examples) -> None:
    verdicts = examples.split.val.verdicts
    cosines = (
        (examples.image_embeddings[verdicts.image] * examples.text_embeddings[verdicts.prompt])
        .sum(-1)
        .numpy()
    )
    probabilities = clip_scorer(examples)(verdicts.image, verdicts.prompt)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert np.array_equal(np.argsort(cosines), np.argsort(probabilities))


def _elsewhere(examples: Examples, *sources: RewardSource) -> dict[str, Scorer]:
    config = CONFIG.model_copy(update={"baselines": sources, "encode_batch": 16})
    return rewards_from_elsewhere(examples, config, device=torch.device("cpu"))


def test_a_clip_score_from_elsewhere_is_the_clip_baseline_of_the_same_backbone(
    examples: Examples, backbone: ClipBackbone
) -> None:
    source = RewardSource(kind="clip_score", path=backbone.name)
    scorers = _elsewhere(examples, source, RewardSource(kind="pickscore", path=backbone.name))
    for part in (examples.split.train, examples.split.test_unseen):
        wanted = Scored.of(clip_scorer(examples), part)
        for scorer in scorers.values():  # a scale changes nothing
            scored = Scored.of(scorer, part)
            assert scored.probability == pytest.approx(wanted.probability, abs=1e-4)
            assert scored.score_0 == pytest.approx(wanted.score_0, abs=1e-4)
    assert list(scorers) == [f"clip_score {backbone.name}", f"pickscore {backbone.name}"]


def test_a_reward_from_elsewhere_sees_each_labelled_picture_once_whatever_its_size(
    examples: Examples, tmp_path: Path
) -> None:
    dataset = examples.dataset
    verdicts, pairs = dataset.verdicts, dataset.pairs
    Image.new("RGB", (64, 24), (255, 255, 255)).save(tmp_path / "white.png")
    first = int(examples.split.val.verdicts.image[0])
    paths = tuple(
        tmp_path / "white.png" if i == first else path for i, path in enumerate(dataset.paths)
    )
    SCORED.clear()
    (scorer,) = _elsewhere(
        replace(examples, dataset=replace(dataset, paths=paths)),
        RewardSource(kind="python", path="tests.user_rewards:noted_brightness"),
    ).values()
    asked = {*zip(verdicts.image, verdicts.prompt, strict=True)}
    asked |= {*zip(pairs.image_0, pairs.prompt, strict=True)} | {
        *zip(pairs.image_1, pairs.prompt, strict=True)
    }
    assert sorted(SCORED) == sorted(dataset.prompts[prompt] for _, prompt in asked)
    some = examples.split.val.verdicts
    assert some.image[np.argmax(scorer(some.image, some.prompt))] == first
    assert measure(scorer, examples.split.val)["n"] == len(some)


def test_a_reward_from_elsewhere_that_gives_no_number_names_the_picture(examples: Examples) -> None:
    with pytest.raises(PictuneError, match=r"not_a_number: gives no finite number for .*\.png"):
        _elsewhere(examples, RewardSource(kind="python", path="tests.user_rewards:not_a_number"))


def test_figure_has_a_column_for_each_part_with_verdicts(
    model: RewardModel, examples: Examples, tmp_path: Path
) -> None:
    figure = reliability_figure(model, examples)
    assert len(figure.axes) == 6
    figure.savefig(tmp_path / "reliability.png", dpi=40)
    nothing = examples.dataset.where(
        np.zeros(len(examples.dataset.verdicts), bool), np.zeros(len(examples.dataset.pairs), bool)
    )
    empty = replace(
        examples, split=replace(examples.split, val=nothing, test_seen=nothing, test_unseen=nothing)
    )
    assert "no held-out verdicts" in reliability_figure(model, empty).texts[0].get_text()
