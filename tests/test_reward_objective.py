from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jacobian

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import CONSENSUS, RATERS, write_table
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, RankedPairs
from reward.learning.examples import Examples, prepare
from reward.learning.label_tensors import LabelTensors
from reward.learning.objective import (
    binary_loss,
    bradley_terry_loss,
    prompt_classification_loss,
)
from reward.learning.training import RewardMetrics, new_model, train
from reward.measuring.evaluation import measure, model_scorer
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_feedback import NOON, make_feedback, verdict_row, write

ALL = SplitConfig(validation=0, unseen_prompts=0, test_images=0)
PROMPT = "A red ball."
ONE = torch.ones(1)
logits = st.floats(-8, 8, width=32)
shares = st.sampled_from([0.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_feedback(tmp_path_factory.mktemp("run"), images_per_prompt=9)


@pytest.fixture(scope="module")
def rankings(run: RunFolder) -> FeedbackDataset:
    """Rankings of all nine images of each prompt, those in the right color first; no verdicts."""
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    rows = []
    for number, prompt in enumerate(range(len(dataset.prompts))):
        of_prompt = dataset.verdicts.where(dataset.verdicts.prompt == prompt)
        good = dict(zip(of_prompt.image.tolist(), of_prompt.good.tolist(), strict=True))
        rows += [
            (a, b, prompt, (1 + good[a] - good[b]) / 2, 1 / 36, number)
            for a, b in combinations(good, 2)
        ]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    image_0, image_1, of, label_0, weight, ranking = columns
    label_0, weight = label_0.astype(np.float32), weight.astype(np.float32)
    pairs = RankedPairs(image_0, image_1, of, label_0, weight, ranking, 0 * ranking)
    return replace(dataset, verdicts=dataset.verdicts.where(np.zeros(0, int)), pairs=pairs)


def _train(
    dataset: FeedbackDataset, backbone: ClipBackbone, **changes: Any
) -> tuple[RewardModel, Examples, RewardConfig, list[RewardMetrics]]:
    config = RewardConfig(
        hidden=(32,), members=2, epochs=25, batch_size=128, learning_rate=3e-3, split=ALL
    ).model_copy(update=changes)
    examples = prepare(dataset, config, backbone)
    generator = torch.Generator().manual_seed(0)
    model = new_model(backbone, config, generator=generator)
    return model, examples, config, list(train(model, examples, config, generator=generator))


def test_rankings_alone_teach_the_order(rankings: FeedbackDataset, backbone: ClipBackbone) -> None:
    model, examples, config, metrics = _train(rankings, backbone)
    assert metrics[-1].ranking_loss is not None
    assert metrics[0].ranking_loss is not None
    assert metrics[-1].ranking_loss < 0.9 * metrics[0].ranking_loss
    right = measure(model_scorer(model, examples), rankings).pairwise_accuracy
    assert right is not None
    assert right > 0.9
    nothing = config.model_copy(update={"ranking_weight": 0.0})
    with pytest.raises(PictuneError, match="all labels are rankings"):
        list(train(model, examples, nothing, generator=torch.Generator()))


def test_a_ranking_of_three_is_rebuilt_from_its_pairs_beside_a_longer_one(
    rankings: FeedbackDataset,
) -> None:
    pairs = rankings.pairs
    first = sorted({*pairs.image_0[:36], *pairs.image_1[:36]})
    few = pairs.where(
        (pairs.ranking > 0) | np.isin(pairs.image_0, first[:3]) & np.isin(pairs.image_1, first[:3])
    )
    padded = LabelTensors.from_part(
        replace(rankings, pairs=few), whole_rankings=True
    ).padded_rankings
    assert padded.image[0, :3].tolist() == first[:3]
    assert padded.present.sum(1).tolist() == [3] + [9] * 14
    assert padded.weight.tolist() == pytest.approx([3 / 36] + [1.0] * 14)
    labels = dict(zip(zip(few.image_0, few.image_1, strict=True), few.label_0, strict=True))
    for row, images in zip(padded.ranks, padded.image, strict=True):
        ranks = dict(zip(images.tolist(), row.tolist(), strict=True))
        for (a, b), label in labels.items():
            if {a, b} <= set(images.tolist()) and len(set(images.tolist())) == 9:
                assert np.sign(ranks[b] - ranks[a]) == np.sign(label - 0.5)


def _with_estimates(
    run: RunFolder, skills: dict[str, float | None], p_good: Callable[[str], float]
) -> FeedbackDataset:
    """Labels of every rater on every image of `run` for one prompt, with skills and consensus."""
    images = pa.parquet.read_table(run.latest / "images.parquet").to_pylist()[:6]
    other = RunFolder(run.root)
    verdicts = [
        verdict_row(row["image_id"], PROMPT, rater != "liar", rater)
        for row in images
        for rater in skills
    ]
    write(other, images=images, prompts={PROMPT: "color"}, verdicts=verdicts, pairs=[])
    known = {"source": "simulated", "joined_at": NOON, "n": 6, "n_skipped": 0, "gold_n": 0}
    raters = [known | {"rater_id": rater, "skill": skill} for rater, skill in skills.items()]
    write_table(pa.Table.from_pylist(raters, schema=RATERS), RATERS, run.latest / "raters.parquet")
    consensus = []
    for number, image_id in enumerate(row["image_id"] for row in images):
        asked = {"task_id": f"task of {image_id}", "image_id": image_id, "n_raters": 2}
        asked |= {"source": "simulated"}
        consensus.append(asked | {"method": "mv", "value": 0.5, "p_good": 0.5})
        if number < 5:
            consensus.append(asked | {"method": "ds", "value": 1.0, "p_good": p_good(image_id)})
    table = pa.Table.from_pylist(consensus, schema=CONSENSUS)
    write_table(table, CONSENSUS, run.latest / "consensus.parquet")
    return FeedbackDataset.from_latest(run.latest, run.root)


@pytest.fixture
def small_run(tmp_path: Path) -> RunFolder:
    return make_feedback(tmp_path / "run", images_per_prompt=2)


def test_raters_count_by_their_skill_and_one_of_unknown_skill_as_the_others_do(
    small_run: RunFolder,
) -> None:
    skills: dict[str, float | None] = {"expert": 1.0, "liar": 0.75, "coin": 0.5}
    dataset = _with_estimates(small_run, skills, lambda _: 1.0)
    labels = LabelTensors.from_part(dataset, weighting="skill")
    assert labels.raters.tolist() == pytest.approx([1.5] * 6)
    assert labels.good.tolist() == pytest.approx([2 / 3] * 6)
    assert LabelTensors.from_part(dataset).raters.tolist() == [3.0] * 6
    unknown = _with_estimates(small_run, skills | {"coin": None}, lambda _: 1.0)
    labels = LabelTensors.from_part(unknown, weighting="skill")
    assert labels.raters.tolist() == pytest.approx([1 + 0.5 + 0.75] * 6)


def test_labels_that_count_nothing_are_left_out(
    small_run: RunFolder, backbone: ClipBackbone
) -> None:
    dataset = _with_estimates(small_run, {"expert": 0.9, "liar": 0.3}, lambda _: 1.0)
    assert LabelTensors.from_part(dataset, weighting="skill").good.tolist() == [1.0] * 6
    hopeless = _with_estimates(small_run, {"coin": 0.5, "liar": 0.3}, lambda _: 1.0)
    assert len(LabelTensors.from_part(hopeless, weighting="skill").image) == 0
    with pytest.raises(PictuneError, match="no rater's skill is above chance"):
        _train(hopeless, backbone, label_weights="skill")


def test_consensus_takes_the_place_of_single_verdicts(small_run: RunFolder) -> None:
    def p_good(image_id: str) -> float:
        return int(image_id[:4], 16) / 65536

    dataset = _with_estimates(small_run, {"a": 1.0, "liar": 1.0}, p_good)
    labels = LabelTensors.from_part(dataset, weighting="consensus")
    got = dict(zip((dataset.image_ids[i] for i in labels.image), labels.good.tolist(), strict=True))
    images = pa.parquet.read_table(small_run.latest / "images.parquet")["image_id"].to_pylist()
    wanted = {image_id: p_good(image_id) for image_id in images}
    wanted[images[-1]] = 0.5  # Dawid-Skene has nothing to say of it, its votes have
    assert got == pytest.approx(wanted)
    assert labels.raters.tolist() == [2.0] * 6


@pytest.mark.parametrize("weighting", ["skill", "consensus"])
def test_an_export_without_estimates_says_so(
    run: RunFolder, backbone: ClipBackbone, weighting: str
) -> None:
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    with pytest.raises(PictuneError, match="label_weights: "):
        _train(dataset, backbone, label_weights=weighting)


def test_shares_multiply_what_raters_count(rankings: FeedbackDataset, run: RunFolder) -> None:
    verdicts = FeedbackDataset.from_latest(run.latest, run.root).verdicts
    pairs = replace(rankings.pairs, rater=1 + np.minimum(rankings.pairs.prompt, 1))
    dataset = replace(rankings, verdicts=verdicts, pairs=pairs)
    labels = LabelTensors.from_part(dataset, shares=np.array([0.5, 1, 0], np.float32))
    assert labels.raters.unique().tolist() == [0.5]
    assert len(labels.image_0) == 36


def test_lee_et_al_by_formula() -> None:
    rewards = torch.tensor([[0.8, 0.2, 0.1]])
    mse = binary_loss(rewards[:, 0], torch.tensor([1.0]), ONE)
    auxiliary = prompt_classification_loss(
        rewards, torch.ones(1, 3, dtype=torch.bool), ONE, temperature=2.0
    )
    assert mse.item() == pytest.approx(0.04, abs=1e-6)
    assert torch.exp(-auxiliary).item() == pytest.approx(0.408913, abs=1e-6)
    assert auxiliary.item() == pytest.approx(0.894252, abs=1e-6)
    assert (mse + 0.5 * auxiliary).item() == pytest.approx(0.487126, abs=1e-6)


def test_absent_wrong_prompts_do_not_count_and_bounded_rewards_have_a_floor() -> None:
    best = torch.tensor([[1.0] + [0.0] * 11])
    present = torch.arange(12)[None] < 10
    floor = prompt_classification_loss(best, present, ONE, temperature=2.0)
    assert 1.86 < floor < 1.87


def test_mean_target_has_the_gradient_of_all_raters() -> None:
    rewards = torch.tensor([0.3, 0.6])
    one_by_one = jacobian(
        lambda r: binary_loss(r[[0, 0, 0, 1]], torch.tensor([1.0, 0, 1, 0]), torch.ones(4)), rewards
    )
    joined = jacobian(
        lambda r: binary_loss(r, torch.tensor([2 / 3, 0]), torch.tensor([3.0, 1.0])), rewards
    )
    torch.testing.assert_close(one_by_one, joined)


@settings(deadline=None)  # another process may keep the cores busy
@given(a=logits, b=logits, shift=logits, label=shares)
def test_bradley_terry_knows_only_the_difference(
    a: float, b: float, shift: float, label: float
) -> None:
    a_, b_, label_ = torch.tensor([a]), torch.tensor([b]), torch.tensor([label])
    loss = bradley_terry_loss(a_, b_, label_, ONE)
    torch.testing.assert_close(
        bradley_terry_loss(a_ + shift, b_ + shift, label_, ONE), loss, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(bradley_terry_loss(b_, a_, 1 - label_, ONE), loss)
    of_win, of_loss = (torch.log1p(torch.exp(torch.tensor([m]).double())) for m in (b - a, a - b))
    torch.testing.assert_close(loss, (label * of_win + (1 - label) * of_loss).mean().float())
