from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset
from reward.embedding import read_image
from reward.learning import training
from reward.learning.examples import Examples, prepare
from reward.learning.training import RewardMetrics, new_model, train
from reward.measuring.evaluation import model_scorer
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_clip import small_reward
from tests.support.tiny_feedback import make_feedback

CONFIG = RewardConfig(
    tune_last=1,
    tune_learning_rate=3e-3,
    hidden=(8,),
    members=2,
    epochs=4,
    batch_size=32,
    split=SplitConfig(split_by="image", unseen_prompts=0, validation=0.2, test_images=0.1),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FeedbackDataset:
    run = make_feedback(tmp_path_factory.mktemp("run"), images_per_prompt=6, rankings=1)
    return FeedbackDataset.from_latest(run.latest, run.root)


@pytest.fixture(scope="module")
def examples(dataset: FeedbackDataset, backbone: ClipBackbone) -> Examples:
    return prepare(dataset, CONFIG, backbone)


@pytest.fixture(scope="module")
def trained(examples: Examples, backbone: ClipBackbone) -> RewardModel:
    return _train(examples, backbone, CONFIG)[0]


def _train(
    examples: Examples, backbone: ClipBackbone, config: RewardConfig
) -> tuple[RewardModel, list[RewardMetrics]]:
    generator = torch.Generator().manual_seed(0)
    model = new_model(backbone, config, generator=generator)
    return model, list(train(model, examples, config, generator=generator))


def test_only_the_last_blocks_of_a_copy_are_trained(
    trained: RewardModel, backbone: ClipBackbone
) -> None:
    loaded = ClipBackbone.from_pretrained(backbone.name).clip.state_dict()
    assert all(
        torch.equal(weight, loaded[name]) for name, weight in backbone.clip.state_dict().items()
    )
    changed = {
        name
        for name, weight in trained.backbone.clip.state_dict().items()
        if not torch.equal(weight, loaded[name])
    }
    assert changed == set(trained.backbone.tuned_weights())
    assert {name.split(".")[0:4][-1] for name in changed if "layers" in name} == {"1"}
    assert {"visual_projection.weight", "vision_model.post_layernorm.weight"} < changed
    kept = dict(backbone.clip.named_parameters())
    assert all(
        weight is kept[name]
        for name, weight in trained.backbone.clip.named_parameters()
        if name not in changed
    )


def test_cached_activations_give_the_score_of_the_pixels(
    trained: RewardModel, examples: Examples
) -> None:
    dataset = examples.dataset
    image, prompt = np.arange(8), examples.split.train.verdicts.prompt[:8]
    cached = model_scorer(trained, examples)(image, prompt)
    pixels = torch.stack([read_image(dataset.paths[i]) for i in image])
    with torch.no_grad():
        scores = trained.score(images=pixels, prompts=[dataset.prompts[i] for i in prompt])
    torch.testing.assert_close(torch.from_numpy(cached).float(), scores, atol=1e-5, rtol=1e-5)


def _last_loss(examples: Examples, backbone: ClipBackbone, **changes: object) -> float:
    config = CONFIG.model_copy(update={"epochs": 15, **changes})
    loss = _train(examples, backbone, config)[1][-1].binary_loss
    assert loss is not None
    return loss


def test_training_blocks_fits_the_labels_better(examples: Examples, backbone: ClipBackbone) -> None:
    assert _last_loss(examples, backbone) < 0.9 * _last_loss(examples, backbone, tune_last=0)


def test_the_best_epoch_of_head_and_blocks_is_kept(
    examples: Examples, backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PATIENCE", 2)
    config = CONFIG.model_copy(update={"epochs": 60, "tune_learning_rate": 0.03})
    model, metrics = _train(examples, backbone, config)
    best = int(np.argmin(np.array([each.val_loss for each in metrics], float)))
    assert len(metrics) == best + 1 + 2
    at_best, _ = _train(examples, backbone, config.model_copy(update={"epochs": best + 1}))
    assert all(map(torch.equal, model.state_dict().values(), at_best.state_dict().values()))


FROZEN = ["config.json", "head.safetensors"]


def test_trained_blocks_are_saved_and_loaded_to_the_bit(
    trained: RewardModel, backbone: ClipBackbone, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["backbone.safetensors", *FROZEN]
    for given in (None, backbone):
        loaded = RewardModel.from_pretrained(tmp_path, backbone=given)
        assert torch.equal(_scores(loaded), _scores(trained))
        loaded.save_pretrained(tmp_path / "again")
        again, config = (
            (folder / "config.json").read_bytes() for folder in (tmp_path / "again", tmp_path)
        )
        assert again == config


def _scores(model: RewardModel) -> torch.Tensor:
    images = torch.rand(2, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    return model.score(images=images, prompts=["a dog", "two cats"])


def test_trained_blocks_of_another_training_are_refused(
    trained: RewardModel, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    whole = (tmp_path / "backbone.safetensors").read_bytes()
    (tmp_path / "backbone.safetensors").write_bytes(whole[:-4] + bytes(4))
    with pytest.raises(
        PictuneError, match=r"backbone\.safetensors and config\.json are of two trainings"
    ):
        RewardModel.from_pretrained(tmp_path)
    (tmp_path / "backbone.safetensors").unlink()
    with pytest.raises(PictuneError, match=r"no backbone\.safetensors"):
        RewardModel.from_pretrained(tmp_path)


def test_a_frozen_training_leaves_no_blocks_of_an_earlier_one(
    trained: RewardModel, backbone: ClipBackbone, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    small_reward(backbone).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FROZEN


def test_more_blocks_than_there_are_is_one_clear_line(backbone: ClipBackbone) -> None:
    with pytest.raises(PictuneError, match=r"tune_last: .* has 2 blocks"):
        backbone.tunable(3)
