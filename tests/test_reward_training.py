from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.run.image_io import load_image
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset
from reward.embedding import embed_images, read_image
from reward.learning.examples import Examples, prepare
from reward.learning.objective import Objective
from reward.learning.training import (
    RewardMetrics,
    new_model,
    optimizer_of,
    train,
    train_epoch,
)
from reward.measuring.evaluation import measure, model_scorer
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.exchange_files import large_png
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_feedback import make_feedback

NONE = np.zeros(0, int)
BY_IMAGE = SplitConfig(split_by="image", unseen_prompts=0, validation=0.15, test_images=0.15)
CONFIG = RewardConfig(
    hidden=(64,), members=2, epochs=40, batch_size=32, learning_rate=3e-3, split=BY_IMAGE
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_feedback(tmp_path_factory.mktemp("run"), images_per_prompt=14, raters=2, rankings=3)


@pytest.fixture(scope="module")
def dataset(run: RunFolder) -> FeedbackDataset:
    return FeedbackDataset.from_latest(run.latest, run.root)


@pytest.fixture(scope="module")
def examples(dataset: FeedbackDataset, backbone: ClipBackbone) -> Examples:
    return prepare(dataset, CONFIG, backbone)


def _train(
    examples: Examples, backbone: ClipBackbone, config: RewardConfig, seed: int = 0
) -> tuple[RewardModel, list[RewardMetrics]]:
    generator = torch.Generator().manual_seed(seed)
    model = new_model(backbone, config, generator=generator)
    return model, list(train(model, examples, config, generator=generator))


def test_an_image_of_too_many_pixels_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(large_png(13_000, 13_000))
    for read in (read_image, load_image):
        with pytest.raises(
            PictuneError, match=r"large\.png: has 13000 x 13000 pixels, more than 16,777,216"
        ):
            read(path)


def test_learns_which_color_a_prompt_means(examples: Examples, backbone: ClipBackbone) -> None:
    model, metrics = _train(examples, backbone, CONFIG)
    measured = measure(model_scorer(model, examples), examples.split.test_seen)
    assert _number(metrics[-1].binary_loss) < _number(metrics[0].binary_loss) / 2
    off = CONFIG.model_copy(update={"epochs": 1, "auxiliary_weight": 0.0, "ranking_weight": 0.0})
    (without,) = _train(examples, backbone, off)[1]
    assert without.prompt_loss is without.ranking_loss is None
    assert _number(measured.roc_auc) > 0.85
    assert _number(measured.pairwise_accuracy) > 0.85
    assert model.labels["good"] + model.labels["bad"] < len(examples.dataset.verdicts)


def test_no_wrong_prompt_is_one_that_is_held_out(
    dataset: FeedbackDataset, backbone: ClipBackbone
) -> None:
    examples = prepare(dataset, RewardConfig(), backbone)
    taught = np.unique(examples.split.train.verdicts.prompt)
    held_out = np.setdiff1d(np.arange(len(dataset.prompts)), taught)
    wrong = examples.wrong[torch.from_numpy(taught)]
    likeness = (
        examples.text_embeddings[wrong[wrong >= 0]]
        @ examples.text_embeddings[torch.from_numpy(held_out)].T
    )
    assert len(likeness) > 20
    assert likeness.shape[1] == 4
    assert likeness.max() < 0.9999


def test_a_few_verdicts_beside_many_pairs_make_no_giant_step(
    examples: Examples, backbone: ClipBackbone
) -> None:
    generator = torch.Generator().manual_seed(0)
    few = np.arange(len(examples.split.train.verdicts)) < 10
    part = examples.split.train.where(few, np.ones(len(examples.split.train.pairs), bool))
    for ranking_weight in (0.5, 0.0):
        config = CONFIG.model_copy(update={"batch_size": 1, "ranking_weight": ranking_weight})
        objective = Objective(
            RewardModel.create(backbone, hidden=(8,), members=1, generator=generator),
            examples,
            config,
        )
        labels, optimizer = objective.labels(part), optimizer_of(objective, config)
        of_verdicts, of_pairs = len(labels.image), -(-len(labels.image_0) // 8)
        assert of_verdicts < of_pairs
        train_epoch(objective, optimizer, labels, config.batch_size, generator)
        assert max(state["step"] for state in optimizer.state.values()) == (
            of_pairs if ranking_weight else of_verdicts
        )


def test_prompt_classification_prefers_the_true_prompt(
    examples: Examples, backbone: ClipBackbone
) -> None:
    config = CONFIG.model_copy(update={"epochs": 15, "prompt_temperature": 0.1})
    _, metrics = _train(examples, backbone, config)
    assert _number(metrics[-1].prompt_loss) < _number(metrics[0].prompt_loss) - 0.02


def test_without_a_validation_part_the_last_epoch_counts(
    dataset: FeedbackDataset, backbone: ClipBackbone
) -> None:
    config = CONFIG.model_copy(
        update={
            "epochs": 3,
            "split": SplitConfig(validation=0, unseen_prompts=0, test_images=0),
        }
    )
    model, metrics = _train(prepare(dataset, config, backbone), backbone, config)
    assert [each.val_loss for each in metrics] == [None] * 3
    assert model.temperature == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda part: part.where(part.verdicts.good == 1, NONE), "say good"),
        (lambda part: part.where(NONE, NONE), "none is left to learn from"),
    ],
    ids=range(2),
)
def test_labels_that_teach_nothing_are_refused(
    examples: Examples,
    backbone: ClipBackbone,
    damage: Callable[[FeedbackDataset], FeedbackDataset],
    reason: str,
) -> None:
    split = replace(examples.split, train=damage(examples.split.train))
    with pytest.raises(PictuneError, match=reason):
        _train(replace(examples, split=split), backbone, CONFIG)


