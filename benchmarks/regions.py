"""Tuning by predicted maps in a world with a planted fault, `python -m benchmarks.regions`.

The embedded model is spoiled: it learns that four of ten images have a pink square in their upper
left corner. Three simulated raters mark images that it draws, with their usual misses, shifts and
false alarms; a predictor of maps learns from the marks. Then two methods tune the model by a reward
that knows the fault's color and not its place: plainly, and with the predicted places of each
image. The same seeds are drawn before and after. "faults" is the share of images whose corner is
still pink, "inside" and "outside" the mean absolute change of pixels in [0, 1] in the corner and
elsewhere, "iou" the intersection over union of predicted and true places, over all images drawn
before.

It writes `results/regions.json`, and adds the seed to those that are there, and `regions.md`.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import RESULTS, Row, record, recorded
from data.files import sha256_of
from data.regions import Mark, mask_of
from finetune.learning.method import Method, new_training
from finetune.learning.regions import Regions
from finetune.methods import nft, reward_gradient
from finetune.model.denoising import NoiseLevels, noise_images
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.method import MethodConfig
from finetune.settings.model import AdapterSettings
from finetune.settings.nft import NFTConfig
from finetune.settings.reward_gradient import RewardGradientConfig
from finetune.settings.sampler import Sampler
from labeling_app.campaign.simulated import SimulatedRater
from pipelines.finetune.regions import Predict, PredictedRegions
from pipelines.run.image_io import save_png
from pipelines.settings.finetune import FinetuneConfig
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.maps.training import MarkedImage, train_maps
from reward.settings import RewardConfig

PAGE = """# Tuning by predicted maps, with a planted fault

Made by `python -m benchmarks.regions --seed 0` (1, 2); how: see there. The last column is the
change outside the fault's place beside that of plain tuning by the same method and seed.

| seed | model | faults | IoU of maps | change inside | outside | beside plain |
|---|---|---|---|---|---|---|
"""
PROMPTS = ("A cat and a dog.", "A dog on the moon.")
PINK = (1.0, 0.5, 0.9)
"""Color of the fault, one that the embedded autoencoder can draw."""
PINK_ENOUGH = 0.15
"""Mean of `pink` in the corner from which an image has the fault; drawn squares have about 0.35."""
PLACE = Mark(kind="box", aspect="artifact", x0=0, y0=0, x1=0.25, y1=0.25)
RATERS = tuple(SimulatedRater(rater_id=f"rater {number}") for number in range(3))
MARKED = 192
"""Images of each prompt that raters mark; a sixth of them chooses the predictor's epoch."""
LEAST = FinetuneConfig().region_threshold
FAULTY = 0.4
"""Share of the images that the model is spoiled with that have the fault."""
SAMPLER = Sampler(steps=10, guidance=3.0)
DRAWN = 16
"""Images of each prompt that measure a model."""
_SHARED = {
    "iterations": 8,
    "prompts_per_iteration": 2,
    "validation": {"every": 1000, "images_per_prompt": 2, "stop_on": ()},
}
ARMS: dict[str, tuple[Method[Any], MethodConfig, float]] = {
    "nft": (
        nft.METHOD,
        NFTConfig.model_validate(_SHARED | {"images_per_prompt": 12, "updates": 6}),
        30.0,
    ),
    "reward_gradient": (
        reward_gradient.METHOD,
        RewardGradientConfig.model_validate(
            _SHARED | {"iterations": 16, "images_per_prompt": 4, "steps_back": 3}
        ),
        300.0,
    ),
}
"""Method, settings and `outside_weight` by name."""


def pink(images: Tensor) -> Tensor:
    """Return in [0, 1] how close each pixel is to pink, [N, H, W] of images [N, 3, H, W]."""
    away = (images - images.new_tensor(PINK).view(3, 1, 1)).square().sum(1) + 1e-6
    return (1 - away.sqrt() / 0.4).clamp(min=0)


def reward(images: Tensor, _: Sequence[str]) -> Tensor:
    """Return 0 for images without pink, and about -1 for a whole square of it."""
    return -16 * pink(images).mean((1, 2))


def place(model: DiffusionModel) -> Tensor:
    """Return the pixels [H, W] of the fault."""
    return torch.from_numpy(mask_of([PLACE], *model.image_size))


