"""Memory of real sizes on a CPU: `python -m benchmarks.real_size sd15` or `sdxl`, by hand.

Weights are random, in the true sizes of Stable Diffusion 1.5 or SDXL and of CLIP ViT-L/14 for the
reward, so nothing is downloaded. Settings are those of the preset of that name, but for two
denoising steps, two images an iteration or step, a micro-batch of one and gradient checkpointing.
Each part is a process of its own:

- images: one image of two steps, decoded and scored.
- rwl, dpok, nft, preference: one optimizer update, and the checkpoint after it.
- resume: RWL goes on from that checkpoint, and has the very weights of the run that went on.
- stock: diffusers' own pipeline loads RWL's LoRA, predicts the same, and draws an image.

The figures are seconds, and peaks of resident memory in 10^9 bytes: while the model is opened, and
after that. They go to `results/real_size.json`, beside those of parts that ran before.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.real_models import backbone_like_vit_l_14, write_model
from benchmarks.record import commit, record, recorded
from data.files import write_json
from finetune.labels.rankings import LabeledImages, Labels
from finetune.labels.weighted_batches import WeightedData
from finetune.learning.checkpoints import load_latest, save_checkpoint
from finetune.learning.method import Training, new_training
from finetune.learning.reward_fn import RewardFn, score
from finetune.model.diffusion import DiffusionModel
from finetune.model.lora import lora_layers
from finetune.model.model_folder import TYPES, Weights
from finetune.model.sampler import draw, draw_latents
from finetune.settings.method import DrawsImages, MethodConfig
from finetune.settings.model import Precision
from finetune.settings.sampler import Sampler
from pipelines.methods import find_method
from pipelines.run.models import as_reward_fn
from pipelines.settings.config import Settings, check, config_file, override, read_toml
from reward.model import RewardModel
from reward.settings import RewardConfig
from tests.support.small_labels import no_verdicts, rankings_of
from tests.support.small_training import seeded
from tests.support.stock import ddim

METHODS = ("rwl", "dpok", "nft", "preference")
WEIGHTS: dict[str, Weights] = {"sd15": "fp32", "sdxl": "bf16"}
"""Type of the weights: as the stages open them; SDXL's in half, to fit beside other work."""
PROMPT = "A green colored rabbit."
ONLINE = {"iterations": 3, "prompts_per_iteration": 1, "images_per_prompt": 2}
FROM_IMAGES = {"updates": 3, "batch": 2, "report_every": 1}
OWN: dict[str, dict[str, Any]] = {
    "rwl": FROM_IMAGES,
    "dpok": ONLINE | {"updates": 1},
    "nft": ONLINE | {"updates": 1, "noise_levels": 1},
    "preference": FROM_IMAGES,
}
"""Settings of each method that make an update small; the third one, which is validated, never
comes."""
Figures = dict[str, Any]


def settings_of(layout: str) -> Settings:
    """Return the preset's settings with the changes above."""
    changes: list[tuple[list[str], Any]] = [
        (["run", "device"], "cpu"),
        (["sampler", "steps"], 2),
    ]
    for name, own in OWN.items():
        values = own | {"micro_batch": 1, "warmup": 0, "validation": {"every": 3}}
        changes += [([name, key], value) for key, value in values.items()]
    path = config_file(layout)
    tables = override(read_toml(path), changes)
    return check(tables, ("run", "sampler", "images", "reward", "finetune", *METHODS), str(path))


class Peaks:
    """Peaks of this process's resident memory, one part of its work after the other."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._reset()

    def take(self) -> Figures:
        """Return the peak and the seconds since the last call."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        self._reset()
        return {"peak_gb": round(int(peak) * 1024 / 1e9, 2), "seconds": round(seconds, 1)}

    def _reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def open_base(precision: Precision, layout: str, place: Path) -> DiffusionModel:
    """Return the random model."""
    weights = WEIGHTS[layout]
    return DiffusionModel.from_pretrained(place / "model", weights=weights, precision=precision)


