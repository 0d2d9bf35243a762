from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.session_types import choose_types
from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset
from reward.learning.examples import Examples, prepare
from reward.learning.rater_types import RaterTypes, fit_types, posterior
from reward.learning.training import new_model, train
from reward.measuring.type_comparison import compare_types
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_feedback import make_feedback

BY_IMAGE = SplitConfig(split_by="image", unseen_prompts=0, validation=0.2, test_images=0.2)
CONFIG = RewardConfig(
    hidden=(32,),
    members=2,
    epochs=25,
    batch_size=256,
    learning_rate=3e-3,
    split=BY_IMAGE,
    rater_types=2,
)
RATERS = 10


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory, backbone: ClipBackbone) -> Examples:
    """Ten raters who want the same."""
    run = make_feedback(
        tmp_path_factory.mktemp("run"), images_per_prompt=10, raters=RATERS, noise=0.05
    )
    return prepare(FeedbackDataset.from_latest(run.latest, run.root), CONFIG, backbone)


@pytest.fixture(scope="module")
def of_two_tastes(alike: Examples, backbone: ClipBackbone) -> Examples:
    """The same raters, but three of ten, 1, 4 and 7, call good what the others call bad."""
    verdicts = alike.dataset.verdicts
    contrary = verdicts.rater % 3 == 1
    turned = replace(verdicts, good=np.where(contrary, 1 - verdicts.good, verdicts.good))
    return prepare(replace(alike.dataset, verdicts=turned), CONFIG, backbone)


@pytest.fixture(scope="module")
def fitted(of_two_tastes: Examples, backbone: ClipBackbone) -> tuple[RewardModel, RaterTypes]:
    generator = torch.Generator().manual_seed(0)
    pooled = new_model(backbone, CONFIG, generator=generator)
    for _ in train(pooled, of_two_tastes, CONFIG, generator=generator):
        pass
    before = [weight.clone() for weight in pooled.head.parameters()]
    types = fit_types(pooled, of_two_tastes, CONFIG, generator=generator)
    assert all(map(torch.equal, before, pooled.head.parameters()))
    return pooled, types


def test_raters_of_two_tastes_are_told_apart(
    fitted: tuple[RewardModel, RaterTypes], of_two_tastes: Examples
) -> None:
    _, types = fitted
    names = of_two_tastes.dataset.raters
    likely = {name: int(np.argmax(shares)) for name, shares in types.raters.items()}
    contrary = {likely[name] for i, name in enumerate(names) if i % 3 == 1}
    others = {likely[name] for i, name in enumerate(names) if i % 3 != 1}
    assert len(contrary) == len(others) == 1
    assert contrary != others
    assert sorted(types.prior) == pytest.approx([0.3, 0.7], abs=0.02)
    assert all(max(shares) > 0.99 for shares in types.raters.values())
    assert types.likeliest_of == [round(10 * share) for share in types.prior]


def test_each_type_has_a_score_and_the_score_of_any_rater_is_their_mean(
    fitted: tuple[RewardModel, RaterTypes],
) -> None:
    _, types = fitted
    images, prompts = (
        torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        ["a dog", "a cat", "a cow"],
    )
    first, second = (
        types.score(images=images, prompts=prompts, shares=shares) for shares in ((1, 0), (0, 1))
    )
    assert torch.equal(first, types.models[0].score(images=images, prompts=prompts))
    anybody = types.score(images=images, prompts=prompts)
    torch.testing.assert_close(
        anybody, float(types.prior[0]) * first + float(types.prior[1]) * second
    )


def test_a_rater_without_labels_has_the_prior(
    fitted: tuple[RewardModel, RaterTypes], of_two_tastes: Examples
) -> None:
    _, types = fitted
    nobody = of_two_tastes.split.train.where(np.zeros(0, int), np.zeros(0, int))
    found = posterior(types.models, types.prior, of_two_tastes, nobody)
    assert found == pytest.approx(np.tile(types.prior, (RATERS, 1)))


def test_types_are_saved_and_loaded_to_the_bit(
    fitted: tuple[RewardModel, RaterTypes], backbone: ClipBackbone, tmp_path: Path
) -> None:
    _, types = fitted
    types.save_pretrained(str(tmp_path))
    loaded = RaterTypes.from_pretrained(str(tmp_path), backbone=backbone)
    images, prompts = (
        torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        ["a dog", "a cat"],
    )
    assert torch.equal(
        loaded.score(images=images, prompts=prompts), types.score(images=images, prompts=prompts)
    )
    assert loaded.raters == types.raters
    types.models[1].temperature.add_(1)
    types.models[1].save_pretrained(tmp_path / "type-1")
    types.models[1].temperature.sub_(1)
    with pytest.raises(PictuneError, match=r"type-1 and types\.json are of two trainings"):
        RaterTypes.from_pretrained(tmp_path, backbone=backbone)
    with pytest.raises(PictuneError, match="no saved rater types"):
        RaterTypes.from_pretrained(tmp_path / "elsewhere", backbone=backbone)


def test_two_types_predict_new_raters_better_where_there_are_two(
    of_two_tastes: Examples, alike: Examples, backbone: ClipBackbone
) -> None:
    helped, useless = (
        compare_types(backbone, each, CONFIG).model_dump() for each in (of_two_tastes, alike)
    )
    assert helped["held_out_raters"] == 3
    assert helped["gain"]["interval"][0] > 0
    assert helped["several"]["roc_auc"] > helped["one"]["roc_auc"] + 0.05
    assert useless["gain"]["value"] < 0.1 * helped["gain"]["value"]
    assert useless["gain"]["interval"][0] < 0


def test_the_number_of_types_is_chosen_by_raters_who_were_held_out(
    of_two_tastes: Examples, alike: Examples, backbone: ClipBackbone
) -> None:
    assert choose_types(backbone, of_two_tastes, CONFIG, (2,)) == 2
    assert choose_types(backbone, of_two_tastes, CONFIG, (11,)) == 1  # too few raters for so many
    assert choose_types(backbone, alike, CONFIG, (2,)) == 1


def test_too_few_raters_are_said(alike: Examples, backbone: ClipBackbone) -> None:
    many = CONFIG.model_copy(update={"rater_types": 11})
    assert compare_types(backbone, alike, many).model_dump() == {}
    pooled = new_model(backbone, CONFIG, generator=torch.Generator())
    with pytest.raises(PictuneError, match="11 types of 10 raters"):
        fit_types(pooled, alike, many, generator=torch.Generator())


def test_where_nothing_can_be_learned_there_is_no_comparison(
    alike: Examples, backbone: ClipBackbone
) -> None:
    left_out = np.random.default_rng(CONFIG.seed).permutation(RATERS)[:3]  # as compare_types does
    verdicts = alike.dataset.verdicts
    good = np.where(np.isin(verdicts.rater, left_out), verdicts.good, 1).astype(np.float32)
    one_sided = replace(alike.dataset, verdicts=replace(verdicts, good=good))
    assert compare_types(backbone, prepare(one_sided, CONFIG, backbone), CONFIG).gain is None


def test_types_are_not_for_weighted_raters() -> None:
    with pytest.raises(ValueError, match="another taste"):
        RewardConfig(rater_types=2, label_weights="consensus")
