"""Properties of any correct reward model, and the accidents that it must survive."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset
from reward.head import EnsembleHead
from reward.learning.examples import prepare
from reward.learning.objective import binary_loss
from reward.learning.training import new_model, train
from reward.model import RewardModel
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_clip import small_reward
from tests.support.tiny_feedback import make_feedback

ROOT = Path(__file__).parent.parent


def _unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def test_the_head_is_not_dead_at_its_start() -> None:
    head = EnsembleHead(64, 64, (32, 32), 3, generator=torch.Generator().manual_seed(0))
    image, text = _unit(256, 64), _unit(256, 64, seed=1)
    fits = (image[:, :8].sum(-1) > 0).float()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    losses = []
    for _ in range(200):
        loss = binary_loss(torch.sigmoid(head(image, text)), fits, torch.ones(256))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 < losses[0]


@pytest.mark.slow
def test_a_training_has_the_same_bits_with_a_cold_and_a_warm_cache(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    run = make_feedback(tmp_path / "run", images_per_prompt=4, rankings=1)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    config = RewardConfig(hidden=(8,), members=2, epochs=2, split=SplitConfig(split_by="image"))
    saved: list[dict[str, bytes]] = []
    for cache in (None, EmbeddingCache(tmp_path / "cache"), EmbeddingCache(tmp_path / "cache")):
        examples = prepare(dataset, config, backbone, cache=cache)
        generator = torch.Generator().manual_seed(3)
        model = new_model(backbone, config, generator=generator)
        list(train(model, examples, config, generator=generator))
        folder = tmp_path / f"reward-{len(saved)}"
        model.save_pretrained(folder)
        saved.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert saved[0] == saved[1] == saved[2]


_SAVE_FOR_EVER = """
import sys
import torch
from pathlib import Path
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel

backbone = ClipBackbone.from_pretrained(sys.argv[1])
generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
models = [RewardModel.create(backbone, hidden=(64,), members=2, generator=g) for g in generators]
while True:
    for model in models:
        model.save_pretrained(Path(sys.argv[2]))
        print("saved", flush=True)
"""


@pytest.mark.slow
def test_who_is_killed_while_saving_leaves_a_whole_model_or_one_that_is_refused(
    clip_folder: Path, backbone: ClipBackbone, tmp_path: Path
) -> None:
    folder = tmp_path / "reward"
    command = [sys.executable, "-c", _SAVE_FOR_EVER, str(clip_folder), str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(37):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    models = [small_reward(backbone, hidden=(64,), seed=seed) for seed in (0, 1)]
    try:
        loaded = RewardModel.from_pretrained(folder, backbone=backbone)
    except PictuneError as error:
        assert "two trainings" in str(error)  # noqa: PT017 (either is right, and which it is depends on the moment)
    else:
        assert any(
            all(map(torch.equal, loaded.head.parameters(), model.head.parameters()))
            for model in models
        )
    models[0].save_pretrained(folder)
    again = RewardModel.from_pretrained(folder, backbone=backbone)
    assert all(map(torch.equal, again.head.parameters(), models[0].head.parameters()))
