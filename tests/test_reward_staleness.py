"""An earlier reward on images that were drawn since, on a case made by hand."""

from pathlib import Path

import numpy as np
import pytest

from reward.calibration import Values
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, Indices
from reward.learning.examples import Examples, prepare
from reward.measuring.evaluation import measure_staleness
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_feedback import make_feedback

SPLIT = SplitConfig(split_by="image", unseen_prompts=0, validation=0.25, test_images=0.5)


@pytest.fixture(scope="module")
def examples(backbone: ClipBackbone, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Eight images of each of 15 prompts, every second one good."""
    run = make_feedback(tmp_path_factory.mktemp("run"), images_per_prompt=8, rankings=2)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    return prepare(dataset, RewardConfig(split=SPLIT), backbone)


def test_the_earlier_reward_is_measured_on_all_new_images_and_both_on_those_held_out(
    examples: Examples,
) -> None:
    dataset = examples.dataset
    good = np.zeros(len(dataset.image_ids))
    good[dataset.verdicts.image] = dataset.verdicts.good
    number = np.array([int(Path(path).stem) for path in dataset.paths])
    new = np.flatnonzero(number % 8 >= 4)  # two good and two bad ones of each prompt
    fooled = number % 8 == 4  # a bad one

    def before(image: Indices, _prompt: Indices) -> Values:
        """Return what the raters say, but the highest score for one bad new image."""
        return np.where(fooled[image], 0.9, 0.3 + 0.2 * good[image])

    def after(image: Indices, _prompt: Indices) -> Values:
        return 0.3 + 0.2 * good[image]

    ids = {dataset.image_ids[i] for i in new}
    found = measure_staleness(before, after, examples, ids, number=2, seed=0)
    assert (found.round, found.images, found.before.n) == (2, 60, 60)
    # Of the four pairs of good and bad in each prompt, the two with the bad image are wrong.
    assert found.before.roc_auc == pytest.approx(0.5)
    assert found.before.roc_auc_macro == pytest.approx(0.5)
    test = examples.split.test_seen.verdicts
    held_out = np.isin(test.image, new)
    assert 0 < held_out.sum() < 60
    assert found.held_out_before.n == found.held_out_after.n == held_out.sum()
    assert found.held_out_after.roc_auc == 1
    assert found.held_out_after.roc_auc_macro == 1
    wrong, right = (held_out & (fooled[test.image] == is_wrong) for is_wrong in (True, False))
    bad = (right & (test.good == 0)).sum()
    expected = bad / (bad + wrong.sum())  # every pair with a fooled image is wrong
    assert found.held_out_before.roc_auc == pytest.approx(expected)
    assert found.held_out_before.n_pairs == found.held_out_after.n_pairs
    assert list(found.rows) == [
        "reward of round 1, all images of round 2",
        "reward of round 1, those that are held out",
        "reward of round 2, those that are held out",
    ]


def test_without_held_out_new_images_there_is_no_figure_of_them(examples: Examples) -> None:
    taught = examples.split.train.verdicts.image[:3]
    ids = {examples.dataset.image_ids[i] for i in taught}

    def half(image: Indices, _prompt: Indices) -> Values:
        return np.full(len(image), 0.5)

    found = measure_staleness(half, half, examples, ids, number=3, seed=0)
    assert found.before.n == 3
    assert found.held_out_before.n == found.held_out_after.n == 0
    assert found.held_out_after.roc_auc is None