def open_tuned(settings: Settings, name: str, layout: str, place: Path) -> DiffusionModel:
    """Return it with fresh adapters, as the stage opens it."""
    config = settings.table(name, MethodConfig)
    model = open_base(settings.run.precision, layout, place)
    model.add_adapter(config.adapter, generator=seeded())
    model.checkpoint_gradients()
    return model


def open_reward(settings: Settings) -> RewardFn:
    """Return an untrained reward of the preset's size."""
    config = settings.table("reward", RewardConfig)
    model = RewardModel.create(
        backbone_like_vit_l_14(),
        hidden=config.hidden,
        members=config.members,
        generator=seeded(),
    )
    return as_reward_fn(model.eval())


def training_of(settings: Settings, name: str, model: DiffusionModel) -> Training[Any]:
    """Return a training on two random images with rewards or labels, as the method wants."""
    config, generator = settings.table(name, MethodConfig), seeded()
    training = new_training(
        model,
        [PROMPT],
        open_reward(settings),
        config,
        generator=generator,
        sampler=settings.table("sampler", Sampler),
    )
    if isinstance(config, DrawsImages):
        return training
    latents = model.encode_images(torch.rand(2, 3, *model.image_size, generator=generator))
    if name == "rwl":
        data = WeightedData(latents, [PROMPT] * 2, torch.tensor([0.3, 0.7]))
        return replace(training, data=data)
    ranked = Labels(rankings_of([0.0, 1.0], images=[[0, 1]], prompt=[0]), no_verdicts())
    return replace(training, data=LabeledImages(latents, (PROMPT,), ranked, ranked))


def images_part(settings: Settings, layout: str, place: Path) -> Figures:
    """Draw and score an image."""
    peaks = Peaks()
    model = open_base(settings.run.precision, layout, place)
    reward = open_reward(settings)
    opened = peaks.take()
    image = draw(model, [PROMPT], settings.table("sampler", Sampler), seeds=[0])
    scores = score(reward, image, [PROMPT])
    _expect(image.shape == (1, 3, *model.image_size), f"an image of {tuple(image.shape)}")
    _expect(image.dtype == scores.dtype == torch.float32, f"{image.dtype}, {scores.dtype}")
    return {"opened": opened, "image": peaks.take()}


def update_part(settings: Settings, layout: str, place: Path, *, name: str) -> Figures:
    """Take one optimizer step and save its checkpoint; RWL takes another to be compared with."""
    peaks = Peaks()
    model = open_tuned(settings, name, layout, place)
    training, method = training_of(settings, name, model), find_method(name)
    state = method.start(training)
    state.validation = [(0, 0.0)]  # only updates are measured
    opened = peaks.take()
    steps = method.train(training, state)
    metrics = asdict(next(steps))
    save_checkpoint(place / name, state, training.generator)
    figures = {"opened": opened, "update": peaks.take()}
    kept = ("loss", "reward", "gradient_norm", "first_ratio_gap", "kl", "kl_loss", "accuracy")
    figures["metrics"] = {key: metrics[key] for key in kept if metrics.get(key) is not None}
    weights = model.adapter.parameters()
    figures["lora"] = {
        "layers": len(lora_layers(model.network)),
        "weights": sum(weight.numel() for weight in weights.values()),
        "types": sorted({str(weight.dtype) for weight in weights.values()}),
    }
    _expect(0 < metrics["gradient_norm"] < float("inf"), f"gradient {metrics['gradient_norm']}")
    moved = [weight.abs().max() > 0 for key, weight in weights.items() if ".lora_B." in key]
    _expect(all(moved), f"{len(moved) - sum(moved)} adapters did not move")
    if name == "rwl":
        next(steps)
        figures["second_update"] = peaks.take()
        save_file(model.adapter.state(), place / "went_on.safetensors")
        model.adapter.save(place / "lora")
        with model.exact():
            save_file({"latents": _latents(model, settings)}, place / "latents.safetensors")
    return figures


