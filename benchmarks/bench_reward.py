"""Speed of the reward: `python -m benchmarks.bench_reward` writes `results/bench_reward.json`.

A CLIP of the shape of ViT-B/32 with random weights reads JPEG files of 512 pixels on one thread;
both sides of each ratio run in the same process. Seconds are wall-clock and processor time: on a
busy machine only the ratio of processor times is meaningful.

- train: 10 epochs of the head on cached embeddings, including their encoding, against 10 times an
  epoch that encodes each image and prompt again in every batch.
- score: four images for each prompt, against a loop that encodes one image and one prompt, padded
  to 77 tokens, at a time, as the example in PickScore's README does.
- score_warm: the same again, with all embeddings in the cache.
- memory: peak of resident memory of a process that loads the CLIP, here with embeddings of width
  768, reads the cached embeddings of many images and scores each.

`--score 8 --train 8 --memory 1000` tries it all in a minute.
"""

import hashlib
import json
import multiprocessing
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from benchmarks.record import arguments, peak_mib, record, timed
from data.files import sha256_of
from pipelines.reward.scoring import ROWS
from reward.clip.backbone import ClipBackbone, Preprocessing
from reward.clip.cache import EmbeddingCache
from reward.dataset import FeedbackDataset, RankedPairs, Verdicts
from reward.embedding import embed_prompts, embed_readable, read_image
from reward.learning.examples import prepare
from reward.learning.objective import binary_loss
from reward.learning.training import new_model, train_from_scratch
from reward.settings import RewardConfig, SplitConfig
from tests.support.tiny_clip import byte_tokenizer

EPOCHS, BATCH, TOKENS, WIDTH = 10, 32, 77, 768
SPACE = "bench"
Figures = dict[str, Any]


def write_images(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 512 by 512 pixels."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8))
        small.resize((512, 512), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def dataset_of(paths: list[Path], prompts: int) -> FeedbackDataset:
    """Return one verdict on each image, the prompts in turn."""
    image = np.arange(len(paths))
    rng = random.Random(0)
    good = np.array([rng.random() < 0.5 for _ in paths], np.float32)
    nothing, none = np.zeros(0, np.int64), np.zeros(0, np.float32)
    pairs = RankedPairs(nothing, nothing, nothing, none, none, nothing, nothing)
    texts = tuple(f"A photo of {number} dogs." for number in range(prompts))
    verdicts, ids = Verdicts(image, image % prompts, good, 0 * image), tuple(map(sha256_of, paths))
    return FeedbackDataset(ids, tuple(paths), texts, ("",) * prompts, verdicts, pairs)


def random_backbone(name: str, projection_dim: int = 512) -> ClipBackbone:
    """Return a CLIP of the shape of ViT-B/32 with random weights, whose vocabulary is the bytes."""
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = TOKENS
    text = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
    }
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, projection_dim=projection_dim)).eval()
    side = clip.config.vision_config.image_size
    preprocessing = Preprocessing.from_processor(CLIPImageProcessorPil(), side)
    return ClipBackbone(name, clip, tokenizer, preprocessing)


def compared(ours: dict[str, float], theirs: dict[str, float]) -> Figures:
    """Return both times and their ratio."""
    ratio = {f"times_{unit}": round(theirs[unit] / ours[unit], 2) for unit in ours}
    return {
        "ours": {k: round(v, 3) for k, v in ours.items()},
        "one_by_one": {k: round(v, 3) for k, v in theirs.items()},
    } | ratio