def test_a_diverged_training_says_so(examples: Examples, backbone: ClipBackbone) -> None:
    broken = replace(examples, image_features=examples.image_features * torch.nan)
    with pytest.raises(PictuneError, match="learning_rate"):
        _train(broken, backbone, CONFIG)


def test_images_of_different_sizes_and_modes_are_encoded_together(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    for mode, size in (("L", (20, 70)), ("RGBA", (64, 32)), ("P", (32, 32))):
        Image.new(mode, size).save(tmp_path / f"{mode}.png")
    features = embed_images(sorted(tmp_path.iterdir()), backbone, batch_size=8)
    assert features.shape == (3, backbone.feature_dim)
    torch.testing.assert_close(features[:, : backbone.dim].norm(dim=-1), torch.ones(3))


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named(
    run: RunFolder, backbone: ClipBackbone, tmp_path: Path, content: bytes | None
) -> None:
    path, whole = tmp_path / "broken.png", next(run.images_dir.iterdir()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(PictuneError, match=r"broken\.png: cannot be read as an image"):
        embed_images([path], backbone, batch_size=1)


def test_embeddings_that_are_not_finite_are_refused(
    dataset: FeedbackDataset, tmp_path: Path
) -> None:
    broken, cache = (
        ClipBackbone.from_pretrained(save_tiny_clip(tmp_path / "clip")),
        EmbeddingCache(tmp_path / "cache"),
    )
    broken.clip.visual_projection.weight[0, 0] = torch.nan
    with pytest.raises(PictuneError, match="no finite embedding"):
        prepare(dataset, CONFIG, broken, cache=cache)
    assert not cache.folder.exists()
    broken.clip.text_projection.weight[0, 0] = torch.nan
    broken.clip.visual_projection.weight[0, 0] = 0
    with pytest.raises(PictuneError, match="no finite embedding"):
        prepare(dataset, CONFIG, broken)


def _number(value: float | None) -> float:
    assert value is not None
    return value
