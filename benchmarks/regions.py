"""Tuning by regions in a world with a planted fault: `python -m benchmarks.regions --seed 0`.

The embedded model is spoiled: it learns that six of ten images have a pink square in their
upper left corner. Then two methods tune it by a reward that knows the fault's color and not its
place, each with and without a mask of the place, as one box by a rater would make it. The same
seeds are drawn before and after. "faults" is the share of images whose corner is still pink,
"inside" and "outside" the mean absolute change of pixels in [0, 1] in the corner and elsewhere.

It writes `results/regions.json`, and adds the seed to those that are there.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import Row, record, recorded
from data.regions import Mark, mask_of
from finetune.learning.method import Method, new_training
from finetune.learning.regions import Regions, latent_mask
from finetune.methods import nft, reward_gradient
from finetune.model.denoising import NoiseLevels, noise_images
from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.method import MethodConfig
from finetune.settings.model import AdapterSettings
from finetune.settings.nft import NFTConfig
from finetune.settings.reward_gradient import RewardGradientConfig
from finetune.settings.sampler import Sampler

PROMPTS = ("A cat and a dog.", "A dog on the moon.")
PINK = (1.0, 0.5, 0.9)
"""Color of the fault, one that the embedded autoencoder can draw."""
PLACE = Mark(kind="box", aspect="artifact", x0=0, y0=0, x1=0.25, y1=0.25)
FAULTY = 0.6
"""Share of the images that the model is spoiled with that have the fault."""
SAMPLER = Sampler(steps=10, guidance=3.0)
DRAWN = 16
"""Images of each prompt that measure a model."""
_SHARED = {
    "iterations": 8,
    "prompts_per_iteration": 2,
    "validation": {"every": 1000, "images_per_prompt": 2, "stop_on": ()},
}
ARMS: dict[str, tuple[Method[Any], MethodConfig, tuple[float, ...]]] = {
    "nft": (
        nft.METHOD,
        NFTConfig.model_validate(_SHARED | {"images_per_prompt": 12, "updates": 6}),
        (1.0, 30.0),
    ),
    "reward_gradient": (
        reward_gradient.METHOD,
        RewardGradientConfig.model_validate(
            _SHARED | {"iterations": 16, "images_per_prompt": 4, "steps_back": 3}
        ),
        (10.0, 100.0),
    ),
}
"""Method, settings and the values of `outside_weight` by name."""


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
    return float((pink(images)[:, at].mean(1) > 0.3).float().mean())


def tuned(folder: Path, name: str, weight: float | None, *, before: Tensor, seed: int) -> Row:
    """Tune the spoiled model; without a weight of the outside, without a mask."""
    method, config, _ = ARMS[name]
    model, started = DiffusionModel.from_pretrained(folder), time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    model.add_adapter(AdapterSettings(), generator=generator)
    at = place(model)
    training = new_training(model, PROMPTS, reward, config, generator=generator, sampler=SAMPLER)
    if weight is not None:
        _, height, width = model.latent_shape
        mask = latent_mask(at[None], (height, width))
        regions = Regions(lambda latents, _: mask.expand(len(latents), -1, -1, -1), weight)
        training = replace(training, regions=regions)
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


def main() -> None:
    """Run one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spoiling", type=int, default=200, help="steps of the spoiling")
    parser.add_argument("--methods", nargs="+", default=list(ARMS), choices=list(ARMS))
    words = parser.parse_args()
    folder = Path("runs") / f"regions-{words.seed}"
    if not (folder / "model_index.json").exists():
        model = DiffusionModel.from_pretrained("models/emoji-sd")
        spoil(model, steps=words.spoiling, seed=words.seed)
        model.pipeline.save_pretrained(folder)
    model = DiffusionModel.from_pretrained(folder)
    before = drawn(model)
    rows: dict[str, Row] = {"spoiled": {"faults": faults(before, place(model))}}
    print("spoiled", rows["spoiled"], flush=True)
    for name in words.methods:
        for weight in (None, *ARMS[name][2]):
            title = f"{name}, plain" if weight is None else f"{name}, regions, outside {weight:g}"
            rows[title] = tuned(folder, name, weight, before=before, seed=words.seed)
            print(title, rows[title], flush=True)
    seeds = recorded("regions").get("seeds", {})
    record("regions", {"seeds": seeds | {str(words.seed): rows}})


if __name__ == "__main__":
    main()