def resume_part(settings: Settings, layout: str, place: Path) -> Figures:
    """Go on from RWL's checkpoint, to the weights of the run that was not interrupted."""
    peaks = Peaks()
    model = open_tuned(settings, "rwl", layout, place)
    training, method = training_of(settings, "rwl", model), find_method("rwl")
    state = method.start(training)
    _expect(load_latest(place / "rwl", state, training.generator), "no checkpoint")
    opened = peaks.take()
    next(method.train(training, state))
    figures = {"opened": opened, "second_update": peaks.take()}
    expected, found = load_file(place / "went_on.safetensors"), model.adapter.state()
    differing = [name for name, weight in found.items() if not weight.equal(expected[name])]
    _expect(not differing, f"{len(differing)} weights differ after resuming")
    return figures | {"weights_differing": len(differing)}


def stock_part(settings: Settings, layout: str, place: Path) -> Figures:
    """Load RWL's LoRA into diffusers' own pipeline, and draw with it."""
    peaks = Peaks()
    pipeline = DiffusionPipeline.from_pretrained(place / "model", dtype=TYPES[WEIGHTS[layout]])
    pipeline.load_lora_weights(place / "lora")
    pipeline.scheduler = ddim(pipeline)
    opened = peaks.take()
    expected = load_file(place / "latents.safetensors")["latents"]
    latents = pipeline(
        PROMPT,
        num_inference_steps=2,
        guidance_scale=settings.table("sampler", Sampler).guidance,
        latents=torch.randn(expected.shape, generator=seeded()).to(pipeline.dtype),
        output_type="latent",
    ).images
    difference = (latents.float() - expected).abs().max() / expected.std()
    layers = len(lora_layers(pipeline.unet))
    return {
        "opened": opened,
        "image": peaks.take(),
        "lora_layers": layers,
        "largest_difference_in_stds": float(f"{difference:.2g}"),
    }


def _latents(model: DiffusionModel, settings: Settings) -> Tensor:
    sampler = settings.table("sampler", Sampler).deterministic()
    return torch.cat(list(draw_latents(model, [PROMPT], sampler, seeds=[0])))


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"real_size: {otherwise}")


WORK: dict[str, Callable[[Settings, str, Path], Figures]] = {
    "images": images_part,
    **{name: partial(update_part, name=name) for name in METHODS},
    "resume": resume_part,
    "stock": stock_part,
}


def run_part(layout: str, part: str, place: Path) -> Figures:
    """Run one part in a process of its own; return its figures."""
    found = place / "figures.json"
    words = [layout, "--parts", part, "--folder", str(place.parent), "--write", str(found)]
    command = [sys.executable, "-m", "benchmarks.real_size", *words]
    subprocess.run(command, check=True)
    figures: Figures = json.loads(found.read_text(encoding="utf-8"))
    return figures


def main() -> None:
    """Run the parts, one after the other; print and record the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("layout", choices=WEIGHTS)
    add("--parts", nargs="+", choices=WORK, default=list(WORK), help="default: all, in order")
    add("--folder", type=Path, default=Path("runs/real-size"), help="for models and checkpoints")
    add("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    place = given.folder / given.layout
    if given.write:
        (part,) = given.parts
        write_json(given.write, WORK[part](settings_of(given.layout), given.layout, place))
        return
    if not (place / "model" / "model_index.json").exists():
        write_model(given.layout, place / "model", TYPES[WEIGHTS[given.layout]])
    for part in given.parts:
        figures = {"commit": commit(), **run_part(given.layout, part, place)}
        print(f"{given.layout} {part}: {figures}", flush=True)
        kept = {name: recorded("real_size").get(name, {}) for name in WEIGHTS}
        kept[given.layout] |= {"weights": WEIGHTS[given.layout], part: figures}
        record("real_size", {"threads": torch.get_num_threads(), **kept})


if __name__ == "__main__":
    main()