def spoil(model: DiffusionModel, *, steps: int, seed: int) -> None:
    """Teach the whole network images with the fault."""
    generator = torch.Generator().manual_seed(seed)
    texts = [prompt for prompt in PROMPTS for _ in range(32)]
    seeds = torch.randint(2**31, (len(texts),), generator=generator).tolist()
    images = draw(model, texts, SAMPLER, seeds=seeds)
    has_fault = torch.rand(len(texts), generator=generator) < FAULTY
    planted = has_fault[:, None, None, None] & place(model)
    images = torch.where(planted, torch.tensor(PINK).view(3, 1, 1), images)
    latents, schedule = model.encode_images(images), model.schedule(SAMPLER.steps)
    weights = list(model.network.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(weights, lr=3e-4)
    for _ in range(steps):
        rows = torch.randint(len(texts), (16,), generator=generator)
        drawn = torch.randint(len(schedule.training_timesteps), (16,), generator=generator)
        noise = torch.randn(latents[rows].shape, generator=generator)
        at = NoiseLevels(schedule.training_timesteps.cpu()[drawn], noise)
        empty = torch.rand(16, generator=generator) < 0.1
        some = ["" if e else texts[i] for i, e in zip(rows.tolist(), empty.tolist(), strict=True)]
        noised = noise_images(model, schedule, latents[rows], some, at)
        optimizer.zero_grad()
        (noised.output(model) - noised.target).square().mean().backward()
        optimizer.step()
    model.network.requires_grad_(False)


def drawn(model: DiffusionModel) -> Tensor:
    """Return the images that measure a model, the same seeds for every one."""
    texts = [prompt for prompt in PROMPTS for _ in range(DRAWN)]
    return draw(model, texts, SAMPLER, seeds=range(10**6, 10**6 + len(texts)))


def faults(images: Tensor, at: Tensor) -> float:
    """Return the share of images with the fault."""
    return float((pink(images)[:, at].mean(1) > PINK_ENOUGH).float().mean())


def marked(
    model: DiffusionModel, folder: Path, *, seed: int
) -> tuple[list[MarkedImage], list[MarkedImage]]:
    """Draw images and let the raters mark them; return a part to learn from, and one that chooses.

    The raters call an image without the fault good, but for slips of their attention.
    """
    rng, texts = random.Random(seed), [prompt for prompt in PROMPTS for _ in range(MARKED)]
    images = draw(model, texts, SAMPLER, seeds=range(2 * 10**6, 2 * 10**6 + len(texts)))
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, (text, image) in enumerate(zip(texts, images, strict=True)):
        save_png(image, path := folder / f"{number}.png")
        is_faulty = faults(image[None], place(model)) == 1
        looks: dict[str, tuple[Mark, ...]] = {}
        for rater in RATERS:
            is_bad = rater.verdict(0 if is_faulty else 1, rng=rng).verdict == "bad"
            looks[rater.rater_id] = rater.marks([PLACE] * is_faulty, rng=rng) * is_bad
        found.append(MarkedImage(sha256_of(path), path, text, model.image_size, looks))
    return [found[number] for number in range(len(found)) if number % 6], found[::6]


def overlap(predict: Predict, images: Tensor, at: Tensor) -> Row:
    """Return how well predicted places are those of the fault, where an image has it."""
    texts = [prompt for prompt in PROMPTS for _ in range(DRAWN)]
    found = predict(images, texts).amax(1) >= LEAST
    true = (pink(images)[:, at].mean(1) > PINK_ENOUGH)[:, None, None] & at
    clean = found[~true.flatten(1).any(1)].flatten(1)
    return {
        "iou": float((found & true).sum() / (found | true).sum()),
        "false_alarms": float(clean.any(1).float().mean()) if len(clean) else None,
    }


def tuned(folder: Path, name: str, predict: Predict | None, *, before: Tensor, seed: int) -> Row:
    """Tune the spoiled model; without `predict`, without a mask."""
    method, config, weight = ARMS[name]
    model, started = DiffusionModel.from_pretrained(folder), time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    model.add_adapter(AdapterSettings(), generator=generator)
    at = place(model)
    training = new_training(model, PROMPTS, reward, config, generator=generator, sampler=SAMPLER)
    if predict is not None:
        found = PredictedRegions(predict, model, LEAST)
        training = replace(training, regions=Regions(found.of_drawn, weight))
    for _ in method.train(training, method.start(training)):
        pass
    after = drawn(model)
    change = (after - before).abs().mean(1)
    return {
        "faults": faults(after, at),
        "inside": float(change[:, at].mean()),
        "outside": float(change[:, ~at].mean()),
        "minutes": (time.monotonic() - started) / 60,
    }


def page(seeds: dict[str, dict[str, Row]]) -> str:
    """Return the figures as a table, a row for each seed and model."""
    lines = []
    for seed, rows in sorted(seeds.items()):
        for title, row in rows.items():
            cells = [seed, title, f"{row['faults']:.0%}", "", "", "", ""]
            if "iou" in row:
                cells[3] = f"{row['iou']:.2f}"
            else:
                plain = rows[f"{title.partition(',')[0]}, plain"]["outside"]
                cells[4:] = (
                    f"{row['inside']:.3f}",
                    f"{row['outside']:.4f}",
                    f"{row['outside'] / plain:.0%}",
                )
            lines.append(f"| {' | '.join(cells)} |\n")
    return PAGE + "".join(lines)


def main() -> None:
    """Run one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spoiling", type=int, default=800, help="steps of the spoiling")
    parser.add_argument("--methods", nargs="+", default=list(ARMS), choices=list(ARMS))
    words = parser.parse_args()
    folder = Path("runs") / f"regions-{words.seed}"
    if not (folder / "model_index.json").exists():
        model = DiffusionModel.from_pretrained("models/emoji-sd")
        spoil(model, steps=words.spoiling, seed=words.seed)
        model.pipeline.save_pretrained(folder)
    model = DiffusionModel.from_pretrained(folder)
    before, at = drawn(model), place(model)
    backbone = ClipBackbone.from_pretrained("models/emoji-clip")
    taught, chooses = marked(model, folder / "marked", seed=words.seed)
    settings = RewardConfig(seed=words.seed)
    cache = EmbeddingCache(folder / "embeddings")
    head = train_maps(backbone, taught, chooses, settings, cache=cache)
    assert head is not None
    predict = partial(head.predict, backbone)
    spoiled = {"faults": faults(before, at)} | overlap(predict, before, at)
    rows: dict[str, Row] = {"spoiled": spoiled}
    print("spoiled", rows["spoiled"], flush=True)
    for name in words.methods:
        for title, maps in (
            (f"{name}, plain", None),
            (f"{name}, predicted, outside {ARMS[name][2]:g}", predict),
        ):
            rows[title] = tuned(folder, name, maps, before=before, seed=words.seed)
            print(title, rows[title], flush=True)
    seeds = recorded("regions").get("seeds", {}) | {str(words.seed): rows}
    record("regions", {"seeds": seeds})
    (RESULTS / "regions.md").write_text(page(seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