@torch.no_grad()
def encode_text_padded(backbone: ClipBackbone, prompts: list[str]) -> Tensor:
    """Encode prompts, padded to the largest length."""
    tokens: Any = backbone.tokenizer(
        prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    pooled = backbone.clip.text_model(input_ids=tokens.input_ids).pooler_output
    return F.normalize(backbone.clip.text_projection(pooled), dim=-1)


@torch.no_grad()
def encode_image(backbone: ClipBackbone, path: Path) -> Tensor:
    """Encode a file, [1, D]."""
    return backbone.image_embedding(read_image(path)[None])


def bench_train(backbone: ClipBackbone, paths: list[Path]) -> Figures:
    """Time ten epochs of the head."""
    dataset = dataset_of(paths, len(paths) // 4)
    split = SplitConfig(split_by="image", validation=0, test_images=0, unseen_prompts=0)
    config = RewardConfig(
        split=split, epochs=EPOCHS, batch_size=BATCH, auxiliary_weight=0, negatives=0
    )

    def cached() -> None:
        train_from_scratch(backbone, prepare(dataset, config, backbone), config)

    def encoded_each_time() -> None:
        model = new_model(backbone, config, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.AdamW(model.head.parameters())
        for rows in torch.randperm(len(paths)).split(BATCH):
            images = torch.cat([encode_image(backbone, paths[i]) for i in rows])
            texts = encode_text_padded(
                backbone, [dataset.prompts[dataset.verdicts.prompt[i]] for i in rows]
            )
            logits = model.member_logits(image_features=images, text_embeddings=texts)
            loss = binary_loss(
                torch.sigmoid(logits),
                torch.from_numpy(dataset.verdicts.good[rows.numpy()]),
                torch.ones(len(rows)),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return {"images": len(paths), "epochs": EPOCHS} | compared(
        timed(cached),
        {unit: EPOCHS * one for unit, one in timed(encoded_each_time).items()},
    )


def bench_score(
    backbone: ClipBackbone, paths: list[Path], cache: EmbeddingCache
) -> dict[str, Figures]:
    """Time scores of each image for its prompt, without the cache and then with a full one."""
    model = new_model(backbone, RewardConfig(), generator=torch.Generator().manual_seed(0)).eval()
    prompts = [f"A photo of {i // 4} dogs in the park." for i in range(len(paths))]
    found: dict[str, Tensor] = {}

    @torch.no_grad()
    def ours(cache: EmbeddingCache | None) -> None:
        images, _ = embed_readable(paths, backbone, batch_size=64, skipped=print, cache=cache)
        texts = embed_prompts(prompts, backbone, cache=cache)
        found["ours"], _ = model.score_features_with_std(
            image_features=images, text_embeddings=texts
        )

    @torch.no_grad()
    def one_by_one() -> None:
        scores = []
        for path, prompt in zip(paths, prompts, strict=True):
            image, text = encode_image(backbone, path), encode_text_padded(backbone, [prompt])
            scores.append(
                model.score_features_with_std(image_features=image, text_embeddings=text)[0]
            )
        found["theirs"] = torch.cat(scores)

    cold, theirs = timed(lambda: ours(None)), timed(one_by_one)
    ours(cache)
    warm = timed(lambda: ours(cache))
    torch.testing.assert_close(found["ours"], found["theirs"], atol=1e-4, rtol=1e-4)
    size = {"images": len(paths), "prompts": len(set(prompts))}
    return {"score": size | compared(cold, theirs), "score_warm": size | compared(warm, theirs)}


def bench_memory(folder: Path, count: int) -> Figures:
    """Measure the memory of a process that scores `count` images from the cache."""
    cache, rng = EmbeddingCache(folder), np.random.default_rng(0)
    for start in range(0, count, ROWS):
        keys = _keys(count)[start : start + ROWS]
        vectors = rng.standard_normal((len(keys), WIDTH), np.float32)
        cache.append(SPACE, keys, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        start_mb, peak_mb = pool.apply(_score_cached, (folder, count))
    return {
        "images": count,
        "width": WIDTH,
        "with_the_model_loaded_mb": start_mb,
        "peak_mb": peak_mb,
    }


@torch.no_grad()
def _score_cached(folder: Path, count: int) -> tuple[int, int]:
    """Return the peak of resident memory in MB, after loading the model and at the end."""
    torch.set_num_threads(1)
    backbone = random_backbone("random ViT-B/32", projection_dim=WIDTH)
    model = new_model(backbone, RewardConfig(), generator=torch.Generator().manual_seed(0)).eval()
    text, loaded = backbone.text_embedding(["A photo of a dog."]), int(peak_mib())
    vectors, known = EmbeddingCache(folder).read(SPACE, _keys(count), WIDTH)
    assert known.all()
    for images in torch.from_numpy(vectors).split(ROWS):
        model.score_features_with_std(
            image_features=images, text_embeddings=text.expand(len(images), -1)
        )
    return loaded, int(peak_mib())


def _keys(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def main() -> None:
    """Run all parts and write the figures."""
    given = arguments(__doc__, score=256, train=128, memory=100_000)
    torch.set_num_threads(1)
    backbone = random_backbone("random ViT-B/32")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), max(given.score, given.train))
        results = bench_score(backbone, paths[: given.score], EmbeddingCache(Path(folder, "cache")))
        results["train"] = bench_train(backbone, paths[: given.train])
        results["memory"] = bench_memory(Path(folder, "cache"), given.memory)
    record("bench_reward", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
