import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from reward.calibration import Values
from reward.dataset import FeedbackDataset, Indices, RankedPairs, Verdicts
from reward.measuring.bootstrap import ENOUGH_CLUSTERS, Resamples, interval
from reward.measuring.evaluation import measure, others_said
from reward.measuring.metrics import (
    Scored,
    Scorer,
    figures,
    weighted_roc_auc,
)


def _part(good: list[float], label_0: tuple[float, ...] = ()) -> FeedbackDataset:
    """Verdicts on images 0, 1, ... of prompt 0, and pairs of neighbors."""
    image, first = np.arange(len(good)), np.arange(len(label_0))
    verdicts = Verdicts(image, 0 * image, np.array(good, np.float32), 0 * image)
    return _dataset(verdicts, _pairs(first, first + 1, 0 * first, np.array(label_0)))


def _pairs(first: Indices, second: Indices, prompt: Indices, label_0: Values) -> RankedPairs:
    ones = np.ones(len(first), np.float32)
    return RankedPairs(first, second, prompt, label_0.astype(np.float32), ones, first, 0 * first)


def _dataset(verdicts: Verdicts, pairs: RankedPairs) -> FeedbackDataset:
    return FeedbackDataset((), (), ("p",), ("",), verdicts, pairs)


def _fixed(scores: Values) -> Scorer:
    return lambda image, _prompt: scores[image]


def test_metrics_by_hand() -> None:
    scores = np.array([0.9, 0.6, 0.4, 0.1])
    measured = measure(_fixed(scores), _part([1, 0, 1, 0], (1, 1, 0)))
    assert measured.roc_auc == 0.75
    assert measured.accuracy == 0.5
    assert measured.brier == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert measured.pairwise_accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("good", [[], [1, 1]], ids=["none", "one class"])
def test_what_is_undefined_is_none_and_not_a_number(good: list[float]) -> None:
    measured = measure(lambda image, _prompt: np.full(len(image), 0.7), _part(good))
    assert measured.roc_auc is None
    assert measured.pairwise_accuracy is None
    json.dumps(measured.model_dump(), allow_nan=False)


@settings(deadline=None)  # another process may keep the cores busy
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3), st.integers(0, 3)),
        min_size=2,
        max_size=30,
    )
)
def test_a_weighted_area_is_that_of_scikit_learn(rows: list[tuple[int, bool, int, int]]) -> None:
    scores, good, *weights = (np.array(column) for column in zip(*rows, strict=True))
    ranks = np.unique(scores, return_inverse=True)[1]
    areas = weighted_roc_auc(ranks, good.astype(float), np.stack(weights))
    for row, area in zip(weights, areas, strict=True):
        if len({bool(g) for g, w in zip(good, row, strict=True) if w}) < 2:
            assert np.isnan(area)
        else:
            assert area == pytest.approx(roc_auc_score(good, scores, sample_weight=row))


@pytest.mark.parametrize("prompts", [10, 15])
def test_intervals_over_few_prompts_hold(prompts: int) -> None:
    """Accuracy by prompt from 0.35 to 1, the truth of which is 0.75 in the mean."""
    rng, held, middle = np.random.default_rng(0), 0, 0
    for _ in range(400):
        right = rng.beta(3, 1, prompts)
        times = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=1000)
        means = times @ right / prompts
        bounds = interval(means, prompts)
        assert bounds is not None
        held += bounds[0] <= 0.75 <= bounds[1]
        low, high = np.quantile(means, [0.025, 0.975])
        middle += low <= 0.75 <= high
    assert held / 400 > 0.925
    assert middle < held - 8


def test_with_enough_prompts_whole_prompts_are_resampled() -> None:
    n = 2 * ENOUGH_CLUSTERS
    part = _part([1.0, 0.0] * ENOUGH_CLUSTERS)
    for prompts, clusters in ((np.arange(n) // 2, ENOUGH_CLUSTERS), (np.arange(n) % 3, n)):
        spread = replace(part, verdicts=replace(part.verdicts, prompt=prompts))
        samples = Resamples.draw(
            Scored.from_scorer(_fixed(np.tile([1.0, 0.0], ENOUGH_CLUSTERS)), spread),
            np.random.default_rng(0),
            5,
        )
        assert samples.by_prompt == (clusters == ENOUGH_CLUSTERS)
        assert samples.counts.shape == (5, clusters)
        assert (samples.counts.sum(1) == clusters).all()


def _many(
    rng: np.random.Generator, *, prompts: int = 12, images: int = 6, pairs: int = 80
) -> Scored:
    """Labels of random scores, with ties; images and prompts are the numbers from 0."""
    image = np.repeat(np.arange(prompts * images), 2)
    first = rng.integers(prompts * images, size=pairs)
    second = first // images * images + (first + rng.integers(1, images, size=pairs)) % images
    scores = np.round(rng.random(prompts * images), 1)
    good = (rng.random(len(image)) < scores[image]).astype(np.float32)
    verdicts = Verdicts(image, image // images, good, 0 * image)
    ranked = _pairs(first, second, first // images, rng.choice([0, 0.5, 1], pairs))
    return Scored.from_scorer(_fixed(scores), _dataset(verdicts, ranked))


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
        verdicts, pairs = scored.part.verdicts, scored.part.pairs
        single = times[verdicts.prompt if by_prompt else verdicts.image]
        drawn = (pairs.prompt,) if by_prompt else (pairs.image_0, pairs.image_1)
        ranked = np.prod([times[each] for each in drawn], axis=0)
        rows = (np.repeat(np.arange(len(each)), each) for each in (single, ranked))
        written = figures(scored.where(*rows))
        names = {"roc_auc", "accuracy", "brier", "pairwise_accuracy"}
        assert names <= set(columns)
        assert {name: columns[name][row] for name in names} == pytest.approx(
            {name: getattr(written, name) for name in names}
        )
    assert ("good_at_1" in columns) == by_prompt


def test_figures_by_prompt_count_every_prompt_alike() -> None:
    part = _part([1, 0, 1, 0, 0, 0, 0, 1])
    part = replace(part, verdicts=replace(part.verdicts, prompt=np.array([0, 0, 1, 1, 1, 1, 1, 1])))
    measured = measure(_fixed(np.array([0.9, 0.1, 0.6, 0.7, 0.8, 0.2, 0.3, 0.4])), part)
    assert measured.roc_auc_macro == pytest.approx((1 + 4 / 8) / 2)
    assert measured.good_at_1 == pytest.approx((1 + 0) / 2)


def test_others_are_those_who_answered_the_same_question_and_not_oneself() -> None:
    answers, raters, asked = (
        np.array([1.0, 0, 1, 1, 0]),
        np.array([0, 1, 2, 0, 0]),
        np.array([7, 7, 7, 8, 8]),
    )
    said = others_said(answers, raters, asked)
    np.testing.assert_allclose(said, [0.5, 1, 0.5, np.nan, np.nan])  # nobody else was asked about 8
