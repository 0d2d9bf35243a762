from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from data.errors import PictuneError
from data.runs import RunFolder
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, RankedPairs
from reward.learning.examples import Examples, prepare
from reward.learning.label_tensors import LabelTensors
from reward.learning.training import RewardMetrics, new_model, train
from reward.measuring.evaluation import measure, model_scorer
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_feedback import make_feedback

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
