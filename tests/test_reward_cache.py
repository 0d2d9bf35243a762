import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset
from reward.embedding import embed_images, embed_prompts
from reward.learning.examples import prepare
from reward.settings import ExamplesConfig
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_feedback import COLORS, draw, make_feedback


class CountingBackbone(ClipBackbone):
    """Counts the images and prompts that it encodes."""

    images = 0
    prompts = 0

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        self.images += len(pixels)
        return super().encode_pixels(pixels)

    def _encode_text(self, prompts: list[str]) -> Tensor:
        self.prompts += len(prompts)
        return super()._encode_text(prompts)


@pytest.fixture
def backbone(clip_folder: Path) -> CountingBackbone:
    return CountingBackbone.from_pretrained(clip_folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), random.Random(0)
    paths = [folder / f"{i}.png" for i in range(10)]
    for path in paths:
        draw(path, rng.choice(list(COLORS.values())), rng)
    return paths


def _only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_two_writers_may_write_the_same_at_once(tmp_path: Path) -> None:
    keys = [i.to_bytes(32, "big") for i in range(150)]

    def write(_: int) -> tuple[int, str | None]:
        cache = EmbeddingCache(tmp_path)
        for number, key in enumerate(keys):
            cache.append("space", [key], np.full((1, 6), number, np.float32))
        return cache.stored, cache.failure

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(write, range(2))) == [(150, None)] * 2
    vectors, known = EmbeddingCache(tmp_path).read("space", keys, 6)
    assert known.all()
    assert vectors[:, 0].tolist() == list(range(150))


def test_a_second_run_encodes_nothing_and_has_the_same_bits(
    backbone: CountingBackbone, images: list[Path], tmp_path: Path
) -> None:
    plain = embed_images(images, backbone, batch_size=4)
    first = embed_images(images, backbone, batch_size=4, cache=EmbeddingCache(tmp_path))
    backbone.images = 0
    cache = EmbeddingCache(tmp_path)
    again = embed_images(images, backbone, batch_size=3, cache=cache)
    assert torch.equal(plain, first)
    assert torch.equal(first, again)
    assert (backbone.images, cache.found, cache.stored) == (0, 10, 0)


def test_images_of_the_same_bytes_are_encoded_once(
    backbone: CountingBackbone, images: list[Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(images[0].read_bytes())
    embeddings = embed_images([*images[:3], copy, images[1]], backbone, batch_size=2)
    assert backbone.images == 3
    assert torch.equal(embeddings[[0, 1]], embeddings[[3, 4]])


def test_each_distinct_prompt_is_encoded_once_over_runs(
    backbone: CountingBackbone, tmp_path: Path
) -> None:
    prompts = ["a dog", "two cats", "a dog"]
    first = embed_prompts(prompts, backbone, cache=EmbeddingCache(tmp_path))
    again = embed_prompts([*prompts, "a cow"], backbone, cache=EmbeddingCache(tmp_path))
    assert backbone.prompts == 3
    assert torch.equal(first, again[:3])
    assert torch.equal(first[0], first[2])


def test_another_backbone_has_embeddings_of_its_own(
    backbone: CountingBackbone, images: list[Path], tmp_path: Path
) -> None:
    other = CountingBackbone.from_pretrained(save_tiny_clip(tmp_path / "other", seed=1))
    spaces = set()
    for each in (backbone, other):
        kept = embed_images(images, each, batch_size=8, cache=EmbeddingCache(tmp_path / "cache"))
        assert torch.equal(kept, embed_images(images, each, batch_size=8))
        spaces.add(each.image_space)
    assert len(spaces) == 2


def test_an_image_that_is_no_longer_the_labeled_one_is_refused(
    backbone: CountingBackbone, tmp_path: Path
) -> None:
    run = make_feedback(tmp_path / "run", images_per_prompt=2)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    dataset.paths[3].write_bytes(dataset.paths[4].read_bytes())
    with pytest.raises(
        PictuneError,
        match=rf"{dataset.paths[3].name}: not the image that was labeled \(1 in all\)",
    ):
        prepare(dataset, ExamplesConfig(), backbone)


def test_a_damaged_embedding_is_encoded_again(
    backbone: CountingBackbone, images: list[Path], tmp_path: Path
) -> None:
    whole = embed_images(images, backbone, batch_size=10, cache=EmbeddingCache(tmp_path))
    content = bytearray(_only_file(tmp_path).read_bytes())
    content[content.index(whole[3].numpy().tobytes()) + 40] ^= 1
    _only_file(tmp_path).write_bytes(content)
    backbone.images = 0
    cache = EmbeddingCache(tmp_path)
    again = embed_images(images, backbone, batch_size=10, cache=cache)
    assert (backbone.images, cache.damaged, cache.found, cache.stored) == (1, 1, 9, 1)
    torch.testing.assert_close(again, whole, atol=1e-6, rtol=1e-5)
    healed = EmbeddingCache(tmp_path)
    assert torch.equal(embed_images(images, backbone, batch_size=10, cache=healed), again)
    assert healed.damaged == 0


@pytest.mark.parametrize("damage", ["cut", "overwritten", "another file"])
def test_a_damaged_file_costs_only_the_cache_and_is_never_trusted(
    backbone: CountingBackbone, images: list[Path], tmp_path: Path, damage: str
) -> None:
    whole = embed_images(images, backbone, batch_size=10, cache=EmbeddingCache(tmp_path))
    file = _only_file(tmp_path)
    content = file.read_bytes()
    file.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "overwritten": content[:100] + bytes([7]) * (len(content) - 100),
            "another file": b"no database" * 100,
        }[damage]
    )
    cache = EmbeddingCache(tmp_path)
    again = embed_images(images, backbone, batch_size=10, cache=cache)
    assert torch.equal(again, whole)
    assert cache.failure is not None
    assert "delete the file" in cache.failure
    file.unlink()
    healed = EmbeddingCache(tmp_path)
    assert torch.equal(embed_images(images, backbone, batch_size=10, cache=healed), whole)
    assert (healed.stored, healed.failure) == (10, None)


def test_a_folder_that_cannot_be_used_is_said_and_costs_only_the_cache(
    backbone: CountingBackbone, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = EmbeddingCache(tmp_path / "file" / "cache")
    embeddings = embed_images(images, backbone, batch_size=4, cache=cache)
    assert torch.equal(embeddings, embed_images(images, backbone, batch_size=4))
    assert cache.failure is not None
    assert "Not a directory" in cache.failure
    assert cache.stored == 0
